"""Tracing by OpenTelemetry: a span for each exchange, for each outgoing call, and for the work that
asks for one.

They are found through OpenTelemetry's API as any other, and spans that are made through it join the
same traces. They are not made by OpenTelemetry's SDK, which takes several times as long over each.
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
from tornado.simple_httpclient import SimpleAsyncHTTPClient
from tornado.web import Finish, HTTPError

from . import SERVICE, __version__
from .exchange import Exchange, Observer, correlation
from .settings import Settings
from .tracing_backend import Backend
from .tracing_export import Exporter
from .tracing_propagation import KNOWN_FLAGS, SAMPLED, Parent, Propagation
from .tracing_spans import Recurring, Span

NO_ANSWER = 599
"""Tornado's status for a call that failed before there was any."""

log = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])

_NOBODY = Parent("", "", None)

# Where OpenTelemetry's context has the span. By its own functions, to look there and to put one
# there takes as long as all the rest of a span.
(_PLACE,) = trace.set_span_in_context(trace.INVALID_SPAN, context.Context())

_of_exchange: ContextVar[Span | None] = ContextVar("span", default=None)


def current() -> Span | None:
    """The span of the work in hand."""
    span = context.get_current().get(_PLACE)
    return span if isinstance(span, Span) else _of_exchange.get()


def span(name: str) -> "_Block":
    """A span within the current one, for a `with` statement or as a decorator of a function."""
    return _Block(name)


def inject(headers: MutableMapping[str, str]) -> None:
    """Writes the current span into the headers of an outgoing request.

    Requests by Tornado's `AsyncHTTPClient` have this done already.
    """
    span = context.get_current().get(_PLACE)
    parent = span.as_parent() if isinstance(span, Span) else _foreign(span)
    if parent:
        _tracer.propagation.inject(parent, headers)


class Tracing(Observer):
    """Gives each exchange a span: the caller's child, or the first of a new trace."""

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

    async def startup(self) -> None:
        if self._exporter:
            self._exporter.start()

    async def shutdown(self) -> None:
        if self._exporter:
            await self._exporter.stop()

    def totals(self) -> Iterable[tuple[str, str, int]]:
        if exporter := self._exporter:
            yield "otel_spans_exported", "Spans that the backend took.", exporter.exported
            yield "otel_spans_failed", "Spans that the backend refused.", exporter.failed
            yield "otel_spans_dropped", "Spans that could not wait any longer.", exporter.dropped

    def request_started(self, exchange: Exchange) -> None:
        if exchange.quiet:
            # Nor is what it leads to traced, here or elsewhere.
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
        if span is None or not span.on_end:
            return
        request = exchange.request
        error = exchange.error_type
        name, recurring = _describe(
            exchange.method,
            exchange.route,
            exchange.status,
            error,
            request.protocol,
            request.host,
            request.version,
        )
        span.name = span.name or name
        own = {"url.path": request.path, "client.address": request.remote_ip}
        if agent := request.headers.get_list("User-Agent"):
            own["user_agent.original"] = agent[0]
        if span.attributes:
            # The handler's own, which may be meant to stand for one of these.
            span.attributes = {**recurring.attributes, **own, **span.attributes}
        else:
            span.attributes, span.recurring = own, recurring
        if error:
            span.set_status(trace.StatusCode.ERROR)
        # It is a while since the end, as other observers come first.
        span.started = time_ns() - int((perf_counter() - exchange.started) * 1e9)
        span.end(span.started + int(exchange.duration * 1e9))


class Client(SimpleAsyncHTTPClient):
    """Tornado's HTTP client, with a span for each call that is passed on with it."""

    def fetch_impl(self, request: HTTPRequest, callback: Callable[[HTTPResponse], None]) -> None:
        if hasattr(request, "original_request"):
            # A redirect, within the span of the first request. It may come in the context of some
            # other request, the one that this one had to wait for.
            super().fetch_impl(request, callback)
            return
        span = _tracer.start(request.method, "CLIENT")
        _tracer.propagation.inject(span.as_parent(), request.headers)

        def end(response: HTTPResponse) -> None:
            if span.on_end:
                _describe_call(span, request, response)
                span.end()
            callback(response)

        super().fetch_impl(request, end)


