"""Tracing with OpenTelemetry: a span for each exchange, for each outgoing call, and for code that
asks for one.

OpenTelemetry's API finds these spans like any others, and the spans that libraries make through the
API join the same traces. They are not spans of OpenTelemetry's SDK; `spans` explains why.
"""

import contextlib
import functools
import inspect
import logging
import random
from collections.abc import Callable, Iterable, MutableMapping
from contextvars import ContextVar, Token
from time import perf_counter, time_ns
from types import TracebackType
from typing import Any, TypeGuard, TypeVar, cast
from urllib.parse import urlsplit

from opentelemetry import context, trace
from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse
from tornado.httputil import split_host_and_port
from tornado.web import Finish, HTTPError

from .. import SERVICE, __version__
from ..application import METHODS, Application, Exchange, Export, Observer, correlation
from ..client import NO_ANSWER, ObservedClient
from ..settings import Settings
from .backend import Backend
from .export import Exporter
from .propagation import KNOWN_FLAGS, SAMPLED, Parent, Propagation
from .spans import Recurring, Span, well_formed

CLIENT_CHARACTERS = 255
"""Longest host or method that is kept. Clients may invent longer ones, but none exist."""

log = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])

_NO_PARENT = Parent("", "", None)

# The key of the span in OpenTelemetry's context. OpenTelemetry's own functions to read and write it
# take as long as everything else about a span.
(_SPAN_KEY,) = trace.set_span_in_context(trace.INVALID_SPAN, context.Context())

# Called with each span that ends, except those of exchanges; None if nothing uses it.
_report: Callable[[Span], None] | None = None

_of_exchange: ContextVar[Span | None] = ContextVar("span", default=None)


def current() -> Span | None:
    """The span of the current work; None if there is no trace."""
    span = context.get_current().get(_SPAN_KEY)
    return span if isinstance(span, Span) else _of_exchange.get()


def span(name: str) -> "_SpanScope":
    """A span for a part of the work: a child of the current span, or the first of a new trace.

    Use it in a `with` statement, or as a decorator of a function, async or not:

        with tracing.span("charge card") as span:
            span.set_attribute("order.items", 3)

        @tracing.span("charge card")
        async def charge(order): ...

    Log lines and outgoing calls within it have its ids. An exception that leaves it is recorded and
    sets its status to error, unless it is an `HTTPError` below 500 or a `Finish`. Spans with the
    same name are compared with each other, so what differs between them belongs in attributes.
    """
    return _SpanScope(name)


def inject(headers: MutableMapping[str, str]) -> None:
    """Writes the current span into the headers of an outgoing request.

    Tornado's `AsyncHTTPClient` does this by itself.
    """
    span = context.get_current().get(_SPAN_KEY)
    parent = span.as_parent() if isinstance(span, Span) else _from_api_span(span)
    if parent:
        _tracer.propagation.inject(parent, headers)


class Tracing(Observer):
    """Gives each exchange a span: a child of the caller's, or the first of a new trace."""

    def __init__(self, settings: Settings) -> None:
        global _tracer
        backend = Backend(settings, _resource(settings))
        self._exporter: Exporter | None = None
        if settings.otel_sdk_disabled:
            log.info("Spans are not exported: OTEL_SDK_DISABLED is set")
        elif not backend.url:
            log.info("Spans are not exported: %s is not set", backend.setting)
        else:
            self._exporter = Exporter(backend)
        _tracer = _Tracer(
            Propagation(settings.otel_propagators),
            _Sampler(settings.otel_traces_sampler, settings.otel_traces_sampler_arg),
            self._exporter,
        )
        AsyncHTTPClient.configure(Client)
        if not isinstance(trace.get_tracer_provider(), _Provider):
            trace.set_tracer_provider(_Provider())

    def attach(self, application: Application) -> None:
        global _report
        _report = application.span_reporter()

    async def startup(self) -> None:
        if self._exporter:
            self._exporter.start()

    async def shutdown(self) -> None:
        if self._exporter:
            await self._exporter.stop()

    def totals(self) -> Iterable[tuple[str, str, int]]:
        if exporter := self._exporter:
            yield "otel_spans_exported", "Spans that the backend accepted.", exporter.exported
            yield "otel_spans_failed", "Spans that the backend refused.", exporter.failed
            yield "otel_spans_dropped", "Spans that were dropped unsent.", exporter.dropped

    def exports(self) -> Iterable[Export]:
        if exporter := self._exporter:
            dropped = exporter.failed + exporter.dropped
            yield Export(Backend.name, "spans", exporter.exported, dropped)
        else:
            yield Export(Backend.name, "spans")

    def request_started(self, exchange: Exchange) -> None:
        if exchange.is_probe:
            # Not sampled, so that calls that it makes are not traced either, here or elsewhere.
            _activate(Span("", "SERVER", _new_trace_id(), "", 0))
            return
        span = _tracer.begin("", "SERVER", _tracer.propagation.extract(exchange.request.headers))
        _of_exchange.set(span)
        _activate(span)
        exchange.ids.update(span.ids())
        if span.flags & SAMPLED:
            exchange.exemplar = {"trace_id": span.trace_id, "span_id": span.span_id}

    def request_failed(self, exchange: Exchange, error: BaseException) -> None:
        if span := exchange.context.get(_of_exchange):
            span.record_exception(error)

    def request_ended(self, exchange: Exchange) -> None:
        span = exchange.context.get(_of_exchange)
        if span is None or not span.recording:
            return
        request = exchange.request
        error = exchange.error_type
        name, recurring = _describe(
            exchange.method,
            exchange.route,
            exchange.status,
            error,
            request.protocol,
            request.host[:CLIENT_CHARACTERS],
            request.version,
        )
        span.name = span.name or name
        own = {"url.path": request.path, "client.address": request.remote_ip}
        if exchange.method == "_OTHER":
            own["http.request.method_original"] = str(request.method)[:CLIENT_CHARACTERS]
        if agent := request.headers.get_list("User-Agent"):
            own["user_agent.original"] = agent[0]
        if span.attributes:
            # The handler's own attributes come last, because they may be meant to replace these.
            span.attributes = {**recurring.attributes, **own, **span.attributes}
        else:
            span.attributes, span.recurring = own, recurring
        if error:
            span.set_status(trace.StatusCode.ERROR)
        # Not the current time, because other observers have run since the end.
        span.started = time_ns() - int((perf_counter() - exchange.started) * 1e9)
        span.end(span.started + int(exchange.duration * 1e9))


