"""Metrics of the service's own, and what every backend shows."""

import asyncio
import gc
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING, Any, cast
from unittest import mock

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado_chassis import feature, metrics
from tornado_chassis.application import Application
from tornado_chassis.client import Calls
from tornado_chassis.feature import Export, Feature
from tornado_chassis.metrics import meter

from .routes import Slow
from .test_values import HOSTILE, Mute, failing
from .testing import ChassisTest, http

DURATION = "http_server_request_duration_seconds"
LAG = "event_loop_lag_seconds"
Shown = dict[tuple[str, ...], float]
NAN, TOO_LARGE = float("nan"), 10**400


@contextmanager
def no_metrics() -> Iterator[None]:
    """Forgets all metrics of the service's own, and what is created until the end of the block."""
    only_dropped = {metrics.dropped.name: metrics.dropped}
    with (
        mock.patch.dict(metrics.instruments, only_dropped, clear=True),
        mock.patch.object(metrics.dropped, "value", 0.0),
    ):
        yield


class Counting(Feature):
    """Stands for what counts its own work."""

    total = 0

    def totals(self) -> list[tuple[str, str, int]]:
        return [("work_done", "Work done.", self.total)]


class MetricsTest(ChassisTest):
    """With no other metrics than of the test."""

    #: The feature whose instance is `metrics`.
    backend: type[Feature]
    metrics: Any

    def get_app(self) -> Application:
        self.enterContext(no_metrics())
        self.enterContext(mock.patch.object(meter, "LAG_INTERVAL_SECONDS", 0.001))
        super().get_app()
        self.counting = Counting()
        app = self.observed_by(self.counting)
        [self.metrics] = (each for each in app.runtime.features if isinstance(each, self.backend))
        return app

    def exported(self) -> Export:
        """What the backend's page shows."""
        [export] = self.metrics.exports()
        return cast(Export, export)


