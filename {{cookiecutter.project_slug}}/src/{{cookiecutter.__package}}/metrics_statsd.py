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
from collections.abc import Iterator, Sequence
from contextlib import suppress
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
"""About a datagram of them. A second's worth of datagrams at once would overrun a receiver."""

MAX_SAMPLES = 10_000
MAX_SERIES = 10_000

RESOLVE_SECONDS = 5.0
RESOLVE_AGAIN_SECONDS = 300.0
RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 30.0

log = logging.getLogger(__name__)

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_LABEL_LENGTH = 100
_STATM = Path("/proc/self/statm")


class _Store:
    """What is not sent yet. Any thread may add to it."""

    def __init__(self) -> None:
        #: Without anyone to send to, nothing is kept.
        self.enabled = True
        self.counters: dict[str, float] = {}
        self.gauges: dict[str, float] = {}
        #: Name and seconds of each.
        self.samples: deque[tuple[str, float]] = deque()
        self.dropped = 0
        self._lock = Lock()

    def count(self, name: str, amount: float) -> None:
        with self._lock:
            if self._takes(self.counters, name, amount):
                self.counters[name] = self.counters.get(name, 0) + amount

    def set(self, name: str, value: float) -> None:
        with self._lock:
            if self._takes(self.gauges, name, value):
                self.gauges[name] = value

    def shift(self, name: str, amount: float) -> None:
        with self._lock:
            if self._takes(self.gauges, name, amount):
                self.gauges[name] = self.gauges.get(name, 0) + amount

    def observe(self, name: str, seconds: float) -> None:
        if len(self.samples) >= MAX_SAMPLES:
            self.dropped += 1
        elif self.enabled:
            self.samples.append((name, seconds))

    def lines(self) -> Iterator[str]:
        """All of it on the wire's form. Counters and samples begin anew; gauges stay."""
        with self._lock:
            counters, self.counters = self.counters, {}
            gauges = self.gauges.copy()
        dropped, self.dropped = self.dropped, 0
        if dropped:
            counters["statsd_dropped"] = dropped
        for name, value in counters.items():
            yield f"{name}:{_number(value)}|c"
        for name, value in gauges.items():
            # With a sign, it would be added to the value before.
            if value < 0:
                yield f"{name}:0|g"
            yield f"{name}:{_number(value)}|g"
        yield from self.sample_lines()

    def sample_lines(self) -> Iterator[str]:
        for _ in range(len(self.samples)):
            name, seconds = self.samples.popleft()
            yield f"{name}:{seconds * 1000:.3f}|ms"
