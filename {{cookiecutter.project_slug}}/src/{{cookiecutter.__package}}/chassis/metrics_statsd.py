"""Metrics for StatsD, sent over UDP.

Names follow OpenTelemetry's stable HTTP conventions. StatsD has no labels, so their values are
parts of the name, as in `http_server_request_duration_seconds.GET.http.200._hello_name_.none` for
method, scheme, status, route and error. Each name begins with the name of the service, or with
`STATSD_PREFIX`. The name of a gauge ends with the instance, because StatsD keeps only the last
value of a name. Durations are sent in milliseconds, as StatsD expects. Add your own metrics with
`counter`, `gauge` and `histogram`.

Metrics of the process have other names than statsd_exporter's own, with which they would collide:
it would then show no metrics at all.

Written by hand because `statsd.StatsClient` resolves its host in the constructor, which raises for
an unknown host, and blocks the event loop while it sends.
"""

import asyncio
import gc
import logging
import math
import os
import platform
import re
import socket
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic, process_time
from typing import Any, Self

from . import SERVICE, __version__
from .application import Application, Exchange, Export, Observer
from .client import Call
from .settings import Settings

TICK_SECONDS = 0.25
FLUSH_TICKS = 4
LAG_TICKS = 60
"""The worst lag in 15 s is sent: a daemon that flushes every 10 s keeps only the last value."""

LAST_FLUSH_SECONDS = 1.4

DATAGRAM_BYTES = 1432
"""The payload of an Ethernet frame, minus the overhead of a tunnel."""

MAX_DATAGRAMS = 500
MAX_SERIES = 10_000

PROBE_SECONDS = 1.0
RESOLVE_AGAIN_SECONDS = 300.0
RETRY_SECONDS = 1.0
RETRY_DOUBLINGS = 5

log = logging.getLogger(__name__)


class _Outbox:
    """Measurements that have not been sent yet. Any thread may add to them."""

    def __init__(self) -> None:
        #: False without a host to send to; then nothing is kept.
        self.enabled = True
        self.prefix = ""
        #: Of gauges.
        self.suffix = ""
        self.datagrams: deque[bytes] = deque()
        #: By name and kind: `g` for a gauge, `c` for a count since the last `take()`.
        self.values: dict[tuple[str, str], float] = {}
        self.dropped = 0
        self.lock = Lock()

    def write(self, name: str, kind: str, value: float) -> None:
        """Adds a line to the last datagram, or to a new one if the last is full."""
        if not self.enabled or not math.isfinite(value):
            return
        number = str(int(value)) if value == int(value) else f"{value:.6f}"
        name = f"{self.prefix}{name}{self.suffix if kind == 'g' else ''}"
        line = f"{name}:{number}|{kind}"
        if kind == "g" and value < 0:
            # StatsD adds a number with a sign to the value before it.
            line = f"{name}:0|g\n{line}"
        text = line.encode()
        with self.lock:
            if self.datagrams and len(self.datagrams[-1]) + len(text) < DATAGRAM_BYTES:
                self.datagrams[-1] += b"\n" + text
            elif len(self.datagrams) < MAX_DATAGRAMS and len(text) <= DATAGRAM_BYTES:
                self.datagrams.append(text)
            else:
                self.dropped += 1

    def change(self, name: str, kind: str, value: float, *, adds: bool = True) -> None:
        """Adds to a value, or sets it."""
        if not self.enabled or not math.isfinite(value):
            return
        with self.lock:
            if (name, kind) in self.values or len(self.values) < MAX_SERIES:
                before = self.values.get((name, kind), 0) if adds else 0
                self.values[name, kind] = before + value
            else:
                self.dropped += 1

    def take(self) -> dict[tuple[str, str], float]:
        """All gauges, and the counts since the last time."""
        with self.lock:
            taken = self.values
            self.values = {key: value for key, value in taken.items() if key[1] == "g"}
        return taken


_outbox = _Outbox()


class _Metric:
    def __init__(self, name: str, labels: Sequence[str] = ()) -> None:
        self._name = name
        self._labels = tuple(labels)

    def labels(self, *values: object) -> Self:
        """The metric with these values of its labels. Each makes a series, so there should be few.

        Raises ValueError unless there are as many values as labels.
        """
        if len(values) != len(self._labels):
            raise ValueError(f"{self._name} has the labels {self._labels}")
        return type(self)(_dotted(self._name, *values))

    def _series(self) -> str:
        if self._labels:
            raise ValueError(f"{self._name} has labels: call labels() first")
        return self._name


