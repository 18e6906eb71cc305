"""Which requests are accepted, and how long they may run."""

import logging
from http import HTTPStatus
from math import inf
from time import perf_counter
from typing import Any
from weakref import WeakSet

from tornado.ioloop import PeriodicCallback
from tornado.web import FallbackHandler, RequestHandler
from tornado.websocket import WebSocketHandler

from .exchange import Exchange, Rejection
from .feature import Feature, Runtime
from .settings.server import ServerSettings

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 48 * 1024 * 1024
"""Limit for what all requests in flight hold together: their bodies, and long lists of arguments.
Where a body may be longer than usual, there is room for one in addition."""

USUAL_BODY_BYTES = 1024 * 1024

SWEEP_SECONDS = 0.25
"""How often to look for requests that have run for too long."""

_OVERLOAD = Rejection(
    HTTPStatus.SERVICE_UNAVAILABLE,
    title="The service is overloaded",
    reason="overload",
    headers={"Retry-After": "1"},
)


class Limits(Feature):
    """Rejects requests for which there is no room, and ends requests that take too long.

    A handler class may have its own `request_timeout`, in seconds, or None for no limit. None is
    the default for WebSockets, `stream_request_body` and `FallbackHandler`.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._max_requests = settings.max_requests_in_flight
        self._extra_bytes = max(settings.max_body_bytes - USUAL_BODY_BYTES, 0)
        self._timeout = settings.request_timeout_seconds or None
        self._runtime: Runtime
        # One timer for all requests, since most end long before their timeout.
        self._timer = PeriodicCallback(self._sweep, 1000 * SWEEP_SECONDS)
        #: Classes of handlers whose `request_timeout` is wrong.
        self._warned: WeakSet[type[RequestHandler]] = WeakSet()

    def attach(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def startup(self) -> None:
        self._timer.start()

    async def shutdown(self) -> None:
        self._timer.stop()

    def reject(self, exchange: Exchange) -> Rejection | None:
        is_exempt = exchange.is_probe and exchange not in self._runtime.arriving
        return None if is_exempt or self._has_room(exchange, needs_place=True) else _OVERLOAD

    def reject_body(self, exchange: Exchange) -> Rejection | None:
        is_complete = exchange not in self._runtime.arriving
        return None if self._has_room(exchange, needs_place=is_complete) else _OVERLOAD

    def _has_room(self, exchange: Exchange, *, needs_place: bool) -> bool:
        runtime = self._runtime
        if needs_place:
            # Other requests whose bodies have not arrived are in nobody's way.
            arriving = len(runtime.arriving) - (exchange in runtime.arriving)
            if len(runtime.exchanges) - arriving > self._max_requests:
                return False
        limit = MAX_BODY_BYTES + self._extra_bytes
        return not exchange.body_size or runtime.body_bytes <= limit

    def _sweep(self) -> None:
        now = perf_counter()
        for exchange, running in list(self._runtime.exchanges.items()):
            if running:
                handler, time_out = running
                if now - exchange.started >= (seconds := self._seconds(handler)):
                    time_out(seconds)

    def _seconds(self, handler: RequestHandler) -> float:
        is_unlimited = isinstance(handler, WebSocketHandler | FallbackHandler)
        default = None if is_unlimited or handler._stream_request_body else self._timeout
        try:
            seconds: Any = getattr(handler, "request_timeout", default)
            if seconds is None:
                return inf
            if seconds >= 0 and isinstance(seconds, int | float):
                return seconds
            error = f"{seconds!r} is not a number of seconds"
        except Exception as raised:
            error = repr(raised)
        if type(handler) not in self._warned:
            self._warned.add(type(handler))
            log.error("Ignoring request_timeout of %s: %s", type(handler).__qualname__, error)
        return inf if default is None else default
