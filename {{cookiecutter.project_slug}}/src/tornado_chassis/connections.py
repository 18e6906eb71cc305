"""The connections of an endpoint: how many there may be, and which client each belongs to."""

import asyncio
import errno
import logging
import os
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from math import inf
from time import monotonic
from typing import Any
from weakref import WeakSet

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPInputError
from tornado.ioloop import IOLoop, PeriodicCallback
from tornado.iostream import IOStream, UnsatisfiableReadError

from .application import Application
from .exchange import Networks
from .rejections import TORNADOS_ANSWER, answer, rejected, status_of
from .settings.server import ServerSettings

# Tornado's default for the buffer is 100 MiB.
LIMITS = {"max_buffer_size": 2 * 1024 * 1024, "max_header_size": 32 * 1024}

MAX_HEADERS = 100

BACKLOG = 1024
"""How many connections may wait in the kernel to be accepted."""

ACCEPT_AT_ONCE = 128
"""Limits how many are accepted at once, so that new connections do not delay the open ones."""

IDLE_CHECKS = 10
"""How often within the shortest timeout connections are looked at."""

READ_BYTES = 16 * 1024
"""How much to read at once: what has arrived beyond a request's headers, each connection holds."""

LINGER_SECONDS = 5.0
"""How long to drop what a client still sends, so that it can read why it was rejected."""

MIN_IDLE_SECONDS = 1.0
"""How long a connection has to be idle before it may be closed for another one."""

RETRY_SECONDS = 1.0
INCIDENT_SECONDS = 60.0
"""A shortage so soon after the last one belongs to the same incident, and is not logged."""

_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

log = logging.getLogger(__name__)


def limits(settings: ServerSettings) -> dict[str, Any]:
    """The arguments of a `Server` for these settings, but for `max_connections`."""
    return {
        **LIMITS,
        "max_body_size": settings.max_body_bytes,
        "max_unread_bytes": settings.max_unread_bytes,
        "idle_connection_timeout": settings.idle_timeout_seconds or inf,
        "body_timeout": settings.receive_timeout_seconds or None,
        "stall_timeout": settings.stall_timeout_seconds or inf,
        "trusted_proxies": settings.trusted_proxies,
    }


