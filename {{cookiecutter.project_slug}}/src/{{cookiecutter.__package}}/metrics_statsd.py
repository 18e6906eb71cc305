"""Metrics for StatsD, sent over UDP.

Names are those of OpenTelemetry's stable HTTP conventions. StatsD has no labels: their values are
parts of the name, as in `http_server_request_duration_seconds.GET.http.200._hello_name_.none` for
method, scheme, status, route and error. Durations travel in milliseconds, as StatsD has them.
Add your own with `counter`, `gauge` and `histogram`.
"""

import asyncio
import gc
import logging
import math
import os
import platform
import re
import socket
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Lock, Thread
from time import monotonic, process_time
from typing import Any, Self

from . import SERVICE, __version__
from .exchange import Exchange, Observer
from .settings import Settings

TICK_SECONDS = 0.25
FLUSH_TICKS = 4
LAG_TICKS = 60
LAST_FLUSH_SECONDS = 1.4

DATAGRAM_BYTES = 1432
"""What an Ethernet frame carries, less what a tunnel takes of it."""

FULL_SAMPLES = 16
"""About a datagram of them. All datagrams of a second at once would overrun a receiver."""

MAX_SAMPLES = 10_000
MAX_SERIES = 10_000

RESOLVE_SECONDS = 5.0
RESOLVE_AGAIN_SECONDS = 300.0
RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 30.0

log = logging.getLogger(__name__)

_LABEL_LENGTH = 100
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_STATM = Path("/proc/self/statm")

_Address = tuple[socket.AddressFamily, Any]


class _Store:
    """What was measured and not sent yet. Any thread may add to it."""

    def __init__(self) -> None:
        #: With nobody to send to, nothing is kept.
        self.enabled = True
        self.counters: dict[str, float] = {}
        self.gauges: dict[str, float] = {}
        #: Name and seconds of each.
        self.samples: deque[tuple[str, float]] = deque()
        self.dropped = 0
        self.lock = Lock()

    def count(self, name: str, amount: float) -> None:
        with self.lock:
            if self._takes(self.counters, name, amount):
                self.counters[name] = self.counters.get(name, 0) + amount

    def set(self, name: str, value: float) -> None:
        with self.lock:
            if self._takes(self.gauges, name, value):
                self.gauges[name] = value

    def shift(self, name: str, amount: float) -> None:
        with self.lock:
            if self._takes(self.gauges, name, amount):
                self.gauges[name] = self.gauges.get(name, 0) + amount

    def observe(self, name: str, seconds: float) -> None:
        if len(self.samples) >= MAX_SAMPLES:
            self.dropped += 1
        elif self.enabled:
            self.samples.append((name, seconds))

    def take_counters(self) -> dict[str, float]:
        """The counts since the last time."""
        with self.lock:
            counters, self.counters = self.counters, {}
            if self.dropped:
                counters["statsd_dropped"] = self.dropped
                self.dropped = 0
        return counters

    def _takes(self, series: dict[str, float], name: str, value: float) -> bool:
        if not self.enabled or not math.isfinite(value):
            return False
        if name in series or len(series) < MAX_SERIES:
            return True
        self.dropped += 1
        return False


_store = _Store()


class _Metric:
    def __init__(self, name: str, labels: Sequence[str] = ()) -> None:
        self._name = name
        self._labels = tuple(labels)
        self._children: dict[tuple[object, ...], Self] = {}

    def labels(self, *values: object) -> Self:
        """The metric with these values of its labels; as each makes a series, let them be few.

        Raises ValueError where there are not as many values as labels.
        """
        child = self._children.get(values)
        if child is None:
            if len(values) != len(self._labels):
                raise ValueError(f"{self._name} has the labels {self._labels}")
            child = type(self)(_dotted(self._name, *values))
            if len(self._children) < MAX_SERIES:
                self._children[values] = child
        return child

    def _series(self) -> str:
        if self._labels:
            raise ValueError(f"{self._name} has labels: call labels() first")
        return self._name


class Counter(_Metric):
    def inc(self, amount: float = 1) -> None:
        """Raises ValueError for a negative amount."""
        if amount < 0:
            raise ValueError("a counter only grows")
        _store.count(self._series(), amount)


class Gauge(_Metric):
    def set(self, value: float) -> None:
        _store.set(self._series(), value)

    def inc(self, amount: float = 1) -> None:
        _store.shift(self._series(), amount)

    def dec(self, amount: float = 1) -> None:
        _store.shift(self._series(), -amount)


