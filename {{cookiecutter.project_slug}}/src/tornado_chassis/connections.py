"""The connections of an endpoint: how many there may be, and which client each belongs to."""

import asyncio
import errno
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from time import monotonic
from typing import Any
from weakref import WeakSet

from tornado.http1connection import HTTP1ServerConnection
from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPInputError,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream

from .application import Application
from .exchange import address_of
from .rejections import HeadersTimeoutError, connection_closed

# Tornado's defaults are 100 MiB, an hour for an idle connection, and no limit for a body.
LIMITS = {
    "max_body_size": 1024 * 1024,
    "max_buffer_size": 2 * 1024 * 1024,
    "max_header_size": 32 * 1024,
    "idle_connection_timeout": 75.0,
    "body_timeout": 30.0,
}

ACCEPT_AT_ONCE = 128
"""Limits how many are accepted at once, so that new connections do not delay the open ones."""

IDLE_CHECKS = 10
"""How often within `idle_connection_timeout` connections are looked at."""

MIN_IDLE_SECONDS = 1.0
"""How long a connection has to be idle before it may be closed for another one."""

RETRY_SECONDS = 1.0
INCIDENT_SECONDS = 60.0
"""A shortage so soon after the last one belongs to the same incident, and is not logged."""

_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

log = logging.getLogger(__name__)

Networks = Sequence[IPv4Network | IPv6Network]


class Server(HTTPServer):
    """An `HTTPServer` that knows its connections, and limits their number.

    It keeps at most `max_connections`, including WebSockets. To make room for another one, it
    closes the one that has been idle the longest; if none is idle, the new one waits in the kernel.
    It believes what `trusted_proxies` say about a client.
    """

    def initialize(
        self,
        *args: Any,
        max_connections: int | None = None,
        trusted_proxies: Networks = (),
        **kwargs: Any,
    ) -> None:
        super().initialize(*args, **kwargs)
        # Tornado's timers, one for each request, take a twelfth of a request's instructions.
        self._idle_timeout = self.conn_params.header_timeout or 3600.0
        self.conn_params.header_timeout = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._max_connections = max_connections
        self._trusted_proxies = trusted_proxies
        self._streams: WeakSet[_Stream] = WeakSet()
        self._listening: list[socket.socket] = []
        self._is_accepting = False
        self._retry: asyncio.TimerHandle | None = None
        self._incidents: dict[str, float] = {}
        _servers.add(self)

    # Tornado's own method accepts without a limit. If it runs out of file descriptors, it is called
    # again immediately, forever.
    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        self._listening += sockets
        self._resume()

    def stop(self) -> None:
        # Otherwise, connections that the kernel has accepted would be reset.
        for each in self._listening:
            if self._is_accepting:
                self._accept(each, IOLoop.READ)
        self._pause()
        for each in self._listening:
            each.close()
        self._listening.clear()

    def leave_to_parent(self) -> None:
        """Closes its sockets in a child process, which would keep the port and the connections."""
        for each in (*self._listening, *(stream.socket for stream in self._streams)):
            if each:
                each.close()

    def is_open(self) -> bool:
        return any(not stream.closed() for stream in self._streams)

    def is_writing(self, besides: Iterable[IOStream | None] = ()) -> bool:
        """Whether a connection, except for these, still has something to send."""
        return any(stream.writing() for stream in self._streams - set(besides))

    async def close_all_connections(self) -> None:
        for stream in list(self._streams):
            stream.close()
        await super().close_all_connections()

    def start_request(
        self, server_conn: object, request_conn: HTTPConnection
    ) -> HTTPMessageDelegate:
        delegate = super().start_request(server_conn, request_conn)
        if self._trusted_proxies:
            return _Forwarded(delegate, request_conn, self._trusted_proxies)
        return delegate

    def on_close(self, server_conn: object) -> None:
        super().on_close(server_conn)
        application = self.request_callback
        if isinstance(server_conn, HTTP1ServerConnection) and isinstance(application, Application):
            connection_closed(server_conn, application.runtime)

    def _accept(self, listening: socket.socket, events: int) -> None:
        full = f"MAX_CONNECTIONS={self._max_connections} reached"
        for number in range(ACCEPT_AT_ONCE):
            idle = None
            if self._max_connections and len(self._streams) >= self._max_connections:
                if number:  # If another one is waiting, the loop calls again.
                    return
                candidates = self._idle(monotonic() - MIN_IDLE_SECONDS)
                idle = min(candidates, key=lambda each: each.waits_since, default=None)
                if idle is None:
                    self._pause_for(full)
                    return
            try:
                connection, address = listening.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:  # while it waited
                continue
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                self._pause_for(str(error))
                return
            connection.setblocking(False)
            stream = _Stream(self, connection, max_buffer_size=self.max_buffer_size)
            self._streams.add(stream)
            self.handle_stream(stream, address)
            if self._idle_timer is None:
                self._close_idle()
            if idle:
                self._log_once("Closing idle connections: %s", full)
                idle.close()
                # To look for the next one takes long enough to let others have their turn.
                return

    def _idle(self, since: float) -> "list[_Stream]":
        """Those that have waited for a request since this time or longer; not what was detached."""
        streams = (each.stream for each in self._connections)
        return [
            each for each in streams if isinstance(each, _Stream) and each.has_waited_since(since)
        ]

    def _close_idle(self) -> None:
        """Closes each connection whose next request has not come in time; one timer for all."""
        for stream in self._idle(monotonic() - self._idle_timeout):
            stream.close(HeadersTimeoutError())
        # None while there is nothing to look at.
        self._idle_timer = None
        if self._connections:
            loop = asyncio.get_running_loop()
            self._idle_timer = loop.call_later(self._idle_timeout / IDLE_CHECKS, self._close_idle)

    def _pause(self) -> None:
        if self._is_accepting:
            self._is_accepting = False
            for each in self._listening:
                IOLoop.current().remove_handler(each)

    def _pause_for(self, reason: str) -> None:
        self._pause()
        self._log_once("Accepting connections paused: %s", reason)
        if self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(RETRY_SECONDS, self._resume)

    # Once per incident.
    def _log_once(self, message: str, reason: str) -> None:
        now = monotonic()
        if now - self._incidents.get(message, -INCIDENT_SECONDS) >= INCIDENT_SECONDS:
            log.error(message, reason)
        self._incidents[message] = now

    def _resume(self) -> None:
        if self._retry:
            self._retry.cancel()
            self._retry = None
        if not self._is_accepting and self._listening:
            self._is_accepting = True
            for each in self._listening:
                IOLoop.current().add_handler(each, self._accept, IOLoop.READ)

    def _closed(self, stream: "_Stream") -> None:
        self._streams.discard(stream)
        self._resume()


