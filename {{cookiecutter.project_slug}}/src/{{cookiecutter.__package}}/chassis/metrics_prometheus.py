"""Metrics for Prometheus, on `/metrics` of the admin port.

Names, labels and buckets follow OpenTelemetry's stable HTTP conventions. Add your own metrics with
`counter`, `gauge` and `histogram`.
"""

import asyncio
import platform
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from time import monotonic, time
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString
from tornado.web import RequestHandler

from . import SERVICE, __version__
from .application import Application, Exchange, Export, Observer
from .client import Call
from .settings import Settings

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
LAG_INTERVAL_SECONDS = 0.25
LAG_WINDOW_SECONDS = 15.0

_LABELS = (
    "http_request_method",
    "url_scheme",
    "http_response_status_code",
    "http_route",
    "error_type",
)
_CALL_LABELS = (
    "http_request_method",
    "server_address",
    "server_port",
    "url_scheme",
    "http_response_status_code",
    "error_type",
)
_BOUNDS = [*map(floatToGoString, BUCKETS), "+Inf"]

registry = CollectorRegistry()
ProcessCollector(registry=registry)
GCCollector(registry=registry)


def counter(name: str, documentation: str, labels: Sequence[str] = ()) -> Counter:
    """A number that only grows: `.labels(...).inc()`."""
    return Counter(name, documentation, labels, registry=registry)


def gauge(name: str, documentation: str, labels: Sequence[str] = ()) -> Gauge:
    """A number that goes up and down: `.labels(...).set(...)`."""
    return Gauge(name, documentation, labels, registry=registry)


def histogram(name: str, documentation: str, labels: Sequence[str] = ()) -> Histogram:
    """Durations in seconds: `.labels(...).observe(...)`."""
    return Histogram(name, documentation, labels, registry=registry, buckets=BUCKETS)


class Metrics(Observer, Collector):
    """Measures each exchange and the event loop, and serves the metrics to a scraper."""

    def __init__(self, settings: Settings) -> None:
        self._application: Application
        self._series: dict[tuple[str, str, int, str, str], _Series] = {}
        self._calls: dict[tuple[str, ...], _Series] = {}
        self._active: dict[tuple[str, str], int] = {}
        self._lag = _Lag()
        self.scrapes = 0

    def attach(self, application: Application) -> None:
        self._application = application

    def admin_routes(self) -> list[Any]:
        """For the admin port, because labels reveal how the service is built."""
        return [(r"/metrics", Exposition, {"metrics": self})]

    async def startup(self) -> None:
        self._lag.start()

    async def shutdown(self) -> None:
        self._lag.stop()

    def exports(self) -> Iterable[Export]:
        yield Export("Prometheus", "scrapes", self.scrapes)

    def request_started(self, exchange: Exchange) -> None:
        key = exchange.method, exchange.request.protocol
        self._active[key] = self._active.get(key, 0) + 1

    def request_ended(self, exchange: Exchange) -> None:
        method, scheme = exchange.method, exchange.request.protocol
        self._active[method, scheme] -= 1
        key = method, scheme, exchange.status, exchange.route, exchange.error_type
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series()
        series.observe(exchange.duration, exchange.exemplar)

    def call_ended(self, call: Call) -> None:
        server = call.server_address, str(call.server_port), call.scheme
        key = call.method, *server, str(call.status or ""), call.error_type
        series = self._calls.get(key)
        if series is None:
            series = self._calls[key] = _Series()
        series.observe(call.duration, None)

    def collect(self) -> Iterator[Metric]:
        yield from registry.collect()
        yield InfoMetricFamily(
            "build",
            "What is running.",
            {"service": SERVICE, "version": __version__, "python": platform.python_version()},
        )
        durations = HistogramMetricFamily(
            "http_server_request_duration_seconds",
            "Duration of HTTP server requests.",
            labels=_LABELS,
        )
        for (method, scheme, status, route, error), series in self._series.items():
            labels = method, scheme, str(status), route or "unmatched", error
            durations.add_metric(labels, series.buckets(), series.sum)
        yield durations
        calls = HistogramMetricFamily(
            "http_client_request_duration_seconds",
            "Duration of HTTP client requests.",
            labels=_CALL_LABELS,
        )
        for call, series in self._calls.items():
            calls.add_metric(call, series.buckets(), series.sum)
        yield calls
        active = GaugeMetricFamily(
            "http_server_active_requests",
            "HTTP server requests in flight.",
            labels=_LABELS[:2],
        )
        for key, value in self._active.items():
            active.add_metric(key, value)
        yield active
        yield GaugeMetricFamily(
            "event_loop_lag_seconds",
            "How late the event loop ran a timer, at the worst in the last 15 to 30 seconds.",
            self._lag.worst(),
        )
        yield GaugeMetricFamily(
            "websocket_connections",
            "WebSockets that are open.",
            self._application.open_websockets,
        )
        yield from self._totals()

    def _totals(self) -> Iterable[Metric]:
        families: dict[str, CounterMetricFamily] = {}
        for name, documentation, total, labels in self._application.totals():
            if name not in families:
                families[name] = CounterMetricFamily(name, documentation, labels=[*labels])
            families[name].add_metric([*labels.values()], total)
        return families.values()