class Server(HTTPServer):
    """An `HTTPServer` that knows its connections, and limits their number.

    It keeps at most `max_connections`, including WebSockets. To make room for another one, it
    closes the one that has been idle the longest; if none is idle, the new one waits in the kernel.
    It keeps at most `max_unread_bytes` for all clients together until they read it, and closes a
    connection on which nothing arrives or is read for `stall_timeout` seconds.
    It believes what `trusted_proxies` say about a client.
    """

    def initialize(
        self,
        *args: Any,
        max_connections: int | None = None,
        max_unread_bytes: float = inf,
        stall_timeout: float = inf,
        trusted_proxies: Networks = (),
        **kwargs: Any,
    ) -> None:
        super().initialize(*args, **kwargs)
        # Tornado's timers, one for each request, take a twelfth of a request's instructions.
        self._idle_timeout = self.conn_params.header_timeout or inf
        self.conn_params.header_timeout = None
        self._receive_timeout = self.conn_params.body_timeout or inf
        self._stall_timeout = stall_timeout
        self._max_connections = max_connections
        self._streams: WeakSet[_Stream] = WeakSet()
        #: Those with something that their client has not read, and how much that is.
        self._unread: dict[_Stream, int] = {}
        self._unread_bytes = 0
        self._max_unread_bytes = max_unread_bytes
        #: Those that are closed, but still drop what their client sends.
        self._lingering: dict[_Stream, asyncio.Task[None]] = {}
        self._listening: list[socket.socket] = []
        self._is_accepting = False
        shortest = min(self._idle_timeout, self._receive_timeout, stall_timeout)
        period = min(shortest / IDLE_CHECKS, RETRY_SECONDS)
        # One for all connections.
        self._timer = PeriodicCallback(self._tend, 1000 * period)
        self._incidents: dict[str, float] = {}
        _servers.add(self)
        if isinstance(self.request_callback, Application):
            runtime = self.request_callback.runtime
            runtime.connections, runtime.max_connections = self._streams, max_connections
            runtime.is_full, runtime.trusted_proxies = self.is_full, trusted_proxies

    # Tornado's own method accepts without a limit. If it runs out of file descriptors, it is called
    # again immediately, forever.
    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        self._listening += sockets
        self._resume()
        if not self._timer.is_running():
            self._timer.start()

    def stop(self) -> None:
        # Otherwise, connections that the kernel has accepted would be reset.
        for each in self._listening:
            if self._is_accepting:
                self._accept(each, IOLoop.READ, BACKLOG)
        self._pause()
        for each in self._listening:
            each.close()
        self._listening.clear()

    def is_open(self) -> bool:
        return any(not stream.closed() for stream in self._streams)

    def is_full(self) -> bool:
        """Whether there is no room for another connection, and none is idle."""
        limit = self._max_connections
        return limit is not None and len(self._streams) >= limit and not self._replaceable()

    def is_writing(self, besides: Iterable[IOStream | None] = ()) -> bool:
        """Whether a connection, except for these, still has something to send."""
        return any(stream.writing() for stream in self._streams - set(besides))

    async def close_all_connections(self) -> None:
        self._timer.stop()
        for stream in list(self._streams):
            stream.close()
        for dropping in list(self._lingering.values()):
            dropping.cancel()
        await super().close_all_connections()

    def on_close(self, server_conn: object) -> None:
        super().on_close(server_conn)
        connection: Any = server_conn
        status = getattr(connection.stream, "rejected_with", 0)
        if status and isinstance(self.request_callback, Application):
            rejected(connection.context, self.request_callback.runtime, status)

    def _accept(self, listening: socket.socket, events: int, at_once: int = ACCEPT_AT_ONCE) -> None:
        full = f"MAX_CONNECTIONS={self._max_connections} reached"
        for number in range(at_once):
            idle = None
            if self._max_connections is not None and len(self._streams) >= self._max_connections:
                if number:  # If another one is waiting, the loop calls again.
                    return
                idle = min(self._replaceable(), key=lambda each: each.waits_since, default=None)
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
            stream = _Stream(
                self,
                connection,
                max_buffer_size=self.max_buffer_size,
                read_chunk_size=READ_BYTES,
            )
            self._streams.add(stream)
            self.handle_stream(stream, address)
            if idle:
                self._log_once("Closing idle connections: %s", full)
                if dropping := self._lingering.get(idle):
                    dropping.cancel()
                else:
                    idle.close()
                # To look for the next one takes long enough to let others have their turn.
                return

    def _replaceable(self) -> "list[_Stream]":
        """Those that have waited for a request's headers long enough; not what was detached."""
        since = monotonic() - MIN_IDLE_SECONDS
        streams = (each.stream for each in self._connections)
        waiting = (each for each in streams if isinstance(each, _Stream) and each._read_regex)
        return [*self._lingering, *(each for each in waiting if each.waits_since <= since)]

    def _tend(self) -> None:
        """Closes each connection whose client does not send or read in time."""
        self._resume()
        now = monotonic()
        for connection in list(self._connections):
            stream = connection.stream
            if not isinstance(stream, _Stream) or not stream.reading():
                continue
            waited = now - stream.waits_since
            if not stream._read_regex:
                if waited >= self._stall_timeout:
                    stream.close(status=HTTPStatus.REQUEST_TIMEOUT)
            elif not stream._read_buffer:
                if waited >= self._idle_timeout:
                    stream.close()
            elif stream.begun_since != stream.waits_since:
                stream.begun_since, stream.begun_at = stream.waits_since, now
            elif now - stream.begun_at >= self._receive_timeout:
                stream.close(status=HTTPStatus.REQUEST_TIMEOUT)
        for stream in list(self._unread):
            if now - stream.last_read(now) >= self._stall_timeout:
                self._cut(stream, f"nothing was read for {self._stall_timeout:g} s")

    def note_unread(self, stream: "_Stream") -> None:
        """Counts what a client has not read. If that is too much for all clients together, closes
        the connection whose client has read nothing for the longest."""
        self.count_unread(stream)
        # What only one client has not read may be one large answer.
        if self._unread_bytes <= self._max_unread_bytes or len(self._unread) < 2:
            return
        for each in list(self._unread):
            self.count_unread(each)  # Some of them may have read a part.
        now = monotonic()
        while self._unread_bytes > self._max_unread_bytes and len(self._unread) > 1:
            stalled = min(self._unread, key=lambda each: each.last_read(now))
            self._cut(stalled, f"MAX_UNREAD_BYTES={self._max_unread_bytes} reached")

    def count_unread(self, stream: "_Stream", written: object = None) -> None:
        held = len(stream._write_buffer or b"")
        self._unread_bytes += held - self._unread.pop(stream, 0)
        if held:
            self._unread[stream] = held

    def _cut(self, stream: "_Stream", reason: str) -> None:
        self._log_once("Closing connections whose clients do not read: %s", reason)
        stream.close()

    def _pause(self) -> None:
        if self._is_accepting:
            self._is_accepting = False
            for each in self._listening:
                IOLoop.current().remove_handler(each)

    def _pause_for(self, reason: str) -> None:
        self._pause()
        self._log_once("Accepting connections paused: %s", reason)

    # Once per incident.
    def _log_once(self, message: str, reason: str) -> None:
        now = monotonic()
        if now - self._incidents.get(message, -INCIDENT_SECONDS) >= INCIDENT_SECONDS:
            log.error(message, reason)
        self._incidents[message] = now

    def _resume(self) -> None:
        if not self._is_accepting and self._listening:
            self._is_accepting = True
            for each in self._listening:
                IOLoop.current().add_handler(each, self._accept, IOLoop.READ)

    def closed(self, stream: "_Stream", connection: socket.socket) -> None:
        """Called when a stream has been closed, with its socket."""
        self._unread_bytes -= self._unread.pop(stream, 0)
        if stream.rejected_with or stream.is_in_body:
            # Closed with something that nobody has read, it would be reset, and its client would
            # not see the answer.
            dropping = self._lingering[stream] = asyncio.create_task(_drop_rest(connection))
            dropping.add_done_callback(lambda _: self._release(stream, connection))
        else:
            self._release(stream, connection)

    def _release(self, stream: "_Stream", connection: socket.socket) -> None:
        self._lingering.pop(stream, None)
        connection.close()
        self._streams.discard(stream)
        self._resume()


