"""Metrics for Graphite, sent as lines over TCP.

Names and their parts are those of OpenTelemetry's stable HTTP conventions. Add your own with
`counter`, `gauge` and `histogram`.
"""

import asyncio
import logging
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

from .application import Exchange, Observer
from .settings import Settings

SEND_SECONDS = 10.0
LAST_SEND_SECONDS = 1.4
MAX_SERIES = 10_000

log = logging.getLogger(__name__)

_totals: dict[str, float] = {}


class _Metric:
    def __init__(self, name: str, labels: Sequence[str] = ()) -> None:
        self._name = name
        self._labels = tuple(labels)

    def labels(self, *values: object) -> Self:
        """The metric with these values of its labels; as each makes a series, let them be few.

        Raises ValueError unless there are as many values as labels.
        """
        if len(values) != len(self._labels):
            raise ValueError(f"{self._name} has the labels {self._labels}")
        return type(self)(_dotted(self._name, *values))

    def _set(self, value: float, *, adds: bool = True) -> None:
        if self._labels:
            raise ValueError(f"{self._name} has labels: call labels() first")
        _change(self._name, value, adds=adds)


class Counter(_Metric):
    def inc(self, amount: float = 1) -> None:
        self._set(amount)


class Gauge(_Metric):
    def set(self, value: float) -> None:
        self._set(value, adds=False)

    def inc(self, amount: float = 1) -> None:
        self._set(amount)

    def dec(self, amount: float = 1) -> None:
        self._set(-amount)


class Histogram(_Metric):
    def observe(self, seconds: float) -> None:
        self._set(seconds)


def counter(name: str, documentation: str, labels: Sequence[str] = ()) -> Counter:
    """A number that only grows: `.labels(...).inc()`."""
    return Counter(name, labels)


def gauge(name: str, documentation: str, labels: Sequence[str] = ()) -> Gauge:
    """A number that goes up and down: `.labels(...).set(...)`."""
    return Gauge(name, labels)


def histogram(name: str, documentation: str, labels: Sequence[str] = ()) -> Histogram:
    """The sum of durations in seconds: `.labels(...).observe(...)`."""
    return Histogram(name, labels)


class Metrics(Observer):
    """Measures each exchange, and sends the totals to Graphite every ten seconds.

    Without `GRAPHITE_HOST` nothing is sent.
    """

    def __init__(self, settings: Settings) -> None:
        self._host = settings.graphite_host
        self._port = settings.graphite_port
        self._task: asyncio.Task[None] | None = None
        if self._host is None:
            log.info("Metrics are not sent: GRAPHITE_HOST is not set")

    async def startup(self) -> None:
        if self._host is not None:
            self._task = asyncio.create_task(self._send_regularly())

    async def shutdown(self) -> None:
        if self._task:
            self._task.cancel()
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_SEND_SECONDS):
                    await self._send()

    def request_ended(self, exchange: Exchange) -> None:
        labels = exchange.method, exchange.status, exchange.route or "unmatched"
        _change(_dotted("http_server_requests", *labels), 1)
        _change(_dotted("http_server_request_duration_seconds", *labels), exchange.duration)

    async def _send_regularly(self) -> None:
        while True:
            await asyncio.sleep(SEND_SECONDS)
            await self._send()

    async def _send(self) -> None:
        now = int(time.time())
        lines = "".join(f"{name} {value:g} {now}\n" for name, value in _totals.items())
        try:
            _, writer = await asyncio.open_connection(self._host, self._port)
            writer.write(lines.encode())
            await writer.drain()
            writer.close()
        except OSError as error:
            log.warning("Sending metrics to %s:%d failed: %s", self._host, self._port, error)


def _change(name: str, value: float, *, adds: bool = True) -> None:
    if name in _totals or len(_totals) < MAX_SERIES:
        _totals[name] = value + (_totals.get(name, 0) if adds else 0)


def _dotted(name: str, *labels: object) -> str:
    return ".".join([name, *(re.sub(r"[^A-Za-z0-9_-]+", "_", str(each))[:100] for each in labels)])
