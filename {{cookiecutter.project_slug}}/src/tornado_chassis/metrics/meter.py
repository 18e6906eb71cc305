"""What all backends measure: requests, outgoing calls, and the event loop."""

import asyncio
import gc
import logging
import os
import socket
import sys
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import monotonic, process_time, time
from typing import NamedTuple

from ..client import Calls
from ..counts import Counts, resident_memory
from ..exchange import Exchange
from ..feature import Call, Feature, Runtime
from ..settings.server import ServerSettings
from . import BUCKETS, Gauge, Histogram, instruments

Exemplar = tuple[dict[str, str], float, float]
"""The ids of a measurement, its seconds, and when it was, in seconds since 1970."""

LAG_INTERVAL_SECONDS = 0.25
LAG_WINDOW_SECONDS = 15.0

LABELS = (
    "http_request_method",
    "url_scheme",
    "http_response_status_code",
    "http_route",
    "error_type",
)
CALL_LABELS = (
    "http_request_method",
    "server_address",
    "server_port",
    "url_scheme",
    "http_response_status_code",
    "error_type",
)

log = logging.getLogger(__name__)


class Series(NamedTuple):
    """The present value of a series."""

    name: str
    documentation: str
    #: `counter`, `gauge`, `histogram`, or `info` for what is always 1.
    kind: str
    labels: Mapping[str, str]
    #: Of a histogram, the sum.
    value: float
    #: Of a histogram: how many durations each bucket has, and the last exemplar of each.
    counts: Sequence[int] = ()
    exemplars: Sequence[Exemplar | None] = ()
    #: Of the service's own: when it was created, in seconds since 1970.
    created: float | None = None


class Durations:
    """One histogram.

    Only the event loop's thread uses it, so it needs no lock, which would cost each request more
    than all the rest.
    """

    __slots__ = ("counts", "exemplars", "value")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        #: The last of each bucket.
        self.exemplars: list[Exemplar | None] = [None] * len(self.counts)
        #: The sum.
        self.value = 0.0

    def observe(self, seconds: float, exemplar: dict[str, str] | None) -> None:
        bucket = bisect_left(BUCKETS, seconds)
        self.counts[bucket] += 1
        self.value += seconds
        if exemplar is not None:
            self.exemplars[bucket] = exemplar, seconds, time()