class Histogram(_Metric):
    def observe(self, seconds: float) -> None:
        _store.observe(self._series(), seconds)


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
    """Measures each exchange and the event loop, and tells StatsD; without a host, nobody.

    `observers` are asked for their totals at each flush.
    """

    def __init__(self, settings: Settings, observers: Sequence[Observer] = ()) -> None:
        self._observers = observers
        self._sender: _Sender | None = None
        if settings.statsd_host is None:
            log.info("Metrics are not sent: STATSD_HOST is not set")
        else:
            self._sender = _Sender(settings.statsd_host, settings.statsd_port)
        _store.enabled = self._sender is not None
        self._prefix = f"{settings.statsd_prefix}." if settings.statsd_prefix else ""
        self._names: dict[tuple[str, str, int, str, str], str] = {}
        self._active: dict[tuple[str, str], int] = {}
        self._totals: dict[str, int] = {}
        self._lags: deque[float] = deque(maxlen=LAG_TICKS)
        self._ticks = 0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def startup(self) -> None:
        if self._sender:
            self._sender.start()
            self._sleep()

    async def shutdown(self) -> None:
        if self._sender and self._timer:
            self._timer.cancel()
            await self._sender.stop(self._lines())

    def request_started(self, exchange: Exchange) -> None:
        key = exchange.method, exchange.request.protocol
        self._active[key] = self._active.get(key, 0) + 1

    def request_ended(self, exchange: Exchange) -> None:
        method, scheme = exchange.method, exchange.request.protocol
        self._active[method, scheme] -= 1
        key = method, scheme, exchange.status, exchange.route, exchange.error_type
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = _dotted(
                "http_server_request_duration_seconds",
                method,
                scheme,
                exchange.status,
                exchange.route or "unmatched",
                exchange.error_type or "none",
            )
        _store.observe(name, exchange.duration)
        sender = self._sender
        if len(_store.samples) >= FULL_SAMPLES and sender and sender.is_proven:
            sender.send(self._samples())

    def _sleep(self) -> None:
        self._due = monotonic() + TICK_SECONDS
        self._timer = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        self._lags.append(max(0.0, monotonic() - self._due))
        self._ticks += 1
        self._sleep()
        sender = self._sender
        if self._ticks % FLUSH_TICKS == 0 and sender and sender.prove(self._gauges()):
            sender.send(self._lines())

    def _lines(self) -> Iterator[str]:
        yield from self._gauges()
        yield from self._counters()
        yield from self._samples()

    def _gauges(self) -> Iterator[str]:
        for labels, active in self._active.items():
            yield self._gauge(_dotted("http_server_active_requests", *labels), active)
        yield self._gauge("event_loop_lag_seconds", max(self._lags, default=0.0))
        yield self._gauge("process_cpu_seconds_total", process_time())
        with suppress(OSError):  # only Linux tells
            pages = int(_STATM.read_text().split()[1])
            yield self._gauge("process_resident_memory_bytes", pages * os.sysconf("SC_PAGE_SIZE"))
        for generation, figures in enumerate(gc.get_stats()):
            yield self._gauge(_dotted("python_gc_collections", generation), figures["collections"])
        build = _dotted("build_info", SERVICE, __version__, platform.python_version())
        yield self._gauge(build, 1)
        for name, value in _store.gauges.copy().items():
            yield self._gauge(name, value)

    def _gauge(self, name: str, value: float) -> str:
        line = f"{self._prefix}{name}:{_number(value)}|g"
        # A number with a sign would be added to the one before.
        return f"{self._prefix}{name}:0|g\n{line}" if value < 0 else line

    def _counters(self) -> Iterator[str]:
        counts = _store.take_counters()
        for observer in self._observers:
            for name, _, total in observer.totals():
                counts[name] = counts.get(name, 0) + total - self._totals.get(name, 0)
                self._totals[name] = total
        for name, count in counts.items():
            if count:
                yield f"{self._prefix}{name}:{_number(count)}|c"

    def _samples(self) -> Iterator[str]:
        for _ in range(len(_store.samples)):
            name, seconds = _store.samples.popleft()
            yield f"{self._prefix}{name}:{seconds * 1000:.3f}|ms"


