"""What all backends measure: requests, outgoing calls, and the event loop."""

import asyncio
import gc
import os
import socket
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from time import monotonic, process_time, time

from ..client import Calls
from ..counts import COUNTS, resident_memory
from ..exchange import Exchange
from ..feature import Call, Feature, Runtime
from ..settings.server import ServerSettings
from . import BUCKETS

Values = Iterator[tuple[str, str, float, Mapping[str, str]]]
"""Name, description, value and labels of each."""

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


class Durations:
    """One histogram.

    Only the event loop's thread uses it, so it needs no lock, which would cost each request more
    than all the rest.
    """

    __slots__ = ("counts", "exemplars", "value")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        #: The last of each bucket: its ids, its seconds, and when it was, in seconds since 1970.
        self.exemplars: list[tuple[dict[str, str], float, float] | None] = [None] * len(self.counts)
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
    needs = (Calls, *COUNTS)

    def __init__(self) -> None:
        self.runtime: Runtime
        #: By method, scheme, status, route and error.
        self.durations: dict[tuple[str, str, int, str, str], Durations] = {}
        #: By the values of CALL_LABELS.
        self.calls: dict[tuple[str, ...], Durations] = {}
        self.active: dict[tuple[str, str], int] = {}
        #: Routes whose requests are long by design.
        self.long_routes: set[str] = set()
        self.lag = Lag()

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
        key = method, scheme, exchange.status, exchange.route, exchange.error_type
        durations = self.durations.get(key)
        if durations is None:
            durations = self.durations[key] = Durations()
        durations.observe(exchange.duration, exchange.exemplar)

    def call_ended(self, call: Call) -> None:
        server = call.server_address, str(call.server_port), call.scheme
        key = call.method, *server, str(call.status or ""), call.error_type
        durations = self.calls.get(key)
        if durations is None:
            durations = self.calls[key] = Durations()
        durations.observe(call.duration, None)

    def gauges(self) -> Values:
        for key, active in self.active.items():
            labels = dict(zip(LABELS, key, strict=False))
            yield "http_server_active_requests", "HTTP server requests in flight.", active, labels
        yield (
            "event_loop_lag_seconds",
            "How late the event loop ran a timer, at the worst in the last 15 to 30 seconds.",
            self.lag.worst(),
            {},
        )
        for route in self.long_routes:
            yield (
                "http_server_route_without_latency_objective",
                "1 for a route whose requests are long by design.",
                1,
                {"http_route": route},
            )
        open_websockets = self.runtime.open_websockets
        yield "websocket_connections", "WebSockets that are open.", open_websockets, {}
        if self.runtime.connections is not None:
            name, meaning = "http_server_open_connections", "Open connections of the main port."
            yield name, meaning, len(self.runtime.connections), {}
        if self.runtime.max_connections:
            name, meaning = "http_server_max_connections", "How many connections there may be."
            yield name, meaning, self.runtime.max_connections, {}


def process_totals() -> Values:
    """What Prometheus's own library measures of the process, for other backends."""
    name, meaning = "python_gc_collections", "Garbage collections."
    for generation, figures in enumerate(gc.get_stats()):
        yield name, meaning, figures["collections"], {"generation": str(generation)}
    name, meaning = "process_cpu_time_seconds", "CPU time that the process has used."
    yield name, meaning, process_time(), {}


def process_gauges() -> Values:
    if (size := resident_memory()) is not None:
        yield "process_memory_usage_bytes", "Resident memory of the process.", size, {}


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
