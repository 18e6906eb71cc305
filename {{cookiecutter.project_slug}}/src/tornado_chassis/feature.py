"""What a feature is, and how features learn what happens.

A feature is notified of each request, call and failure. Neither the application nor its handlers
know which features there are.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextvars import copy_context
from time import perf_counter
from typing import Any, Literal, NamedTuple, TypeVarTuple
from weakref import WeakKeyDictionary

from tornado.web import RequestHandler
from tornado.websocket import WebSocketHandler

from .background import Background
from .exchange import Exchange, Networks, Rejection, correlation
from .health import Health

log = logging.getLogger(__name__)

Arguments = TypeVarTuple("Arguments")

Total = tuple[str, str, float] | tuple[str, str, float, Mapping[str, str]]


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


class Call(NamedTuple):
    """One outgoing call, in OpenTelemetry's terms. Each value is from a bounded set."""

    #: Known method, or `_OTHER`.
    method: str
    #: Name or address; `_OTHER` with port 0 for all servers after the first hundred.
    server_address: str
    server_port: int
    #: `http`, `https` or `_OTHER`.
    scheme: str
    #: 0 if there was no response.
    status: int
    #: The class of the exception if there was no response, a status of 400 or higher, or empty.
    error_type: str
    #: In seconds, including redirects and the time spent waiting for a free slot.
    duration: float


class Incident(NamedTuple):
    """One time that the event loop was blocked."""

    #: When it started, in seconds since 1970.
    time: float
    #: How many seconds a timer of the loop was late.
    duration: float
    #: Where most of the time was spent: the innermost frame of the service's own code or, if there
    #: is none, of any code.
    file: str
    line: int
    function: str
    #: Of the exchange that was running; empty if unknown.
    route: str
    request_id: str
    #: As in a traceback, the innermost frame last.
    stack: str

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


class Feature:
    """A feature: what it does about each exchange, and which routes it adds.

    The `request_` methods run on the event loop, in the exchange's own context: a context variable
    set in `request_started` is visible to the handler and to `request_ended`. An exception in one
    of them is logged, and stops neither the request nor the other features.
    """

    #: False if handlers have to wait for the next turn of the event loop.
    eager_start = True
    #: True if this feature writes access lines in place of Tornado's own.
    logs_requests = False
    #: True if this feature measures requests: those of the main port, and probes of the admin port.
    measures_requests = False
    #: What it reads from others: each of these is added to the service once.
    needs: "Sequence[type[Feature]]" = ()

    def attach(self, runtime: "Runtime") -> None:
        """Called once, with what the feature may know of the running application."""

    def routes(self) -> Sequence[Any]:
        """Routes of the main port, before the service's own; they must expose nothing sensitive."""
        return ()

    def admin_routes(self) -> Sequence[Any]:
        """Routes of the admin port, which only operators can reach."""
        return ()

    async def startup(self) -> None:
        """Called once, when the service has started to listen."""

    def reject(self, exchange: Exchange) -> Rejection | None:
        """Called when the headers have been read, before `request_started`. None accepts the
        request. Probe traffic comes here, too."""
        return None

    def reject_body(self, exchange: Exchange) -> Rejection | None:
        """Called for each part of a body that has arrived, if it is held in memory, and when it is
        complete. `Exchange.body_size` includes the part. None accepts it."""
        return None

    def request_rejected(self, reason: str) -> None:
        """Called for each request that never reaches its handler; `reason` is one of a fixed set.

        A request that `reject` rejected, for example because of `overload`, starts and ends like
        any other. One that is `malformed`, `too_large` or not complete in time does not.
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

        The feature that was the last to see the start is the first to see the end.
        """

    def background_failed(self, name: str, error: BaseException) -> None:
        """Called for each exception that ends background work."""

    def call_ended(self, call: Call) -> None:
        """Called for each outgoing call with `AsyncHTTPClient`, in the caller's context.

        A call that is redirected is one call.
        """

    def span_ended(self, part: Any) -> None:
        """Called when a part of the work ends, such as a call or a step, if parts are followed.

        It has a `name`, a `kind`, its own ids and its parent's, and the times when it `started` and
        `ended`, in nanoseconds since 1970; an end of 0 means now. It has `attributes`, and its
        `status` is `ERROR` if it failed, for the reason `status_message`. Not called for a whole
        exchange.
        """

    def loop_blocked(self, incident: Incident) -> None:
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


