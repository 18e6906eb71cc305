"""Tracing without a backend: a caller's trace is continued, logged and propagated, following W3C
Trace Context. Nothing is exported. A module with a backend offers the same names.
"""

import contextlib
import functools
import inspect
import random
import re
from collections.abc import Callable, MutableMapping
from contextvars import ContextVar
from time import time_ns
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse
from tornado.httputil import HTTPHeaders

from .application import Application, Exchange, Observer, correlation
from .client import ObservedClient
from .settings import Settings

SAMPLED = 0x01
_KNOWN_FLAGS = 0x03
_FLAGS = ("00", "01", "02", "03")
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_TRACESTATE_LENGTH = 512

Function = TypeVar("Function", bound=Callable[..., Any])


class Span:
    """A piece of work within a trace. Ids are lower-case hexadecimal."""

    __slots__ = (
        "ended",
        "flags",
        "kind",
        "name",
        "parent_id",
        "span_id",
        "started",
        "trace_id",
        "tracestate",
    )
    # Set only if something uses it. Times are in nanoseconds since 1970.
    name: str
    kind: str
    started: int
    ended: int

    def __init__(self, trace_id: str, parent_id: str, flags: int, tracestate: str) -> None:
        self.trace_id = trace_id
        self.span_id = (random.getrandbits(64) or 1).to_bytes(8).hex()
        #: The parent span; empty for the first span of a trace.
        self.parent_id = parent_id
        self.flags = flags
        self.tracestate = tracestate

    def set_attribute(self, key: str, value: str | bool | int | float) -> None:
        """Describes the work. Has no effect without a backend."""

    def record_exception(self, exception: BaseException) -> None:
        """Adds an exception to the span. Has no effect without a backend."""

    def ids(self) -> dict[str, str]:
        """The span's ids, as shown in log lines and reports."""
        return {
            "trace_id": self.trace_id,
            "span_id": self.span_id,
            "trace_flags": _FLAGS[self.flags],
        }


_current: ContextVar[Span | None] = ContextVar("span", default=None)

# Called with each span that ends, except those of exchanges; None if nothing uses it.
_report: Callable[[Span], None] | None = None


def current() -> Span | None:
    """The span of the current work; None if there is no trace."""
    return _current.get()


def span(name: str) -> "_SpanScope":
    """A span for a part of the work: a child of the current span, or the first of a new trace.

    Use it in a `with` statement, or as a decorator of a function, async or not:

        with tracing.span("charge card") as span:
            span.set_attribute("order.items", 3)

        @tracing.span("charge card")
        async def charge(order): ...

    Log lines and outgoing calls within it have its ids. Spans with the same name are compared with
    each other, so what differs between them belongs in attributes.
    """
    return _SpanScope(name)


def inject(headers: MutableMapping[str, str]) -> None:
    """Writes the current span into the headers of an outgoing request.

    Tornado's `AsyncHTTPClient` does this by itself.
    """
    span = _current.get()
    if span is not None:
        headers["traceparent"] = f"00-{span.trace_id}-{span.span_id}-{_FLAGS[span.flags]}"
        if span.tracestate:
            headers["tracestate"] = span.tracestate


class Tracing(Observer):
    """Gives each exchange a span: a child of the caller's, or the first of a new trace."""

    def __init__(self, settings: Settings) -> None:
        AsyncHTTPClient.configure(Client)

    def attach(self, application: Application) -> None:
        global _report
        _report = application.span_reporter()

    def request_started(self, exchange: Exchange) -> None:
        if exchange.is_probe:
            return
        span = _extract(exchange.request.headers) or _root()
        _current.set(span)
        exchange.ids.update(span.ids())
        if span.flags & SAMPLED:
            exchange.exemplar = {"trace_id": span.trace_id, "span_id": span.span_id}


class Client(ObservedClient):
    """Tornado's HTTP client, which propagates the current span."""

    def fetch_impl(self, request: HTTPRequest, callback: Callable[[HTTPResponse], None]) -> None:
        inject(request.headers)
        if _report and not hasattr(request, "original_request"):  # which a redirect has
            call = _child()
            _begin(call, f"{request.method} {_host(request.url)}", "CLIENT")

            def end(response: HTTPResponse) -> None:
                _end(call)
                callback(response)

            super().fetch_impl(request, end)
        else:
            super().fetch_impl(request, callback)


class _SpanScope:
    """See `span`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> Span:
        self._span = child = _child()
        if _report:
            _begin(child, self._name, "INTERNAL")
        self._token = _current.set(child)
        self._ids = correlation.set({**correlation.get(), **child.ids()})
        return child

    def __exit__(self, *error: object) -> None:
        # In another context, it is not the current span: for example, in a generator that another
        # task or the event loop closes.
        with contextlib.suppress(ValueError):
            correlation.reset(self._ids)
            _current.reset(self._token)
        _end(self._span)

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


def _child() -> Span:
    """A child of the current span, or the first of a new trace."""
    parent = _current.get()
    if parent is None:
        return _root()
    return Span(parent.trace_id, parent.span_id, parent.flags, parent.tracestate)


def _begin(span: Span, name: str, kind: str) -> None:
    span.name, span.kind, span.started = name, kind, time_ns()


def _end(span: Span) -> None:
    # It started without a time if nothing used it then.
    if _report and hasattr(span, "started"):
        span.ended = time_ns()
        _report(span)


def _host(url: str) -> str:
    """Host and port of a URL, without anything else."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return ""


def _root() -> Span:
    # Sampled, or no service downstream would record the trace.
    return Span((random.getrandbits(128) or 1).to_bytes(16).hex(), "", SAMPLED, "")


def _extract(headers: HTTPHeaders) -> Span | None:
    """A child of the caller's span, or None if the headers have no valid one."""
    # Not `get()`, which is slow if there is no such header.
    parents = headers.get_list("traceparent")
    match = _TRACEPARENT.fullmatch(parents[0]) if len(parents) == 1 else None
    if match is None:
        return None
    version, trace_id, parent_id, flags, rest = match.groups()
    # A later version may append fields.
    if version == "ff" or (version == "00" and rest):
        return None
    if not int(trace_id, 16) or not int(parent_id, 16):
        return None
    tracestate = ",".join(headers.get_list("tracestate"))
    if len(tracestate) > _TRACESTATE_LENGTH:
        tracestate = ""
    return Span(trace_id, parent_id, int(flags, 16) & _KNOWN_FLAGS, tracestate)
