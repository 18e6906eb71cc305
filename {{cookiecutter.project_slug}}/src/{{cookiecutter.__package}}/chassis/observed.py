"""Each request as it arrives, and its answer as it leaves: handlers keep the class that their owner
wrote.

`Incoming` is what a connection passes a request to, and `Outgoing` what it is answered on. Whatever
answers, a handler, a nested application or a function, goes through both.
"""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from contextvars import copy_context
from functools import lru_cache, partial
from http import HTTPStatus
from time import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

from tornado import web
from tornado.escape import json_encode
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
    format_timestamp,
)
from tornado.iostream import IOStream, StreamClosedError
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from .refusals import body_lost

if TYPE_CHECKING:
    from .application import Application, Exchange

CLIENT_CLOSED_REQUEST = 499
"""Status if the client disconnected before the response was complete, as in nginx."""

UNREAD_BYTES = 1024 * 1024
"""How much may wait for a WebSocket's client to read it when another message is written."""

MAX_WEBSOCKET_BYTES = 16 * 1024 * 1024
"""What all WebSockets together may hold: messages that arrive, and those that wait to be read."""

log = logging.getLogger(f"{__package__}.application")

_SERVER = "TornadoServer/"


class Incoming(HTTPMessageDelegate):
    """Receives one request. Its exchange starts when its handler does."""

    _delegate: HTTPMessageDelegate | None = None
    _outgoing: "Outgoing"

    def __init__(
        self, application: "Application", server: object, connection: HTTPConnection
    ) -> None:
        self._application = application
        self._server = server
        self._connection: Any = connection

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        assert isinstance(start_line, RequestStartLine)
        application, connection = self._application, self._connection
        outgoing = self._outgoing = Outgoing(application, connection)
        request = HTTPServerRequest(
            connection=outgoing,
            server_connection=self._server,
            start_line=start_line,
            headers=headers,
        )
        delegate = application.find_handler(request)
        waits_for_body, handler_class = False, None
        if isinstance(delegate, web._HandlerDelegate):
            handler_class = delegate.handler_class
            outgoing.route = getattr(delegate.handler_kwargs, "route", outgoing.route)
            # It is called with what the class would be called with.
            delegate.handler_class = partial(_make, handler_class, outgoing)  # type: ignore
            waits_for_body = not delegate.stream_request_body
        # Not `get()`, which is slow if there is no such header.
        lengths = headers.get_list("Content-Length")
        has_body = bool((lengths and lengths != ["0"]) or headers.get_list("Transfer-Encoding"))
        exchange = application.exchange(request, outgoing.route, handler_class)
        outgoing.exchange = exchange
        body_size = 0
        if has_body and waits_for_body:
            body_size = _body_size(lengths, connection._max_body_size)
        refusal = application._admit(exchange, body_size)
        if refusal is not None:
            if not headers.get_list("Expect"):
                # Undocumented: the body is still read, and dropped. Closing the connection while
                # the client is sending would lose the response.
                connection._read_finished = True
            self._start(outgoing.answer, refusal.status, refusal.title, refusal.headers)
            return None
        self._delegate = delegate
        if waits_for_body:
            return delegate.headers_received(start_line, headers)
        pending: Awaitable[None] | None
        pending = self._start(delegate.headers_received, start_line, headers)
        return pending

    def _start(self, work: Callable[..., Any], *args: Any) -> Any:
        # Variables set in the connection's own context would leak into its next request.
        return copy_context().run(self._started, work, args)

    def _started(self, work: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        exchange = self._outgoing.exchange
        assert exchange
        self._application._start(exchange)
        try:
            return work(*args)
        except Exception as error:
            # The handler could not be created, or the target is none. Tornado would close the
            # connection silently.
            self._outgoing.fail(error)

    def data_received(self, data: bytes) -> Awaitable[None] | None:
        delegate = self._delegate
        if delegate is None:
            return None
        if not getattr(delegate, "stream_request_body", False):
            return delegate.data_received(data)
        if delegate.request._body_future.done():  # type: ignore[attr-defined]
            return None  # The request has failed, and is being answered.
        try:
            pending = delegate.data_received(data)
        except Exception as error:
            self._fail(error)
            return None
        return pending and self._receive(pending)

    async def _receive(self, pending: Awaitable[None]) -> None:
        try:
            await pending
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        # The handler waits for its body here, so it fails as it would anywhere else.
        future = self._delegate.request._body_future  # type: ignore
        future.set_exception(error)
        future.exception()  # in case it no longer does

    def finish(self) -> None:
        # With it goes the second copy of the body.
        delegate, self._delegate = self._delegate, None
        if delegate is None:
            return
        exchange = self._outgoing.exchange
        if exchange and not exchange.has_started:
            self._start(delegate.finish)
        elif getattr(delegate, "stream_request_body", False):
            if not delegate.request._body_future.done():  # type: ignore[attr-defined]
                delegate.finish()
        elif exchange:
            try:
                exchange.context.copy().run(delegate.finish)
            except Exception as error:
                self._outgoing.fail(error)
        else:
            delegate.finish()

    def on_connection_close(self) -> None:
        delegate, self._delegate = self._delegate, None
        outgoing = self._outgoing
        if exchange := outgoing.exchange:
            if exchange.has_started:
                outgoing.end(CLIENT_CLOSED_REQUEST)
            else:
                outgoing.exchange = None
                self._application._forget(exchange)
                body_lost(self._connection, self._application, exchange.started)
        if delegate:
            delegate.on_connection_close()


class Outgoing(HTTPConnection):
    """The connection, as whoever answers the request has it."""

    #: Template of the matched route.
    route = ""
    #: None when it has ended.
    exchange: "Exchange | None" = None
    _handler: "ref[web.RequestHandler] | None" = None
    _callback: Callable[[], None] | None = None
    #: Of the answer that has begun.
    _status = 0

    def __init__(self, application: "Application", connection: Any) -> None:
        self._application = application
        self._connection = connection
        self.context = connection.context
        # Tornado drops it with the end of the request.
        connection.set_close_callback(self._closed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    @property
    def stream(self) -> IOStream:
        stream: IOStream = self._connection.stream
        return stream

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        self._callback = callback

    def write_headers(
        self,
        start_line: RequestStartLine | ResponseStartLine,
        headers: HTTPHeaders,
        chunk: bytes | None = None,
    ) -> "asyncio.Future[None]":
        status = self._status = int(start_line.code)  # type: ignore  # may be an HTTPStatus
        if status == 101:
            # Undocumented: in a stop, the connection would be closed after its handshake.
            self._connection._disconnect_on_finish = False
        if exchange := self.exchange:
            headers["X-Request-ID"] = exchange.request_id
        # `Server` reveals the version.
        if "Server" in headers and headers["Server"].startswith(_SERVER):
            del headers["Server"]
        written: asyncio.Future[None] = self._connection.write_headers(start_line, headers, chunk)
        return written

    def write(self, chunk: bytes) -> "asyncio.Future[None]":
        written: asyncio.Future[None] = self._connection.write(chunk)
        return written

    def finish(self) -> None:
        exchange, connection = self.exchange, self._connection
        # Before it closes the stream itself.
        is_lost = connection.stream.closed() and exchange and not exchange.error
        try:
            connection.finish()
        finally:
            self.end(CLIENT_CLOSED_REQUEST if is_lost else self._status or 200)

    def detach(self) -> IOStream:
        self._callback = None
        stream: IOStream = self._connection.detach()
        # From here on, it is another protocol, whose end HTTP does not see.
        self.end(self._status or 200)
        return stream

    def _closed(self) -> None:
        callback, self._callback = self._callback, None
        # First: what the handler does about it may fail.
        self.end(CLIENT_CLOSED_REQUEST)
        if callback:
            callback()

    def end(self, status: int) -> None:
        """Ends the exchange, if that has not ended."""
        if exchange := self.exchange:
            self.exchange = None
            if status == 101 and self._handler:
                handler = self._handler()
                if isinstance(handler, WebSocketHandler) and handler.ws_connection:
                    self._application.websockets[handler] = Socket(
                        self._application, exchange, handler
                    )
            self._application._end(exchange, status)

    def answer(self, status: int, title: str, headers: Mapping[str, str] | None = None) -> None:
        """Answers with a problem in place of a handler."""
        exchange = self.exchange
        assert exchange
        problem = {"title": title, "status": int(status), "request_id": exchange.request_id}
        body = json_encode(problem).encode()
        with_length = {"Content-Type": "application/problem+json", "Content-Length": str(len(body))}
        sent = HTTPHeaders({"Date": http_date(int(time())), **with_length, **(headers or {})})
        chunk = b"" if exchange.method == "HEAD" else body
        self.write_headers(ResponseStartLine("", int(status), title), sent, chunk)
        self.finish()

    def fail(self, error: Exception) -> None:
        """Answers with 500 in place of what could not answer."""
        if not (exchange := self.exchange):
            return
        trace = type(error), error, error.__traceback__
        exchange.context.run(log.error, "Unhandled exception in %s", exchange, exc_info=trace)
        self._application.report_failure(exchange, error)
        if self._status:
            self.end(self._status)
            self.stream.close()
        else:
            self.answer(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal Server Error")

    def adopt(self, handler: web.RequestHandler) -> None:
        """Learns of what a handler raises, and with which task it runs."""
        self._handler = weak = ref(handler)
        exchange = self.exchange
        assert exchange
        # Beside the class, as Tornado does itself with those of a WebSocket.
        # `initialize` may have set one.
        own = handler.log_exception
        if getattr(own, "__self__", None) is handler:
            own = None  # type: ignore[assignment]
        handler.log_exception = partial(  # type: ignore[method-assign]
            _log_exception, self._application, exchange, weak, own
        )
        handler._execute = partial(self._execute, handler)  # type: ignore

    def _execute(
        self, handler: web.RequestHandler, /, *args: Any, **kwargs: Any
    ) -> "asyncio.Task[None]":
        del handler._execute  # that of its class is back
        coroutine = handler._execute(*args, **kwargs)
        loop = asyncio.get_running_loop()
        task: asyncio.Task[None]
        if sys.version_info >= (3, 12) and self._application.eager_start:
            # As Tornado did before it had native coroutines. Going through the event loop would
            # take three more turns until the connection reads again. Between two requests of a
            # connection, Tornado lets others run.
            task = asyncio.Task(coroutine, loop=loop, eager_start=True)
        else:
            task = loop.create_task(coroutine)
        if exchange := self.exchange:
            self._application.exchanges[exchange] = Running(handler, task, self)
        return task


class Running(NamedTuple):
    """A handler that has not answered yet."""

    handler: web.RequestHandler
    task: "asyncio.Task[None]"
    connection: Outgoing

    def time_out(self, seconds: float) -> None:
        """Answers with 503 in place of a handler that has taken too long, and cancels it."""
        connection = self.connection
        if exchange := connection.exchange:
            exchange.error = TimeoutError(f"no answer within {seconds:g} s")
            exchange.context.run(log.warning, "Gave up on %s after %g s", exchange, seconds)
            if connection._status:
                # The client must not mistake a part of the response for all of it.
                connection.end(connection._status)
                connection.stream.close()
            else:
                send_error = self.handler.send_error
                try:
                    exchange.context.copy().run(send_error, HTTPStatus.SERVICE_UNAVAILABLE)
                except Exception as error:
                    connection.fail(error)
        self.task.cancel()


def _make(
    handler_class: type[web.RequestHandler],
    outgoing: Outgoing,
    application: Any,
    request: HTTPServerRequest,
    **kwargs: Any,
) -> web.RequestHandler:
    handler = handler_class(application, request, **kwargs)
    outgoing.adopt(handler)
    return handler


def _log_exception(
    application: "Application",
    exchange: "Exchange",
    weak: "ref[web.RequestHandler]",
    own: Callable[..., None] | None,
    typ: type[BaseException] | None,
    value: BaseException | None,
    tb: TracebackType | None,
) -> None:
    handler = weak()
    assert handler
    if isinstance(value, WebSocketClosedError) or (
        isinstance(value, StreamClosedError) and _has_left(exchange)
    ):
        log.debug("Client disconnected during %s", exchange)
        # Nobody is there, and Tornado would log an error for that.
        with suppress(Exception):
            handler.finish()
        return
    is_failure = value is not None and (
        not isinstance(value, web.HTTPError) or value.status_code >= 500
    )
    try:
        log_failure(handler, own, exchange, typ, value, tb, is_failure)
    finally:
        if value is not None and is_failure:
            application.report_failure(exchange, value)


def log_failure(
    handler: web.RequestHandler,
    own: Callable[..., None] | None,
    exchange: "Exchange",
    typ: type[BaseException] | None,
    value: BaseException | None,
    tb: TracebackType | None,
    is_failure: bool,
) -> None:
    # Tornado's own messages include the query string, which may contain secrets.
    of_class = type(handler).log_exception
    if own:
        own(typ, value, tb)
    elif of_class is not web.RequestHandler.log_exception:
        of_class(handler, typ, value, tb)
    elif value is not None and is_failure:
        log.error("Unhandled exception in %s", exchange, exc_info=(type(value), value, tb))
    elif isinstance(value, web.HTTPError) and (message := value.get_message()):
        log.warning("%d %s: %s", value.status_code, exchange, message)


def _has_left(exchange: "Exchange") -> bool:
    connection: Any = exchange.request.connection
    stream = connection.stream
    return stream is not None and bool(stream.closed())


class Socket:
    """Stands between a WebSocket's protocol and its handler: counts the messages, and with which
    code it was closed; does not keep more for a client than it will read."""

    #: Bytes of a message that has begun to arrive, and of that and what has not been read.
    _arriving = held = 0

    def __init__(
        self, application: "Application", exchange: "Exchange", handler: WebSocketHandler
    ) -> None:
        self._application = application
        self._exchange = exchange
        self._handler = handler
        protocol: Any = handler.ws_connection
        self._protocol = protocol
        self._read, self._write = protocol._read_bytes, protocol.write_message
        protocol.handler = self
        protocol._read_bytes, protocol.write_message = self._read_bytes, self._write_message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handler, name)

    def on_message(self, message: str | bytes) -> Awaitable[None] | None:
        self._application.websocket_messages["received"] += 1
        return self._handler.on_message(message)

    def on_ws_connection_close(self, code: int | None = None, reason: str | None = None) -> None:
        self._application.websocket_closes[_close_code(code)] += 1
        self._hold(closed=True)
        self._handler.on_ws_connection_close(code, reason)

    def _hold(self, closed: bool = False) -> None:
        """Counts what is in memory for the client. Where that is too much for all together, the
        connection that holds most is closed."""
        application, stream = self._application, self._protocol.stream
        held = 0
        if not closed and stream and not stream.closed():
            held = self._arriving + len(stream._write_buffer)
        application.websocket_bytes += held - self.held
        self.held = held
        if application.websocket_bytes > MAX_WEBSOCKET_BYTES:
            most = max(application.websockets.values(), key=lambda each: each.held)
            most._drop("and others hold too much memory")

    def _drop(self, reason: str) -> None:
        """Closes the connection at once."""
        log.warning("Closing a WebSocket of %s, %s", self._exchange, reason)
        self._protocol.stream.close()
        self._hold()

    def _write_message(self, message: Any, binary: bool = False) -> "asyncio.Future[None]":
        stream = self._protocol.stream
        if stream and not stream.closed() and len(stream._write_buffer) > UNREAD_BYTES:
            self._drop("which does not read")
        written: asyncio.Future[None] = self._write(message, binary)
        self._application.websocket_messages["sent"] += 1
        self._hold()
        written.add_done_callback(self._written)
        return written

    def _written(self, written: "asyncio.Future[None]") -> None:
        self._hold()
        if not written.cancelled():
            # Few wait for it; asyncio would log each message that a client goes away from.
            written.exception()

    async def _read_bytes(self, n: int) -> bytes:
        self._arriving = n + len(self._protocol._fragmented_message_buffer or b"")
        self._hold()
        data: bytes = await self._read(n)
        return data


class Wsgi:
    """A `WSGIContainer` behind a `FallbackHandler`. Called, it would go on in a task of its own,
    and nobody would learn that it has failed."""

    def __init__(self, handle_request: Callable[[HTTPServerRequest], Any]) -> None:
        self._handle_request = handle_request

    def __call__(self, request: HTTPServerRequest) -> None:
        task = asyncio.ensure_future(self._handle_request(request))
        task.add_done_callback(partial(self._answered, request))

    def _answered(self, request: HTTPServerRequest, task: "asyncio.Future[None]") -> None:
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            connection: Any = request.connection
            connection.fail(error)


def _body_size(lengths: list[str], limit: int) -> int:
    """How much memory a body may take: its announced length, or else the limit."""
    if len(lengths) == 1 and lengths[0].isdecimal() and len(lengths[0]) < 16:
        return min(int(lengths[0]), limit)
    return limit


def _close_code(code: int | None) -> str:
    """A code from RFC 6455; for any other code, which clients can choose, only its range."""
    if code is None:
        return "none"
    return str(code) if 1000 <= code <= 1015 else f"{code // 1000}xxx"


@lru_cache(maxsize=1)
def http_date(seconds: int) -> str:
    return format_timestamp(seconds)