class _Series:
    """One histogram.

    Written by hand because only the event loop's thread uses it, so it needs none of the locks that
    make `prometheus_client.Histogram` take six times as long for each request.
    """

    __slots__ = ("counts", "exemplars", "sum")

    def __init__(self) -> None:
        self.counts = [0] * len(_BOUNDS)
        self.exemplars: list[tuple[dict[str, str], float, float] | None] = [None] * len(_BOUNDS)
        self.sum = 0.0

    def observe(self, seconds: float, exemplar: dict[str, str] | None) -> None:
        bucket = bisect_left(BUCKETS, seconds)
        self.counts[bucket] += 1
        self.sum += seconds
        if exemplar is not None:
            self.exemplars[bucket] = exemplar, seconds, time()

    def buckets(self) -> list[Any]:
        total = 0
        buckets: list[Any] = []
        for bound, count, exemplar in zip(_BOUNDS, self.counts, self.exemplars, strict=True):
            total += count
            buckets.append((bound, total, Exemplar(*exemplar)) if exemplar else (bound, total))
        return buckets


class _Lag:
    """How late timers run.

    A sample at each scrape would miss what happens in between, so the worst value is kept for at
    least one window and at most two.
    """

    def __init__(self) -> None:
        self._last = self._this = 0.0
        self._window_ends = 0.0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._sleep()

    def stop(self) -> None:
        if self._timer:
            self._timer.cancel()

    def worst(self) -> float:
        return max(self._last, self._this)

    def _sleep(self) -> None:
        self._due = monotonic() + LAG_INTERVAL_SECONDS
        self._timer = asyncio.get_running_loop().call_later(LAG_INTERVAL_SECONDS, self._wake)

    def _wake(self) -> None:
        now = monotonic()
        if now >= self._window_ends:
            self._last, self._this = self._this, 0.0
            self._window_ends = now + LAG_WINDOW_SECONDS
        self._this = max(self._this, now - self._due)
        self._sleep()


class Exposition(RequestHandler):
    """Serves OpenMetrics, which has exemplars, or Prometheus's own text format."""

    is_probe = True

    def initialize(self, metrics: Metrics) -> None:
        self.metrics = metrics

    def get(self) -> None:
        try:
            encode, content_type = choose_encoder(self.request.headers.get("Accept", ""))
        except (TypeError, ValueError):  # a version that is not a number
            encode, content_type = choose_encoder("")
        self.set_header("Content-Type", content_type)
        self.finish(encode(self.metrics))
        self.metrics.scrapes += 1
