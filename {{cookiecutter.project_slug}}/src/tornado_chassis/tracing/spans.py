"""Spans that are recorded for a backend, described following OpenTelemetry's conventions.

They are written by hand because a span of OpenTelemetry's SDK adds 51 microseconds of CPU time to a
request, while a span whose attributes are put together once, at its end, adds 14.
"""

from collections.abc import Callable, Mapping, Sequence
from ssl import SSLContext
from time import perf_counter, time_ns
from typing import Any, NamedTuple, Protocol

from ..exchange import Exchange
from ..values import TEXT_CHARACTERS, cut, name_of, stack, text
from .tracer import LIMIT, host
from .tracer import Span as _Span

SPAN_CHARACTERS = 16 * TEXT_CHARACTERS
"""Of a longer span, attributes are cut or dropped, since a backend may refuse its whole batch."""

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
    dropped_attributes: int

    def encode(self, span: "Span") -> str: ...
    def body(self, spans: Sequence[str]) -> bytes: ...


class Encoding:
    """How a backend's format has spans, and their attributes."""

    def __init__(
        self, encode: Callable[["Span"], str], attributes: Callable[[Mapping[str, Any]], str]
    ) -> None:
        self._encode = encode
        self._attributes = attributes
        #: How many attributes had no room, or could not be encoded.
        self.dropped_attributes = 0

    def encode(self, span: "Span") -> str:
        """The span, without those attributes that fail, or that make it too long."""
        try:
            encoded = self._encode(span)
            is_whole = len(encoded) <= SPAN_CHARACTERS
        except BaseException:  # It may be what a value raises.
            is_whole = False
        if not is_whole:
            self._repair(span)
            encoded = self._encode(span)
        self.dropped_attributes += span.dropped_attributes
        return encoded

    def _repair(self, span: "Span") -> None:
        room = SPAN_CHARACTERS

        def kept(attributes: Mapping[str, Any]) -> dict[str, Any]:
            nonlocal room
            found = {}
            for key, value in attributes.items():
                try:
                    short = cut(value) if type(value) is str else value
                    size = len(self._attributes({key: short}))
                    if size <= room:
                        found[key] = short
                        room -= size
                        continue
                except BaseException:
                    pass
                span.dropped_attributes += 1
            return found

        span.name = cut(text(span.name))
        span.attributes = kept(span.attributes)
        span.events = [Event(cut(text(name)), at, kept(own)) for name, at, own in span.events]
        span.links = [link._replace(attributes=kept(link.attributes)) for link in span.links]


class Span(_Span):
    """A span that also keeps what only a backend shows."""

    recurring: Recurring | None = None
    events: Sequence[Event] = ()
    links: Sequence[Link] = ()
    #: Name and version of the library that made the span; empty for the service's own.
    scope = ""
    scope_version = ""

    def add_event(
        self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None
    ) -> None:
        if self.recording and len(self.events) < LIMIT:
            self.events = [*self.events, Event(name, as_time(timestamp), copied(attributes))]

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        if self.recording:
            module = text(type(exception), lambda kind: kind.__module__)
            described = {
                "exception.type": f"{module}.{name_of(exception)}".removeprefix("builtins."),
                "exception.message": cut(text(exception)),
                "exception.stacktrace": cut(stack(exception)),
            }
            self.add_event("exception", {**described, **copied(attributes)}, timestamp)

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
    method: str, route: str, status: int, error: str, scheme: str, netloc: str, version: str
) -> tuple[str, Recurring]:
    """The name of a server span, and the attributes that it has in common with others."""
    name, port = host(netloc, scheme)
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


def make_link(context: Any, attributes: Mapping[str, Any] | None) -> Link:
    """A link to the span of an OpenTelemetry `SpanContext`."""
    return Link(f"{context.trace_id:032x}", f"{context.span_id:016x}", copied(attributes))


def as_time(given: Any) -> int:
    """Nanoseconds since 1970, as backends accept them; the current time if it is not a number.

    A backend refuses the whole batch if one time is negative or has a fraction.
    """
    if given is None:
        return time_ns()
    try:
        return min(max(int(given), 0), _TIME_END - 1)
    except BaseException:
        return time_ns()


def copied(attributes: Any) -> dict[str, Any]:
    """Attributes as they are now; none if that is no mapping."""
    try:
        return {} if attributes is None else dict(attributes)
    except BaseException:
        return {}