class Meter(Feature):
    """Measures each exchange, each call and the event loop, for a backend to show."""

    measures_requests = True
    needs = (Calls, Counts)
    #: Whether gauges that were never set are shown, as 0.
    shows_unset = False
    #: Whether the backend has no figures of the process by itself.
    measures_process = True

    def __init__(self, settings: ServerSettings) -> None:
        # Not `service`: scrapes by the Prometheus Operator set that label themselves.
        self._build = {
            "service_name": settings.service_name,
            "service_version": settings.service_version,
            "python": sys.version.partition(" ")[0],
        }
        self.runtime: Runtime
        #: By the values of LABELS.
        self.durations: defaultdict[tuple[object, ...], Durations] = defaultdict(Durations)
        #: By the values of CALL_LABELS.
        self.calls: defaultdict[tuple[object, ...], Durations] = defaultdict(Durations)
        self.active: dict[tuple[str, str], int] = {}
        #: Routes whose requests are long by design.
        self.long_routes: set[str] = set()
        self.lag = Lag()
        self._has_failed = False

    def attach(self, runtime: Runtime) -> None:
        self.runtime = runtime

    async def startup(self) -> None:
        self.lag.start()

    async def shutdown(self) -> None:
        self.lag.stop()

    def request_started(self, exchange: Exchange) -> None:
        key = exchange.method, exchange.request.protocol
        self.active[key] = self.active.get(key, 0) + 1
        if not exchange.has_latency_objective:
            self.long_routes.add(exchange.route or "unmatched")

    def request_ended(self, exchange: Exchange) -> None:
        method, scheme = exchange.method, exchange.request.protocol
        self.active[method, scheme] -= 1
        route = exchange.route or "unmatched"
        key = method, scheme, exchange.status, route, exchange.error_type
        self.durations[key].observe(exchange.duration, exchange.exemplar)

    def call_ended(self, call: Call) -> None:
        server = call.server_address, call.server_port, call.scheme
        key = call.method, *server, call.status or "", call.error_type
        self.calls[key].observe(call.duration, None)

    def series(self) -> Iterator[Series]:
        """Everything that was measured. A part that fails is left out; the first is logged."""
        parts = [self._own(), self._durations(), self._gauges(), self._totals()]
        for part in [*parts, _process()] if self.measures_process else parts:
            try:
                yield from part
            except Exception:
                if not self._has_failed:
                    log.exception("Could not collect metrics")
                self._has_failed = True

    def _own(self) -> Iterator[Series]:
        """Metrics of the service's own."""
        for metric in [*instruments.values()]:
            for each in metric.series():
                counts: Sequence[int] = ()
                value: float | None = each.value
                if isinstance(each, Histogram):
                    counts = each.counts
                elif isinstance(each, Gauge):
                    value = each.read() if each.is_set or self.shows_unset else None
                if value is not None:
                    labels = dict(zip(metric.label_names, each.label_values, strict=True))
                    described = metric.name, metric.documentation, metric.kind, labels
                    yield Series(*described, value, counts, (), each.created)

    def _durations(self) -> Iterator[Series]:
        for side, names, found in (
            ("server", LABELS, self.durations),
            ("client", CALL_LABELS, self.calls),
        ):
            name = f"http_{side}_request_duration_seconds"
            meaning = f"Duration of HTTP {side} requests."
            for key, each in [*found.items()]:
                labels = dict(zip(names, map(str, key), strict=True))
                measured = each.value, each.counts, each.exemplars
                yield Series(name, meaning, "histogram", labels, *measured)

    def _gauges(self) -> Iterator[Series]:
        def gauge(name: str, documentation: str, value: float, **labels: str) -> Series:
            return Series(name, documentation, "gauge", labels, value)

        yield Series("build_info", "What is running.", "info", self._build, 1)
        name, meaning = "http_server_active_requests", "HTTP server requests in flight."
        for key, active in [*self.active.items()]:
            yield gauge(name, meaning, active, **dict(zip(LABELS, key, strict=False)))
        meaning = "How late the event loop ran a timer, at the worst in the last 15 to 30 seconds."
        yield gauge("event_loop_lag_seconds", meaning, self.lag.worst())
        name = "http_server_route_without_latency_objective"
        meaning = "1 for a route whose requests are long by design."
        for route in [*self.long_routes]:
            yield gauge(name, meaning, 1, http_route=route)
        open_websockets = self.runtime.open_websockets
        yield gauge("websocket_connections", "WebSockets that are open.", open_websockets)
        if self.runtime.connections is not None:
            name, meaning = "http_server_open_connections", "Open connections of the main port."
            yield gauge(name, meaning, len(self.runtime.connections))
        if self.runtime.max_connections:
            name, meaning = "http_server_max_connections", "How many connections there may be."
            yield gauge(name, meaning, self.runtime.max_connections)

    def _totals(self) -> Iterator[Series]:
        # All at once, as they may change meanwhile.
        for name, documentation, total, labels in list(self.runtime.totals()):
            yield Series(name, documentation, "counter", labels, total)


def _process() -> Iterator[Series]:
    """What Prometheus's own library measures of the process, for other backends."""
    name, meaning = "python_gc_collections", "Garbage collections."
    for generation, figures in enumerate(gc.get_stats()):
        labels = {"generation": str(generation)}
        yield Series(name, meaning, "counter", labels, figures["collections"])
    name, meaning = "process_cpu_time_seconds", "CPU time that the process has used."
    yield Series(name, meaning, "counter", {}, process_time())
    if (size := resident_memory()) is not None:
        name, meaning = "process_memory_usage_bytes", "Resident memory of the process."
        yield Series(name, meaning, "gauge", {}, size)


def instance_of(settings: ServerSettings) -> str:
    """The host, and what distinguishes this process from others on it."""
    is_alone = settings.port and not settings.reuse_port
    return f"{socket.gethostname()}:{settings.port if is_alone else os.getpid()}"


class Lag:
    """How late timers run.

    A sample at each scrape would miss what happens in between, so the worst value is kept for at
    least one window and at most two. `tick` is called at each interval.
    """

    def __init__(self, tick: Callable[[], object] = lambda: None) -> None:
        self._tick = tick
        self._last = self._this = 0.0
        self._window_ends = 0.0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._due = monotonic() + LAG_INTERVAL_SECONDS
        self._timer = asyncio.get_running_loop().call_later(LAG_INTERVAL_SECONDS, self._wake)

    def stop(self) -> None:
        if self._timer:
            self._timer.cancel()

    def worst(self) -> float:
        return max(self._last, self._this)

    def _wake(self) -> None:
        now = monotonic()
        if now >= self._window_ends:
            self._last, self._this = self._this, 0.0
            self._window_ends = now + LAG_WINDOW_SECONDS
        self._this = max(self._this, now - self._due)
        self.start()
        self._tick()
