"""Span export: spans are queued when they end, and a thread sends them.

A span is encoded when it ends. The string keeps no object of the request alive, the queue is
bounded by its length, and no request has to wait while a whole batch is encoded.
"""

import asyncio
import functools
import http.client
import io
import logging
import random
import re
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from .backend import Backend
from .spans import Encoded, Span

BATCH = 512
"""Maximum number of spans that are sent at once, as in OpenTelemetry's SDK."""

BATCH_SECONDS = 1.0
"""How long spans wait for their batch to fill up."""

QUEUE_CHARACTERS = 4 * 1024 * 1024
"""Size of the queue; if it is full, spans are dropped."""

STOP_SECONDS = 1.4

# The delay between two attempts doubles each time.
FIRST_DELAY_SECONDS = 0.5
MAX_DELAY_SECONDS = 30.0

# A batch is given up after this many error responses, because it may be their cause.
MAX_REFUSALS = 8
ANSWER_BYTES = 64 * 1024
PIECE_BYTES = 64 * 1024

log = logging.getLogger(__name__)


class Exporter:
    """Sends spans to the backend, and retries while that fails. Ending a span never blocks."""

    def __init__(self, backend: Backend) -> None:
        self.exported = 0
        #: Spans that the backend refused for good, or that could not be encoded.
        self.failed = 0
        #: Spans for which the queue was full, or that were still in it after the stop.
        self.dropped = 0
        self._backend = backend
        self._url = urlsplit(backend.url)
        # Without the path and the query, which may contain a key.
        self._name = f"{self._url.scheme}://{self._url.netloc}"
        self._target = backend.url.removeprefix(self._name)
        self._connection: _Connection | None = None
        self._is_failing = False
        self._queue: deque[Encoded] = deque()
        self._size = 0
        self._lock = threading.Lock()
        self._full = threading.Event()
        self._stopping = threading.Event()
        # A daemon, because it may hang in the resolver for longer than a stop may take.
        self._thread = threading.Thread(target=self._run, name="span exporter", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        """Sends what is queued, within STOP_SECONDS; the rest is dropped."""
        self._stopping.set()
        self._full.set()
        try:
            if self._thread.is_alive():
                await asyncio.to_thread(self._thread.join, STOP_SECONDS)
        finally:
            if lost := len(self._queue):
                self.dropped += lost
                log.warning("%d spans were lost: they could not be sent before the stop", lost)

    def put(self, span: Span) -> None:
        """Queues a span that has ended; may be called from any thread."""
        if self._size > QUEUE_CHARACTERS:
            self.dropped += 1
            return
        try:
            encoded = self._backend.encode(span)
        except Exception:  # from an attribute's own `__str__`
            log.exception("Could not encode a span")
            self.failed += 1
            return
        with self._lock:
            self._queue.append(encoded)
            self._size += len(encoded.text)
        if len(self._queue) == BATCH:
            self._full.set()

    def _run(self) -> None:
        while self._queue or not self._stopping.is_set():
            if len(self._queue) < BATCH and not self._stopping.is_set():
                self._full.wait(BATCH_SECONDS)
            self._full.clear()
            with self._lock:
                batch = list(islice(self._queue, BATCH))
            if batch:
                try:
                    if not self._deliver(batch):
                        break
                except Exception:
                    log.exception("Could not send %d spans", len(batch))
                    self.failed += len(batch)
                with self._lock:
                    for encoded in batch:
                        self._queue.popleft()
                        self._size -= len(encoded.text)
        if self._connection:
            self._connection.close()

    def _deliver(self, batch: list[Encoded]) -> bool:
        """Tries until the batch is accepted or given up; False if a stop comes first."""
        body = self._backend.body([_clean(each) if "\\ud" in each.text else each for each in batch])
        delay = FIRST_DELAY_SECONDS
        refusals = 0
        while True:
            last = self._stopping.is_set()
            status, problem = self._attempt(body)
            if 200 <= status < 300:
                self.exported += len(batch)
                if self._is_failing:
                    log.info("Span export to %s works again", self._name)
                    self._is_failing = False
                return True
            if not self._is_failing:
                log.warning("Span export to %s failed: %s", self._name, problem)
                self._is_failing = True
            # OTLP does not retry after a 500, but a restarting collector may answer with one.
            refusals += status != 0
            if refusals == MAX_REFUSALS or (400 <= status < 500 and status not in (408, 429)):
                self.failed += len(batch)
                return True
            if last:
                return False
            # With jitter, so that instances do not all retry at the same time.
            self._stopping.wait(delay * random.uniform(0.5, 1))
            delay = min(2 * delay, MAX_DELAY_SECONDS)

    def _attempt(self, body: bytes) -> tuple[int, str]:
        """The status of the backend's response, or 0, and what to log about it."""
        deadline = monotonic() + self._backend.timeout

        def remaining() -> float:
            seconds = deadline - monotonic()
            if seconds <= 0:
                raise TimeoutError("timed out")
            return seconds

        if self._connection is None:
            kind = _SecureConnection if self._url.scheme == "https" else _Connection
            self._connection = kind(self._url.netloc)
        connection = self._connection
        connection.remaining = remaining
        used = connection.sock is not None
        if used:
            connection.sock.settimeout(remaining())
        connection.response_class = functools.partial(_Response, remaining)  # type: ignore[assignment]
        headers = {**self._backend.headers, "Content-Length": str(len(body))}
        try:
            pieces = _pieces(body, connection, remaining)
            connection.request("POST", self._target, pieces, headers)
            response = connection.getresponse()
            response.read(ANSWER_BYTES)
            if not response.isclosed():
                connection.close()
        except (OSError, ValueError, http.client.HTTPException) as error:
            connection.close()
            if used and isinstance(error, ConnectionError):
                # The backend had closed it while it was idle.
                return self._attempt(body)
            return 0, str(error) or type(error).__name__
        return response.status, f"{response.status} {response.reason}"


class _Connection(http.client.HTTPConnection):
    """A connection that has to be made in time, however many addresses its host has.

    `http.client` gives each of them as long as all may take together.
    """

    remaining: Callable[[], float]

    def connect(self) -> None:
        addresses = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        while True:
            address = addresses.pop(0)
            try:
                # The others need some of the time, too.
                self.sock = _connected(address, self.remaining() / (len(addresses) + 1))
                return
            except OSError:
                if not addresses:
                    raise


def _connected(info: Any, seconds: float) -> socket.socket:
    *kind, _, address = info
    sock = socket.socket(*kind)
    try:
        sock.settimeout(seconds)
        sock.connect(address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        sock.close()
        raise
    return sock


class _SecureConnection(http.client.HTTPSConnection, _Connection):
    """The same by TLS, which `HTTPSConnection` adds to what it finds connected."""


def _pieces(
    body: bytes, connection: http.client.HTTPConnection, remaining: Callable[[], float]
) -> Iterator[bytes]:
    for start in range(0, len(body), PIECE_BYTES):
        connection.sock.settimeout(remaining())
        yield body[start : start + PIECE_BYTES]


class _Response(http.client.HTTPResponse):
    """A response that has to be complete in time, even if it arrives byte by byte.

    A socket's own timeout starts again with each byte.
    """

    def __init__(
        self, remaining: Callable[[], float], sock: socket.socket, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(sock, *args, **kwargs)
        raw = self.fp.detach()
        self.fp = io.BufferedReader(_Timed(raw, sock, remaining))


class _Timed(io.RawIOBase):
    def __init__(
        self, raw: io.RawIOBase, sock: socket.socket, remaining: Callable[[], float]
    ) -> None:
        self._raw = raw
        self._sock = sock
        self._remaining = remaining

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._remaining())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


_ESCAPE = re.compile(r"\\(?:ud[89ab]..\\ud[c-f]..|(ud[89a-f]..)|.)")


def _clean(encoded: Encoded) -> Encoded:
    """The span with U+FFFD for each lone surrogate, because of which a backend may refuse the whole
    batch."""
    text = _ESCAPE.sub(lambda match: "\\ufffd" if match[1] else match[0], encoded.text)
    return Encoded(encoded.scope, text)
