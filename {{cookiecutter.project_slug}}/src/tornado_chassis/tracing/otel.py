"""Tracing with a backend, and OpenTelemetry's API, which finds these spans like any others: the
spans that libraries make through it join the same traces.
"""

import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextvars import Token
from typing import Any

from opentelemetry import context, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, get_current
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import Getter, Setter, TextMapPropagator
from opentelemetry.propagators.textmap import default_getter as _getter
from opentelemetry.propagators.textmap import default_setter as _setter
from tornado.httputil import HTTPHeaders

from .. import tracing
from ..exchange import Exchange
from ..export import make_sender, resource_of
from ..feature import Export
from ..settings.tracing import TracingSettings, load_propagate
from ..values import name_of, text
from . import spans
from .b3 import B3, B3_MULTI
from .propagation import KNOWN_FLAGS, SAMPLED, TRACE_CONTEXT, Format, Parent, Propagation
from .tracer import LIMIT, Span, Tracing, as_time, current_span

try:
    from opentelemetry.util._decorator import _agnosticcontextmanager
except ImportError:  # It is private. Without it, a span that decorates an async function is short.
    from contextlib import contextmanager as _agnosticcontextmanager  # type: ignore[assignment]

log = logging.getLogger(__name__)

_FORMATS = {"tracecontext": TRACE_CONTEXT, "b3": B3, "b3multi": B3_MULTI}

# The limits up to which W3C Baggage requires propagation.
_BAGGAGE_CHARACTERS = 8192
_BAGGAGE_MEMBERS = 64

# What OpenTelemetry's default propagator writes.
_DEFAULT_FIELDS = {"traceparent", "tracestate", "baggage"}

_HEADERS = "traceparent tracestate b3 X-B3-TraceId X-B3-SpanId X-B3-Sampled X-B3-Flags".split()

# Their warnings would quote what callers send, one line per member.
for _library in (W3CBaggagePropagator, trace.TraceState):
    logging.getLogger(_library.__module__).setLevel(logging.ERROR)

# The key of the span in OpenTelemetry's context. OpenTelemetry's own functions to read and write it
# take as long as everything else about a span.
(_SPAN_KEY,) = trace.set_span_in_context(trace.INVALID_SPAN, Context())


class ApiSpan(spans.Span, trace.Span):
    """A span for code that uses OpenTelemetry's API."""

    #: Whether one that leaves its `with` statement is recorded, and whether the span has failed.
    on_exception = True, True

    def get_span_context(self) -> trace.SpanContext:
        return _to_api(self, is_remote=False)

    def is_recording(self) -> bool:
        return self.recording

    def update_name(self, name: str) -> None:
        self.name = text(name)

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        for key, value in spans.copied(attributes).items():
            self.set_attribute(key, value)

    def add_link(
        self, context: trace.SpanContext, attributes: Mapping[str, Any] | None = None
    ) -> None:
        if self.recording and context.is_valid and len(self.links) < LIMIT:
            ids = f"{context.trace_id:032x}", f"{context.span_id:016x}"
            self.links = [*self.links, spans.Link(*ids, spans.copied(attributes))]

    def set_status(self, status: Any, description: str | None = None) -> None:
        if isinstance(status, trace.Status):
            status, description = status.status_code, status.description
        if isinstance(status, trace.StatusCode):
            status = status.name
        super().set_status(status, description)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        recorded, failed = self.on_exception
        if recorded and isinstance(error, Exception):
            self.record_exception(error)
        if failed and isinstance(error, Exception):
            self.set_status("ERROR", f"{name_of(error)}: {text(error)}")
        self.end()