class Measured(MetricsTest if TYPE_CHECKING else object):  # type: ignore[misc]
    """What is measured, as each backend shows it."""

    async def shown(self, name: str) -> Shown:
        """What a backend shows for each of a metric's labels, unless it is 0: the value, or how
        many durations there were."""
        raise NotImplementedError

    def form(self, *labels: str) -> tuple[str, ...]:
        """These labels as the backend shows them."""
        return labels

    async def reserved(self) -> set[str]:
        """Names of the chassis' own that are shown."""
        raise NotImplementedError

    async def until_shown(self, name: str, condition: Callable[[Shown], object]) -> Shown:
        async with asyncio.timeout(60):
            # Nothing notifies of what is sent or shown.
            while not condition(shown := await self.shown(name)):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        return shown

    async def until_equal(self, name: str, expected: dict[str, float]) -> None:
        def is_equal(shown: Shown) -> bool:
            return {".".join(labels): value for labels, value in shown.items()} == expected

        await self.until_shown(name, is_equal)

    async def expect(self, name: str, *expected: tuple[str, ...], times: int = 1) -> None:
        """Waits for as many durations, then compares their labels."""
        count = times * len(expected)
        found = await self.until_shown(name, lambda shown: sum(shown.values()) >= count)
        assert found == dict.fromkeys((self.form(*each) for each in expected), times)

    async def ask(self, path: str, method: str = "GET") -> None:
        """Sends a request, and reads until the service closes."""
        reader, writer = await self.connect(http(f"{method} {path}", "Connection: close"))
        await reader.read()
        writer.close()

    async def talk(self) -> None:
        websocket = await self.websocket()
        await websocket.write_message("hello")
        await websocket.read_message()
        await self.until_equal("websocket_connections", {"": 1})
        await self.until_equal("http_server_open_connections", {"": 1})
        websocket.close(1001)

    async def test_every_handler_is_measured_once(self) -> None:
        for path in ("/nowhere", "/static/testing.py", "/old", "/boom", "/status/503", "/flushed"):
            await self.ask(path)
        await self.ask("/\0")  # which is malformed
        await self.ask("/", method="BREW")
        await self.talk()
        await self.expect(
            DURATION,
            ("GET", "http", "404", "unmatched", ""),
            ("GET", "http", "200", "/static/{path}", ""),
            ("GET", "http", "301", "/old", ""),
            ("GET", "http", "500", "/boom", "ValueError"),
            ("GET", "http", "503", "/status/{1}", "503"),
            ("GET", "http", "200", "/flushed", "ValueError"),
            ("_OTHER", "http", "405", "/", ""),
            ("GET", "http", "101", "/ws", ""),
        )
        names: set[str] = set()
        while len(names) <= 10:
            await asyncio.sleep(0.001)
            names = await self.reserved() - {"work_done"}
        for name in names:
            with pytest.raises(ValueError, match=name):
                metrics.gauge(name, "Not ours.")

    async def test_any_number_of_paths_is_one_series(self) -> None:
        reader, writer = await self.connect()
        for number in range(500):
            for path in (b"/%x", b"/hello/%x"):
                writer.write(b"HEAD " + path % number + b" HTTP/1.1\r\nHost: a\r\n\r\n")
                await reader.readuntil(b"\r\n\r\n")
            if number % 100 == 0:
                await self.shown(DURATION)  # which empties a socket
        writer.close()
        unmatched = "HEAD", "http", "404", "unmatched", ""
        matched = "HEAD", "http", "405", "/hello/{name}", ""
        await self.expect(DURATION, unmatched, matched, times=500)

    async def test_active_requests_and_a_client_that_goes_away(self) -> None:
        _, writer = await self.connect(http("GET /slow"))
        await self.until_equal("http_server_active_requests", {"GET.http": 1})
        writer.close()
        await self.until_equal("http_server_active_requests", {})
        Slow.release.set()
        await self.expect(DURATION, ("GET", "http", "499", "/slow", ""))

    async def test_route_without_latency_objective_is_shown_from_its_first_request_on(self) -> None:
        _, writer = await self.connect(http("GET /stream"))
        name = "http_server_route_without_latency_objective"
        await self.until_shown(name, lambda shown: shown == {self.form("/stream"): 1})
        writer.close()

    async def test_outgoing_calls(self) -> None:
        Calls.servers.clear()
        await AsyncHTTPClient().fetch(self.get_url("/hello/a"))
        await AsyncHTTPClient().fetch(self.get_url("/status/503"), raise_error=False)
        server = "GET", "127.0.0.1", str(self.get_http_port()), "http"
        name = "http_client_request_duration_seconds"
        await self.expect(name, (*server, "200", ""), (*server, "503", "503"))

    async def test_what_is_counted_beside_the_requests(self) -> None:
        self.app.runtime.max_connections = 7
        await self.ask("/\0")
        await self.talk()
        await self.until_equal("websocket_connections", {})
        await self.until_equal("http_server_open_connections", {})
        await self.until_equal("http_server_max_connections", {"": 7})
        await self.until_equal("http_server_refused_requests", {"malformed": 1})
        await self.until_equal("websocket_messages", {"received": 1, "sent": 1})
        await self.until_equal("websocket_closes", {"1001": 1})
        gc.collect()
        await self.until_shown("python_gc_pause_seconds", lambda shown: ("2",) in shown)

    async def test_event_loop_lag(self) -> None:
        await asyncio.sleep(0.002)
        time.sleep(0.05)  # noqa: ASYNC251 (that is the point)
        await asyncio.sleep(0.002)
        await self.until_shown(LAG, lambda shown: 0.03 <= shown.get((), 0) < 10)

    async def test_the_worst_lag_is_kept_for_15_to_30_seconds(self) -> None:
        await self.until_shown(LAG, bool)
        clock = mock.Mock(return_value=time.monotonic())
        found = []
        with mock.patch.object(meter, "monotonic", clock):
            for seconds in (5, *[1] * 30):
                clock.return_value += seconds
                # It reads the clock twice each time that it wakes; StatsD is sent a value after
                # four times.
                wakes = clock.call_count + 2 * 9
                await self.until(lambda: clock.call_count > wakes)  # noqa: B023
                found.append((await self.shown(LAG)).get((), 0))
        assert min(found[:16]) > 4
        assert found[30] < 2

    async def test_totals_of_other_features(self) -> None:
        for total in (7, 9):
            self.counting.total = total
            await self.until_equal("work_done", {"": total})

    async def test_metrics_of_one_s_own(self) -> None:
        orders = metrics.counter("orders", "Orders placed.", ["country"])
        orders.labels("nl").inc(2.5)
        orders.labels("de").inc(float("nan"))
        metrics.gauge("never_set", "Unknown.")
        metrics.gauge("broken", "Raises.").set_function(lambda: 1 // 0)
        metrics.gauge("computed", "From a function.").set_function(lambda: 7)
        metrics.gauge("degrees", "Below zero.").set(-2.25)
        queries = metrics.histogram("query_seconds", "Queries.", ["table"])
        for seconds in (0.2, 1, float("inf")):
            queries.labels("users").observe(seconds)
        await self.until_equal("orders", {"nl": 2.5})
        await self.until_equal("computed", {"": 7})
        await self.until_equal("degrees", {"": -2.25})
        await self.until_equal("query_seconds", {"users": 2})
        assert await self.shown("never_set") == await self.shown("broken") == {}

    async def test_totals_that_fail_cost_themselves_only(self) -> None:
        self.app.runtime.max_connections = 7
        broken = mock.patch.object(self.app.runtime, "totals", side_effect=LookupError)
        with broken, self.assertLogs(meter.log) as logs:
            for _ in range(2):
                await self.until_equal("http_server_max_connections", {"": 7})
        assert len(logs.records) == 1  # of both times

    async def test_totals_of_others_are_there_though_a_feature_fails(self) -> None:
        refused, (first, *_) = "http_server_refused_requests", self.app.runtime.features
        with (
            mock.patch.object(first, "totals", side_effect=LookupError),
            self.assertLogs(feature.log) as logs,
        ):
            await self.ask("/\0")
            await self.until_equal(refused, {"malformed": 1})
        assert len(logs.records) == 1


@pytest.fixture(autouse=True)
def _no_metrics() -> Iterator[None]:
    with no_metrics():
        yield


def test_counter() -> None:
    orders = metrics.counter("orders", "Orders placed.")
    orders.inc()
    orders.inc(2.5)
    assert orders.value == 3.5
    with pytest.raises(ValueError, match="orders cannot grow by -1: a counter only grows"):
        orders.inc(-1)
    assert orders.value == 3.5


def test_gauge() -> None:
    queue = metrics.gauge("queue_length", "Jobs waiting.")
    queue.inc()
    queue.dec(3)
    assert queue.read() == -2
    queue.set(7)
    assert queue.read() == 7


def test_gauge_with_a_function(caplog: pytest.LogCaptureFixture) -> None:
    values = [5, 6, ZeroDivisionError, asyncio.CancelledError]
    queue = metrics.gauge("queue_length", "Jobs waiting.")
    queue.set_function(mock.Mock(side_effect=values))
    assert [queue.read() for _ in values] == [5, 6, None, None]
    (failure,) = caplog.records
    assert "queue_length" in failure.getMessage()
    assert failure.exc_info
    queue.set(3)
    assert queue.read() == 3


def test_label_that_has_no_text() -> None:
    orders = metrics.counter("orders", "Orders placed.", ["customer"])
    for make in HOSTILE.values():
        orders.labels(make()).inc()
    for (value,) in [each.label_values for each in orders.series()]:
        assert len(value.encode()) <= 4 * metrics.LABEL_CHARACTERS
    with pytest.raises(ValueError, match="has the labels"):
        orders.labels(failing(Mute()), 5)
    assert sum(each.value for each in orders.series()) == len(HOSTILE)


def test_histogram() -> None:
    queries = metrics.histogram("query_duration_seconds", "Duration of queries.")
    for seconds in (0.005, 0.2, 0.25, 11):
        queries.observe(seconds)
    assert queries.counts == [1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1]
    assert queries.value == 11.455


def test_histogram_times_a_block() -> None:
    queries = metrics.histogram("query_duration_seconds", "Duration of queries.")
    with mock.patch.object(metrics, "perf_counter", iter([1.0, 3.0, 10.0, 14.0]).__next__):
        with queries.time():
            pass
        with pytest.raises(KeyError), queries.time():
            raise KeyError
    assert (sum(queries.counts), queries.value) == (2, 6)


def test_labels() -> None:
    orders = metrics.counter("orders", "Orders placed.", ["country", "paid"])
    orders.labels("nl", True).inc()
    orders.labels(paid="True", country="nl").inc()
    orders.labels("\ud800\n", None)
    found = [(series.label_values, series.value) for series in orders.series()]
    assert found == [(("nl", "True"), 2), (("?\n", "None"), 0)]
    for wrong in (("nl",), ("nl", 1, 2), ()):
        with pytest.raises(ValueError, match=r"orders has the labels \('country', 'paid'\), not "):
            orders.labels(*wrong)
    with pytest.raises(ValueError, match=r"not \('nl', paid\)"):
        orders.labels("nl", paid=True)
    with pytest.raises(ValueError, match=r"not \(country\)"):
        orders.labels(country="nl")
    with pytest.raises(ValueError, match="labels"):
        orders.labels("nl", True).labels("nl", True)


def test_a_metric_with_labels_needs_them() -> None:
    counter = metrics.counter("a", "A.", ["country"])
    gauge = metrics.gauge("b", "B.", ["country"])
    histogram = metrics.histogram("c", "C.", ["country"])
    uses: list[Callable[[], object]] = [
        counter.inc,
        gauge.inc,
        gauge.dec,
        lambda: gauge.set(1),
        lambda: gauge.set_function(lambda: 1),
        lambda: histogram.observe(1),
        lambda: histogram.time().__enter__(),
    ]
    for use in uses:
        with pytest.raises(ValueError, match=r"has labels: call labels\(\) first"):
            use()


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        *((name, []) for name in ("", "a.b", "shop:orders", "1st", "bestellungen_für", "orders\n")),
        *(("orders", labels) for labels in (["le"], ["__name__"], ["a-b"], ["a", "a"], "country")),
    ],
)
def test_invalid_name_is_refused(name: str, labels: list[str]) -> None:
    with pytest.raises(ValueError, match="letters, digits and _"):
        metrics.counter(name, "Orders placed.", labels)
    assert name not in metrics.instruments


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (metrics.counter, "orders"),
        (metrics.counter, "orders_total"),
        (metrics.gauge, "orders"),
        (metrics.gauge, "orders_total"),
        (metrics.histogram, "orders"),
        (metrics.gauge, "query_seconds_sum"),
        (metrics.counter, "query_seconds_bucket"),
    ],
)
def test_taken_name_is_refused(kind: Callable[..., object], name: str) -> None:
    metrics.counter("orders", "Orders placed.", ["country"])
    metrics.histogram("query_seconds", "Queries.")
    taken = r"(counter orders with the labels \('country',\)|histogram query_seconds)"
    with pytest.raises(ValueError, match=f"{name} is taken by the {taken}"):
        kind(name, "Another one.", ["country"])
    # Only what Prometheus would confuse.
    metrics.gauge("orders_count", "Orders waiting.")


