"""The spans of a service: of each exchange, of each outgoing call, and of code that asks for one.

Here, what is set on them is kept for the service's own console. `spans` adds what a backend shows.
"""

import contextlib
from collections.abc import Callable, MutableMapping
from contextvars import ContextVar, Token
from random import getrandbits
from time import time_ns
from typing import Any
from urllib.parse import urlsplit

from tornado.httpclient import HTTPRequest, HTTPResponse
from tornado.httputil import split_host_and_port
from tornado.web import Finish, HTTPError

from .. import tracing
from ..client import NO_ANSWER, Callback, Calls
from ..exchange import METHODS, Exchange, correlation
from ..feature import Feature, Runtime
from ..values import cut, name_of, text
from .propagation import SAMPLED, Parent, Propagation

LIMIT = 128
"""Limit of a span's attributes, of its events and of its links, as in OpenTelemetry's SDK."""

# The bits of `KNOWN_FLAGS`: no others are passed on.
_FLAGS = ("00", "01", "02", "03")
_NO_PARENT = Parent("", "", None)
_TIME_END = 1 << 63

OnEnd = Callable[[Any], None]

current_span: ContextVar["Span | None"] = ContextVar("span", default=None)
"""The current span, or that of the exchange if OpenTelemetry's context has the current one."""


