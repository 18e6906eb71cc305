"""What a span keeps of what is set on it."""

from opentelemetry import trace

from my_service.chassis.tracing.spans import Span

TRACE = "0af7651916cd43dd8448eb211c80319c"


def keeps_nothing(span: Span) -> bool:
    span.set_attribute("key", "value")
    span.add_event("event")
    span.add_link(span.get_span_context())
    span.record_exception(ValueError("lost"))
    span.set_status(trace.StatusCode.ERROR)
    return not (span.attributes or span.events or span.links) and span.status == "UNSET"


def test_span_that_has_ended_takes_nothing_more() -> None:
    ended: list[Span] = []
    span = Span("work", "INTERNAL", TRACE, "", 1, "", ended.append)
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
