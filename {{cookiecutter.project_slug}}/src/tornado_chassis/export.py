"""Sends telemetry to a backend: text is queued, and a thread sends it in batches.

A span is encoded when it ends. The text keeps no object of the request alive, the queue is bounded
by its length, and no request has to wait while a whole batch is encoded.
"""

import asyncio
import base64
import http.client
import json
import logging
import random
import re
import socket
import ssl
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from itertools import islice
from time import monotonic, time
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from . import __version__
from .settings.resource import ResourceSettings
from .values import encodable, well_formed

BATCH = 512
"""Maximum number of texts that are sent at once, as in OpenTelemetry's SDK."""

BATCH_SECONDS = 1.0
"""How long they wait for their batch to fill up."""

QUEUE_CHARACTERS = 4 * 1024 * 1024
"""Size of the queue; if it is full, what comes is dropped."""

STOP_SECONDS = 1.4

# The delay between two attempts doubles each time.
FIRST_DELAY_SECONDS = 0.5
MAX_DELAY_SECONDS = 30.0

MAX_RETRY_AFTER_SECONDS = 3600

# A batch is given up after this many error responses, because it may be their cause.
MAX_REFUSALS = 8
ANSWER_BYTES = 64 * 1024
MESSAGE_CHARACTERS = 200

log = logging.getLogger(__name__)


class _Answer(NamedTuple):
    """The status of the backend's response, or 0, and what to log if something went wrong."""

    status: int
    problem: str = ""
    #: How many of the batch an OTLP backend did not accept, although it answered with 200.
    rejected: int = 0
    #: How many seconds the backend wants to be left alone.
    retry_after: int | None = None


