"""What an OTLP backend receives, decoded by OpenTelemetry's own messages."""

import asyncio
import logging
import time
from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from tornado_chassis import export, metrics
from tornado_chassis.metrics import meter, otlp
from tornado_chassis.settings import read

from ..backends.otlp import parse
from .routes import Slow
from .settings import SERVICE, VERSION, Settings
from .test_metrics import Measured, MetricsTest, Shown
from .tracing import PARENT, TRACE, TRACEPARENT
from .tracing.receiver import IMPATIENT, Request, receiving

DELTA, CUMULATIVE = 1, 2
TEMPORALITY = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"


class Point(SimpleNamespace):
    """A data point, with what it has of the metric that it belongs to."""

    @property
    def in_prometheus(self) -> str:
        """The name without what is appended for counters."""
        unit = {"s": "_seconds", "By": "_bytes"}.get(self.unit, "")
        name: str = self.name.replace(".", "_")
        return name if name.endswith(unit) else name + unit


def decode(request: Request) -> Iterator[Point]:
    message = parse(request.body, metrics_service_pb2.ExportMetricsServiceRequest())
    for of_resource in message.resource_metrics:
        for metric in (each for scope in of_resource.scope_metrics for each in scope.metrics):
            kind = metric.WhichOneof("data")
            data = getattr(metric, kind)
            for each in data.data_points:
                is_histogram = kind == "histogram"
                yield Point(
                    name=metric.name,
                    unit=metric.unit,
                    kind=kind,
                    is_monotonic=kind == "sum" and data.is_monotonic,
                    temporality=0 if kind == "gauge" else data.aggregation_temporality,
                    attributes=attributes(each.attributes),
                    started=each.start_time_unix_nano,
                    ended=each.time_unix_nano,
                    value=each.sum if is_histogram else each.as_double,
                    counts=[*each.bucket_counts] if is_histogram else [],
                    bounds=[*each.explicit_bounds] if is_histogram else [],
                    exemplars=[
                        (it.trace_id.hex(), it.span_id.hex(), it.as_double) for it in each.exemplars
                    ],
                    resource=attributes(of_resource.resource.attributes),
                )


def attributes(pairs: Any) -> dict[str, str | int]:
    found = {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in pairs}
    assert len(found) == len(pairs)
    return found


class OtlpTest(MetricsTest):
    features = "otlp"
    backend = otlp.OtlpMetrics
    interval = "1"
    temporality = "cumulative"

    def setUp(self) -> None:
        self.receiver = self.enterContext(receiving())
        self.environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.receiver.url,
            "OTEL_METRIC_EXPORT_INTERVAL": self.interval,
            TEMPORALITY: self.temporality,
            **self.environ,
        }
        self.enterContext(mock.patch.multiple(export, **IMPATIENT))
        super().setUp()

    def points(self) -> list[Point]:
        return [point for request in [*self.receiver.requests] for point in decode(request)]

    def stopped(self) -> list[Point]:
        """All that was received, when the service has stopped."""
        self.run_async(self.metrics.shutdown)
        return self.points()

    def named(self, name: str) -> list[Point]:
        return [point for point in self.stopped() if point.name == name]

    async def next(self) -> list[Point]:
        """What is collected after this, at one time."""
        now, first = time.time_ns(), len(self.receiver.requests)
        found: list[Point] = []
        async with asyncio.timeout(60):
            while True:
                await asyncio.sleep(0.001)
                requests = self.receiver.requests[first:]
                first += len(requests)
                found += [each for one in requests for each in decode(one) if each.ended >= now]
                # What is collected last, and always changes.
                for last in [each for each in found if each.name == "process.cpu.time"]:
                    return [each for each in found if each.ended == last.ended]


class TestMeasurements(Measured, OtlpTest):
    async def shown(self, name: str) -> Shown:
        found = {
            tuple(map(str, point.attributes.values())): sum(point.counts) or point.value
            for point in await self.next()
            if point.in_prometheus == name
        }
        return {labels: value for labels, value in found.items() if value}

    def form(self, *labels: str) -> tuple[str, ...]:
        return tuple(filter(None, labels))

    async def reserved(self) -> set[str]:
        return {point.in_prometheus for point in self.points()}