_servers: WeakSet[Server] = WeakSet()


def _leave_to_parent() -> None:
    for server in _servers:
        server.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


class _Stream(IOStream):
    """Notifies its server when it closes, which the stream of a WebSocket would not, and knows how
    long it has waited for a request."""

    #: When it started to wait for the headers of a request, by `time.monotonic()`.
    waits_since = 0.0
    #: What was handled when it was closed: Tornado does not say why it rejects a request.
    closed_for: BaseException | None = None

    def __init__(self, server: Server, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._server = server
        super().set_nodelay(True)

    def set_nodelay(self, value: bool) -> None:
        """Does nothing. Tornado would switch it on and off again for each answer."""

    # Tornado reads the headers of a request by it, and nothing else.
    def read_until_regex(self, regex: bytes, max_bytes: int | None = None) -> Awaitable[bytes]:
        self.waits_since = monotonic()
        return super().read_until_regex(regex, max_bytes)

    def has_waited_since(self, time: float) -> bool:
        """Whether it has waited for a request's headers since this time or longer."""
        return self._read_regex is not None and self.waits_since <= time

    def close(self, exc_info: Any = False) -> None:
        if not self.closed() and isinstance(error := sys.exception(), HTTPInputError):
            self.closed_for = error
        super().close(exc_info)

    def close_fd(self) -> None:
        super().close_fd()
        self._server._closed(self)


class _Forwarded(HTTPMessageDelegate):
    """Takes the client's address and scheme from the headers that trusted proxies set.

    Each proxy appends the address that it received the request from to `X-Forwarded-For`. Read from
    the right, the first address that is not a trusted proxy is the client: what is further left may
    be forged.
    """

    def __init__(
        self, delegate: HTTPMessageDelegate, connection: HTTPConnection, trusted: Networks
    ) -> None:
        self._delegate = delegate
        self._context: Any = connection.context  # type: ignore[attr-defined]
        self._trusted = trusted
        self.data_received = delegate.data_received  # type: ignore[method-assign]
        self.finish = delegate.finish  # type: ignore[method-assign]
        self.on_connection_close = delegate.on_connection_close  # type: ignore[method-assign]

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        context = self._context
        # The context belongs to the connection, and still has the values of the request before.
        context.remote_ip, context.protocol = context.address[0], "http"
        if self._is_trusted(context.remote_ip):
            hops = ",".join(headers.get_list("X-Forwarded-For")).split(",")
            for hop in reversed(hops):
                address = address_of(hop.strip())
                if not address:
                    break
                context.remote_ip = address
                if not self._is_trusted(address):
                    break
            schemes = ",".join(headers.get_list("X-Forwarded-Proto")).split(",")
            if schemes[-1].strip() in ("http", "https"):
                context.protocol = schemes[-1].strip()
        return self._delegate.headers_received(start_line, headers)

    def _is_trusted(self, address: str) -> bool:
        ip = ip_address(address)
        return any(ip in network for network in self._trusted)