class _Sender:
    """Datagrams to a host that may not be there yet, or not any more.

    A host that refuses says so only after it has been sent something. So what is sent first, to a
    host of which nothing is known, are gauges: they come again, and nothing is lost with them.
    """

    def __init__(self, host: str, port: int) -> None:
        self.is_proven = False
        self._host = host
        self._port = port
        self._socket: socket.socket | None = None
        self._address: _Address | None = None
        self._is_probed = False
        self._outbox: deque[bytes] = deque()
        self._failures = 0
        self._tried = asyncio.Event()
        self._lost = asyncio.Event()
        self._lookup: asyncio.Future[list[_Address] | Exception] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._stay_connected())

    def prove(self, lines: Iterable[str]) -> bool:
        """Whether the host takes what is sent; the first time, sends it a datagram of `lines`."""
        if self._socket is None or self.is_proven:
            return self.is_proven
        try:
            if not self._is_probed:
                self._socket.send(next(_datagrams(lines)))
                self._is_probed = True
                return False
            if error := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error, os.strerror(error))
        except OSError as error:
            self._fail(error)
            return False
        if self._failures:
            log.info("Metrics are sent to %s:%d again", self._host, self._port)
        self._failures = 0
        self.is_proven = True
        return True

    def send(self, lines: Iterable[str]) -> None:
        """Sends `lines`, unless what is left from the last time can't be sent yet."""
        self._send()
        if self._socket and not self._outbox:
            self._outbox.extend(_datagrams(lines))
            self._send()

    async def stop(self, lines: Iterable[str]) -> None:
        """Sends `lines`, to whoever it may be, and closes."""
        assert self._task
        self._outbox.extend(_datagrams(lines))
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_FLUSH_SECONDS):
                await self._tried.wait()
                self._send()
                while self._socket and self._outbox:
                    await asyncio.sleep(0.01)
                    self._send()
        self._task.cancel()
        self._disconnect()

    def _send(self) -> None:
        try:
            while self._socket and self._outbox:
                self._socket.send(self._outbox[0])
                self._outbox.popleft()
        except BlockingIOError:
            pass  # The next time, then.
        except OSError as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if not self._failures:
            log.warning("Metrics are not sent to %s:%d: %s", self._host, self._port, error)
        self._failures += 1
        self._disconnect()
        self._lost.set()

    def _disconnect(self) -> None:
        self.is_proven = self._is_probed = False
        if self._socket:
            self._socket.close()
            self._socket = None

    async def _stay_connected(self) -> None:
        while True:
            self._lost.clear()
            try:
                self._connect(await self._resolve())
            except (OSError, UnicodeError) as error:
                # An address that works is kept.
                if self._socket is None:
                    self._fail(error)
            self._tried.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(RESOLVE_AGAIN_SECONDS):
                    await self._lost.wait()
            if self._socket is None:
                delay = RETRY_SECONDS * 2 ** min(self._failures - 1, 10)
                await asyncio.sleep(min(delay, MAX_RETRY_SECONDS))

    async def _resolve(self) -> list[_Address]:
        # Not by the loop, which joins its threads at the end, and one may hang for minutes.
        if self._lookup is None:
            loop = asyncio.get_running_loop()
            self._lookup = loop.create_future()
            Thread(target=self._look_up, args=(loop, self._lookup), daemon=True).start()
        await asyncio.wait({self._lookup}, timeout=RESOLVE_SECONDS)
        if not self._lookup.done():
            raise TimeoutError("the resolver does not answer")
        found = self._lookup.result()
        self._lookup = None
        if isinstance(found, Exception):
            raise found
        return found

    def _look_up(
        self,
        loop: asyncio.AbstractEventLoop,
        lookup: "asyncio.Future[list[_Address] | Exception]",
    ) -> None:
        found: list[_Address] | Exception
        try:
            infos = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)
            found = [(family, address) for family, _, _, _, address in infos]
        except (OSError, UnicodeError) as error:
            found = error
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(lookup.set_result, found)

    def _connect(self, addresses: list[_Address]) -> None:
        if self._socket and self._address in addresses:
            return
        family, address = found = addresses[self._failures % len(addresses)]
        with ExitStack() as stack:
            connected = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            connected.setblocking(False)
            connected.connect(address)
            stack.pop_all()
        self._disconnect()
        self._socket, self._address = connected, found


def _dotted(name: str, *labels: object) -> str:
    return ".".join([name, *(_UNSAFE.sub("_", str(label))[:_LABEL_LENGTH] for label in labels)])


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.6f}"


def _datagrams(lines: Iterable[str]) -> Iterator[bytes]:
    """As many lines in each as fit."""
    datagram = b""
    for line in lines:
        longer = b"\n".join([datagram, line.encode()]) if datagram else line.encode()
        if datagram and len(longer) > DATAGRAM_BYTES:
            yield datagram
            longer = line.encode()
        datagram = longer
    if datagram:
        yield datagram
