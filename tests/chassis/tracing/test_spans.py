"""What a span keeps of what is set on it."""

from typing import Any

import pytest
from opentelemetry import trace
from tornado_chassis.tracing.otel import ApiSpan as Span
from tornado_chassis.tracing.tracer import LIMIT, as_time
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
    for time in (ended[0].events[0].time, ended[0].ended, as_time(given)):
        assert type(time) is int
        assert time == kept if kept is not None else time >= span.started


def test_span_does_not_end_before_its_start() -> None:
    """The clock may be set back. Some backends subtract without a sign, and show 584 years."""
    span = make_span()
    span.started = 2**62
    span.end()
    assert span.ended == span.started


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
