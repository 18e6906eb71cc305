"""The seam between the service and whatever observes it.

Every request passes through `Application`, whichever handler serves it: a 404, a
`StaticFileHandler`, a `RedirectHandler` and a WebSocket never see a base class of ours.
"""

import asyncio
import logging
import random
import re
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import Context, ContextVar, copy_context
from functools import cache, lru_cache
from inspect import isclass
from time import perf_counter, time
from types import MappingProxyType, TracebackType
from typing import Any, Literal
from weakref import WeakSet

from tornado import web
from tornado.escape import url_unescape
from tornado.httputil import HTTPHeaders, HTTPServerRequest, format_timestamp
from tornado.iostream import StreamClosedError
from tornado.routing import Matcher, PathMatches, RuleRouter
from tornado.websocket import WebSocketHandler

log = logging.getLogger(__name__)

correlation: ContextVar[Mapping[str, str]] = ContextVar(
    "correlation",
    default=MappingProxyType({}),
)
"""Ids of the work in hand, for log lines and reports; empty outside a request."""

CLIENT_CLOSED_REQUEST = 499
"""Status for a client that went away before its answer was complete, as nginx has it."""

_METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Exchange:
    """One HTTP request and its response."""

    #: As it was when the handler began.
    context: Context
    #: Status code sent; 0 until the exchange has ended.
    status = 0
    #: Seconds from the request's headers to the end of the answer.
    duration = 0.0
    #: The last unhandled exception, but for an `HTTPError` below 500.
    error: BaseException | None = None
    #: Ids that lead from a measurement of this exchange to its record elsewhere.
    exemplar: dict[str, str] | None = None

    def __init__(self, request: HTTPServerRequest, route: str, quiet: bool) -> None:
        #: When the headers had been read, by `time.perf_counter()`.
        self.started = perf_counter()
        self.request = request
        #: Known method, or `_OTHER`: what a client makes up must not become a label.
        self.method = request.method if request.method in _METHODS else "_OTHER"
        #: Template of the matched route such as `/hello/{name}`; empty where none matched.
        self.route = route
        #: True for what is asked all the time: it would drown everything else.
        self.quiet = quiet
        #: The caller's `X-Request-ID` where it is harmless, else one made here.
        self.request_id = _request_id(request.headers)
        #: Ids for log lines and reports of this exchange, which observers add to.
        self.ids = {"request_id": self.request_id}

    @property
    def error_type(self) -> str:
        """OpenTelemetry's `error.type`: an exception's class, a status of 500 and up, or empty."""
        if self.error is not None and not isinstance(self.error, web.HTTPError):
            return type(self.error).__qualname__
        return str(self.status) if self.status >= 500 else ""


class Observer:
    """What a feature does about each exchange.

    The `request_` methods run on the event loop, in a context of the exchange's own: a context
    variable set in `request_started` is seen by the handler and by `request_ended`.
    """

    #: False where handlers must wait for a turn of the event loop's.
    begins_at_once = True

    async def startup(self) -> None:
        """Called once, when the service has begun to listen."""

    def request_started(self, exchange: Exchange) -> None:
        """Called before the handler runs."""

    def request_failed(self, exchange: Exchange, error: BaseException) -> None:
        """Called for each unhandled exception and each `HTTPError` of 500 and up.

        The status is not known yet. It may come after `request_ended`, from a WebSocket's messages
        or from a handler that goes on after `finish()`.
        """

    def request_ended(self, exchange: Exchange) -> None:
        """Called once, when the answer is complete or the client has gone."""

    def totals(self) -> Iterable[tuple[str, str, int]]:
        """What the feature has counted of its own work: name, description and total of each."""
        return ()

    async def shutdown(self) -> None:
        """Called last in a stop: send what is left, within a second and a half."""


