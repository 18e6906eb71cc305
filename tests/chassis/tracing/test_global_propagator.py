"""What libraries read and write headers with: instrumentations of httpx, of requests, and so on.

They are not installed: all of them call `propagate.inject` and `propagate.extract`, as here.
"""

from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from tornado_chassis.service import Service

from ..testing import process
from . import PARENT, TRACE, TRACEPARENT
from .test_tracing import TracingTest, WithZipkin


class Custom(TextMapPropagator):
    """One that a team has written."""

    fields = {"x-ours"}  # noqa: RUF012 (never changed)

    def inject(self, carrier: Any, context: Any = None, setter: Any = None) -> None:
        ids = trace.get_current_span(context).get_span_context()
        carrier["x-ours"] = f"{ids.trace_id:032x}:{ids.span_id:016x}"

    def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Any:
        ids = carrier.get("x-ours", "").split(":")
        if len(ids) < 2:
            return context
        span = trace.SpanContext(int(ids[0], 16), int(ids[1], 16), True, trace.TraceFlags(1))
        return trace.set_span_in_context(trace.NonRecordingSpan(span), context)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = propagate.get_global_textmap()
    yield
    propagate.set_global_textmap(before)


class PropagatorTest(TracingTest):
    features = "jaeger"

    def sent(self, **headers: str) -> tuple[dict[str, str], dict[str, str]]:
        """What a library would send, and what Tornado's client sends, of the headers of traces."""
        answer = self.work("calls", **headers)
        names = ("traceparent", "tracestate", "b3", "baggage", "x-ours")
        return tuple(  # type: ignore[return-value]
            {name: value for name, value in answer[who].items() if name in names}
            for who in ("library", "called")
        )


class TestDefault(PropagatorTest):
    def test_library_sends_what_tornado_s_client_sends(self) -> None:
        library, own = self.sent(traceparent=TRACEPARENT, tracestate="a=b", baggage="tenant=1")
        assert library.keys() == own.keys() == {"traceparent", "tracestate"}
        assert library["traceparent"].split("-")[1] == own["traceparent"].split("-")[1] == TRACE

    def test_request_that_is_sent_again_is_in_the_trace_of_now(self) -> None:
        assert self.work("again", traceparent=TRACEPARENT, tracestate="a=b")["tracestate"] == "a=b"
        assert "tracestate" not in self.work("again")

    def test_context_that_is_handed_over_counts(self) -> None:
        headers: dict[str, str] = {}
        ids = trace.SpanContext(int(TRACE, 16), int(PARENT, 16), True, trace.TraceFlags(1))
        elsewhere = trace.set_span_in_context(trace.NonRecordingSpan(ids))
        propagate.inject(headers, elsewhere)
        assert headers == {"traceparent": TRACEPARENT}
        found = propagate.extract(headers)
        assert trace.get_current_span(found).get_span_context().trace_id == int(TRACE, 16)
        propagate.inject(headers := {}, context.Context())
        assert headers == {}

    def test_one_that_is_set_later_stays(self) -> None:
        later = Custom()
        propagate.set_global_textmap(later)
        assert self.sent()[0].keys() == {"x-ours"}
        assert propagate.get_global_textmap() is later


class TestZipkin(WithZipkin, PropagatorTest):
    def test_library_sends_b3(self) -> None:
        library, own = self.sent(b3=f"{TRACE}-{PARENT}-1")
        assert library.keys() == own.keys() == {"traceparent", "b3"}
        assert library["b3"].startswith(TRACE)
        assert propagate.get_global_textmap().fields == {"traceparent", "tracestate", "b3"}

    def test_library_reads_every_form_of_b3(self) -> None:
        several = {"X-B3-TraceId": TRACE, "X-B3-SpanId": PARENT, "X-B3-Sampled": "1"}
        for headers in ({"b3": f"{TRACE}-{PARENT}-1"}, several):
            ids = trace.get_current_span(propagate.extract(headers)).get_span_context()
            assert (ids.trace_id, ids.trace_flags, ids.is_remote) == (int(TRACE, 16), 1, True)
        assert propagate.extract({"b3": "0"}) == {}


class TestBaggage(PropagatorTest):
    environ = {"OTEL_PROPAGATORS": "b3multi,baggage"}  # noqa: RUF012

    def test_library_passes_baggage_on(self) -> None:
        library, own = self.sent(baggage="tenant=1")
        assert library["baggage"] == own["baggage"] == "tenant=1"
        assert baggage.get_all(propagate.extract({"baggage": "a=b"})) == {"a": "b"}

    def test_request_that_is_sent_again_has_nothing_of_the_trace_before(self) -> None:
        sent = [self.work("again", **headers) for headers in ({"baggage": "tenant=1"}, {})]
        assert [each.get("baggage") for each in sent] == ["tenant=1", None]
        assert sent[0]["x-b3-traceid"] != sent[1]["x-b3-traceid"]
        assert sent[1]["a"] == "b"

    def test_baggage_needs_no_span(self) -> None:
        headers: dict[str, str] = {}
        propagate.inject(headers, baggage.set_baggage("a", "b", context.Context()))
        assert headers == {"baggage": "a=b"}


class TestSetBefore(PropagatorTest):
    def make_service(self) -> Service:
        custom = Custom()
        propagate.set_global_textmap(CompositePropagator([TraceContextTextMapPropagator(), custom]))
        return super().make_service()

    def test_it_is_used_by_all(self) -> None:
        library, own = self.sent(**{"x-ours": f"{TRACE}:{PARENT}"})
        assert library.keys() == own.keys() == {"traceparent", "x-ours"}
        assert library["x-ours"].partition(":")[0] == own["x-ours"].partition(":")[0] == TRACE
        ids = own["traceparent"].split("-")
        assert own["x-ours"] == f"{ids[1]}:{ids[2]}"

    def test_one_that_fails_costs_only_its_own_headers(self) -> None:
        for method in ("inject", "extract"):
            self.enterContext(mock.patch.object(Custom, method, side_effect=ValueError))
        library, own = self.sent(traceparent=TRACEPARENT)
        assert library.keys() == own.keys() == {"traceparent"}
        assert TRACE in own["traceparent"]

    def test_what_our_formats_find_counts(self) -> None:
        headers = {"x-ours": f"{'f' * 32}:{PARENT}", "traceparent": TRACEPARENT}
        assert TRACE in self.sent(**headers)[1]["traceparent"]


IMPORTED = """
from tests.chassis.settings import Settings
from tornado_chassis import process
process.configure([], Settings)
from opentelemetry import propagate
import os
print(os.environ["OTEL_PROPAGATORS"])
"""


@pytest.mark.parametrize("formats", ["b3", "xray", "tracecontext, b3multi"])
def test_import_of_an_instrumentation_does_not_fail(formats: str) -> None:
    """As they are imported by a team's `app.py`, before there is a service."""
    with process(IMPORTED, OTEL_PROPAGATORS=formats) as child:
        assert (child.wait(), child.output()) == (0, f"{formats}\n")
