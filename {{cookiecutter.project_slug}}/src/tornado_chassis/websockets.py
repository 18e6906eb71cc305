"""WebSockets: their messages are counted, and what is held in memory for them is limited."""

import asyncio
import logging
import zlib
from collections.abc import Awaitable, Callable
from sys import getsizeof
from typing import Any

from tornado.gen import convert_yielded
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketHandler

from .exchange import Exchange, contain, is_cancelled
from .feature import Runtime

UNREAD_BYTES = 1024 * 1024
"""How much may wait for a WebSocket's client to read it when another message is written."""

MAX_WEBSOCKET_BYTES = 16 * 1024 * 1024
"""What the messages of all WebSockets together may take in memory until they have been handled."""

CHUNK_BYTES = 16 * 1024

USUAL_MESSAGE_BYTES = 1024 * 1024
LARGEST_COPY = 5
"""Where messages may be larger than usual, there is room for one in addition. Each of its bytes may
take as many: one, and four as text."""

log = logging.getLogger(__name__)


class Socket:
    """Stands between a WebSocket's protocol and its handler: counts the messages, and with which
    code it was closed; does not keep more for a client than it will read."""

    #: Bytes of the message that is arriving or being handled, and whether its handler has it.
    held = 0
    _is_handled = False

    def __init__(self, runtime: Runtime, exchange: Exchange, handler: WebSocketHandler) -> None:
        self._runtime = runtime
        self._exchange = exchange
        self._handler = handler
        protocol: Any = handler.ws_connection
        self._protocol = protocol
        self._read, self._write = protocol._read_bytes, protocol.write_message
        protocol.handler = self
        protocol._read_bytes, protocol.write_message = self._read_bytes, self._write_message
        if decompressor := protocol._decompressor:
            self._decompress = decompressor.decompress
            decompressor.decompress = self._decompressed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handler, name)

    def on_message(self, message: str | bytes) -> Awaitable[None] | None:
        self._runtime.websocket_messages["received"] += 1
        # Decompressed or decoded, it is held beside what has arrived.
        if not isinstance(message, bytes) or len(message) != self.held:
            self._count(self.held + getsizeof(message))
            if self._protocol.client_terminated:
                return None
        self._is_handled = True
        return self._call(self._handler.on_message, message)

    def on_ping(self, data: bytes) -> Awaitable[None] | None:
        return self._call(self._handler.on_ping, data)

    def on_pong(self, data: bytes) -> Awaitable[None] | None:
        return self._call(self._handler.on_pong, data)

    def on_ws_connection_close(self, code: int | None = None, reason: str | None = None) -> None:
        self._runtime.websocket_closes[_close_code(code)] += 1
        self._count(0)
        # It refers to its handler, which would stay.
        self._runtime.websockets.pop(self._handler, None)
        self._call(self._handler.on_ws_connection_close, code, reason)

    def _call(self, hook: Callable[..., Any], *args: Any) -> Awaitable[None] | None:
        # Tornado expects an Exception, and not of each hook.
        try:
            pending = hook(*args)
        except BaseException as error:
            self._failed(error)
            return None
        return None if pending is None else self._wait(pending)

    async def _wait(self, pending: Any) -> None:
        try:
            await (pending if isinstance(pending, Awaitable) else convert_yielded(pending))
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                self._protocol._abort()  # The event loop is stopping.
            else:
                self._failed(error)

    def _failed(self, error: BaseException) -> None:
        contain(error)
        handler: Any = self._handler
        handler.log_exception(type(error), error, error.__traceback__)
        self._protocol._abort()

    def _decompressed(self, data: bytes) -> Any:
        try:
            return self._decompress(data)
        except zlib.error:  # To Tornado, it would be the handler that has failed.
            raise StreamClosedError from None

    def _count(self, size: int) -> None:
        """Counts what a message takes in memory. If that is too much for all clients together,
        closes the connection whose message takes the most and has not reached its handler."""
        runtime = self._runtime
        runtime.websocket_bytes += size - self.held
        self.held = size
        extra = max(self._protocol.params.max_message_size - USUAL_MESSAGE_BYTES, 0)
        if size and runtime.websocket_bytes > MAX_WEBSOCKET_BYTES + LARGEST_COPY * extra:
            arriving = [each for each in runtime.websockets.values() if not each._is_handled]
            most = max(arriving, key=lambda each: each.held, default=self)
            most._drop("and others hold too much memory")
            most._count(0)

    def _drop(self, reason: str) -> None:
        """Closes the connection at once."""
        log.warning("Closing a WebSocket of %s, %s", self._exchange, reason)
        self._protocol.client_terminated = True
        self._protocol.stream.close()

    def _write_message(self, message: Any, binary: bool = False) -> "asyncio.Future[None]":
        stream = self._protocol.stream
        if stream and not stream.closed() and len(stream._write_buffer) > UNREAD_BYTES:
            self._drop("which does not read")
        written: asyncio.Future[None] = self._write(message, binary)
        self._runtime.websocket_messages["sent"] += 1
        # Few wait for it; asyncio would log each message that a client goes away from.
        written.add_done_callback(lambda future: future.cancelled() or future.exception())
        return written

    async def _read_bytes(self, n: int) -> bytes:
        fragments = len(self._protocol._fragmented_message_buffer or b"")
        self._is_handled = False
        self._count(fragments)
        data = bytearray()
        # In parts, because what counts is what has arrived, and the buffer of a stream is limited.
        while len(data) + CHUNK_BYTES < n:
            data += await self._read(CHUNK_BYTES)
            self._count(fragments + len(data))
        rest: bytes = await self._read(n - len(data))
        self._count(fragments + n)
        return bytes(data + rest) if data else rest


def _close_code(code: int | None) -> str:
    """A code from RFC 6455; for any other code, which clients can choose, only its range."""
    if code is None:
        return "none"
    return str(code) if 1000 <= code <= 1015 else f"{code // 1000}xxx"