class Counter(_Metric):
    def inc(self, amount: float = 1) -> None:
        """Raises ValueError for a negative amount."""
        if amount < 0:
            raise ValueError("a counter only grows")
        _outbox.change(self._series(), "c", amount)


class Gauge(_Metric):
    def set(self, value: float) -> None:
        _outbox.change(self._series(), "g", value, adds=False)

    def inc(self, amount: float = 1) -> None:
        _outbox.change(self._series(), "g", amount)

    def dec(self, amount: float = 1) -> None:
        self.inc(-amount)


class Histogram(_Metric):
    def observe(self, seconds: float) -> None:
        _outbox.write(self._series(), "ms", seconds * 1000)


def counter(name: str, documentation: str, labels: Sequence[str] = ()) -> Counter:
    """A number that only grows: `.labels(...).inc()`."""
    return Counter(name, labels)


def gauge(name: str, documentation: str, labels: Sequence[str] = ()) -> Gauge:
    """A number that goes up and down: `.labels(...).set(...)`."""
    return Gauge(name, labels)


def histogram(name: str, documentation: str, labels: Sequence[str] = ()) -> Histogram:
    """Durations in seconds: `.labels(...).observe(...)`."""
    return Histogram(name, labels)


class Metrics(Observer):
    """Measures each exchange and the event loop, and sends the metrics to StatsD every second.

    Without `STATSD_HOST` nothing is kept or sent.
    """

    def __init__(self, settings: Settings) -> None:
        self._application: Application
        self._connection: _Connection | None = None
        if settings.statsd_host is None:
            log.info("Metrics are not sent: STATSD_HOST is not set")
        else:
            self._connection = _Connection(settings.statsd_host, settings.statsd_port)
        _outbox.enabled = self._connection is not None
        _outbox.prefix = f"{settings.statsd_prefix or SERVICE}."
        _outbox.suffix = _dotted("", _instance(settings))
        self._active: dict[tuple[str, str], int] = {}
        self._totals: dict[str, float] = {}
        self._lags: deque[float] = deque(maxlen=LAG_TICKS)
        self._ticks = 0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def attach(self, application: Application) -> None:
        self._application = application

    async def startup(self) -> None:
        if self._connection:
            self._connection.start()
            self._sleep()

    async def shutdown(self) -> None:
        if self._connection and self._timer:
            self._timer.cancel()
            self._write()
            await self._connection.stop()

    def totals(self) -> Iterable[tuple[str, str, int]]:
        if _outbox.dropped:
            yield "statsd_dropped", "Measurements that had no room.", _outbox.dropped

    def exports(self) -> Iterable[Export]:
        if self._connection:
            yield Export("StatsD", "measurements", self._connection.sent, _outbox.dropped)
        else:
            yield Export("StatsD", "measurements")

    def request_started(self, exchange: Exchange) -> None:
        key = exchange.method, exchange.request.protocol
        self._active[key] = self._active.get(key, 0) + 1

    def request_ended(self, exchange: Exchange) -> None:
        method, scheme = exchange.method, exchange.request.protocol
        self._active[method, scheme] -= 1
        route, error = exchange.route or "unmatched", exchange.error_type or "none"
        labels = method, scheme, exchange.status, route, error
        name = _dotted("http_server_request_duration_seconds", *labels)
        _outbox.write(name, "ms", exchange.duration * 1000)
        # Sending all datagrams of a second at once would overrun the receiver.
        if len(_outbox.datagrams) > 1 and self._connection:
            self._connection.flush(keep=1)

    def call_ended(self, call: Call) -> None:
        server = call.server_address, call.server_port, call.scheme
        labels = call.method, *server, call.status or "none", call.error_type or "none"
        name = _dotted("http_client_request_duration_seconds", *labels)
        _outbox.write(name, "ms", call.duration * 1000)

    def _sleep(self) -> None:
        self._due = monotonic() + TICK_SECONDS
        self._timer = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        self._lags.append(max(0.0, monotonic() - self._due))
        self._ticks += 1
        self._sleep()
        if self._ticks % FLUSH_TICKS == 0 and self._connection and self._connection.flush():
            self._write()
            self._connection.flush()

    def _write(self) -> None:
        write = _outbox.write
        for key, active in self._active.items():
            write(_dotted("http_server_active_requests", *key), "g", active)
        write("websocket_connections", "g", self._application.open_websockets)
        write("event_loop_lag_seconds", "g", max(self._lags, default=0.0))
        write("process_cpu_time_seconds", "g", process_time())
        if sys.platform != "win32":
            with suppress(OSError):  # only Linux has this file
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                write("process_memory_usage_bytes", "g", pages * os.sysconf("SC_PAGE_SIZE"))
        for generation, figures in enumerate(gc.get_stats()):
            write(_dotted("python_gc_collections", generation), "g", figures["collections"])
        write(_dotted("build_info", SERVICE, __version__, platform.python_version()), "g", 1)
        for name, _, total, labels in self._application.totals():
            name = _dotted(name, *labels.values())
            if growth := total - self._totals.get(name, 0):
                write(name, "c", growth)
                self._totals[name] = total
        for (name, kind), value in _outbox.take().items():
            write(name, kind, value)