class Runtime:
    """An application as its features know it: its state, what is in flight, and whom to notify."""

    def __init__(self, features: Sequence[Feature] = ()) -> None:
        #: In the order in which they are notified of a start, and in reverse of an end.
        self.features = tuple(features)
        self.state: Literal["starting", "ready", "draining"] = "starting"
        #: Set when a stop begins.
        self.stopping = asyncio.Event()
        self.health = Health()
        self.background = Background(
            lambda name, error: self.notify(Feature.background_failed, name, error)
        )
        #: The template of each route, and what answers it.
        self.routes: Callable[[], Iterable[tuple[str, Any]]] = tuple
        #: Whether handlers start as soon as the request has been read, and not a turn later.
        self.eager_start = all(each.eager_start for each in features)
        #: Whether a feature writes the access lines.
        self.logs_requests = any(each.logs_requests for each in features)
        #: Each exchange in flight, with its handler once that runs, and what to call with a number
        #: of seconds to end it.
        self.exchanges: dict[Exchange, tuple[RequestHandler, Callable[[float], None]] | None] = {}
        #: Those of them that have not started because their bodies are still arriving.
        self.arriving: set[Exchange] = set()
        #: Sum of the `body_size` of the exchanges in flight.
        self.body_bytes = 0
        #: The open connections and how many there may be, None if not known or not limited; and
        #: whether none of them is idle or free.
        self.connections: Sized | None = None
        self.max_connections: int | None = None
        self.is_full: Callable[[], bool] = lambda: False
        #: Who is believed about a client.
        self.trusted_proxies: Networks = ()
        #: Each open WebSocket, with what counts its messages.
        self.websockets: WeakKeyDictionary[WebSocketHandler, Any] = WeakKeyDictionary()
        #: Bytes held in memory for all of them.
        self.websocket_bytes = 0
        #: Messages of WebSockets by direction, and closed WebSockets by code.
        self.websocket_messages = {"received": 0, "sent": 0}
        self.websocket_closes: Counter[str] = Counter()
        #: By name, those methods that features have of their own: most have few.
        self._hooks: dict[str, list[Callable[..., Any]]] = {
            name: [getattr(each, name) for each in features if getattr(type(each), name) != method]
            for name, method in vars(Feature).items()
            if callable(method)
        }
        #: What of them has failed, and been logged.
        self._failing: set[tuple[Feature, str]] = set()
        self._hooks["request_ended"].reverse()
        for feature in features:
            feature.attach(self)

    @property
    def in_flight(self) -> int:
        """Number of requests that are being received or answered."""
        return len(self.exchanges)

    @property
    def open_websockets(self) -> int:
        """Number of WebSockets that are open now."""
        connections = [each.ws_connection for each in self.websockets]
        return sum(not each.is_closing() for each in connections if each)

    def notify(self, method: Callable[[Any, *Arguments], None], *arguments: *Arguments) -> None:
        """Calls this method of each feature that has one of its own, such as
        `Feature.call_ended`. An exception is logged."""
        _call(self._hooks[method.__name__], *arguments)

    def report_failure(self, exchange: Exchange, error: BaseException) -> None:
        """Notifies the features of an exception that nobody handled."""
        exchange.error = error
        self.notify(Feature.request_failed, exchange, error)

    def span_reporter(self) -> Callable[[Any], None] | None:
        """Notifies the features' `span_ended`; None if none of them has one."""
        hooks = self._hooks["span_ended"]
        return (lambda part: _call(hooks, part)) if hooks else None

    def totals(self) -> Iterator[tuple[str, str, float, Mapping[str, str]]]:
        """What all features have counted: see `Feature.totals`."""
        for name, description, total, *labels in self._all_of("totals"):
            yield name, description, total, dict(*labels)

    def exports(self) -> Iterator[Export]:
        """What all features have sent, see `Feature.exports`."""
        yield from self._all_of("exports")

    def _all_of(self, name: str) -> Iterator[Any]:
        """What the features say, one after another. What one of them raises is logged once, as it
        is asked again and again."""
        for feature in self.features:
            try:
                yield from getattr(feature, name)()
            except Exception:
                if (feature, name) not in self._failing:
                    self._failing.add((feature, name))
                    log.exception("%s.%s failed", type(feature).__qualname__, name)

    def admit(self, exchange: Exchange, size: int, is_body: bool = False) -> Rejection | None:
        """Counts what an exchange takes in memory, or a part of its body, and asks the features
        whether to reject it."""
        self.exchanges.setdefault(exchange)
        if size:
            exchange.body_size += size
            self.body_bytes += size
        for hook in self._hooks["reject_body" if is_body else "reject"]:
            try:
                rejection: Rejection | None = hook(exchange)
            except Exception:
                log.exception("%s failed", hook.__qualname__)
                continue
            if rejection:
                self.notify(Feature.request_rejected, rejection.reason)
                return rejection
        return None

    def end(self, exchange: Exchange, status: int) -> None:
        exchange.status = status
        exchange.duration = perf_counter() - exchange.started
        self.forget(exchange)
        # Not the handler's own context: a close callback runs outside of it, and a handler may
        # finish within a context that it has entered.
        exchange.context.run(_call, self._hooks["request_ended"], exchange)

    def forget(self, exchange: Exchange) -> None:
        self.exchanges.pop(exchange, None)
        self.arriving.discard(exchange)
        self.body_bytes -= exchange.body_size
        exchange.body_size = 0

    def start(self, exchange: Exchange) -> None:
        exchange.has_started = True
        correlation.set(exchange.ids)
        _call(self._hooks["request_started"], exchange)
        exchange.context = copy_context()


def _call(hooks: Iterable[Callable[..., None]], *args: Any) -> None:
    for hook in hooks:
        try:
            hook(*args)
        except Exception:
            log.exception("%s failed", getattr(hook, "__qualname__", hook))