class Span(tracing.Span):
    """A span that keeps what is set, if it has an `on_end` and its trace is sampled.

    `kind` is the name of an OpenTelemetry `SpanKind`. A span that is recorded calls `on_end` with
    itself at its end.
    """

    #: Nanoseconds since 1970, like all times of a span. That of an exchange has them at its end.
    started = ended = 0
    #: Whether what is set is kept.
    recording = False
    attributes: dict[str, Any] = {}  # noqa: RUF012 (never changed, only replaced)
    #: How many had no room, or could not be encoded.
    dropped_attributes = 0
    #: The name of an OpenTelemetry `StatusCode`.
    status = "UNSET"
    status_message = ""

    def __init__(
        self,
        name: str,
        kind: str,
        trace_id: str,
        parent_id: str,
        flags: int,
        tracestate: str = "",
        on_end: OnEnd | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.trace_id = trace_id
        self.span_id = (getrandbits(64) or 1).to_bytes(8).hex()
        self.parent_id = parent_id
        self.flags = flags
        self.tracestate = tracestate
        if on_end and flags & SAMPLED:
            self.recording = True
            self._on_end = on_end

    def ids(self) -> dict[str, str]:
        return {
            "trace_id": self.trace_id,
            "span_id": self.span_id,
            "trace_flags": _FLAGS[self.flags],
        }

    def set_attribute(self, key: str, value: Any) -> None:
        if self.recording:
            try:
                key = str.__str__(key)
            except TypeError:
                self.dropped_attributes += 1
                return
            if not self.attributes:
                self.attributes = {key: value}
            elif len(self.attributes) < LIMIT or key in self.attributes:
                self.attributes[key] = value
            else:
                self.dropped_attributes += 1

    def set_status(self, status: Any, description: str | None = None) -> None:
        """`status` is the name of a `StatusCode`."""
        # OK is final, and nothing changes back to unset.
        is_known = type(status) is str and status in ("OK", "ERROR")
        if is_known and self.recording and self.status != "OK":
            self.status = status
            is_failure = status == "ERROR" and description is not None
            self.status_message = cut(text(description)) if is_failure else ""

    def fail(self, error: BaseException) -> None:
        """Records an exception that leaves the span, if it is more than a response to the
        client."""
        is_answer = isinstance(error, HTTPError) and error.status_code < 500
        if isinstance(error, Exception) and not (is_answer or isinstance(error, Finish)):
            self.record_exception(error)
            self.set_status("ERROR", f"{name_of(error)}: {text(error)}")

    def end(self, end_time: int | None = None) -> None:
        """Ends the span, once."""
        if self.recording:
            self.recording = False
            # The clock may be set back.
            self.ended = max(as_time(end_time), self.started)
            self._on_end(self)


class Tracing(Feature, tracing.Tracer):
    """Gives each exchange a span: a child of the caller's, or the first of a new trace.

    `sampler` is an OTEL_TRACES_SAMPLER, `ratio` its argument: the ratio of traces to sample, from 0
    to 1. `on_end` is called with each span of these traces that ends.
    """

    needs = (Calls,)
    #: Whether there are further spans in traces that are not sampled.
    follows_unsampled = True
    _kind: type[Span] = Span
    # Where the current span is. Of `_parent` it may also be another library's.
    current: Callable[[], Span | None] = current_span.get
    _parent: Callable[[], Span | Parent | None] = current_span.get
    _enter: Callable[[Span], object] = current_span.set
    _activate: Callable[[Span], Token[Any]] = current_span.set
    _deactivate: Callable[[Token[Any]], None] = current_span.reset

    def __init__(
        self,
        propagation: Propagation,
        sampler: str = "parentbased_always_on",
        ratio: float = 1.0,
        on_end: OnEnd | None = None,
    ) -> None:
        self.propagation = propagation
        self.parent_based = sampler.startswith("parentbased_")
        kind = sampler.removeprefix("parentbased_")
        self.ratio = {"always_on": 1.0, "always_off": 0.0}.get(kind, ratio)
        # Compared with the trace id, as in OpenTelemetry's SDK, so that all services of a trace
        # make the same decision.
        self._bound: int = round(self.ratio * 2**64)
        self._on_end = on_end
        self._report: Callable[[Span], None] | None = None
        tracing.use(self)

    def attach(self, runtime: Runtime) -> None:
        self._report = runtime.span_reporter()
        Calls.follow = self._follow

    def request_started(self, exchange: Exchange) -> None:
        if exchange.is_probe:
            # Not sampled, so that calls that it makes are not traced either, here or elsewhere.
            self._enter(self._kind("", "SERVER", _new_trace_id(), "", 0))
            return
        span = self._begin("", "SERVER", self.propagation.extract(exchange.request.headers))
        self._enter(span)
        ids = exchange.ids
        ids["trace_id"] = span.trace_id
        ids["span_id"] = span.span_id
        ids["trace_flags"] = _FLAGS[span.flags]
        if span.flags & SAMPLED:
            exchange.exemplar = {"trace_id": span.trace_id, "span_id": span.span_id}

    def inject(self, headers: MutableMapping[str, str]) -> None:
        if parent := self._parent():
            self.propagation.inject(parent, headers)

    def enter(self, name: str) -> tuple[Span, Any]:
        span = self.start(name, "INTERNAL")
        token = self._activate(span)
        return span, (token, correlation.set({**correlation.get(), **span.ids()}))

    def leave(self, entered: tuple[Any, Any], error: BaseException | None) -> None:
        span, (token, ids) = entered
        # In another context, such as that of a task which closes a generator, it is not the current
        # span. OpenTelemetry would log that.
        try:  # `suppress` takes as long as the rest
            correlation.reset(ids)
            self._deactivate(token)
        except ValueError:
            pass
        if error is not None:
            # Whatever its class does, it is the error that leaves.
            with contextlib.suppress(Exception):
                span.fail(error)
        self.end(span)

    def start(self, name: str, kind: str) -> Span:
        """A child of the current span, or that span itself if its trace is not followed."""
        outer = self._parent()
        if isinstance(outer, Span) and not self._is_followed(outer):
            return outer
        span = self._begin(name, kind, outer)
        span.started = time_ns()
        if self._report and not span.recording and self._is_followed(span):
            span.recording, span._on_end = True, lambda span: None  # only reported, below
        return span

    def end(self, span: Span, url: str = "") -> None:
        """Ends what `start` returned, and reports it; the host that was called completes its
        name."""
        span.end()
        if self._report and self._is_followed(span):
            if url:
                span.name = f"{span.name} {_netloc(url)}"
            self._report(span)

    def _is_followed(self, span: Span) -> int:
        return self.follows_unsampled or span.flags & SAMPLED

    def _follow(self, request: HTTPRequest, callback: Callback) -> Callback:
        """Gives a call a span, which is propagated with it."""
        span = self.start(request.method if request.method in METHODS else "HTTP", "CLIENT")
        headers: dict[str, str] = {}
        self.propagation.inject(span, headers)
        # A request may be sent again, in another trace.
        for name in getattr(request, "propagated", ()):
            request.headers.pop(name, None)
        request.headers.update(headers)
        request.request.propagated = [*headers]  # type: ignore[attr-defined]

        def end(response: HTTPResponse) -> None:
            if span.recording:
                _describe_call(span, request, response)
            self.end(span, request.url)
            callback(response)

        return end

    def _begin(self, name: str, kind: str, parent: Span | Parent | None) -> Span:
        """A child of a span, here or elsewhere, or the first span of a new trace."""
        if isinstance(parent, Span):
            known = parent.trace_id, parent.span_id, parent.flags, parent.tracestate
            return self._kind(name, kind, *known, self._on_end)
        trace_id, parent_id, flags, tracestate = parent or _NO_PARENT
        trace_id = trace_id or _new_trace_id()
        if flags is None or not self.parent_based:
            sampled = self.ratio == 1 or int(trace_id[16:], 16) < self._bound
            flags = (flags or 0) & ~SAMPLED | sampled
        return self._kind(name, kind, trace_id, parent_id, flags, tracestate, self._on_end)


def _new_trace_id() -> str:
    return (getrandbits(128) or 1).to_bytes(16).hex()


def _describe_call(span: Span, request: HTTPRequest, response: HTTPResponse) -> None:
    """Completes a client span. Its URL is recorded without query and password."""
    method, code = request.method, response.code
    attributes: dict[str, Any] = {"http.request.method": method}
    if method not in METHODS:
        attributes = {"http.request.method": "_OTHER", "http.request.method_original": method}
    if netloc := _netloc(request.url):
        url = urlsplit(request.url)
        attributes["url.full"] = f"{url.scheme}://{netloc}{url.path}"
        attributes["server.address"], attributes["server.port"] = host(netloc, url.scheme)
    if code == NO_ANSWER and response.error:
        attributes["error.type"] = name_of(response.error)
        span.record_exception(response.error)
        span.set_status("ERROR", text(response.error))
    else:
        attributes["http.response.status_code"] = code
        if code >= 400:
            attributes["error.type"] = str(code)
            span.set_status("ERROR")
    span.attributes = attributes


def _netloc(url: str) -> str:
    """Host and port of a URL, without a password; empty if it is none."""
    with contextlib.suppress(ValueError):
        return urlsplit(url).netloc.rpartition("@")[2]
    return ""


def host(netloc: str, scheme: str) -> tuple[str, int]:
    """Name or address, and port."""
    name, port = split_host_and_port(netloc)
    return name.strip("[]"), port or (443 if scheme == "https" else 80)


def as_time(given: Any) -> int:
    """Nanoseconds since 1970, as backends accept them; the current time if it is not a number.

    A backend refuses the whole batch if one time is negative or has a fraction.
    """
    try:
        return min(max(int(given), 0), _TIME_END - 1)
    except BaseException:
        return time_ns()
