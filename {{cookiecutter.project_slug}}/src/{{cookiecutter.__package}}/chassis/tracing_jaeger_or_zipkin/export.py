"""Spans on their way out: queued when they end, and sent by a thread of its own.

A span is encoded when it ends: its string keeps no object of the request alive, its length is what
the queue is bounded by, and no request has to wait while a whole batch is encoded.
"""

import asyncio
import http.client
import logging
import random
import threading
from collections import deque
from itertools import islice
from urllib.parse import urlsplit

from .backend import Backend
from .spans import Encoded, Span

BATCH = 128
"""How many spans are sent at once, at most."""

BATCH_SECONDS = 1.0
"""How long spans wait for their batch to fill."""

QUEUE_CHARACTERS = 4 * 1024 * 1024
"""Size of the queue; beyond it, spans are dropped."""

STOP_SECONDS = 1.4

# The wait between two attempts is doubled each time.
FIRST_DELAY_SECONDS = 0.5
MAX_DELAY_SECONDS = 30.0

# A batch is given up after this many error responses: the batch itself may be their cause.
MAX_REFUSALS = 8
ANSWER_BYTES = 64 * 1024

log = logging.getLogger(__name__)


class Exporter:
    """Sends spans to the backend, and tries again while that fails. Ending a span never blocks."""

    def __init__(self, backend: Backend) -> None:
        self.exported = 0
        #: Spans that the backend refused for good, or that could not be encoded.
        self.failed = 0
        #: Spans that found the queue full, or were still in it after the stop.
        self.dropped = 0
        self._backend = backend
        self._url = urlsplit(backend.url)
        # Without the path and the query, which may hold a key.
        self._name = f"{self._url.scheme}://{self._url.netloc}"
        self._target = backend.url.removeprefix(self._name)
        self._connection: http.client.HTTPConnection | None = None
        self._is_failing = False
        self._queue: deque[Encoded] = deque()
        self._size = 0
        self._lock = threading.Lock()
        self._full = threading.Event()
        self._stopping = threading.Event()
        # A daemon, since it may hang in the resolver for longer than a stop may take.
        self._thread = threading.Thread(target=self._run, name="span exporter", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        """Sends what is queued, within STOP_SECONDS; what is left then is dropped."""
        self._stopping.set()
        self._full.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, STOP_SECONDS)
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
                if not self._deliver(batch):
                    break
                with self._lock:
                    for encoded in batch:
                        self._queue.popleft()
                        self._size -= len(encoded.text)
        if self._connection:
            self._connection.close()

    def _deliver(self, batch: list[Encoded]) -> bool:
        """Tries until the batch is accepted or given up; False where a stop comes first."""
        body = self._backend.body(batch)
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
            # OTLP does not retry after a 500, but a collector that restarts may answer with one.
            refusals += status != 0
            if refusals == MAX_REFUSALS or (400 <= status < 500 and status not in (408, 429)):
                self.failed += len(batch)
                return True
            if last:
                return False
            # Jittered, so that not all instances try again at the same time.
            self._stopping.wait(delay * random.uniform(0.5, 1))
            delay = min(2 * delay, MAX_DELAY_SECONDS)

    def _attempt(self, body: bytes) -> tuple[int, str]:
        """The status of the backend's answer, 0 for none, and what to log about it."""
        if self._connection is None:
            secure = self._url.scheme == "https"
            kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
            self._connection = kind(self._url.netloc, timeout=self._backend.timeout)
        used = self._connection.sock is not None
        try:
            self._connection.request("POST", self._target, body, self._backend.headers)
            response = self._connection.getresponse()
            response.read(ANSWER_BYTES)
            if not response.isclosed():
                self._connection.close()
        except (OSError, ValueError, http.client.HTTPException) as error:
            self._connection.close()
            if used and isinstance(error, ConnectionError):
                # The backend had closed it while it was idle.
                return self._attempt(body)
            return 0, str(error) or type(error).__name__
        return response.status, f"{response.status} {response.reason}"