async def _drop_rest(connection: socket.socket) -> None:
    """Reads what a client still sends, and drops it."""
    loop = asyncio.get_running_loop()
    with suppress(OSError):  # a TimeoutError is one
        connection.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(LINGER_SECONDS):
            while await loop.sock_recv(connection, 65536):
                pass


_servers: WeakSet[Server] = WeakSet()


def _leave_to_parent() -> None:
    """Closes all sockets in a child process, which would keep the port and the connections."""
    for server in _servers:
        for each in (*server._listening, *(stream.socket for stream in server._streams)):
            if each:
                each.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


class _Stream(IOStream):
    """Notifies its server when it closes, which the stream of a WebSocket would not, and knows how
    long it has waited for its client."""

    # Those of the usual request are few: with more than 30 of an object's own, with Tornado's,
    # Python would find all of them slowly.
    #: When it began to wait for what it reads now, by `time.monotonic()`.
    waits_since = 0.0
    #: How much had been written before the answer to the last request with a body.
    body_since: int | None = None
    #: When the first part of a request's headers was seen, and for which `waits_since`.
    begun_at = begun_since = 0.0
    #: Status of a request that cannot be read.
    rejected_with = 0
    #: How much its client had read when it was last looked at, and when that had changed.
    _read = 0
    _read_at = 0.0

    def __init__(self, server: Server, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._server = server
        super().set_nodelay(True)

    def set_nodelay(self, value: bool) -> None:
        """Does nothing. Tornado would switch it on and off again for each answer."""

    @property
    def is_in_body(self) -> bool:
        """Whether it reads the body of a request, or has nothing else to read yet."""
        return self.body_since is not None and not self._read_regex

    def _start_read(self) -> "asyncio.Future[Any]":
        self.waits_since = monotonic()
        return super()._start_read()

    def _check_max_bytes(self, delimiter: Any, size: int) -> None:
        super()._check_max_bytes(delimiter, size)
        # Before they are parsed, which takes much more memory. Others may read by a regex, too.
        if (
            self._read_max_bytes == self._server.conn_params.max_header_size
            and self._read_buffer.count(b"\n", 0, size) > MAX_HEADERS + 2
        ):
            raise UnsatisfiableReadError(f"more than {MAX_HEADERS} headers")

    def write(self, data: bytes | memoryview) -> "asyncio.Future[None]":
        if data == TORNADOS_ANSWER and isinstance(error := sys.exception(), HTTPInputError):
            data = self._rejection(status_of(error))
        elif self.body_since is not None and data == b"HTTP/1.1 100 (Continue)\r\n\r\n":
            # Tornado tells the client to send the body. It is no part of an answer.
            data = b"" if self._has_answered() else data
            self.body_since += len(data)
        written = super().write(data)
        if not written.done():
            self._server.note_unread(self)
            written.add_done_callback(partial(self._server.count_unread, self))
        return written

    def _rejection(self, status: HTTPStatus) -> bytes:
        """The answer; nothing if another one has begun."""
        self.rejected_with = status
        return b"" if self._has_answered() else answer(status)

    def _has_answered(self) -> bool:
        """Whether an answer has begun while the body of its request arrives."""
        return self.is_in_body and self.body_since != self._total_write_index

    def close(self, exc_info: Any = False, status: HTTPStatus | None = None) -> None:
        """Closes the connection; with a status, answers the request that cannot be read."""
        # Tornado would close it without an answer.
        if isinstance(exc_info, UnsatisfiableReadError):
            is_header = self._read_regex is not None
            large = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            status = large if is_header else HTTPStatus.BAD_REQUEST
        elif self.is_in_body and isinstance(sys.exception(), TimeoutError):
            status = HTTPStatus.REQUEST_TIMEOUT
        if status and not self.closed():
            super().write(self._rejection(status))
        super().close(exc_info)

    def close_fd(self) -> None:
        connection, self.socket = self.socket, None  # type: ignore[assignment]
        self._server.closed(self, connection)

    def last_read(self, now: float) -> float:
        """When the client was last seen to read something, by `time.monotonic()`."""
        read = self._total_write_done_index - _unsent(self.socket)
        if self._read != read or not self._read_at:
            self._read, self._read_at = read, now
        return self._read_at


def _unsent(connection: socket.socket) -> int:
    """How much the kernel still has to send, where it says so. It takes more only once a good part
    of its buffer has left, for which a client that is slow may need longer than a timeout."""
    if sys.platform == "linux":
        from fcntl import ioctl
        from termios import TIOCOUTQ

        return int.from_bytes(ioctl(connection, TIOCOUTQ, bytes(4)), sys.byteorder)
    return 0
