"""What a span keeps of what is set on it, also one that OpenTelemetry's SDK has made."""

from typing import Any

import pytest
from opentelemetry import trace
from tornado_chassis.tracing.otel import ApiSpan as Span
from tornado_chassis.tracing.sdk import make_provider
from tornado_chassis.tracing.spans import Event, Link
from tornado_chassis.tracing.tracer import LIMIT
from tornado_chassis.values import TEXT_CHARACTERS

from . import TRACE, make_span


def keeps_nothing(span: Span) -> bool:
    span.set_attribute("key", "value")
    span.add_event("event")
    span.add_link(span.get_span_context())
    span.record_exception(ValueError("lost"))
    span.set_status(trace.StatusCode.ERROR)
    return not (span.attributes or span.events or span.links) and span.status == "UNSET"


def test_span_that_has_ended_takes_nothing_more() -> None:
    ended: list[Any] = []
    span = make_span(on_end=ended.append)
    assert span.is_recording()
    span.end()
    span.end()
    assert ended == [span]
    assert not span.is_recording()
    assert keeps_nothing(span)


def test_span_that_is_not_recorded_keeps_nothing() -> None:
    span = Span("work", "INTERNAL", TRACE, "", 0)
    assert not span.is_recording()
    assert keeps_nothing(span)
    span.end()
    assert span.ended == 0


@pytest.mark.parametrize(
    ("given", "kept"),
    [(-1, 0), (1.5, 1), (True, 1), (1 << 70, (1 << 63) - 1), ("soon", None), (float("nan"), None)],
)
def test_times_are_whole_and_not_negative(given: Any, kept: int | None) -> None:
    ended: list[Any] = []
    span = make_span(on_end=ended.append)
    span.add_event("event", timestamp=given)
    span.end(given)
    for time in (ended[0].events[0].time, ended[0].ended):
        assert type(time) is int
        assert time == kept if kept is not None else time >= span.started


def test_links_have_a_limit() -> None:
    span = make_span()
    for number in range(1, 200):
        span.add_link(trace.SpanContext(number, number, False))
    assert len(span.links) == LIMIT


def test_links_to_nowhere_are_dropped() -> None:
    span = make_span()
    span.add_link(trace.SpanContext(1 << 200, 2, False))
    span.add_link(trace.INVALID_SPAN_CONTEXT)
    assert span.links == ()


def test_long_exception_is_cut() -> None:
    span = make_span()
    span.record_exception(ValueError("x" * 5_000_000))
    span.set_status(trace.StatusCode.ERROR, "x" * 5_000_000)
    (event,) = span.events
    texts = [*event.attributes.values(), span.status_message]
    assert all(len(text) <= TEXT_CHARACTERS for text in texts)
    assert " characters cut " in event.attributes["exception.message"]


class Sdk:
    """Has the tracer of a library, whose spans come here as they end."""

    def __init__(self, parent_based: bool = True, ratio: float = 1.0) -> None:
        self.ended: list[Any] = []
        provider = make_provider(parent_based, ratio, self.ended.append)
        self.tracer = provider.get_tracer("library", "1.2.3")


def test_nothing_of_a_library_s_span_is_lost() -> None:
    sdk = Sdk()
    state = trace.TraceState([("a", "b")])
    parent = trace.SpanContext(1, 2, True, trace.TraceFlags(1), state)
    span = sdk.tracer.start_span(
        "query",
        trace.set_span_in_context(trace.NonRecordingSpan(parent)),
        trace.SpanKind.CLIENT,
        {"rows": 3},
        [trace.Link(parent, {"why": "retry"})],
        start_time=100,
    )
    span.add_event("slow", {"by": 1.5}, 150)
    span.set_status(trace.StatusCode.ERROR, "too slow")
    span.end(200)
    (ours,) = sdk.ended
    assert (ours.name, ours.kind) == ("query", "CLIENT")
    assert (ours.scope, ours.scope_version) == ("library", "1.2.3")
    assert (ours.trace_id, ours.parent_id) == (f"{1:032x}", f"{2:016x}")
    assert ours.span_id == f"{span.get_span_context().span_id:016x}"
    assert (ours.flags & 1, ours.tracestate) == (1, "a=b")
    assert (ours.started, ours.ended) == (100, 200)
    assert ours.attributes == {"rows": 3}
    assert ours.events == [Event("slow", 150, {"by": 1.5})]
    assert ours.links == [Link(f"{1:032x}", f"{2:016x}", {"why": "retry"})]
    assert (ours.status, ours.status_message) == ("ERROR", "too slow")


def test_ratio_of_traces() -> None:
    sdk = Sdk(parent_based=False, ratio=0.0)
    sdk.tracer.start_span("query").end()
    assert sdk.ended == []


@pytest.mark.parametrize("limit", ["many", "1"])
def test_limits_of_the_environment_are_not_read(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SPAN_ATTRIBUTE_COUNT", "ATTRIBUTE_VALUE_LENGTH", "EVENT_ATTRIBUTE_COUNT"):
        monkeypatch.setenv(f"OTEL_{name}_LIMIT", limit)
    sdk = Sdk()
    sdk.tracer.start_span("query", attributes={"table": "orders", "rows": 3}).end()
    assert sdk.ended[0].attributes == {"table": "orders", "rows": 3}


def test_times_of_a_library_that_no_backend_takes() -> None:
    sdk = Sdk()
    span = sdk.tracer.start_span("query", start_time=-5)
    span.add_event("event", timestamp=-1)
    span.end(1.5)  # type: ignore[arg-type]
    (ours,) = sdk.ended
    assert (ours.started, ours.ended, ours.events[0].time) == (0, 1, 0)
    assert type(ours.ended) is int