class Application(web.Application):
    """Tornado's `Application`, observed.

    `settings` are those of `tornado.web.Application`.
    """

    def __init__(
        self, handlers: Sequence[Any], observers: Sequence[Observer] = (), **settings: Any
    ) -> None:
        super().__init__(list(handlers), **settings)
        _observe(self.default_router)
        #: In the order in which they are told of a start, and in reverse of an end.
        self.observers = observers
        #: Whether handlers begin where the request has been read, and not a turn later.
        self.begins_at_once = all(each.begins_at_once for each in observers)
        #: Run in order once the service listens; it is ready when all have returned.
        self.on_startup: list[Callable[[], Awaitable[None]]] = []
        #: Run in reverse order when the last request has been answered.
        self.on_shutdown: list[Callable[[], Awaitable[None]]] = []
        self.state: Literal["starting", "ready", "draining"] = "starting"
        self.in_flight = 0
        self.websockets: WeakSet[WebSocketHandler] = WeakSet()
        self._without_rule = cache(_observed)

    def add_handlers(self, host_pattern: str, host_handlers: Any) -> None:
        super().add_handlers(host_pattern, host_handlers)
        _observe(self.default_router)

    def get_handler_delegate(
        self,
        request: HTTPServerRequest,
        target_class: Any,
        target_kwargs: dict[str, Any] | None = None,
        path_args: list[bytes] | None = None,
        path_kwargs: dict[str, bytes] | None = None,
    ) -> "_Delegate":
        if not issubclass(target_class, _Observed):  # there is no rule for it, as for a 404
            target_class = self._without_rule(target_class)
        delegate = _Delegate(self, request, target_class, target_kwargs, path_args, path_kwargs)
        delegate.exchange = Exchange(request, target_class.route, target_class.quiet)
        return delegate

    def log_request(self, handler: web.RequestHandler) -> None:
        exchange = exchange_of(handler)
        if exchange.status:
            return
        exchange.status = int(handler.get_status())  # may be an HTTPStatus
        exchange.duration = perf_counter() - exchange.started
        self.in_flight -= 1
        if isinstance(handler, WebSocketHandler) and exchange.status == 101:
            self.websockets.add(handler)
        # Not the handler's own context: a close callback comes from outside of it, and a handler
        # may finish inside of something that it entered.
        exchange.context.run(self._notify_ended, exchange, handler)

    def _notify_started(self, exchange: Exchange) -> None:
        self.in_flight += 1
        correlation.set(exchange.ids)
        for observer in self.observers:
            try:
                observer.request_started(exchange)
            except Exception:
                log.exception("%s failed", type(observer).__qualname__)
        exchange.context = copy_context()

    def _notify_failed(self, exchange: Exchange, error: BaseException) -> None:
        for observer in self.observers:
            try:
                observer.request_failed(exchange, error)
            except Exception:
                log.exception("%s failed", type(observer).__qualname__)

    def _notify_ended(self, exchange: Exchange, handler: web.RequestHandler) -> None:
        for observer in reversed(self.observers):
            try:
                observer.request_ended(exchange)
            except Exception:
                log.exception("%s failed", type(observer).__qualname__)
        super().log_request(handler)


class _Delegate(web._HandlerDelegate):
    """Begins the exchange where the handler begins.

    That is when the body has been read. A request whose body is too large, or whose client goes
    away while sending it, gets a delegate but never a handler, nor an end.
    """

    application: Application
    exchange: Exchange

    def execute(self) -> Awaitable[None] | None:
        # Set in the connection's own context, variables would leak into its next request.
        return copy_context().run(self._execute)

    def _execute(self) -> Awaitable[None] | None:
        self.application._notify_started(self.exchange)
        self.request.exchange = self.exchange  # type: ignore[attr-defined]
        return super().execute()