class TestWire(OtlpTest):
    interval = "3600000"

    def test_request(self) -> None:
        for name in ("a", "b"):
            self.fetch(f"/hello/{name}")
        [point] = self.named("http.server.request.duration")
        assert point.attributes == {
            "http.request.method": "GET",
            "url.scheme": "http",
            "http.response.status_code": 200,
            "http.route": "/hello/{name}",
        }
        assert (point.unit, point.kind, point.temporality) == ("s", "histogram", CUMULATIVE)
        assert (sum(point.counts), len(point.counts)) == (2, len(point.bounds) + 1)
        assert point.bounds == [*metrics.BUCKETS]
        assert 0 < point.value < 10
        assert point.started < point.ended

    def test_kinds_and_units_and_what_runs(self) -> None:
        self.raw(b"nonsense\r\n\r\n")
        self.fetch("/")
        points = {point.name: point for point in self.stopped()}
        expected = {
            "event_loop.lag": ("gauge", False, "s"),
            "http.server.active_requests": ("sum", False, "{request}"),
            "http.server.refused_requests": ("sum", True, "{request}"),
            "process.cpu.time": ("sum", True, "s"),
            "process.memory.usage": ("sum", False, "By"),
            "python.gc.collections": ("sum", True, "{collection}"),
            "python.gc.pause": ("sum", True, "s"),
            "websocket.connections": ("sum", False, "{connection}"),
            "build_info": ("gauge", False, ""),
            "work_done": ("sum", True, ""),
        }
        for name, (kind, is_monotonic, unit) in expected.items():
            point = points[name]
            assert (point.kind, point.is_monotonic, point.unit) == (kind, is_monotonic, unit)
        assert points["process.cpu.time"].value > 0
        assert time.time() - 60 < points["process.start_time"].value <= time.time()
        assert points["process.memory.usage"].value > 1_000_000
        build = points["build_info"]
        assert (build.value, build.attributes["service_version"]) == (1, VERSION)
        assert build.resource["service.name"] == SERVICE
        assert build.resource["service.instance.id"] == meter.instance_of(self.settings())

    def test_values_and_units_of_one_s_own(self) -> None:
        metrics.counter("orders", 'Orders "placed".', ["country"]).labels('n"l\n\ud83d\ude00')
        metrics.counter("never", "Never counted.")
        metrics.gauge("nothing", "No number.").set(float("nan"))
        metrics.gauge("size_bytes", "Bytes.").set(1e30)
        metrics.histogram("query_seconds", "Queries.").observe(0.2)
        metrics.histogram("work", "Work.").observe(0.2)
        points = {point.name: point for point in self.stopped()}
        assert points["orders"].attributes == {"country": 'n"l\n??'}
        assert (points["never"].value, points["size_bytes"].value) == (0, 1e30)
        assert [points[name].unit for name in ("query_seconds", "work")] == ["s", ""]
        assert points["query_seconds"].counts[6] == sum(points["query_seconds"].counts) == 1
        assert "nothing" not in points

    def test_value_that_cannot_be_encoded_costs_itself_only(self) -> None:
        self.counting.total = "many"  # type: ignore[assignment]
        with self.assertLogs(export.log) as logs:
            names = {point.name for point in self.stopped()}
        assert "process.cpu.time" in names
        assert len(logs.output) == self.exported().dropped == 1

    def test_what_was_accepted_and_what_was_not_is_counted(self) -> None:
        self.receiver.answer = b'{"partialSuccess": {"rejectedDataPoints": "2"}}'
        points = self.stopped()
        # Its thread may wake up in the middle, and send what there is: of each request, two.
        rejected = sum(min(2, len([*decode(each)])) for each in self.receiver.requests)
        exported = self.exported()
        assert (exported.sent, exported.dropped) == (len(points) - rejected, rejected)

    def test_a_thousand_series_are_sent_in_batches(self) -> None:
        orders = metrics.counter("orders", "Orders placed.", ["number"])
        for number in range(1_000):
            orders.labels(number).inc()
        assert len(self.named("orders")) == 1_000
        assert 2 <= len(self.receiver.requests) <= 4


class TestTraced(OtlpTest):
    features = "stub otlp"
    interval = "3600000"

    def exemplars(self) -> list[tuple[str, str, float]]:
        """Those of two requests, one of which is recorded."""
        for flags in ("01", "00"):
            self.fetch("/", headers={"traceparent": f"00-{TRACE}-{PARENT}-{flags}"})
        [point] = self.named("http.server.request.duration")
        return list(point.exemplars)

    def test_exemplars_have_the_ids_of_what_is_recorded(self) -> None:
        [(trace_id, span_id, seconds)] = self.exemplars()
        assert (trace_id, len(bytes.fromhex(span_id))) == (TRACE, 8)
        assert 0 < seconds < 10


class TestNoExemplars(TestTraced):
    environ = {"OTEL_METRICS_EXEMPLAR_FILTER": "always_off"}  # noqa: RUF012 (as its base)

    def test_exemplars_have_the_ids_of_what_is_recorded(self) -> None:
        assert self.exemplars() == []