class _Connection:
    """A UDP socket to a host that may not be up yet, or no longer.

    The event loop sends. A thread resolves the host and checks that it does not refuse. The thread
    does not belong to the loop's executor, which asyncio joins at the end: a lookup may take
    minutes.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        #: Measurements.
        self.sent = 0
        #: None while the host is unknown or refuses. Replaced under the outbox's lock.
        self._socket: socket.socket | None = None
        #: Since the last success. Both threads count; a race costs at most a log message.
        self._failures = 0
        self._is_stopping = False
        #: Wakes the thread, whatever it is waiting for.
        self._wake = Event()
        self._thread = Thread(target=self._stay_connected, name="StatsD", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def flush(self, keep: int = 0) -> bool:
        """Sends all datagrams but the last `keep`, without waiting; False if some can't be sent."""
        try:
            with _outbox.lock:
                while self._socket and len(_outbox.datagrams) > keep:
                    self._socket.send(_outbox.datagrams[0])
                    self.sent += _outbox.datagrams.popleft().count(b"\n") + 1
                return self._socket is not None
        except BlockingIOError:
            return False
        except OSError as error:
            self._fail(error)
            self._wake.set()
            return False

    async def stop(self) -> None:
        """Sends what is left, waiting up to LAST_FLUSH_SECONDS for a lookup, and closes."""
        self._is_stopping = True
        self._wake.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_FLUSH_SECONDS):
                # In this order: the thread may find the socket and end at any moment.
                while not self.flush() and (self._thread.is_alive() or self._socket):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        self._use(None)

    def _fail(self, error: Exception) -> None:
        if not self._failures:
            log.warning("Sending metrics to %s:%d failed: %s", self._host, self._port, error)
        self._failures += 1
        self._use(None)

    def _use(self, connected: socket.socket | None) -> None:
        with _outbox.lock:
            previous, self._socket = self._socket, connected
        if previous:
            previous.close()

    def _stay_connected(self) -> None:
        while True:
            try:
                self._use(self._connect())
                if self._failures:
                    log.info("Sending metrics to %s:%d works again", self._host, self._port)
                self._failures = 0
            except (OSError, UnicodeError) as error:
                if not self._socket:  # An address that works is kept.
                    self._fail(error)
            retry = RETRY_SECONDS * 2 ** min(self._failures - 1, RETRY_DOUBLINGS)
            self._wake.wait(RESOLVE_AGAIN_SECONDS if self._socket else retry)
            self._wake.clear()
            if self._is_stopping:
                return

    def _connect(self) -> socket.socket:
        """Connects to the first address that does not refuse.

        Raises OSError or UnicodeError if there is none.
        """
        *others, last = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)
        for family, _, _, _, address in others:
            with suppress(OSError):
                return self._probe(family, address)
        return self._probe(last[0], last[-1])

    def _probe(self, family: socket.AddressFamily, address: Any) -> socket.socket:
        probed = socket.socket(family, socket.SOCK_DGRAM)
        try:
            probed.setblocking(False)
            probed.connect(address)
            # A host refuses only after something was sent to it; the next send raises the error.
            probed.send(b"")
            self._wake.wait(PROBE_SECONDS)
            probed.send(b"")
        except OSError:
            probed.close()
            raise
        return probed


def _instance(settings: Settings) -> str:
    """The host, and what distinguishes this process from others on it."""
    is_alone = settings.port and not settings.reuse_port
    return f"{socket.gethostname()}_{settings.port if is_alone else os.getpid()}"


@lru_cache(maxsize=MAX_SERIES)
def _dotted(name: str, *labels: object) -> str:
    return ".".join([name, *(re.sub(r"[^A-Za-z0-9_-]+", "_", str(each))[:100] for each in labels)])
