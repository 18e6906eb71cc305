"""Spans that libraries make through OpenTelemetry's API, and where the service's own go."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import propagate, trace
from tornado_chassis import tracing
from tornado_chassis.settings import read
from tornado_chassis.tracing.jaeger import Jaeger
from tornado_chassis.tracing.spans import Event, Link, Span

from ..settings import Settings


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    tracer, propagator = tracing._tracer, propagate.get_global_textmap()
    yield
    tracing.use(tracer)
    propagate.set_global_textmap(propagator)


def make_tracer(ended: list[Span], version: str = "") -> trace.Tracer:
    Jaeger(read(Settings, {}))._on_end = ended.append
    return trace.get_tracer("library", version)


@pytest.mark.parametrize("limit", ["many", "1"])
def test_nothing_of_a_span_is_lost(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The SDK's own, which are not read.
    for name in ("SPAN_ATTRIBUTE_COUNT", "ATTRIBUTE_VALUE_LENGTH", "EVENT_ATTRIBUTE_COUNT"):
        monkeypatch.setenv(f"OTEL_{name}_LIMIT", limit)
    ended: list[Span] = []
    tracer = make_tracer(ended, "1.2.3")
    state = trace.TraceState([("a", "b")])
    parent = trace.SpanContext(1, 2, True, trace.TraceFlags(1), state)
    span = tracer.start_span(
        "query",
        trace.set_span_in_context(trace.NonRecordingSpan(parent)),
        trace.SpanKind.CLIENT,
        {"table": "orders", "rows": 3},
        [trace.Link(parent, {"why": "retry"})],
        start_time=100,
    )
    span.add_event("slow", {"by": 1.5}, 150)
    span.set_status(trace.StatusCode.ERROR, "too slow")
    span.end(200)

    (ours,) = ended
    assert (ours.name, ours.kind) == ("query", "CLIENT")
    assert (ours.scope, ours.scope_version) == ("library", "1.2.3")
    assert (ours.trace_id, ours.parent_id) == (f"{1:032x}", f"{2:016x}")
    assert ours.span_id == f"{span.get_span_context().span_id:016x}"
    assert (ours.flags & 1, ours.tracestate) == (1, "a=b")
    assert (ours.started, ours.ended) == (100, 200)
    assert ours.attributes == {"table": "orders", "rows": 3}
    assert ours.events == [Event("slow", 150, {"by": 1.5})]
    assert ours.links == [Link(f"{1:032x}", f"{2:016x}", {"why": "retry"})]
    assert (ours.status, ours.status_message) == ("ERROR", "too slow")


@pytest.mark.parametrize(("records", "fails"), [(True, True), (False, True), (True, False)])
def test_exception_that_leaves_a_span(records: bool, fails: bool) -> None:
    ended: list[Span] = []
    tracer = make_tracer(ended)
    how: Any = {"record_exception": records, "set_status_on_exception": fails}
    outer, inner = tracer.start_as_current_span("around", **how), tracer.start_span("query", **how)
    with pytest.raises(KeyError), outer, inner:
        raise KeyError("orders")
    assert [span.name for span in ended] == ["query", "around"]
    for span in ended:
        assert [each.name for each in span.events] == ["exception"] * records
        status = ("ERROR", "KeyError: 'orders'") if fails else ("UNSET", "")
        assert (span.status, span.status_message) == status


@pytest.mark.parametrize("by_name", [True, False])
def test_span_that_goes_on_after_its_statement(by_name: bool) -> None:
    ended: list[Span] = []
    tracer = make_tracer(ended)
    place: Any = None, trace.SpanKind.CLIENT, None, None, None, True, True, False
    entered: Any = tracer.start_as_current_span
    with entered("query", end_on_exit=False) if by_name else entered("query", *place) as span:
        assert trace.get_current_span() is span
    assert not ended
    span.end()
    assert [each.name for each in ended] == ["query"]


async def test_span_around_an_async_function() -> None:
    ended: list[Span] = []
    tracer = make_tracer(ended)

    @tracer.start_as_current_span("query", kind=trace.SpanKind.CLIENT)
    async def query() -> bool:
        await asyncio.sleep(0)
        return trace.get_current_span().is_recording() and not ended

    assert await query()
    assert [(span.name, span.kind) for span in ended] == [("query", "CLIENT")]
