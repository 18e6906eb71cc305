"""OpenTelemetry's SDK, for libraries that make spans through its API. Loaded when one does."""

from collections.abc import Callable

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased

from .propagation import KNOWN_FLAGS
from .spans import LIMIT, Event, Span, as_time, make_link


def make_provider(
    parent_based: bool, ratio: float, on_end: Callable[[Span], None]
) -> TracerProvider:
    """A provider that samples as the service does; `on_end` is called with each span that ends.

    `ratio` is the ratio of traces to sample, from 0 to 1.
    """
    sampler: Sampler = TraceIdRatioBased(ratio)
    provider = TracerProvider(
        sampler=ParentBased(sampler) if parent_based else sampler,
        resource=Resource.get_empty(),
        # All of them, or it reads variables, and fails if one is malformed.
        span_limits=SpanLimits(
            LIMIT, LIMIT, LIMIT, LIMIT, LIMIT, LIMIT, SpanLimits.UNSET, SpanLimits.UNSET
        ),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(_Processor(on_end))
    return provider


class _Processor(SpanProcessor):
    def __init__(self, on_end: Callable[[Span], None]) -> None:
        self._on_end = on_end

    def on_end(self, span: ReadableSpan) -> None:
        self._on_end(_converted(span))


def _converted(span: ReadableSpan) -> Span:
    ids, scope = span.context, span.instrumentation_scope
    assert ids
    assert scope
    parent = f"{span.parent.span_id:016x}" if span.parent else ""
    flags = ids.trace_flags & KNOWN_FLAGS
    ours = Span(span.name, span.kind.name, f"{ids.trace_id:032x}", parent, flags)
    ours.tracestate = ids.trace_state.to_header()
    ours.span_id = f"{ids.span_id:016x}"
    ours.started, ours.ended = as_time(span.start_time), as_time(span.end_time)
    ours.scope, ours.scope_version = scope.name, scope.version or ""
    ours.attributes = dict(span.attributes or {})
    ours.events = [
        Event(each.name, as_time(each.timestamp), each.attributes or {}) for each in span.events
    ]
    ours.links = [
        make_link(link.context, link.attributes) for link in span.links if link.context.is_valid
    ]
    ours.status = span.status.status_code.name
    ours.status_message = span.status.description or ""
    return ours
