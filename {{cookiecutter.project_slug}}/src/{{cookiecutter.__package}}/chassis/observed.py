"""The part of each handler that no hook of an `Application` can see.

The handler's class is extended once. Its rule keeps the class that its owner wrote.
"""

import asyncio
import logging
import sys
from collections.abc import Awaitable
from contextlib import suppress
from functools import cache, lru_cache
from http import HTTPStatus
from time import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tornado import web
from tornado.http1connection import HTTP1Connection
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
    format_timestamp,
)
from tornado.iostream import IOStream, StreamClosedError
from tornado.websocket import (
    WebSocketClosedError,
    WebSocketHandler,
    WebSocketProtocol,
    WebSocketProtocol13,
)

if TYPE_CHECKING:
    from .application import Application, Exchange

CLIENT_CLOSED_REQUEST = 499
"""Status if the client disconnected before the response was complete, as in nginx."""

UNREAD_BYTES = 1024 * 1024
"""How much may wait for a WebSocket's client to read it when another message is written."""

MAX_WEBSOCKET_BYTES = 16 * 1024 * 1024
"""What all WebSockets together may hold: messages that arrive, and those that wait to be read."""

log = logging.getLogger(f"{__package__}.application")


@cache
def observed(handler_class: type[web.RequestHandler]) -> type["Observed"]:
    """The same handler, connected to the hooks of its `Application`."""
    base: type[Observed] = Observed
    for kind, of_kind in (
        (web.FallbackHandler, ObservedFallback),
        (WebSocketHandler, ObservedWebSocket),
    ):
        if issubclass(handler_class, kind):
            base = of_kind
    tornado = web.RequestHandler
    names = {
        "__module__": handler_class.__module__,
        "__qualname__": handler_class.__qualname__,
        "_has_own_clear": handler_class.clear is not tornado.clear,
        "_has_own_log": handler_class.log_exception is not tornado.log_exception,
    }
    return type(handler_class.__name__, (base, handler_class), names)


class Observed(web.RequestHandler):
    """Reports its start, failure and end.

    Tornado passes each unhandled exception to `log_exception`, which can only be overridden in the
    handler.
    """

    application: "Application"
    _has_own_clear = False
    _has_own_log = False
    #: The task that runs the handler, if it did not finish immediately.
    _task: "asyncio.Task[None]"

    def __init_subclass__(cls) -> None:
        """Hides the handler's own hook, which has already run for the class of its owner."""

    def __init__(
        self,
        application: Any,
        request: HTTPServerRequest,
        *,
        _exchange: "Exchange",
        **kwargs: Any,
    ) -> None:
        self._exchange = _exchange
        super().__init__(application, request, **kwargs)

    def clear(self) -> None:
        if self._has_own_clear:
            super().clear()
            self._headers["X-Request-ID"] = self._exchange.request_id
            return
        # In place of Tornado's own headers: formatting the date for each response takes as long as
        # all the other hooks together, and `Server` reveals the version.
        self._headers = HTTPHeaders()
        self._headers["Content-Type"] = "text/html; charset=UTF-8"
        self._headers["Date"] = _http_date(int(time()))
        self._headers["X-Request-ID"] = self._exchange.request_id
        self.set_default_headers()
        self._write_buffer = []
        self._status_code = 200
        self._reason = "OK"

    # Tornado awaits the result, which may be a coroutine or a task.
    def _execute(  # type: ignore[override]
        self, transforms: list[web.OutputTransform], *args: bytes, **kwargs: bytes
    ) -> Awaitable[None]:
        coroutine = super()._execute(transforms, *args, **kwargs)
        loop = asyncio.get_running_loop()
        task: asyncio.Task[None]
        if sys.version_info >= (3, 12) and self.application.eager_start:
            # As Tornado did before it had native coroutines. Going through the event loop would
            # take three more turns until the connection reads again. Between two requests of a
            # connection, Tornado lets others run.
            task = asyncio.Task(coroutine, loop=loop, eager_start=True)
        else:
            task = loop.create_task(coroutine)
        if not self._exchange.status:
            self._task = task
            self.application.exchanges[self._exchange] = self
        return task

    def time_out(self, seconds: float) -> None:
        """Answers with 503 in place of a handler that has taken too long, and cancels it."""
        exchange = self._exchange
        exchange.error = TimeoutError(f"no answer within {seconds:g} s")
        exchange.context.run(log.warning, "Gave up on %s after %g s", exchange, seconds)
        connection = self.request.connection
        if self._headers_written and isinstance(connection, HTTP1Connection):
            # The client must not mistake a part of the response for all of it.
            self.application.log_request(self)
            connection.stream.close()
        else:
            exchange.context.copy().run(self.send_error, HTTPStatus.SERVICE_UNAVAILABLE)
        self._task.cancel()

    def detach(self) -> IOStream:
        stream = super().detach()
        # From here on, it is another protocol, whose end HTTP does not see.
        self.application.log_request(self)
        return stream

    def on_connection_close(self) -> None:
        super().on_connection_close()
        if not self._exchange.status:
            # Tornado would count it as a 200 that nobody received, or never report it at all.
            self.set_status(CLIENT_CLOSED_REQUEST, "Client Closed Request")
            self.application.log_request(self)

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        if self._exchange.status != CLIENT_CLOSED_REQUEST:
            super().send_error(status_code, **kwargs)
        elif not self._finished:
            # Nobody is there, and Tornado would log an error for that.
            with suppress(Exception):
                self.finish()

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        exchange = self._exchange
        if isinstance(value, WebSocketClosedError) or (
            isinstance(value, StreamClosedError) and exchange.status == CLIENT_CLOSED_REQUEST
        ):
            log.debug("Client disconnected during %s", exchange)
            return
        is_failure = not isinstance(value, web.HTTPError) or value.status_code >= 500
        # Tornado's own messages include the query string, which may contain secrets.
        if self._has_own_log:
            super().log_exception(typ, value, tb)
        elif value is not None and is_failure:
            trace = type(value), value, tb
            log.error("Unhandled exception in %s", exchange, exc_info=trace)
        elif isinstance(value, web.HTTPError) and (message := value.get_message()):
            log.warning("%d %s: %s", value.status_code, exchange, message)
        if value is not None and is_failure:
            self.application.report_failure(exchange, value)


