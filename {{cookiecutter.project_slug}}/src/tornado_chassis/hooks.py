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
from functools import partial
from http import HTTPStatus
from operator import attrgetter
from time import time
from typing import Any
from weakref import ref

from tornado import httputil, web
from tornado.escape import json_encode
from tornado.http1connection import HTTP1Connection
from tornado.httpserver import _CallableAdapter
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine
from tornado.iostream import IOStream, StreamClosedError
from tornado.log import app_log
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from .exchange import (
    CLIENT_CLOSED_REQUEST,
    Exchange,
    Rejection,
    believe_proxies,
    contain,
    http_date,
    is_cancelled,
    methods_of,
    reraise,
)
from .feature import Runtime
from .websockets import Socket

log = logging.getLogger(__name__)

_SERVER = "TornadoServer/"

ARGUMENT_BYTES = 300
"""About how much memory an argument of a query or a field of a form takes, besides its text."""

LONG_TARGET_BYTES = 1024
"""What shorter request targets are parsed into is not worth counting."""

_METHODS_WITH_BODY = {"POST", "PUT", "PATCH", "DELETE"}

StartLine = httputil.RequestStartLine | ResponseStartLine
Handler = web.RequestHandler
LogException = Callable[..., None]


class Incoming(httputil.HTTPMessageDelegate):
    """Receives one request. Its exchange starts when its handler does."""

    _delegate: httputil.HTTPMessageDelegate | None = None
    _outgoing: "Outgoing"
    #: How often the bytes of its body are held in memory, and what each of its fields takes.
    _copies = _field_bytes = 0
    #: Whether it has a body, and whether nobody will read that.
    _has_body = _drops = False
    #: What a handler waits for that receives its body in parts.
    _body: "asyncio.Future[None] | None" = None

    def __init__(
        self,
        runtime: Runtime,
        find_handler: Callable[[HTTPServerRequest], httputil.HTTPMessageDelegate],
        server: object,
        connection: httputil.HTTPConnection,
    ) -> None:
        self._runtime = runtime
        self._find_handler = find_handler
        self._server = server
        self._connection: Any = connection

    def headers_received(
        self, start_line: StartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        assert isinstance(start_line, httputil.RequestStartLine)
        runtime, connection = self._runtime, self._connection
        if runtime.trusted_proxies:
            believe_proxies(connection.context, headers, runtime.trusted_proxies)
        outgoing = self._outgoing = Outgoing(runtime, connection)
        request = HTTPServerRequest(
            connection=outgoing,
            server_connection=self._server,
            start_line=start_line,
            headers=headers,
        )
        delegate: httputil.HTTPMessageDelegate
        try:
            delegate = self._find_handler(request)
        except BaseException as error:
            # A router or a matcher of the team's.
            delegate = _CallableAdapter(partial(reraise, error), outgoing)
        # A function, in place of a handler, is called with the whole body, too.
        waits_for_body, handler_class = isinstance(delegate, _CallableAdapter), None
        if isinstance(delegate, web._HandlerDelegate):
            handler_class = delegate.handler_class
            outgoing.route = getattr(delegate.handler_kwargs, "route", outgoing.route)
            outgoing.observe(delegate)
            waits_for_body = not delegate.stream_request_body
        # Not `get()`, which is slow if there is no such header.
        lengths = headers.get_list("Content-Length")
        has_body = bool((lengths and lengths != ["0"]) or headers.get_list("Transfer-Encoding"))
        exchange = Exchange(request, outgoing.route, getattr(handler_class, "is_probe", False))
        if not getattr(handler_class, "has_latency_objective", True):
            exchange.has_latency_objective = False
        outgoing.exchange = exchange
        size = 0
        if len(start_line.path) > LONG_TARGET_BYTES:
            size = 3 * len(start_line.path) + ARGUMENT_BYTES * start_line.path.count("&")
        if has_body:
            connection.stream.body_since = connection.stream._total_write_index
            self._has_body = True
            if waits_for_body:
                runtime.arriving.add(exchange)
                is_form = "form" in headers.get("Content-Type", "")
                self._copies, self._field_bytes = (2, ARGUMENT_BYTES) if is_form else (1, 0)
                # A probe needs none, and is exempt from limits.
                self._drops = exchange.is_probe and not _reads_body(handler_class, exchange.method)
        if rejection := runtime.admit(exchange, size):
            self._reject(rejection, keep=not headers.get_list("Expect"))
            return None
        self._delegate = delegate
        if waits_for_body:
            return delegate.headers_received(start_line, headers)
        pending: Awaitable[None] | None
        pending = self._start(delegate.headers_received, start_line, headers)
        if self._delegate:
            self._body = getattr(request, "_body_future", None)
        return pending and self._receive(pending)

    def _reject(self, rejection: Rejection | None, keep: bool = True) -> bool:
        """Answers what there is no room for. The rest of its body is still read, and dropped."""
        if rejection is None:
            return False
        self._delegate = None
        if keep:
            # Undocumented: Tornado would close the connection after the answer.
            self._connection._read_finished = True
        self._start(self._outgoing.answer, rejection.status, rejection.title, rejection.headers)
        return True

    def _start(self, work: Callable[..., Any], *args: Any) -> Any:
        # Variables set in the connection's own context would leak into its next request.
        return copy_context().run(self._started, work, args)

    def _started(self, work: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        exchange = self._outgoing.exchange
        assert exchange
        self._runtime.start(exchange)
        try:
            return work(*args)
        except BaseException as error:
            # The handler could not be created, or the target is none. Tornado would close the
            # connection silently.
            self._delegate = None
            self._outgoing.fail(error, exchange)

    def data_received(self, data: bytes) -> Awaitable[None] | None:
        delegate = self._delegate
        if delegate is None or self._drops:
            return None
        exchange = self._outgoing.exchange
        if exchange and self._copies:
            size = self._copies * len(data)
            if self._field_bytes:
                size += self._field_bytes * data.count(b"&")
            if self._reject(self._runtime.admit(exchange, size, is_body=True)):
                return None
        if self._body and self._body.done():
            return None  # The request has failed, and is being answered.
        try:
            pending = delegate.data_received(data)
        except BaseException as error:
            self._fail(error)
            return None
        return pending and self._receive(pending)

    async def _receive(self, pending: Awaitable[None]) -> None:
        try:
            await pending
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                raise
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        contain(error)
        if self._body is None:
            self._delegate = None
            self._outgoing.fail(error, self._outgoing.exchange)
        else:
            # The handler waits for its body here, so it fails as it would anywhere else. A future
            # takes no StopIteration.
            is_stop = isinstance(error, StopIteration)
            _break_off(self._body, RuntimeError(repr(error)) if is_stop else error)

    def finish(self) -> None:
        if self._has_body and self._connection.stream:
            self._connection.stream.body_since = None
        # With it goes the second copy of the body.
        delegate, self._delegate = self._delegate, None
        if delegate is None:
            return
        exchange = self._outgoing.exchange
        if exchange and not exchange.has_started:
            if exchange in self._runtime.arriving:
                self._runtime.arriving.remove(exchange)
                if self._reject(self._runtime.admit(exchange, 0, is_body=True)):
                    return
            self._start(delegate.finish)
        elif self._body:
            if not self._body.done():
                delegate.finish()
        elif exchange:
            self._outgoing.attempt(exchange, exchange.context.copy().run, delegate.finish)

    def on_connection_close(self) -> None:
        delegate, self._delegate = self._delegate, None
        outgoing = self._outgoing
        exchange = outgoing.exchange
        if exchange and exchange.has_started:
            # Why it was closed before the body was complete; 0 if the client has left.
            stream = self._connection.stream
            status = int(getattr(stream, "rejected_with", 0))
            # It has reached its handler.
            stream.rejected_with = 0
            outgoing.end(status or CLIENT_CLOSED_REQUEST)
        elif exchange:
            outgoing.exchange = None
            self._runtime.forget(exchange)
        if delegate:
            outgoing.attempt(exchange, delegate.on_connection_close)
            if self._body:
                # An override does not call Tornado's own, and the handler would wait forever.
                _break_off(self._body, StreamClosedError())


def _passed_on(name: str) -> property:
    def write(outgoing: "Outgoing", value: Any) -> None:
        setattr(outgoing._connection, name, value)

    return property(attrgetter(f"_connection.{name}"), write)


class Outgoing(httputil.HTTPConnection):
    """The connection, as whoever answers the request has it."""

    # What else is public of it. With `__getattr__`, Python 3.11 would find nothing fast.
    close = _passed_on("close")
    is_client = _passed_on("is_client")
    no_keep_alive = _passed_on("no_keep_alive")
    params = _passed_on("params")
    read_response = _passed_on("read_response")
    set_body_timeout = _passed_on("set_body_timeout")
    set_max_body_size = _passed_on("set_max_body_size")
    stream = _passed_on("stream")

    def __init__(self, runtime: Runtime, connection: HTTP1Connection) -> None:
        self._runtime = runtime
        self._connection = connection
        self.context = connection.context
        # All are set here, since Python finds those slowly that hide one of the class.
        #: Template of the matched route.
        self.route = ""
        #: None when it has ended.
        self.exchange: Exchange | None = None
        self._handler: ref[Handler] | None = None
        self._callback: Callable[[], None] | None = None
        #: Of the answer that has begun.
        self._status = 0
        # Tornado drops it with the end of the request.
        connection.set_close_callback(self._closed)

    @property
    def handler(self) -> Handler | None:
        """What answers, if that is a handler."""
        return self._handler() if self._handler else None

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        self._callback = callback

    def write_headers(
        self, start_line: StartLine, headers: HTTPHeaders, chunk: bytes | None = None
    ) -> "asyncio.Future[None]":
        if not (exchange := self.exchange):
            return _ended()
        status = self._status = int(start_line.code)  # type: ignore  # may be an HTTPStatus
        if status == 405 and (handler := self.handler):
            # RFC 9110 demands it of whatever answers, and Tornado's own handlers lack it.
            headers.setdefault("Allow", ", ".join(methods_of(type(handler))))
        if status == 101:
            # Undocumented: in a stop, the connection would be closed after its handshake.
            self._connection._disconnect_on_finish = False
        headers["X-Request-ID"] = exchange.request_id
        # `Server` reveals the version.
        if "Server" in headers and headers["Server"].startswith(_SERVER):
            del headers["Server"]
        return self._connection.write_headers(start_line, headers, chunk)

    def write(self, chunk: bytes) -> "asyncio.Future[None]":
        connection = self._connection
        # Tornado would mix up the writes that end with it.
        if not self.exchange or connection.stream.closed():
            return _ended()
        return connection.write(chunk)

    def finish(self) -> None:
        exchange, connection = self.exchange, self._connection
        if not exchange:
            return  # By now, the connection may answer another request.
        # Before it closes the stream itself.
        is_lost = connection.stream.closed() and not exchange.error
        if not (self._status or is_lost):
            # Its headers could not be put together: the client would wait for ever.
            self.give_up(HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        try:
            connection.finish()
        finally:
            self.end(CLIENT_CLOSED_REQUEST if is_lost else self._status or 200)

    def detach(self) -> IOStream:
        self._callback = None
        stream = self._connection.detach()
        # From here on, it is another protocol, whose end HTTP does not see.
        self.end(self._status or 200)
        return stream

    def _closed(self) -> None:
        callback, self._callback = self._callback, None
        exchange = self.exchange
        # First: what the handler does about it may fail.
        self.end(CLIENT_CLOSED_REQUEST)
        if callback:
            self.attempt(exchange, callback)

    def end(self, status: int) -> None:
        """Ends the exchange, if that has not ended."""
        if exchange := self.exchange:
            self.exchange = None
            if status == 101:
                handler = self.handler
                if isinstance(handler, WebSocketHandler) and handler.ws_connection:
                    self._runtime.websockets[handler] = Socket(self._runtime, exchange, handler)
            self._runtime.end(exchange, status)

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

    def attempt(self, exchange: Exchange | None, work: Callable[..., object], *args: Any) -> None:
        """Calls what may raise anything, for which Tornado would wait or close the connection."""
        try:
            work(*args)
        except BaseException as error:
            self.fail(error, exchange)

    def fail(self, error: BaseException, exchange: Exchange | None) -> None:
        """Reports what escaped from a handler, and answers with 500 if it has not answered."""
        contain(error)
        if isinstance(error, httputil.HTTPInputError):
            # A form for a function: Tornado parses that of a handler within the handler.
            self.give_up(HTTPStatus.BAD_REQUEST)
            return
        if exchange and exchange.has_started:
            # Not within the context itself, which may be entered already.
            context = exchange.context.copy()
            context.run(log.error, "Unhandled exception in %s", exchange, exc_info=error)
            context.run(self._runtime.report_failure, exchange, error)
        self.give_up(HTTPStatus.INTERNAL_SERVER_ERROR)

    def give_up(self, status: HTTPStatus) -> None:
        """Answers in place of a handler that won't; if it has begun, cuts its answer off."""
        if not self.exchange:
            return
        if self._status:
            # The client must not mistake a part of the response for all of it.
            self.end(self._status)
            self.stream.close()
        else:
            self.answer(status, status.phrase)

    def _time_out(
        self, exchange: Exchange, handler: Handler, task: "asyncio.Task[None]", seconds: float
    ) -> None:
        """Answers with 503 in place of a handler that has taken too long, and cancels it."""
        status = HTTPStatus.SERVICE_UNAVAILABLE
        exchange.error = TimeoutError(f"no answer within {seconds:g} s")
        exchange.context.run(log.warning, "Gave up on %s after %g s", exchange, seconds)
        # Before its task has run, it has no way to answer.
        if not self._status and handler._transforms is not None:
            self.attempt(exchange, exchange.context.copy().run, handler.send_error, status)
        self.give_up(status)
        task.cancel()

    def observe(self, delegate: web._HandlerDelegate) -> None:
        """Learns what the handler that is about to be made raises, and with which task it runs."""
        # It is called with what the class would be called with.
        make: Any = partial(self._make, delegate.handler_class)
        delegate.handler_class = make

    def _make(self, handler_class: type[Handler], /, *args: Any, **kwargs: Any) -> Handler:
        handler = handler_class(*args, **kwargs)
        # One of a team's may have no fallback yet.
        if isinstance(handler, web.FallbackHandler) and "fallback" in vars(handler):
            handler.fallback = partial(_fall_back, handler.fallback, self)
        is_inner = self._handler is not None  # behind a `FallbackHandler`
        self._handler = weak = ref(handler)
        exchange = self.exchange
        if not exchange:
            return handler  # Made too late to answer.
        # Beside the class, as Tornado does itself with those of a WebSocket. `initialize` may have
        # set one.
        own = vars(handler).get("log_exception")
        log_exception = partial(self._log_exception, exchange, weak, own)
        handler.log_exception = log_exception  # type: ignore[method-assign]

        def execute(*args: Any, **kwargs: Any) -> "asyncio.Task[None]":
            del handler._execute  # that of its class is back
            task = self._run(handler._execute(*args, **kwargs), handler, exchange)
            if self.exchange and not (is_inner or task.done()):
                time_out = partial(self._time_out, exchange, handler, task)
                self._runtime.exchanges[exchange] = handler, time_out
            return task

        handler._execute = execute  # type: ignore[method-assign, assignment]
        return handler

    def _log_exception(
        self, exchange: Exchange, weak: "ref[Handler]", own: LogException | None, *error: Any
    ) -> None:
        """In place of a handler's: leaves it to the team's, if that has one, and reports it."""
        handler, value = weak(), error[1]
        assert handler
        if _has_left(handler, exchange, value):
            log.debug("Client disconnected during %s", exchange)
            # Nobody is there, and Tornado would log an error for that.
            with suppress(Exception):
                handler.finish()
            return
        is_failure = value is not None and (
            not isinstance(value, web.HTTPError) or value.status_code >= 500
        )
        try:
            log_failure(handler, own, exchange, *error)
        except BaseException as raised:
            contain(raised)
            # As Tornado does for a request, but not for a WebSocket, which would then hang.
            app_log.error("Error in exception logger", exc_info=True)
        if is_failure:
            self._runtime.report_failure(exchange, value)

    def _run(self, coroutine: Any, handler: Handler, exchange: Exchange) -> "asyncio.Task[None]":
        loop = asyncio.get_running_loop()
        task: asyncio.Task[None]
        if sys.version_info >= (3, 12) and self._runtime.eager_start:
            # As Tornado did before it had native coroutines. Going through the event loop would
            # take three more turns until the connection reads again. Between two requests of a
            # connection, Tornado lets others run.
            task = asyncio.Task(coroutine, loop=loop, eager_start=True)
        else:
            task = loop.create_task(coroutine)
        if task.done():
            self._executed(handler, exchange, task)
            return task
        task.add_done_callback(partial(self._executed, handler, exchange))
        stream = self._connection.stream
        if stream and (callback := stream._close_callback):
            # The connection is about to replace it, as it expects a handler to start later.
            loop.call_soon(self._keep, callback)
        return task

    def _keep(self, callback: Callable[[], None]) -> None:
        """Calls what the handler has set on the stream itself, too."""
        stream = self.stream
        if stream and not stream.closed() and (own := stream._close_callback):

            def closed() -> None:
                own()
                callback()

            stream.set_close_callback(closed)

    def _executed(self, handler: Handler, exchange: Exchange, task: "asyncio.Task[None]") -> None:
        """Answers if the handler has not: Tornado does not expect hooks to raise whatever they
        like."""
        if self._status == 101 and isinstance(handler, WebSocketHandler):
            self._websocket_executed(handler, task)
        if task.cancelled():
            self.give_up(HTTPStatus.INTERNAL_SERVER_ERROR)
        elif error := task.exception():
            self.fail(error, exchange)
        elif self.exchange and handler._auto_finish and not handler._finished:
            # What an exception handler raises, Tornado has logged.
            self.give_up(HTTPStatus.INTERNAL_SERVER_ERROR)

    def _websocket_executed(self, handler: WebSocketHandler, task: "asyncio.Task[None]") -> None:
        """Closes what its client takes for a WebSocket, but nobody reads."""
        protocol = handler.ws_connection
        if self.stream:
            self.stream.close()
        elif protocol and (task.cancelled() or task.exception()):
            protocol._abort()
        if not (protocol and protocol.stream and not protocol.is_closing()):
            self._runtime.websockets.pop(handler, None)


def log_failure(
    handler: Handler, own: LogException | None, exchange: Exchange, *error: Any
) -> None:
    # Tornado's own messages include the query string, which may contain secrets.
    of_class, value = type(handler).log_exception, error[1]
    if own:
        own(*error)
    elif of_class is not Handler.log_exception:
        of_class(handler, *error)
    elif isinstance(value, web.HTTPError):
        message = value.get_message()
        if value.status_code >= 500:
            meant = message or value.reason or "raised by the handler"
            log.error("%d %s: %s", value.status_code, exchange, meant, exc_info=value)
        elif message:
            log.warning("%d %s: %s", value.status_code, exchange, message)
    elif value is not None:
        log.error("Unhandled exception in %s", exchange, exc_info=value)


def _has_left(handler: Handler, exchange: Exchange, error: BaseException | None) -> bool:
    """Whether an error is that the handler's own client has left, and not another one."""
    if isinstance(error, WebSocketClosedError):
        own = getattr(handler, "ws_connection", None)
        return exchange.status == 101 and not (own and own.stream and not own.is_closing())
    if isinstance(error, StreamClosedError):
        connection: Any = exchange.request.connection
        stream = connection.stream
        return stream is not None and bool(stream.closed())
    return False


def _ended() -> "asyncio.Future[None]":
    """What a write gets after the end, as from a connection that is closed."""
    written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    _break_off(written, StreamClosedError())
    return written


def _break_off(future: "asyncio.Future[None]", error: BaseException) -> None:
    """Ends a future, if that has not ended, whether or not somebody still waits for it."""
    if not future.done():
        future.set_exception(error)
        future.exception()


def _fall_back(fallback: Any, outgoing: Outgoing, request: HTTPServerRequest) -> None:
    """Calls what is behind a `FallbackHandler`, and learns what it raises."""
    if isinstance(fallback, web.Application):
        delegate: Any = fallback.find_handler(request)
        if isinstance(delegate, web._HandlerDelegate):
            outgoing.observe(delegate)
        delegate.execute()
    elif handle_request := getattr(fallback, "handle_request", None):
        # By itself, a `WSGIContainer` goes on in a task of its own, which nobody looks at.
        task = asyncio.ensure_future(handle_request(request))
        task.add_done_callback(lambda done: outgoing.attempt(outgoing.exchange, done.result))
    else:
        fallback(request)


def _reads_body(handler_class: Any, method: str) -> bool:
    return method in _METHODS_WITH_BODY and method in methods_of(handler_class)