class Backend:
    """Where telemetry is sent, and in which format."""

    name: str
    #: The variable that has its URL.
    setting: str
    signal: Literal["traces", "metrics"]
    #: What each text describes.
    unit: str
    #: What is logged if nothing is sent.
    idle: str

    def __init__(
        self,
        settings: ResourceSettings,
        url: str | None,
        timeout: int,
        headers: Mapping[str, str],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        #: Empty if it is not set.
        self.url = url or ""
        #: Seconds to wait for a response.
        self.timeout = timeout / 1000
        self.headers = {
            "Content-Type": "application/json",
            "User-Agent": f"{settings.service_name}/{settings.service_version}",
            **headers,
        }
        #: URL of a proxy, or empty.
        self.proxy = settings.proxy_for(self.url)
        #: How connections are secured; None for the usual way.
        self.tls = tls

    def encode(self, item: Any) -> str:
        """One item as text; empty if there is nothing to send of it."""
        raise NotImplementedError

    def body(self, texts: Sequence[str]) -> bytes:
        """The request for a batch of them."""
        raise NotImplementedError

    def exported(self, sender: "Sender | None", lost: int = 0) -> tuple[Any, ...]:
        """What a `feature.Export` has: what became of what its sender was given, while `lost` were
        not given to it."""
        counts = (sender.sent, sender.failed + sender.dropped + lost) if sender else ()
        return self.name, f"{self.unit}s", *counts


def make_sender(backend: Backend, settings: ResourceSettings, exporter: str) -> "Sender | None":
    """None if nothing is to be sent, which is logged. `exporter` is the one for this signal."""
    if settings.otel_sdk_disabled:
        reason = "OTEL_SDK_DISABLED is set"
    elif exporter == "none":
        reason = f"OTEL_{backend.signal.upper()}_EXPORTER is none"
    elif not backend.url:
        reason = f"{backend.setting} is not set"
    else:
        return Sender(backend)
    log.info("%s: %s", backend.idle, reason)
    return None


class Sender:
    """Sends items to a backend, and retries while that fails. `put` never blocks."""

    def __init__(self, backend: Backend) -> None:
        self.sent = 0
        #: What the backend refused for good, or what could not be encoded.
        self.failed = 0
        #: What the queue was full for, or what was still in it after the stop.
        self.dropped = 0
        self._backend = backend
        self._unit = backend.unit
        self._url = urlsplit(backend.url)
        self._proxy = urlsplit(backend.proxy)
        # Without the path and the query, which may contain a key.
        self._name = f"{self._url.scheme}://{self._url.netloc}"
        self._target = backend.url.removeprefix(self._name)
        self._headers = backend.headers
        if backend.proxy and self._url.scheme == "http":
            self._target = backend.url
            self._headers = {**self._headers, **self._credentials()}
        self._connection: _Connection | None = None
        self._is_failing = False
        self._queue: deque[str] = deque()
        self._size = 0
        self._lock = threading.Lock()
        self._full = threading.Event()
        self._stopping = threading.Event()
        # A daemon, because it may hang in the resolver for longer than a stop may take.
        name = f"{self._unit} exporter"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

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
                log.warning(
                    "%d %ss were lost: they could not be sent before the stop", lost, self._unit
                )

    @property
    def is_idle(self) -> bool:
        """Whether all that was queued has been sent or given up."""
        return not self._queue

    @property
    def is_full(self) -> bool:
        return self._size > QUEUE_CHARACTERS

    def put(self, item: Any) -> None:
        """Queues it; may be called from any thread."""
        if self.is_full:
            self.dropped += 1
            return
        try:
            text = self._backend.encode(item)
        except Exception:  # from an attribute's own `__str__`
            log.exception("Could not encode a %s", self._unit)
            self.failed += 1
            return
        if text:
            with self._lock:
                self._queue.append(text)
                self._size += len(text)
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
                    log.exception("Could not send %d %ss", len(batch), self._unit)
                    self.failed += len(batch)
                with self._lock:
                    for text in batch:
                        self._queue.popleft()
                        self._size -= len(text)
        if self._connection:
            self._connection.close()

    def _deliver(self, batch: list[str]) -> bool:
        """Tries until the batch is accepted or given up; False if a stop comes first."""
        body = self._backend.body([*map(well_formed, batch)])
        delay = FIRST_DELAY_SECONDS
        refusals = 0
        export = f"{self._unit.capitalize()} export to {self._name}"
        while True:
            last = self._stopping.is_set()
            status, problem, rejected, retry_after = self._attempt(body, len(batch))
            if status == 413 and (half := len(batch) // 2):
                # What is too large may be the whole, or one text.
                return self._deliver(batch[:half]) and self._deliver(batch[half:])
            if problem and not self._is_failing:
                log.warning("%s failed: %s", export, problem)
            elif self._is_failing and not problem:
                log.info("%s works again", export)
            self._is_failing = bool(problem)
            if not 200 <= status < 300:
                # OTLP does not retry after a 500, but a restarting collector may answer with one.
                refusals += status != 0 and retry_after is None
                is_final = 400 <= status < 500 and status not in (408, 429)
                if not is_final and refusals < MAX_REFUSALS:
                    if last:
                        return False
                    # With jitter, so that instances do not all retry at the same time.
                    self._stopping.wait((retry_after or 0) + delay * random.uniform(0.5, 1))
                    delay = min(2 * delay, MAX_DELAY_SECONDS)
                    continue
                rejected = len(batch)
            self.sent += len(batch) - rejected
            self.failed += rejected
            return True

    def _attempt(self, body: bytes, count: int) -> _Answer:
        connection = self._connection = self._connection or self._connect()
        connection.deadline = monotonic() + self._backend.timeout
        used = connection.sock is not None
        try:
            if not used:
                connection.connect()
            connection.sock.deadline = connection.deadline
            connection.request("POST", self._target, body, self._headers)
            response = connection.getresponse()
            answer = response.read(ANSWER_BYTES)
            if not response.isclosed():
                connection.close()
        except (OSError, ValueError, http.client.HTTPException) as error:
            connection.close()
            if used and isinstance(error, ConnectionError):
                # The backend had closed it while it was idle.
                return self._attempt(body, count)
            return _Answer(0, str(error) or type(error).__name__)
        if 200 <= response.status < 300:
            return _Answer(response.status, *_rejected(answer, count))
        retry_after = _seconds(response.headers.get("Retry-After", ""))
        return _Answer(response.status, f"{response.status} {response.reason}", 0, retry_after)

    def _connect(self) -> "_Connection":
        server = self._proxy.netloc.rpartition("@")[2] or self._url.netloc
        if self._url.scheme == "http":
            return _Connection(server)
        connection = _SecureConnection(server, self._backend.tls)
        if self._proxy.netloc:
            connection.set_tunnel(self._url.netloc, headers=self._credentials())
        return connection

    def _credentials(self) -> dict[str, str]:
        """The header that the proxy wants."""
        if not self._proxy.username:
            return {}
        words = unquote(f"{self._proxy.username}:{self._proxy.password or ''}")
        return {"Proxy-Authorization": f"Basic {base64.b64encode(words.encode()).decode()}"}


def _rejected(answer: bytes, count: int) -> tuple[str, int]:
    """What an OTLP backend says of a batch that it accepted only in part, or warns of; and how many
    it rejected."""
    try:
        partial = json.loads(answer)["partialSuccess"]
        rejected = partial.get("rejectedSpans") or partial.get("rejectedDataPoints") or 0
        rejected = min(max(int(rejected), 0), count)
        message = str(partial.get("errorMessage") or "")[:MESSAGE_CHARACTERS]
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        return "", 0  # all was accepted, or the backend has another protocol
    if rejected:
        message = f"{rejected} of {count} were rejected: {message}"
    return message, rejected


def _seconds(retry_after: str) -> int | None:
    """The header as https://www.rfc-editor.org/rfc/rfc9110#field.retry-after has it."""
    try:
        if re.fullmatch("[0-9]+", retry_after):
            seconds = int(retry_after)
        else:
            seconds = int(parsedate_to_datetime(retry_after).timestamp() - time())
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0), MAX_RETRY_AFTER_SECONDS)