class ObservedWebSocket(Observed, WebSocketHandler):
    """Counts its messages, and with which code it was closed; does not keep more for a client than
    it will read."""

    #: Bytes of a message that has begun to arrive, and of that and what has not been read.
    _arriving = _held = 0

    def hold(self) -> None:
        """Counts what is in memory for the client. Where that is too much for all together, the
        connection that holds most is closed."""
        application = self.application
        stream = getattr(self.ws_connection, "stream", None)
        held = 0
        if stream and not stream.closed():
            held = self._arriving + len(stream._write_buffer)
        application.websocket_bytes += held - self._held
        self._held = held
        if application.websocket_bytes > MAX_WEBSOCKET_BYTES:
            most = max(application.websockets, key=lambda each: each._held)
            most.drop("and others hold too much memory")

    def drop(self, reason: str) -> None:
        """Closes the connection at once."""
        log.warning("Closing a WebSocket of %s, %s", self._exchange, reason)
        if self.ws_connection and self.ws_connection.stream:
            self.ws_connection.stream.close()
        self.hold()

    def get_websocket_protocol(self) -> WebSocketProtocol | None:
        # Undocumented: in a stop, the connection would be closed after its handshake.
        self.request.connection._disconnect_on_finish = False  # type: ignore[union-attr]
        protocol = super().get_websocket_protocol()
        if type(protocol) is WebSocketProtocol13:
            protocol.__class__ = _Protocol
        return protocol

    def on_message(self, message: str | bytes) -> Awaitable[None] | None:
        self.application.websocket_messages["received"] += 1
        return super().on_message(message)

    def write_message(
        self, message: bytes | str | dict[str, Any], binary: bool = False
    ) -> "asyncio.Future[None]":
        stream = getattr(self.ws_connection, "stream", None)
        if stream and not stream.closed() and len(stream._write_buffer) > UNREAD_BYTES:
            self.drop("which does not read")
        written = super().write_message(message, binary)
        self.application.websocket_messages["sent"] += 1
        self.hold()
        if isinstance(written, asyncio.Future):
            written.add_done_callback(self._written)
        return written

    def _written(self, written: "asyncio.Future[None]") -> None:
        self.hold()
        if not written.cancelled():
            # Few wait for it; asyncio would log each message that a client goes away from.
            written.exception()

    def on_ws_connection_close(
        self, close_code: int | None = None, close_reason: str | None = None
    ) -> None:
        self.application.websocket_closes[_close_code(close_code)] += 1
        super().on_ws_connection_close(close_code, close_reason)
        self.hold()


class _Protocol(WebSocketProtocol13):
    """Counts a message from its header on."""

    handler: ObservedWebSocket

    async def _read_bytes(self, n: int) -> bytes:
        self.handler._arriving = n + len(self._fragmented_message_buffer or b"")
        self.handler.hold()
        return await super()._read_bytes(n)


class ObservedFallback(Observed, web.FallbackHandler):
    """Learns from the connection when the other application has answered, and how."""

    # Tornado awaits what it returns, as with any other handler.
    async def prepare(self) -> None:  # type: ignore[override]
        connection = self.request.connection
        assert connection
        self.request.connection = _Fallback(connection, self)
        # A `WSGIContainer`, whose module takes a millisecond to import. Called, it would go on in a
        # task of its own, and nobody would learn that it has failed.
        if handle_request := getattr(self.fallback, "handle_request", None):
            await handle_request(self.request)
            self._finished = True
            self.on_finish()
        else:
            super().prepare()


class _Fallback(HTTPConnection):
    """The connection that a `FallbackHandler` passes on."""

    def __init__(self, connection: HTTPConnection, handler: ObservedFallback) -> None:
        self._connection = connection
        self._handler = handler

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def set_close_callback(self, callback: Any) -> None:
        def closed() -> None:
            if callback:
                callback()
            self._handler.on_connection_close()

        self._connection.set_close_callback(closed)  # type: ignore[attr-defined]

    def write_headers(
        self,
        start_line: RequestStartLine | ResponseStartLine,
        headers: HTTPHeaders,
        chunk: bytes | None = None,
    ) -> "asyncio.Future[None]":
        assert isinstance(start_line, ResponseStartLine)
        self._handler.set_status(start_line.code, start_line.reason)
        headers["X-Request-ID"] = self._handler._exchange.request_id
        return self._connection.write_headers(start_line, headers, chunk)

    def write(self, chunk: bytes) -> "asyncio.Future[None]":
        return self._connection.write(chunk)

    def finish(self) -> None:
        self._connection.finish()
        self._handler.application.log_request(self._handler)


def _close_code(code: int | None) -> str:
    """A code from RFC 6455; for any other code, which clients can choose, only its range."""
    if code is None:
        return "none"
    return str(code) if 1000 <= code <= 1015 else f"{code // 1000}xxx"


@lru_cache(maxsize=1)
def _http_date(seconds: int) -> str:
    return format_timestamp(seconds)