class Client(ObservedClient):
    """Tornado's HTTP client. Each call has a span, which is propagated with it."""

    def fetch_impl(self, request: HTTPRequest, callback: Callable[[HTTPResponse], None]) -> None:
        if hasattr(request, "original_request"):
            # A redirect, within the span of the first request. It may run in the context of another
            # request, the one that this one had to wait for.
            super().fetch_impl(request, callback)
            return
        name = request.method if request.method in METHODS else "HTTP"
        span = _tracer.start(name, "CLIENT")
        _tracer.propagation.inject(span.as_parent(), request.headers)

        def end(response: HTTPResponse) -> None:
            if span.recording:
                _describe_call(span, request, response)
                span.end()
            _notify(span)
            callback(response)

        super().fetch_impl(request, end)


class _SpanScope:
    """See `span`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> Span:
        self._span = span = _tracer.start(self._name, "INTERNAL")
        self._token = _activate(span)
        self._ids = correlation.set({**correlation.get(), **span.ids()})
        return span

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # In another context, it is not the current span: for example, in a generator that another
        # task or the event loop closes. OpenTelemetry's `detach` would log that.
        with contextlib.suppress(ValueError):
            correlation.reset(self._ids)
            context.detach(self._token)
        if _is_failure(error):
            self._span.record_exception(error)
            self._span.set_status(trace.StatusCode.ERROR, f"{type(error).__qualname__}: {error}")
        self._span.end()
        _notify(self._span)

    def __call__(self, function: Function) -> Function:
        @functools.wraps(function)
        def traced(*args: Any, **kwargs: Any) -> Any:
            with _SpanScope(self._name):
                return function(*args, **kwargs)

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            with _SpanScope(self._name):
                return await function(*args, **kwargs)

        return cast(Function, awaited if inspect.iscoroutinefunction(function) else traced)


def _notify(span: Span) -> None:
    # If the trace is not recorded, this is the enclosing span.
    if _report and span.flags & SAMPLED:
        _report(span)


def _is_failure(error: BaseException | None) -> TypeGuard[Exception]:
    """Whether an exception that leaves a span is more than a response to the client."""
    if isinstance(error, HTTPError):
        return error.status_code >= 500
    return isinstance(error, Exception) and not isinstance(error, Finish)


class _Sampler:
    """Decides which traces are recorded.

    `name` is OTEL_TRACES_SAMPLER, `ratio` is its argument: the ratio of traces to sample, 0 to 1.
    """

    def __init__(self, name: str, ratio: float) -> None:
        self.parent_based = name.startswith("parentbased_")
        kind = name.removeprefix("parentbased_")
        self.ratio: float = {"always_on": 1.0, "always_off": 0.0}.get(kind, ratio)
        # Compared with the trace id, as in OpenTelemetry's SDK, so that all services of a trace
        # make the same decision.
        self._bound: int = round(self.ratio * 2**64)

    def flags(self, trace_id: str, flags: int | None) -> int:
        """A trace's flags; `flags` are the parent's, or None if it leaves the decision open."""
        if flags is not None and self.parent_based:
            return flags
        sampled = SAMPLED if self.ratio == 1 or int(trace_id[16:], 16) < self._bound else 0
        return (flags or 0) & ~SAMPLED | sampled


class _Tracer:
    def __init__(
        self, propagation: Propagation, sampler: _Sampler, exporter: Exporter | None = None
    ) -> None:
        self.propagation = propagation
        self.sampler = sampler
        self.exporter = exporter
        self._on_end = exporter.put if exporter else None

    def begin(self, name: str, kind: str, parent: Parent | None) -> Span:
        """A span of a trace that started elsewhere, or the first span of a new trace."""
        trace_id, parent_id, flags, tracestate = parent or _NO_PARENT
        trace_id = trace_id or _new_trace_id()
        flags = self.sampler.flags(trace_id, flags)
        on_end = self._on_end if flags & SAMPLED else None
        return Span(name, kind, trace_id, parent_id, flags, tracestate, on_end)

    def start(self, name: str, kind: str) -> Span:
        """A child of the current span, or that span itself if its trace is not recorded."""
        span = context.get_current().get(_SPAN_KEY)
        if not isinstance(span, Span):
            return self.begin(name, kind, _from_api_span(span))
        if not span.flags & SAMPLED:
            return span
        return Span(
            name, kind, span.trace_id, span.span_id, span.flags, span.tracestate, self._on_end
        )

    @functools.cached_property
    def provider(self) -> trace.TracerProvider:
        if self.exporter is None:
            return trace.NoOpTracerProvider()
        from .sdk import make_provider

        return make_provider(self.sampler.parent_based, self.sampler.ratio, self.exporter.put)


_tracer = _Tracer(Propagation(()), _Sampler("always_on", 1.0))


class _Provider(trace.TracerProvider):
    """Provides OpenTelemetry's SDK to libraries that make spans, and loads it only then."""

    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        return _tracer.provider.get_tracer(*args, **kwargs)


