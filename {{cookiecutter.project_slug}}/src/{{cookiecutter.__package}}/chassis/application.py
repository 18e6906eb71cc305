"""The request hooks: what is known about each request, and which observers are notified.

Every request passes through `Application`, whichever handler serves it. A base class for handlers
would miss 404s, `StaticFileHandler`, `RedirectHandler` and WebSockets.
"""

import logging
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import Context, ContextVar, copy_context
from time import perf_counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

from tornado import web
from tornado.escape import url_unescape
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerRequest,
)
from tornado.routing import Matcher, PathMatches, ReversibleRouter, RuleRouter
from tornado.websocket import WebSocketHandler

from .observed import Incoming, Running, Socket, Wsgi

if TYPE_CHECKING:
    from .client import Call
    from .watch import Incident

log = logging.getLogger(__name__)

correlation: ContextVar[Mapping[str, str]] = ContextVar(
    "correlation",
    default=MappingProxyType({}),
)
"""Ids of the current work, for log lines and reports; empty outside a request."""

METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Exchange:
    """One HTTP request and its response."""

    #: As it was when the handler started.
    context: Context
    has_started = False
    #: Status code sent; 0 until the exchange has ended.
    status = 0
    #: Seconds from the request's headers to the end of the response.
    duration = 0.0
    #: The last unhandled exception, except for an `HTTPError` below 500.
    error: BaseException | None = None
    #: Ids that connect a measurement of this exchange with a record of it elsewhere.
    exemplar: dict[str, str] | None = None
    #: Bytes of the body that are, or will be, in memory until the exchange has ended.
    body_size = 0

    def __init__(self, request: HTTPServerRequest, route: str, is_probe: bool) -> None:
        #: When the headers had been read, by `time.perf_counter()`.
        self.started = perf_counter()
        self.request = request
        #: A known method, or `_OTHER`: clients must not be able to create labels.
        self.method = request.method if request.method in METHODS else "_OTHER"
        #: Template of the matched route, such as `/hello/{name}`; empty if none matched.
        self.route = route
        #: True for probe traffic, which would drown out everything else.
        self.is_probe = is_probe
        #: The caller's `X-Request-ID` if it is harmless, otherwise a new one.
        self.request_id = _request_id(request.headers)
        #: Ids for log lines and reports of this exchange. Observers add to them.
        self.ids = {"request_id": self.request_id}

    def __str__(self) -> str:
        # Without the path, because log messages are grouped by their text.
        return f"{self.method} {self.route or 'unmatched'}"

    @property
    def error_type(self) -> str:
        """OpenTelemetry's `error.type`: an exception's class, a status of 500 and up, or empty."""
        if self.error is not None and not isinstance(self.error, web.HTTPError):
            return type(self.error).__qualname__
        return str(self.status) if self.status >= 500 else ""


Total = tuple[str, str, float] | tuple[str, str, float, Mapping[str, str]]


class Refusal(NamedTuple):
    """A response in place of the handler's, sent before the request's body is read."""

    status: int
    #: Shown to the client as the title of the problem.
    title: str
    #: The reason, one word from a small set, for `Observer.request_refused`.
    reason: str
    headers: Mapping[str, str] = MappingProxyType({})


class Export(NamedTuple):
    """What became of what a feature sends to a backend, since the start."""

    #: Name of the backend.
    backend: str
    #: What is counted, such as `events`.
    unit: str
    #: How many were sent, and accepted if the backend answers; None without an address.
    sent: int | None = None
    #: How many were lost; None where nothing can be.
    dropped: int | None = None


class Observer:
    """A feature: what it does about each exchange, and which routes it adds.

    The `request_` methods run on the event loop, in the exchange's own context: a context variable
    set in `request_started` is visible to the handler and to `request_ended`. An exception in one
    of them is logged, and stops neither the request nor the other observers.
    """

    #: False if handlers have to wait for the next turn of the event loop.
    eager_start = True
    #: True if this observer writes access lines in place of Tornado's own.
    logs_requests = False

    def attach(self, application: "Application") -> None:
        """Called once, with the observed application."""

    def routes(self) -> Sequence[Any]:
        """Routes of the main port, before the service's own; they must expose nothing sensitive."""
        return ()

    def admin_routes(self) -> Sequence[Any]:
        """Routes of the admin port, which only operators can reach."""
        return ()

    async def startup(self) -> None:
        """Called once, when the service has started to listen."""

    def refuse(self, exchange: Exchange) -> Refusal | None:
        """Called when the headers have been read, before `request_started`. None accepts the
        request. Probe traffic comes here, too."""
        return None

    def request_refused(self, reason: str) -> None:
        """Called for each request that never reaches its handler; `reason` is one of a fixed set.

        A request that `refuse` refused, for example because of `overload`, starts and ends like any
        other. One that is `malformed`, `too_large` or not complete in time does not.
        """

    def request_started(self, exchange: Exchange) -> None:
        """Called before the handler runs."""

    def request_failed(self, exchange: Exchange, error: BaseException) -> None:
        """Called for each unhandled exception and each `HTTPError` of 500 or higher.

        The status is not known yet. The call may come after `request_ended`, from a WebSocket's
        messages or from a handler that goes on after `finish()`.
        """

    def request_ended(self, exchange: Exchange) -> None:
        """Called once, when the response is complete or the client has disconnected.

        The observer that was the last to see the start is the first to see the end.
        """

    def background_failed(self, name: str, error: BaseException) -> None:
        """Called for each exception that ends background work."""

    def call_ended(self, call: "Call") -> None:
        """Called for each outgoing call with `AsyncHTTPClient`, in the caller's context.

        A call that is redirected is one call.
        """

    def span_ended(self, part: Any) -> None:
        """Called when a part of the work ends, such as a call or a step, if parts are followed.

        It has a `name`, a `kind`, its own ids and its parent's, and the times when it `started` and
        `ended`, in nanoseconds since 1970; an end of 0 means now. Not called for a whole exchange.
        """

    def loop_blocked(self, incident: "Incident") -> None:
        """Called when the event loop runs again after it was blocked for longer than allowed."""

    def totals(self) -> Iterable[Total]:
        """What the feature has counted: name, description and total of each count, and labels if
        there are several of one name."""
        return ()

    def exports(self) -> Iterable[Export]:
        """What the feature has sent to its backends; empty where it has none."""
        return ()

    async def shutdown(self) -> None:
        """Called at the end of a stop, to send what is left within a second and a half."""