def test_reserved_name_is_refused() -> None:
    for name in ("http_server_request_duration_seconds", "target_info", "python_gc_collections"):
        with pytest.raises(ValueError, match=f"{name} .*chassis' own"):
            metrics.gauge(name, "Not ours.")
    metrics.gauge("process_orders", "Ours.")


def test_what_is_no_number_costs_itself_only() -> None:
    counter = metrics.counter("a", "A.")
    gauge = metrics.gauge("b", "B.")
    histogram = metrics.histogram("c", "C.")
    counter.inc()
    gauge.set(1)
    histogram.observe(1)
    for wrong in (NAN, math.inf, TOO_LARGE):
        counter.inc(wrong)
        gauge.inc(wrong)
        histogram.observe(wrong)
    counter.inc(1e308)
    counter.inc(1e308)
    assert (counter.value, gauge.value, histogram.value) == (1e308, 1, 1)
    assert sum(histogram.counts) == 1
    assert metrics.dropped.value == 10
    # For a gauge it may mean something.
    for value in (NAN, TOO_LARGE):
        gauge.set(value)
        assert math.isnan(gauge.value)


def test_series_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    orders = metrics.counter("orders", "Orders placed.", ["customer"])
    with mock.patch.object(metrics, "MAX_SERIES", 10):
        metrics.gauge("queue_length", "Jobs waiting.").set(1)
        for _ in range(2):
            for customer in range(20):
                orders.labels(customer).inc()
        late = metrics.gauge("late", "Comes late.", ["customer"]).labels("a")
        late.set(1)
        queries = metrics.histogram("query_seconds", "Queries.", ["customer"]).labels("a")
        queries.observe(1)
    kept = sum(len(metric.series()) for metric in metrics.instruments.values())
    assert kept == 10
    assert {series.value for series in orders.series()} == {2}
    assert metrics.dropped.value == 2 * (20 - len(orders.series())) + 2
    warnings = [record.getMessage() for record in caplog.records]
    assert [line.partition(":")[0] for line in warnings] == ["orders", "late", "query_seconds"]


def test_threads_lose_nothing() -> None:
    orders = metrics.counter("orders", "Orders placed.", ["country"])
    queries = metrics.histogram("query_seconds", "Queries.")

    def work() -> None:
        for number in range(20):
            orders.labels(number % 7).inc()
            queries.observe(1)

    def lets_others_run(value: float) -> bool:
        time.sleep(0.0001)
        return True

    threads = [Thread(target=work) for _ in range(4)]
    with mock.patch.object(math, "isfinite", lets_others_run):
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    assert sum(series.value for series in orders.series()) == 80
    assert (sum(queries.counts), queries.value) == (80, 80)


class TestNoBackend(ChassisTest):
    features = ""

    def test_metrics_count_all_the_same(self) -> None:
        orders = metrics.counter("orders", "Orders placed.")
        orders.inc()
        assert self.fetch("/").code == 200
        assert orders.value == 1
        assert metrics.subscribers == []
