"""Metrics for StatsD, sent over UDP.

Names follow OpenTelemetry's stable HTTP conventions. StatsD has no labels, so their values are
parts of the name, as in `http_server_request_duration_seconds.GET.http.200._hello_name_.none` for
method, scheme, status, route and error. Each name begins with the name of the service, or with
`STATSD_PREFIX`. The name of a gauge ends with the instance, because StatsD keeps only the last
value of a name. Durations are sent in milliseconds, as StatsD expects.

Metrics of the process have other names than statsd_exporter's own, with which they would collide:
it would then show no metrics at all.

Written by hand because `statsd.StatsClient` resolves its host in the constructor, which raises for
an unknown host, and blocks the event loop while it sends.
"""

import asyncio
import logging
import math
import re
import socket
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from threading import Event, RLock, Thread
from typing import Any

from ..exchange import Exchange
from ..feature import Call, Export
from ..settings.setting import in_force
from ..settings.statsd import StatsdSettings
from . import MAX_SERIES, Histogram, dropped, subscribers
from .meter import Lag, Meter, instance_of

FLUSH_TICKS = 4
"""After how many intervals of the lag what was measured is sent."""

LAST_FLUSH_SECONDS = 1.4

DATAGRAM_BYTES = 1432
"""The payload of an Ethernet frame, minus the overhead of a tunnel."""

MAX_DATAGRAMS = 500

PROBE_SECONDS = 1.0
RESOLVE_AGAIN_SECONDS = 300.0
RETRY_SECONDS = 1.0
RETRY_DOUBLINGS = 5

# Counts of the process, which are older than the service.
_SENT_WHOLE = {"process_cpu_time_seconds", "python_gc_collections"}

log = logging.getLogger(__name__)


class _Outbox:
    """Lines for a UDP port of a host that may not be up yet, or no longer.

    Any thread may add lines, and the event loop sends them. A thread of its own resolves the host
    and checks that it does not refuse. It does not belong to the loop's executor, which asyncio
    joins at the end: a lookup may take minutes.
    """

    def __init__(self, host: str, port: int, prefix: str = "", suffix: str = "") -> None:
        self._host = host
        self._port = port
        self._prefix = prefix
        #: Of gauges.
        self._suffix = suffix
        self.datagrams: deque[bytes] = deque()
        #: Measurements, like those that were dropped.
        self.sent = self.dropped = 0
        # Reentrant, because a signal handler may observe a duration.
        self._lock = RLock()
        #: None while the host is unknown or refuses. Replaced under the lock.
        self._socket: socket.socket | None = None
        #: Since the last success. Both threads count; a race costs at most a log message.
        self._failures = 0
        self._is_stopping = False
        #: Wakes the thread, whatever it is waiting for.
        self._wake = Event()
        self._thread = Thread(target=self._stay_connected, name="StatsD", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def write(self, name: str, kind: str, value: float) -> None:
        """Adds a line to the last datagram, or to a new one if the last is full.

        `kind` is `c` for a count since the last line of this name, `g` or `ms`.
        """
        if not math.isfinite(value):
            return
        number = str(int(value)) if value == int(value) else f"{value:.6f}"
        name = f"{self._prefix}{name}{self._suffix if kind == 'g' else ''}"
        line = f"{name}:{number}|{kind}"
        if kind == "g" and value < 0:
            # StatsD adds a number with a sign to the value before it.
            line = f"{name}:0|g\n{line}"
        text = line.encode(errors="replace")
        with self._lock:
            if self.datagrams and len(self.datagrams[-1]) + len(text) < DATAGRAM_BYTES:
                self.datagrams[-1] += b"\n" + text
            elif len(self.datagrams) < MAX_DATAGRAMS and len(text) <= DATAGRAM_BYTES:
                self.datagrams.append(text)
            else:
                self.dropped += 1

    def flush(self, keep: int = 0) -> bool:
        """Sends all datagrams but the last `keep`, without waiting; False if some can't be sent."""
        try:
            with self._lock:
                while self._socket and len(self.datagrams) > keep:
                    self._socket.send(self.datagrams[0])
                    self.sent += self.datagrams.popleft().count(b"\n") + 1
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
        with self._lock:
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


class StatsD(Meter):
    """Measures each exchange and the event loop, and sends the metrics to StatsD every second.

    Without `STATSD_HOST` nothing is kept or sent.
    """

    def __init__(self, settings: StatsdSettings) -> None:
        super().__init__(settings)
        self.lag = Lag(self._tick)
        self._is_on = settings.statsd_host is not None
        if not self._is_on:
            log.info("Metrics are not sent: STATSD_HOST is not set")
        prefix = in_force(settings, "statsd_prefix") + "."
        address = settings.statsd_host or "", settings.statsd_port
        self._outbox = _Outbox(*address, prefix, _dotted("", instance_of(settings)))
        #: What was sent of each count.
        self._sent: dict[tuple[str, ...], float] = {}
        self._ticks = 0

    async def startup(self) -> None:
        if self._is_on:
            subscribers.append(self._observed)
            self._outbox.start()
            await super().startup()

    async def shutdown(self) -> None:
        await super().shutdown()
        if self._observed in subscribers:
            subscribers.remove(self._observed)
            self._write()
            await self._outbox.stop()

    def totals(self) -> Iterable[tuple[str, str, int]]:
        if self._outbox.dropped:
            yield "statsd_dropped", "Measurements that were not sent.", self._outbox.dropped

    def exports(self) -> Iterable[Export]:
        lost = self._outbox.dropped + int(dropped.value)
        counts = (self._outbox.sent, lost) if self._is_on else ()
        yield Export("StatsD", "measurements", *counts)

    def request_ended(self, exchange: Exchange) -> None:
        method, scheme = exchange.method, exchange.request.protocol
        self.active[method, scheme] -= 1
        if self._is_on:
            route = exchange.route or "unmatched"
            labels = method, scheme, exchange.status, route, exchange.error_type
            name = _dotted("http_server_request_duration_seconds", *labels)
            self._outbox.write(name, "ms", exchange.duration * 1000)
            # Sending all datagrams of a second at once would overrun the receiver.
            if len(self._outbox.datagrams) > 1:
                self._outbox.flush(keep=1)

    def call_ended(self, call: Call) -> None:
        if self._is_on:
            server = call.server_address, call.server_port, call.scheme
            labels = call.method, *server, call.status or "", call.error_type
            name = _dotted("http_client_request_duration_seconds", *labels)
            self._outbox.write(name, "ms", call.duration * 1000)

    def _observed(self, series: Histogram, seconds: float) -> None:
        self._outbox.write(_dotted(series.name, *series.label_values), "ms", seconds * 1000)

    def _tick(self) -> None:
        self._ticks += 1
        if self._ticks % FLUSH_TICKS == 0 and self._outbox.flush():
            self._write()
            self._outbox.flush()

    def _write(self) -> None:
        """Writes each gauge, and by how much each count has grown."""
        for series in self.series():
            key = series.name, *series.labels.values()
            if series.kind in ("gauge", "info") or series.name in _SENT_WHOLE:
                self._outbox.write(_dotted(*key), "g", series.value)
            elif series.kind == "counter" and (growth := series.value - self._sent.get(key, 0)):
                self._outbox.write(_dotted(*key), "c", growth)
                self._sent[key] = series.value


@lru_cache(maxsize=MAX_SERIES)
def _dotted(name: str, *labels: object) -> str:
    parts = [re.sub(r"[^A-Za-z0-9_-]+", "_", str(each))[:100] or "none" for each in labels]
    return ".".join([name, *parts])