class _Observed(web.RequestHandler):
    """The part of each handler that no hook of the `Application` can see."""

    application: Application
    #: Template of the route that leads here.
    route = ""
    quiet = False

    def __init__(self, application: Any, request: HTTPServerRequest, **kwargs: Any) -> None:
        # Left there, the two would keep each other, and all they hold, for the garbage collector.
        self.exchange: Exchange = vars(request).pop("exchange")
        super().__init__(application, request, **kwargs)

    def clear(self) -> None:
        # In place of Tornado's own, which takes as long over the date of each answer as the rest of
        # the seam over all it does, and names its version to whoever asks.
        self._headers = HTTPHeaders(
            {
                "Content-Type": "text/html; charset=UTF-8",
                "Date": _http_date(int(time())),
                "X-Request-ID": self.exchange.request_id,
            }
        )
        self.set_default_headers()
        self._write_buffer = []
        self._status_code = 200
        self._reason = "OK"

    # What it returns, Tornado awaits: a coroutine, or a task just as well.
    def _execute(  # type: ignore[override]
        self, transforms: list[web.OutputTransform], *args: bytes, **kwargs: bytes
    ) -> Awaitable[None]:
        coroutine = super()._execute(transforms, *args, **kwargs)
        if sys.version_info >= (3, 12) and self.application.begins_at_once:
            # As Tornado did before it had native coroutines. By way of the event loop it is three
            # turns more until the connection reads again; between two requests of one connection
            # Tornado gives way to the others.
            return asyncio.Task(coroutine, loop=asyncio.get_running_loop(), eager_start=True)
        return coroutine

    def on_connection_close(self) -> None:
        super().on_connection_close()
        if not self.exchange.status:
            # Tornado would let it count as the 200 that nobody got, or never report it at all.
            self.set_status(CLIENT_CLOSED_REQUEST, "Client Closed Request")
            self.application.log_request(self)

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        # Tornado's own messages quote the query string, which may hold what no log should.
        where = f"{self.exchange.method} {self.exchange.route or 'unmatched'}"
        if isinstance(value, web.HTTPError) and value.status_code < 500:
            if message := value.get_message():
                log.warning("%d %s: %s", value.status_code, where, message)
        elif isinstance(value, StreamClosedError) and self.exchange.status == CLIENT_CLOSED_REQUEST:
            log.debug("Client of %s has gone", where)
        elif value is not None:
            self.exchange.error = value
            log.error("Unhandled exception in %s", where, exc_info=(type(value), value, tb))
            self.application._notify_failed(self.exchange, value)


def exchange_of(handler: web.RequestHandler) -> Exchange:
    """The exchange that a handler of an `Application` serves."""
    assert isinstance(handler, _Observed)
    return handler.exchange


def _request_id(headers: HTTPHeaders) -> str:
    if "X-Request-ID" in headers and _REQUEST_ID.fullmatch(headers["X-Request-ID"]):
        return headers["X-Request-ID"]
    return f"{random.getrandbits(128):032x}"


@lru_cache(maxsize=1)
def _http_date(seconds: int) -> str:
    return format_timestamp(seconds)


def _observed(
    handler_class: type[web.RequestHandler], matcher: Matcher | None = None
) -> type[web.RequestHandler]:
    """The same handler, reporting to the seam: `log_exception` is the one place that Tornado sends
    each unhandled exception through, and it can only be overridden in the handler."""
    if issubclass(handler_class, _Observed):
        return handler_class
    names = {
        "__module__": handler_class.__module__,
        "__qualname__": handler_class.__qualname__,
        "route": _template(matcher) if isinstance(matcher, PathMatches) else "",
        "quiet": getattr(handler_class, "quiet", False),
    }
    return type(handler_class.__name__, (_Observed, handler_class), names)


def _observe(router: Any) -> None:
    """Has the handlers of all rules observed."""
    for rule in router.rules:
        target = rule.target
        if isinstance(target, RuleRouter):
            _observe(target)
        elif isclass(target) and issubclass(target, web.RequestHandler):
            rule.target = _observed(target, rule.matcher)


def _template(matcher: PathMatches) -> str:
    """`/hello/{name}` for `/hello/(?P<name>[^/]+)`; a pattern too intricate for that, as it is."""
    names = {index: name for name, index in matcher.regex.groupindex.items()}
    groups = range(1, matcher.regex.groups + 1)
    try:
        path = matcher.reverse(*("{" + str(names.get(group, group)) + "}" for group in groups))
    except ValueError:
        path = None
    return url_unescape(path, plus=False) if path else matcher.regex.pattern.removesuffix("$")