class _Block:
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
        correlation.reset(self._ids)
        context.detach(self._token)
        if _is_failure(error):
            self._span.record_exception(error)
            self._span.set_status(trace.StatusCode.ERROR, f"{type(error).__qualname__}: {error}")
        self._span.end()

    def __call__(self, function: Function) -> Function:
        @functools.wraps(function)
        def traced(*args: Any, **kwargs: Any) -> Any:
            with _Block(self._name):
                return function(*args, **kwargs)

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            with _Block(self._name):
                return await function(*args, **kwargs)

        return cast(Function, awaited if inspect.iscoroutinefunction(function) else traced)


def _is_failure(error: BaseException | None) -> TypeGuard[Exception]:
    """Whether an exception that leaves a span is more than an answer to a client."""
    if isinstance(error, HTTPError):
        return error.status_code >= 500
    return isinstance(error, Exception) and not isinstance(error, Finish)


class _Sampler:
    """Decides by OTEL_TRACES_SAMPLER and its argument, which is the share of traces to sample."""

    def __init__(self, name: str, share: float) -> None:
        self.heeds_parent = name.startswith("parentbased_")
        kind = name.removeprefix("parentbased_")
        self.share: float = {"always_on": 1.0, "always_off": 0.0}.get(kind, share)
        # By the id, as OpenTelemetry's SDK has it, so that the services of a trace agree.
        self._bound: int = round(self.share * 2**64)

    def flags(self, trace_id: str, flags: int | None) -> int:
        """The trace flags, given the parent's, or None where it left open whether to sample."""
        if flags is not None and self.heeds_parent:
            return flags
        sampled = SAMPLED if int(trace_id[16:], 16) < self._bound else 0
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
        """A span of a trace that comes from elsewhere, or the first of a new one."""
        trace_id, parent_id, flags, tracestate = parent or _NOBODY
        trace_id = trace_id or _new_trace_id()
        flags = self.sampler.flags(trace_id, flags)
        on_end = self._on_end if flags & SAMPLED else None
        return Span(name, kind, trace_id, parent_id, flags, tracestate, on_end)

    def start(self, name: str, kind: str) -> Span:
        """A span within the current one; that one itself where its trace is not recorded."""
        span = context.get_current().get(_PLACE)
        if not isinstance(span, Span):
            return self.begin(name, kind, _foreign(span))
        if not span.flags & SAMPLED:
            return span
        return Span(
            name, kind, span.trace_id, span.span_id, span.flags, span.tracestate, self._on_end
        )

    @functools.cached_property
    def provider(self) -> trace.TracerProvider:
        if self.exporter is None:
            return trace.NoOpTracerProvider()
        from .tracing_sdk import make_provider

        return make_provider(self.sampler.heeds_parent, self.sampler.share, self.exporter.put)


_tracer = _Tracer(Propagation(()), _Sampler("always_on", 1.0))


class _Provider(trace.TracerProvider):
    """Gives OpenTelemetry's SDK to whoever makes spans through its API, and loads it then."""

    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        return _tracer.provider.get_tracer(*args, **kwargs)


def _activate(span: Span) -> Token[context.Context]:
    return context.attach(context.Context({**context.get_current(), _PLACE: span}))


def _new_trace_id() -> str:
    return f"{random.getrandbits(128) or 1:032x}"


def _foreign(span: object) -> Parent | None:
    """A span that another library made, if it is one."""
    known = span.get_span_context() if isinstance(span, trace.Span) else trace.INVALID_SPAN_CONTEXT
    if not known.is_valid:
        return None
    ids = f"{known.trace_id:032x}", f"{known.span_id:016x}"
    return Parent(*ids, known.trace_flags & KNOWN_FLAGS, known.trace_state.to_header())


def _resource(settings: Settings) -> dict[str, str]:
    """The service, as its spans tell of it."""
    resource = {
        "service.name": SERVICE,
        "service.version": __version__,
        "deployment.environment.name": settings.environment,
        **settings.otel_resource_attributes,
    }
    if settings.otel_service_name:
        resource["service.name"] = settings.otel_service_name
    return resource


@functools.lru_cache(maxsize=1024)
def _describe(
    method: str, route: str, status: int, error: str, scheme: str, host: str, version: str
) -> tuple[str, Recurring]:
    """The name of a server's span, and what it shares with others of its attributes, by
    OpenTelemetry's stable HTTP conventions."""
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
    """The same for a client's span, of whose URL neither query nor password is told."""
    span.set_attribute("http.request.method", request.method)
    with contextlib.suppress(ValueError):  # no URL at all, whence the failure
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