def _activate(span: Span) -> Token[context.Context]:
    return context.attach(context.Context({**context.get_current(), _SPAN_KEY: span}))


def _new_trace_id() -> str:
    return (random.getrandbits(128) or 1).to_bytes(16).hex()


def _from_api_span(span: object) -> Parent | None:
    """Another library's span, as a parent; None if there is no valid span."""
    known = span.get_span_context() if isinstance(span, trace.Span) else trace.INVALID_SPAN_CONTEXT
    if not known.is_valid:
        return None
    ids = f"{known.trace_id:032x}", f"{known.span_id:016x}"
    return Parent(*ids, known.trace_flags & KNOWN_FLAGS, known.trace_state.to_header())


def _resource(settings: Settings) -> dict[str, str]:
    """The attributes that describe the service in its spans."""
    resource = {
        "service.name": SERVICE,
        "service.version": __version__,
        "deployment.environment.name": settings.environment,
        # The name `opentelemetry` is reserved for OpenTelemetry's own SDKs.
        "telemetry.sdk.name": __name__,
        "telemetry.sdk.language": "python",
        "telemetry.sdk.version": __version__,
        **settings.otel_resource_attributes,
    }
    if settings.otel_service_name:
        resource["service.name"] = settings.otel_service_name
    # Bytes in the environment that are not text would make every span invalid.
    return {well_formed(name): well_formed(value) for name, value in resource.items()}


@functools.lru_cache(maxsize=1024)
def _describe(
    method: str, route: str, status: int, error: str, scheme: str, host: str, version: str
) -> tuple[str, Recurring]:
    """The name of a server span and its recurring attributes, following OpenTelemetry's stable HTTP
    conventions."""
    name, port = _host(host, scheme)
    attributes: dict[str, Any] = {
        "http.request.method": method,
        "http.response.status_code": status,
        "url.scheme": scheme,
        "server.address": name,
        "server.port": port,
        "network.protocol.version": version.removeprefix("HTTP/"),
    }
    if route:
        attributes["http.route"] = route
    if error:
        attributes["error.type"] = error
    verb = "HTTP" if method == "_OTHER" else method
    return f"{verb} {route}" if route else verb, Recurring(attributes)


def _describe_call(span: Span, request: HTTPRequest, response: HTTPResponse) -> None:
    """The same for a client span. Its URL is recorded without query and password."""
    if request.method in METHODS:
        span.set_attribute("http.request.method", request.method)
    else:
        span.set_attribute("http.request.method", "_OTHER")
        span.set_attribute("http.request.method_original", request.method)
    with contextlib.suppress(ValueError):  # not a URL, which is why the call failed
        url = urlsplit(request.url)
        netloc = url.netloc.rpartition("@")[2]
        host, port = _host(netloc, url.scheme)
        span.set_attribute("url.full", f"{url.scheme}://{netloc}{url.path}")
        span.set_attribute("server.address", host)
        span.set_attribute("server.port", port)
    if response.code == NO_ANSWER and response.error:
        span.set_attribute("error.type", type(response.error).__qualname__)
        span.record_exception(response.error)
        span.set_status(trace.StatusCode.ERROR, str(response.error))
        return
    span.set_attribute("http.response.status_code", response.code)
    if response.code >= 400:
        span.set_attribute("error.type", str(response.code))
        span.set_status(trace.StatusCode.ERROR)


def _host(host: str, scheme: str) -> tuple[str, int]:
    """Name or address, and port."""
    name, port = split_host_and_port(host)
    return name.strip("[]"), port or (443 if scheme == "https" else 80)