class TestIntervals(OtlpTest):
    features = "stub otlp"

    async def test_exemplar_is_sent_once(self) -> None:
        await self.next()
        await self.http_client.fetch(self.get_url("/"), headers={"traceparent": TRACEPARENT})
        await self.next()
        await self.next()
        assert sum(len(point.exemplars) for point in self.points()) == 1

    async def test_nothing_is_collected_before_the_last_was_sent(self) -> None:
        await self.next()
        self.receiver.statuses.extend([503] * 6)
        collecting = mock.patch.object(self.metrics, "_collect", side_effect=self.metrics._collect)
        with collecting as collect:
            await self.until(lambda: not self.receiver.statuses)
        await self.next()
        # What was on its way before and after the outage, and not at each interval.
        assert collect.call_count <= 2
        assert self.exported().dropped == 0


class TestRoom(OtlpTest):
    interval = "100"

    def test_room_is_waited_for(self) -> None:
        self.enterContext(mock.patch.object(export, "QUEUE_CHARACTERS", 20_000))
        self.enterContext(mock.patch.object(otlp, "ROOM_SECONDS", 0.001))
        orders = metrics.counter("orders", "Orders placed.", ["number"])
        for number in range(1_000):
            orders.labels(number).inc()

        self.until(lambda: (self.exported().sent or 0) > 1_000)
        numbers = {each.attributes.get("number") for each in self.points()}
        assert len(numbers - {None}) == 1_000
        assert self.exported().dropped == 0


class TestDelta(OtlpTest):
    temporality = "delta"
    #: Of what is counted as it happens, and of what others have counted.
    expected = DELTA, DELTA

    def test_only_what_was_added_is_sent(self) -> None:
        orders = metrics.counter("orders", "Orders placed.")
        queries = metrics.histogram("query_seconds", "Queries.")

        async def work() -> None:
            for count in (3, 4):
                await self.next()
                orders.inc(count)
                queries.observe(count)
                self.counting.total += count
                await self.http_client.fetch(self.get_url("/"))
            await self.next()

        self.run_async(work)
        points = self.stopped()

        def named(name: str) -> list[Point]:
            return [point for point in points if point.name == name]

        for name in ("orders", "query_seconds"):
            found = named(name)
            assert sum(point.value for point in found) == 7
            # Nothing is sent of what did not change, and no time is left out or counted twice.
            assert len(found) <= 3
            assert all(a.ended <= b.started < b.ended for a, b in pairwise(found))
            assert {point.temporality for point in found} == {self.expected[0]}
        assert sum(sum(point.counts) for point in named("query_seconds")) == 2
        assert sum(sum(point.counts) for point in named("http.server.request.duration")) == 2
        totals = named("work_done")
        assert {point.temporality for point in totals} == {self.expected[1]}
        if self.expected[1] == DELTA:
            assert sum(point.value for point in totals) == 7
        else:
            assert totals[-1].value == 7
        # What goes up and down has no difference that means something.
        assert {point.temporality for point in named("process.memory.usage")} == {CUMULATIVE}

    async def test_what_was_not_accepted_at_once_is_not_lost(self) -> None:
        orders = metrics.counter("orders", "Orders placed.")
        await self.next()
        self.receiver.statuses.extend([503] * 5)
        for _ in range(5):
            orders.inc()
            await asyncio.sleep(0.002)
        await self.until(lambda: not self.receiver.statuses)
        await self.metrics.shutdown()
        assert sum(point.value for point in self.points() if point.name == "orders") == 5


class TestLowMemory(TestDelta):
    temporality = "lowmemory"
    expected = DELTA, CUMULATIVE


class TestDrain(OtlpTest):
    interval = "3600000"

    async def test_last_push_has_what_ended_meanwhile(self) -> None:
        async with self.busy():
            Slow.release.set()
        await self.metrics.shutdown()
        assert [p.attributes["http.route"] for p in self.points() if "http.route" in p.attributes]


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({}, "OTEL_EXPORTER_OTLP_ENDPOINT is not set"),
        ({"OTEL_METRICS_EXPORTER": "none"}, "OTEL_METRICS_EXPORTER is none"),
        ({"OTEL_SDK_DISABLED": "true"}, "OTEL_SDK_DISABLED is set"),
    ],
)
def test_nothing_is_sent_and_a_line_says_why(
    variables: dict[str, str], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    if variables:
        variables["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:9"
    with caplog.at_level(logging.INFO, export.log.name):
        made = otlp.OtlpMetrics(read(Settings, variables))
    assert [each.getMessage() for each in caplog.records] == [f"Metrics are not sent: {reason}"]
    assert [each.sent for each in made.exports()] == [None]

    async def start_and_stop() -> None:
        await made.startup()
        await made.shutdown()

    asyncio.run(start_and_stop())