class Exporting(Tracing):
    """Sends the spans of sampled traces to a backend, those of libraries included."""

    follows_unsampled = False
    _kind = ApiSpan
    #: Takes the settings, and what describes the service.
    backend: Callable[[Any, Mapping[str, str]], spans.SpanBackend]

    def __init__(self, settings: TracingSettings) -> None:
        self._backend = self.backend(settings, resource_of(settings))
        self._sender = make_sender(self._backend, settings, settings.otel_traces_exporter)
        describe = functools.partial(spans.describe, self._backend.attributes)
        self._describe = functools.lru_cache(maxsize=1024)(describe)
        super().__init__(
            make_propagation(settings.otel_propagators, _replace_global_propagator()),
            settings.otel_traces_sampler,
            settings.otel_traces_sampler_arg,
            self._sender.put if self._sender else None,
        )
        _Provider.tracing = _GlobalPropagator.tracing = self
        _set_provider()

    async def startup(self) -> None:
        if self._sender:
            self._sender.start()

    async def shutdown(self) -> None:
        if self._sender:
            await self._sender.stop()

    def totals(self) -> Iterable[tuple[str, str, int]]:
        if sender := self._sender:
            yield "otel_spans_exported", "Spans that the backend accepted.", sender.sent
            yield "otel_spans_failed", "Spans that the backend refused.", sender.failed
            yield "otel_spans_dropped", "Spans that were dropped unsent.", sender.dropped
            lost = self._backend.dropped_attributes
            yield "otel_attributes_dropped", "Attributes that spans had no room for.", lost

    def exports(self) -> Iterable[Export]:
        yield Export(*self._backend.exported(self._sender))

    def request_failed(self, exchange: Exchange, error: BaseException) -> None:
        if span := exchange.context.get(current_span):
            span.record_exception(error)

    def request_ended(self, exchange: Exchange) -> None:
        span = exchange.context.get(current_span)
        if isinstance(span, ApiSpan) and span.recording:
            spans.end_exchange(span, exchange, self._describe)

    def current(self) -> Span | None:
        # Within a library's span, that of the exchange.
        span = get_current().get(_SPAN_KEY)
        return span if isinstance(span, ApiSpan) and not span.scope else current_span.get()

    def _parent(self, current: Context | None = None) -> Span | Parent | None:
        span = (get_current() if current is None else current).get(_SPAN_KEY)
        return span if isinstance(span, Span) else _from_api_span(span)

    def _enter(self, span: Span) -> None:
        current_span.set(span)
        self._activate(span)

    def _activate(self, span: Span) -> Token[Any]:
        return context.attach(Context({**get_current(), _SPAN_KEY: span}))

    _deactivate = staticmethod(context.detach)


class _Provider(trace.TracerProvider):
    """What libraries make their spans with, in place of OpenTelemetry's SDK."""

    tracing: Exporting

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        *args: object,
        **kwargs: object,
    ) -> trace.Tracer:
        return _Tracer(instrumenting_module_name, instrumenting_library_version or "")


