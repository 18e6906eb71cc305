"""Spans that are recorded for a backend, described following OpenTelemetry's conventions.

They are written by hand because a span of OpenTelemetry's SDK adds 51 microseconds of CPU time to a
request, while a span whose attributes are put together once, at its end, adds 14.
"""

import contextlib
import traceback
from collections.abc import Callable, Mapping, Sequence
from ssl import SSLContext
from time import perf_counter, time_ns
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from tornado.httpclient import HTTPRequest, HTTPResponse
from tornado.httputil import split_host_and_port
from tornado.web import Finish, HTTPError

from ..client import NO_ANSWER
from ..exchange import METHODS, Exchange
from .tracer import Span as _Span

LIMIT = 128
"""Limit of a span's attributes, of its events and of its links, as in OpenTelemetry's SDK."""

TEXT_CHARACTERS = 32 * 1024
"""Maximum length of an exception's message and stack trace; longer ones are cut in the middle."""

CLIENT_CHARACTERS = 255
"""Longest host or method that is kept. Clients may invent longer ones, but none exist."""

_TIME_END = 1 << 63


class Event(NamedTuple):
    name: str
    time: int
    attributes: Mapping[str, Any]


class Link(NamedTuple):
    trace_id: str
    span_id: str
    attributes: Mapping[str, Any]


class Recurring:
    """Attributes that many spans have in common, and that are therefore encoded only once."""

    __slots__ = ("attributes", "encoded")

    def __init__(self, attributes: Mapping[str, Any]) -> None:
        self.attributes = attributes
        #: Set by the backend when it is first needed.
        self.encoded = ""


class Backend(Protocol):
    """Where spans are sent, and in which format.

    Without `url`, which the variable `setting` has, they are not. `timeout` is in seconds. `proxy`
    is its URL, or empty; `tls` secures connections in another way than usual.
    """

    name: str
    setting: str
    url: str
    headers: dict[str, str]
    timeout: float
    proxy: str
    tls: SSLContext | None

    def encode(self, span: "Span") -> str: ...
    def body(self, spans: Sequence[str]) -> bytes: ...


class Span(_Span):
    """A span that keeps what is set, if it has an `on_end` and its trace is sampled."""

    attributes: dict[str, Any] = {}  # noqa: RUF012 (never changed, only replaced)
    recurring: Recurring | None = None
    events: Sequence[Event] = ()
    links: Sequence[Link] = ()
    #: The name of an OpenTelemetry `StatusCode`.
    status = "UNSET"
    status_message = ""
    #: Name and version of the library that made the span; empty for the service's own.
    scope = ""
    scope_version = ""

    def set_attribute(self, key: str, value: Any) -> None:
        if self.recording and (len(self.attributes) < LIMIT or key in self.attributes):
            if not self.attributes:
                self.attributes = {}
            self.attributes[key] = value

    def add_event(
        self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None
    ) -> None:
        if self.recording and len(self.events) < LIMIT:
            self.events = [*self.events, Event(name, as_time(timestamp), attributes or {})]

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        if self.recording:
            kind = type(exception)
            module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
            described = {
                "exception.type": module + kind.__qualname__,
                "exception.message": cut(str(exception)),
                "exception.stacktrace": cut("".join(traceback.format_exception(exception))),
            }
            self.add_event("exception", {**described, **(attributes or {})}, timestamp)

    def set_status(self, status: Any, description: str | None = None) -> None:
        """`status` is the name of a `StatusCode`."""
        # OK is final, and nothing changes back to unset.
        if self.recording and self.status != "OK" and status != "UNSET":
            self.status = status
            self.status_message = cut(description or "")

    def fail(self, error: BaseException) -> None:
        """Records an exception that leaves the span, if it is more than a response to the
        client."""
        if isinstance(error, HTTPError):
            is_failure = error.status_code >= 500
        else:
            is_failure = isinstance(error, Exception) and not isinstance(error, Finish)
        if is_failure:
            self.record_exception(error)
            self.set_status("ERROR", f"{type(error).__qualname__}: {error}")

    def end(self, end_time: int | None = None) -> None:
        if self.recording:
            self.recording = False
            self.ended = as_time(end_time)
            self._on_end(self)


def end_exchange(
    span: Span, exchange: Exchange, describe: Callable[..., tuple[str, Recurring]]
) -> None:
    """Completes a server span, and ends it. `describe` is the function below, with a cache."""
    request = exchange.request
    error = exchange.error_type
    name, recurring = describe(
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
    if error and span.status == "UNSET":
        span.status = "ERROR"
    # Not the current time, because other features have run since the end.
    span.started = time_ns() - int((perf_counter() - exchange.started) * 1e9)
    span.ended = span.started + int(exchange.duration * 1e9)
    span.recording = False
    span._on_end(span)


def describe(
    method: str, route: str, status: int, error: str, scheme: str, host: str, version: str
) -> tuple[str, Recurring]:
    """The name of a server span, and the attributes that it has in common with others."""
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


def describe_call(span: Span, request: HTTPRequest, response: HTTPResponse) -> None:
    """Completes a client span. Its URL is recorded without query and password."""
    method, code = request.method, response.code
    attributes: dict[str, Any] = {"http.request.method": method}
    if method not in METHODS:
        attributes = {"http.request.method": "_OTHER", "http.request.method_original": method}
    with contextlib.suppress(ValueError):  # not a URL, which is why the call failed
        url = urlsplit(request.url)
        netloc = url.netloc.rpartition("@")[2]
        attributes["url.full"] = f"{url.scheme}://{netloc}{url.path}"
        attributes["server.address"], attributes["server.port"] = _host(netloc, url.scheme)
    if code == NO_ANSWER and response.error:
        attributes["error.type"] = type(response.error).__qualname__
        span.record_exception(response.error)
        span.set_status("ERROR", str(response.error))
    else:
        attributes["http.response.status_code"] = code
        if code >= 400:
            attributes["error.type"] = str(code)
            span.set_status("ERROR")
    span.attributes = attributes


def _host(host: str, scheme: str) -> tuple[str, int]:
    """Name or address, and port."""
    name, port = split_host_and_port(host)
    return name.strip("[]"), port or (443 if scheme == "https" else 80)


def make_link(context: Any, attributes: Mapping[str, Any] | None) -> Link:
    """A link to the span of an OpenTelemetry `SpanContext`."""
    return Link(f"{context.trace_id:032x}", f"{context.span_id:016x}", attributes or {})


def as_time(given: Any) -> int:
    """Nanoseconds since 1970, as backends accept them; the current time if it is not a number.

    A backend refuses the whole batch if one time is negative or has a fraction.
    """
    if given is None:
        return time_ns()
    try:
        return min(max(int(given), 0), _TIME_END - 1)
    except (TypeError, ValueError, OverflowError):
        return time_ns()


def cut(text: str) -> str:
    if len(text) <= TEXT_CHARACTERS:
        return text
    kept = TEXT_CHARACTERS // 2 - 32
    return f"{text[:kept]} ... {len(text) - 2 * kept} characters cut ... {text[-kept:]}"