class Application(web.Application):
    """Tornado's `Application`, observed.

    `settings` are those of `tornado.web.Application`.
    """

    def __init__(
        self, handlers: Sequence[Any], observers: Sequence[Observer] = (), **settings: Any
    ) -> None:
        super().__init__(list(handlers), **settings)
        _name_routes(self.default_router)
        #: In the order in which they are notified of a start, and in reverse of an end.
        self.observers = tuple(observers)
        #: Whether handlers start as soon as the request has been read, and not a turn later.
        self.eager_start = all(each.eager_start for each in observers)
        self.state: Literal["starting", "ready", "draining"] = "starting"
        #: Each exchange in flight, with its handler once that has started.
        self.exchanges: dict[Exchange, Running | None] = {}
        #: Sum of the `body_size` of the exchanges in flight.
        self.body_bytes = 0
        self.websockets: WeakKeyDictionary[WebSocketHandler, Socket] = WeakKeyDictionary()
        #: Bytes held in memory for all of them: see `Socket`.
        self.websocket_bytes = 0
        #: Messages of WebSockets by direction, and closed WebSockets by code.
        self.websocket_messages = {"received": 0, "sent": 0}
        self.websocket_closes: Counter[str] = Counter()
        self._logs_requests = any(each.logs_requests for each in observers)
        # Only methods that do something: most observers implement few of them.
        self._on_headers = _overridden(observers, "refuse")
        self._on_refusal = _overridden(observers, "request_refused")
        self._on_start = _overridden(observers, "request_started")
        self._on_failure = _overridden(observers, "request_failed")
        self._on_end = _overridden(observers, "request_ended")[::-1]
        self._on_background_failure = _overridden(observers, "background_failed")
        self._on_call_end = _overridden(observers, "call_ended")
        self._on_span_end = _overridden(observers, "span_ended")
        self._on_blocked_loop = _overridden(observers, "loop_blocked")
        for observer in observers:
            observer.attach(self)

    @property
    def in_flight(self) -> int:
        """Number of requests that are being received or answered."""
        return len(self.exchanges)

    @property
    def open_websockets(self) -> int:
        """Number of WebSockets that are open now."""
        connections = [each.ws_connection for each in self.websockets]
        return sum(not each.is_closing() for each in connections if each)

    def add_handlers(self, host_pattern: str, host_handlers: Any) -> None:
        super().add_handlers(host_pattern, host_handlers)
        _name_routes(self.default_router)

    def start_request(
        self, server_conn: object, request_conn: HTTPConnection
    ) -> HTTPMessageDelegate:
        return Incoming(self, server_conn, request_conn)

    def exchange(self, request: HTTPServerRequest, route: str, handler_class: Any) -> Exchange:
        return Exchange(request, route, getattr(handler_class, "is_probe", False))

    def log_request(self, handler: web.RequestHandler) -> None:
        if not self._logs_requests:
            super().log_request(handler)

    def report_failure(self, exchange: Exchange, error: BaseException) -> None:
        """Notifies the observers of an exception that nobody handled."""
        exchange.error = error
        _notify(self._on_failure, exchange, error)

    def report_background_failure(self, name: str, error: BaseException) -> None:
        """Notifies the observers of an exception that ended background work."""
        _notify(self._on_background_failure, name, error)

    def span_reporter(self) -> Callable[[Any], None] | None:
        """Notifies the observers' `span_ended`; None if none of them has one."""
        hooks = self._on_span_end
        return (lambda part: _notify(hooks, part)) if hooks else None

    def report_refusal(self, reason: str) -> None:
        """Notifies the observers of a request that never reaches its handler."""
        _notify(self._on_refusal, reason)

    def report_call(self, call: "Call") -> None:
        """Notifies the observers of an outgoing call that has ended."""
        _notify(self._on_call_end, call)

    def report_blocked_loop(self, incident: "Incident") -> None:
        """Notifies the observers that something has blocked the event loop."""
        _notify(self._on_blocked_loop, incident)

    def totals(self) -> Iterator[tuple[str, str, float, Mapping[str, str]]]:
        """What all observers have counted: see `Observer.totals`."""
        for observer in self.observers:
            for name, description, total, *labels in observer.totals():
                yield name, description, total, dict(*labels)

    def exports(self) -> Iterator[Export]:
        """What all observers have sent, see `Observer.exports`."""
        for observer in self.observers:
            yield from observer.exports()

    def _admit(self, exchange: Exchange, body_size: int) -> Refusal | None:
        """Counts an exchange as in flight, and asks the observers whether to refuse it."""
        self.exchanges[exchange] = None
        exchange.body_size = body_size
        self.body_bytes += body_size
        for hook in self._on_headers:
            try:
                refusal: Refusal | None = hook(exchange)
            except Exception:
                log.exception("%s failed", hook.__qualname__)
                continue
            if refusal:
                self.report_refusal(refusal.reason)
                return refusal
        return None

    def _end(self, exchange: Exchange, status: int) -> None:
        exchange.status = status
        exchange.duration = perf_counter() - exchange.started
        self._forget(exchange)
        # Not the handler's own context: a close callback runs outside of it, and a handler may
        # finish within a context that it has entered.
        exchange.context.run(_notify, self._on_end, exchange)

    def _forget(self, exchange: Exchange) -> None:
        self.exchanges.pop(exchange, None)
        self.body_bytes -= exchange.body_size
        exchange.body_size = 0

    def _start(self, exchange: Exchange) -> None:
        exchange.has_started = True
        correlation.set(exchange.ids)
        _notify(self._on_start, exchange)
        exchange.context = copy_context()