class _Socket(socket.socket):
    """A socket with a deadline. Its own timeout starts again with each byte of a response."""

    deadline: float

    def sendall(self, *args: Any) -> None:
        self.settimeout(_until(self.deadline))
        super().sendall(*args)

    def send(self, *args: Any) -> int:
        self.settimeout(_until(self.deadline))
        return super().send(*args)

    def recv_into(self, *args: Any) -> int:
        self.settimeout(_until(self.deadline))
        return super().recv_into(*args)


class _SecureSocket(_Socket, ssl.SSLSocket):
    """The same with TLS, which sends piece by piece."""


class _Connection(http.client.HTTPConnection):
    """A connection that is made in time, however many addresses its host has.

    `http.client` gives each of them as long as all may take together.
    """

    deadline: float
    sock: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._create_connection = self._first_to_answer

    def _first_to_answer(self, server: tuple[str, int], *rest: object) -> _Socket:
        addresses = socket.getaddrinfo(*server, type=socket.SOCK_STREAM)
        while True:
            *kind, _, address = addresses.pop(0)
            sock = _Socket(*kind)
            sock.deadline = self.deadline
            try:
                # The others need some of the time, too.
                sock.settimeout(_until(self.deadline) / (len(addresses) + 1))
                sock.connect(address)
                return sock
            except OSError:
                sock.close()
                if not addresses:
                    raise


class _SecureConnection(http.client.HTTPSConnection, _Connection):
    def __init__(self, host: str, context: ssl.SSLContext | None) -> None:
        context = context or ssl.create_default_context()
        context.sslsocket_class = _SecureSocket
        super().__init__(host, context=context)


def _until(deadline: float) -> float:
    seconds = deadline - monotonic()
    if seconds <= 0:
        raise TimeoutError("timed out")
    return seconds


def resource_of(settings: ResourceSettings) -> dict[str, str]:
    """The attributes that describe the service in its telemetry."""
    resource = {
        "service.name": settings.service_name,
        "service.version": settings.service_version,
        "deployment.environment.name": settings.environment,
        # The name `opentelemetry` is reserved for OpenTelemetry's own SDKs.
        "telemetry.sdk.name": "tornado-chassis",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.version": __version__,
        **settings.otel_resource_attributes,
    }
    if settings.otel_service_name:
        resource["service.name"] = settings.otel_service_name
    # Bytes in the environment that are not text would make every message invalid.
    return {encodable(name): encodable(value) for name, value in resource.items()}