class _Tracer(trace.Tracer):
    """Makes the spans of a library."""

    def __init__(self, scope: str, version: str) -> None:
        self._scope = scope, version

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: trace.SpanKind = trace.SpanKind.INTERNAL,
        attributes: Mapping[str, Any] | None = None,
        links: Sequence[trace.Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> ApiSpan:
        tracing = _Provider.tracing
        span = tracing._begin(name, kind.name, tracing._parent(context))
        assert isinstance(span, ApiSpan)
        span.scope, span.scope_version = self._scope
        span.on_exception = record_exception, set_status_on_exception
        span.started = as_time(start_time)
        span.set_attributes(attributes or {})
        for link in links or ():
            span.add_link(link.context, link.attributes)
        return span

    @_agnosticcontextmanager
    def start_as_current_span(self, *args: Any, **kwargs: Any) -> Iterator[trace.Span]:
        # `start_span` has one parameter less.
        end_on_exit = args[8] if len(args) > 8 else kwargs.pop("end_on_exit", True)
        span = self.start_span(*args[:8], **kwargs)
        with trace.use_span(span, end_on_exit, *span.on_exception):
            yield span


@functools.cache
def _set_provider() -> None:
    # Without a look at the one before: that would load the one that a variable names.
    trace.set_tracer_provider(_Provider())


def make_propagation(names: Sequence[str], others: Sequence[TextMapPropagator] = ()) -> Propagation:
    """`names` are those of OTEL_PROPAGATORS: `tracecontext`, `baggage`, `b3`, `b3multi`, `none`."""
    names = () if "none" in names else names
    formats = [_FORMATS[name] for name in names if name in _FORMATS]
    if "baggage" in names:
        others = _Baggage(), *others
    return _WithApi(formats, others) if others else Propagation(formats)


class _WithApi(Propagation):
    """Also with propagators of OpenTelemetry's API, such as W3C Baggage: between the headers of a
    request and OpenTelemetry's context."""

    def __init__(self, formats: Sequence[Format], others: Sequence[TextMapPropagator]) -> None:
        super().__init__(formats)
        self.others = others

    def extract(self, headers: HTTPHeaders) -> Parent | None:
        before = get_current()
        found = _extract_with(self.others, headers, before)
        context.attach(found)
        span = found.get(_SPAN_KEY)
        theirs = _from_api_span(span) if span is not before.get(_SPAN_KEY) else None
        return super().extract(headers) or theirs

    def inject(self, span: Parent | tracing.Span, headers: MutableMapping[str, str]) -> None:
        _inject_with(self.others, headers, _with_span(span, get_current()))
        super().inject(span, headers)


def _extract_with(
    propagators: Sequence[TextMapPropagator], headers: HTTPHeaders, found: Context
) -> Context:
    for each in propagators:
        try:
            found = each.extract(headers, found)
        except Exception:  # from what a team has written
            log.exception("A propagator failed")
    return found


def _inject_with(
    propagators: Sequence[TextMapPropagator], headers: MutableMapping[str, str], current: Context
) -> None:
    for each in propagators:
        try:
            each.inject(headers, current)
        except Exception:
            log.exception("A propagator failed")


class _Baggage(W3CBaggagePropagator):
    def extract(
        self, carrier: Any, context: Context | None = None, getter: Getter[Any] = _getter
    ) -> Context:
        baggage = ",".join(getter.get(carrier, "baggage") or ())
        if len(baggage) > _BAGGAGE_CHARACTERS or baggage.count(",") >= _BAGGAGE_MEMBERS:
            baggage = ""
        return super().extract({"baggage": baggage}, context)


class _GlobalPropagator(TextMapPropagator):
    """What libraries, such as instrumentations of other HTTP clients, read and write headers with:
    the formats of OTEL_PROPAGATORS, of which OpenTelemetry by itself has not all."""

    tracing: Exporting

    def __init__(self, before: Sequence[TextMapPropagator]) -> None:
        #: Whatever somebody has set before, which is still needed.
        self.before = before

    def extract(
        self, carrier: Any, context: Context | None = None, getter: Getter[Any] = _getter
    ) -> Context:
        headers = HTTPHeaders()
        for name in {*_HEADERS, *self.fields}:
            for value in getter.get(carrier, name) or ():
                headers.add(name, value)
        propagation = self.tracing.propagation
        found = _extract_with(propagation.others, headers, context or Context())
        parent = Propagation.extract(propagation, headers)
        return _with_span(parent, found) if parent and parent.trace_id else found

    def inject(
        self, carrier: Any, context: Context | None = None, setter: Setter[Any] = _setter
    ) -> None:
        current = get_current() if context is None else context
        headers: dict[str, str] = {}
        propagation = self.tracing.propagation
        _inject_with(propagation.others, headers, current)
        if parent := self.tracing._parent(current):
            Propagation.inject(propagation, parent, headers)
        for name, value in headers.items():
            setter.set(carrier, name, value)

    @property
    def fields(self) -> set[str]:
        headers: dict[str, str] = {}
        propagation = self.tracing.propagation
        propagation.inject(Parent("1" * 32, "1" * 16, SAMPLED, "a=b"), headers)
        return {*headers}.union(*(each.fields for each in propagation.others))


def _replace_global_propagator() -> Sequence[TextMapPropagator]:
    """Returns the one that somebody has set before."""
    load_propagate()
    from opentelemetry import propagate

    current = propagate.get_global_textmap()
    if not isinstance(current, _GlobalPropagator):
        is_default = type(current) is CompositePropagator and current.fields <= _DEFAULT_FIELDS
        current = _GlobalPropagator(() if is_default else (current,))
        propagate.set_global_textmap(current)
    return current.before


def _with_span(span: Parent | tracing.Span, current: Context) -> Context:
    """OpenTelemetry's context with this as the current span."""
    is_ours = isinstance(span, trace.Span)
    found = span if is_ours else trace.NonRecordingSpan(_to_api(span, is_remote=True))
    return Context({**current, _SPAN_KEY: found})


def _to_api(span: Parent | tracing.Span, is_remote: bool) -> trace.SpanContext:
    return trace.SpanContext(
        int(span.trace_id, 16),
        int(span.span_id, 16),
        is_remote,
        trace.TraceFlags(span.flags or 0),
        trace.TraceState.from_header([span.tracestate]),
    )


def _from_api_span(span: object) -> Parent | None:
    """Another library's span, as a parent; None if there is no valid span."""
    known = span.get_span_context() if isinstance(span, trace.Span) else trace.INVALID_SPAN_CONTEXT
    if not known.is_valid:
        return None
    ids = f"{known.trace_id:032x}", f"{known.span_id:016x}"
    return Parent(*ids, known.trace_flags & KNOWN_FLAGS, known.trace_state.to_header())
