"""What cannot be encoded costs only itself, and not its span or the batch."""

import gzip
import json
import operator
from typing import Any

from opentelemetry import trace
from tornado.web import HTTPError, RequestHandler
from tornado_chassis import tracing
from tornado_chassis.tracing.otel import ApiSpan as Span
from tornado_chassis.tracing.spans import SpanBackend
from tornado_chassis.values import well_formed

from ..test_values import Make, Mute, Unnotable, each_value, failing, refuse
from . import OTLP, ZIPKIN, each_backend, make_span
from .decode import Received, decode
from .test_tracing import TracingTest, WithZipkin


def sent(span: Span, backend: SpanBackend) -> Received:
    """The span, as the backend reads it."""
    body = backend.body([well_formed(backend.encode(span))])
    assert len(body) < 2_000_000
    text = gzip.decompress(body) if backend is ZIPKIN else body
    json.loads(text, parse_constant=refuse)
    (found,) = decode(text)
    return found


@each_backend
@each_value
def test_attribute(make: Make, backend: SpanBackend) -> None:
    span, value = make_span(), make()
    span.set_attribute("order", value)
    span.set_attribute("number", 5)
    span.add_event("paid", {"order": value, "number": 5})
    span.add_link(trace.SpanContext(1, 2, False), {"order": value, "number": 5})
    found = sent(span, backend)
    assert found.attributes["number"] == "5"
    if backend is OTLP:
        ((_, attributes),) = found.events
        assert attributes["number"] == "5"


@each_backend
@each_value
def test_key(make: Make, backend: SpanBackend) -> None:
    span, key = make_span(), make()
    span.set_attribute(key, "value")
    span.set_attributes({"number": 5})
    assert sent(span, backend).attributes["number"] == "5"


@each_backend
@each_value
def test_everything_else_that_is_set(make: Make, backend: SpanBackend) -> None:
    span, value = make_span(), make()
    span.set_attribute("number", 5)
    span.add_event(value, value, value)
    span.add_link(trace.SpanContext(1, 2, False), value)
    span.record_exception(ValueError(value), value, value)
    span.set_status("ERROR", value)
    span.update_name(value)
    span.end(value)
    found = sent(span, backend)
    assert (found.attributes["number"], found.status) == ("5", "ERROR")


@each_backend
def test_attributes_that_other_code_expects_to_be_text(backend: SpanBackend) -> None:
    for kind in ("SERVER", "CLIENT"):
        span = make_span(kind)
        for name in ("client.address", "server.address", "error.type"):
            span.set_attribute(name, 5)
        span.set_status("ERROR")
        assert sent(span, backend).attributes["client.address"] == "5"


def test_lost_attributes_are_counted() -> None:
    span = make_span()
    for number in range(130):
        span.set_attribute(f"number {number}", number)
    span.set_attribute(5, "no text")  # type: ignore[arg-type]
    circle: list[Any] = []
    circle.append(circle)
    span.set_attribute("number 0", circle)
    span.add_event("paid", {"circle": circle, "by": "card"})
    body = json.loads(OTLP.body([OTLP.encode(span)]))
    (encoded,) = body["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert len(encoded["attributes"]) == 127
    assert encoded["droppedAttributesCount"] == 2 + 1 + 1 + 1
    tags = json.loads(gzip.decompress(ZIPKIN.body([ZIPKIN.encode(span)])))[0]["tags"]
    assert tags["otel.dropped_attributes_count"] == "5"


class Work(RequestHandler):
    raised: BaseException
    kept: list[BaseException]

    def get(self) -> None:
        try:
            with tracing.span("charge") as span:
                span.set_attribute("order", failing(Mute()))
                span.set_attribute("number", 5)
                raise self.raised
        except BaseException as error:
            self.kept.append(error)
        self.finish("done")


class Raising(RequestHandler):
    error: BaseException

    def get(self) -> None:
        raise self.error


class TestSpans(TracingTest):
    def test_exception_stays_the_same_and_its_span_is_kept(self) -> None:
        self.app.add_handlers(".*", [("/work", Work), ("/raising", Raising)])
        raised = [Mute(), Unnotable(), HTTPError("teapot"), HTTPError(500, failing(Mute()))]  # type: ignore[arg-type]
        Work.kept = []
        for error in raised:
            Work.raised = error
            assert self.fetch("/work").body == b"done"
        assert all(map(operator.is_, Work.kept, raised))
        Raising.error = Mute()
        assert self.fetch("/raising").code == 500
        spans = [span for span in self.spans() if span.name == "charge"]
        assert [span.attributes["number"] for span in spans] == ["5"] * 4
        assert [span.status for span in spans] == ["ERROR", "ERROR", "UNSET", "ERROR"]
        assert [span.message.split(":")[0] for span in spans[:2]] == ["Mute", "Unnotable"]
        assert spans[0].events[0][1]["exception.type"].endswith("test_values.Mute")
        (failed,) = [span for span in self.spans() if span.name == "GET /raising"]
        assert (failed.status, failed.attributes["error.type"]) == ("ERROR", "Mute")
        assert failed.events[0][1]["exception.message"].startswith("<Mute whose text fails")
        totals = {name: total for name, _, total, _ in self.app.runtime.totals()}
        assert totals["otel_attributes_dropped"] == 4


class TestSpansWithZipkin(WithZipkin, TestSpans):
    pass
