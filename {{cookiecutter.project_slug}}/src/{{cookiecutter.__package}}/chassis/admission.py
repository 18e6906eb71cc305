"""Which requests are accepted, and how long they may run."""

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from ipaddress import ip_address
from math import inf
from time import perf_counter

from tornado.web import FallbackHandler, RequestHandler
from tornado.websocket import WebSocketHandler

from .application import Application, Exchange, Observer, Refusal
from .settings import Settings

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Limit for the bodies of all requests in flight together."""

SWEEP_SECONDS = 0.25
"""How often to look for requests that have run for too long."""

_OVERLOAD = Refusal(
    HTTPStatus.SERVICE_UNAVAILABLE,
    title="The service is overloaded",
    reason="overload",
    headers={"Retry-After": "1"},
)
_OTHER_HOST = Refusal(
    HTTPStatus.MISDIRECTED_REQUEST,
    title="Not one of ADMIN_ALLOWED_HOSTS",
    reason="host",
)


class Overload(Observer):
    """Refuses requests for which there is no room, and ends requests that take too long.

    A handler class may have its own `request_timeout`, in seconds, or None for no limit. None is
    the default for WebSockets, `stream_request_body` and `FallbackHandler`.
    """

    def __init__(self, settings: Settings) -> None:
        self._max_requests = settings.max_requests_in_flight
        self._timeout = settings.request_timeout_seconds or None
        self._application: Application
        self._timer: asyncio.TimerHandle | None = None

    def attach(self, application: Application) -> None:
        self._application = application

    async def startup(self) -> None:
        # One timer for all requests, since most end long before their timeout.
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(SWEEP_SECONDS, self._sweep)

    async def shutdown(self) -> None:
        if self._timer:
            self._timer.cancel()

    def refuse(self, exchange: Exchange) -> Refusal | None:
        application = self._application
        if len(application.exchanges) <= self._max_requests and (
            application.body_bytes <= MAX_BODY_BYTES or not exchange.body_size
        ):
            return None
        if exchange.is_probe:
            return None
        return _OVERLOAD

    def _sweep(self) -> None:
        now = perf_counter()
        for exchange, running in list(self._application.exchanges.items()):
            if running and now - exchange.started >= (seconds := self._seconds(running.handler)):
                running.time_out(seconds)
        self._timer = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def _seconds(self, handler: RequestHandler) -> float:
        is_unlimited = isinstance(handler, WebSocketHandler | FallbackHandler)
        default = None if is_unlimited or handler._stream_request_body else self._timeout
        seconds: float | None = getattr(handler, "request_timeout", default)
        return inf if seconds is None else seconds


class AllowedHosts(Observer):
    """Refuses requests whose `Host` is neither an IP address, nor `localhost`, nor one of these.

    Otherwise a page on the internet could point its own host name at this machine and read what is
    meant for operators only (DNS rebinding).
    """

    def __init__(self, hosts: Sequence[str]) -> None:
        self._hosts = {"localhost", *(host.lower() for host in hosts)}

    def refuse(self, exchange: Exchange) -> Refusal | None:
        host = exchange.request.host_name
        return None if host in self._hosts or _is_address(host) else _OTHER_HOST


def _is_address(host: str) -> bool:
    try:
        ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