def _overridden(observers: Sequence[Observer], name: str) -> list[Callable[..., None]]:
    return [
        getattr(each, name)
        for each in observers
        if getattr(type(each), name) is not getattr(Observer, name)
    ]


def _notify(hooks: Iterable[Callable[..., None]], *args: object) -> None:
    for hook in hooks:
        try:
            hook(*args)
        except Exception:
            log.exception("%s failed", getattr(hook, "__qualname__", hook))


def _request_id(headers: HTTPHeaders) -> str:
    if "X-Request-ID" in headers and _REQUEST_ID.fullmatch(headers["X-Request-ID"]):
        return headers["X-Request-ID"]
    return random.getrandbits(128).to_bytes(16).hex()


class _Arguments(dict[str, Any]):
    """A rule's arguments for its handler, and beside them the template of its route."""

    route = ""

    def __bool__(self) -> bool:
        return True  # or Tornado would not pass them on


class _Target(ReversibleRouter):
    """The target of a rule that is no handler, with the template of its route."""

    def __init__(self, target: Any, route: str) -> None:
        self._target = target
        self.route = route

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> HTTPMessageDelegate | None:
        delegate = _ROUTER.get_target_delegate(self._target, request, **kwargs)
        if delegate is not None:
            request.connection.route = self.route  # type: ignore[union-attr]
        return delegate

    def reverse_url(self, name: str, *args: Any) -> str | None:
        is_reversible = isinstance(self._target, ReversibleRouter)
        return self._target.reverse_url(name, *args) if is_reversible else None


_ROUTER = RuleRouter()


def _name_routes(router: Any) -> None:
    """Lets each rule pass the template of its route, beside the handler's arguments."""
    for rule in router.rules:
        target = rule.target
        if isinstance(target, RuleRouter):
            _name_routes(target)
        elif isinstance(target, type) and issubclass(target, web.RequestHandler):
            rule.target_kwargs = _Arguments(rule.target_kwargs or {})
            rule.target_kwargs.route = _template(rule.matcher)
            if issubclass(target, web.FallbackHandler):
                fallback = rule.target_kwargs.get("fallback")
                if handle_request := getattr(fallback, "handle_request", None):
                    rule.target_kwargs["fallback"] = Wsgi(handle_request)
        elif not isinstance(target, _Target):
            rule.target = _Target(target, _template(rule.matcher))


def route_of(rule: Any) -> str:
    """The template of a rule's route; empty if it has none."""
    return str(getattr(rule.target_kwargs, "route", ""))


def _template(matcher: Matcher) -> str:
    """`/hello/{name}` for `/hello/(?P<name>[^/]+)`; a pattern that is too complex, unchanged."""
    if not isinstance(matcher, PathMatches):
        return ""
    names = {index: name for name, index in matcher.regex.groupindex.items()}
    groups = range(1, matcher.regex.groups + 1)
    try:
        path = matcher.reverse(*("{" + str(names.get(group, group)) + "}" for group in groups))
    except ValueError:
        path = None
    return url_unescape(path, plus=False) if path else matcher.regex.pattern.removesuffix("$")
