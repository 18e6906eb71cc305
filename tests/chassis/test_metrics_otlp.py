"""What an OTLP backend receives, decoded by OpenTelemetry's own messages."""

import asyncio
import base64
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from unittest import mock

import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from tornado_chassis import export, metrics
from tornado_chassis.application import Application
from tornado_chassis.feature import Export
from tornado_chassis.metrics import meter, otlp
from tornado_chassis.settings import read

from .routes import Slow
from .settings import SERVICE, VERSION, Settings
from .test_metrics import Counting, Measured, Shown, no_metrics
from .testing import ChassisTest
from .tracing.receiver import Request, receiving

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
DELTA, CUMULATIVE = 1, 2
TEMPORALITY = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"


@dataclass
class Point:
    """A data point, and the metric that it belongs to."""

    name: str
    unit: str
    kind: str
    is_monotonic: bool
    temporality: int
    attributes: dict[str, str | int]
    started: int
    ended: int
    value: float
    counts: list[int]
    bounds: list[float]
    exemplars: list[tuple[str, str, float]]
    resource: dict[str, str | int]

    @property
    def in_prometheus(self) -> str:
        """The name without what is appended for counters."""
        unit = {"s": "_seconds", "By": "_bytes"}.get(self.unit, "")
        name = self.name.replace(".", "_")
        return name if name.endswith(unit) else name + unit


def decode(request: Request) -> Iterator[Point]:
    # OTLP's JSON is protobuf's with ids in hex.
    text = json.loads(
        request.body,
        object_hook=lambda each: {
            key: base64.urlsafe_b64encode(bytes.fromhex(value)).decode()
            if key.endswith("Id")
            else value
            for key, value in each.items()
        },
    )
    message = ParseDict(text, metrics_service_pb2.ExportMetricsServiceRequest())
    for of_resource in message.resource_metrics:
        for metric in (each for scope in of_resource.scope_metrics for each in scope.metrics):
            kind = metric.WhichOneof("data")
            data = getattr(metric, kind)
            for each in data.data_points:
                is_histogram = kind == "histogram"
                yield Point(
                    metric.name,
                    metric.unit,
                    kind,
                    kind == "sum" and data.is_monotonic,
                    0 if kind == "gauge" else data.aggregation_temporality,
                    attributes(each.attributes),
                    each.start_time_unix_nano,
                    each.time_unix_nano,
                    each.sum if is_histogram else each.as_double,
                    [*each.bucket_counts] if is_histogram else [],
                    [*each.explicit_bounds] if is_histogram else [],
                    [(it.trace_id.hex(), it.span_id.hex(), it.as_double) for it in each.exemplars],
                    attributes(of_resource.resource.attributes),
                )


def attributes(pairs: Any) -> dict[str, str | int]:
    found = {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in pairs}
    assert len(found) == len(pairs)
    return found


class OtlpTest(ChassisTest):
    features = "otlp"
    interval = "1"
    temporality = "cumulative"

    def setUp(self) -> None:
        self.receiver = self.enterContext(receiving())
        self.environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.receiver.url,
            "OTEL_METRIC_EXPORT_INTERVAL": self.interval,
            TEMPORALITY: self.temporality,
        }
        self.enterContext(no_metrics())
        for module, name, value in (
            (meter, "LAG_INTERVAL_SECONDS", 0.001),
            (export, "BATCH_SECONDS", 0.001),
            (export, "STOP_SECONDS", 10.0),
            (export, "FIRST_DELAY_SECONDS", 0.001),
            (export, "MAX_DELAY_SECONDS", 0.01),
        ):
            self.enterContext(mock.patch.object(module, name, value))
        super().setUp()

    def get_app(self) -> Application:
        super().get_app()
        self.counting = Counting()
        app = self.observed_by(self.counting)
        [self.metrics] = (
            each for each in app.runtime.features if isinstance(each, otlp.OtlpMetrics)
        )
        return app

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
        async with asyncio.timeout(10):
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

    def reserved(self) -> set[str]:
        points = self.run_async(self.next)
        return {point.in_prometheus for point in points} - {"work_done"}


class TestWire(OtlpTest):
    interval = "3600000"

    def test_request(self) -> None:
        self.fetch("/hello/a")
        self.fetch("/hello/b")
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

    def test_kinds_and_units(self) -> None:
        self.raw(b"nonsense\r\n\r\n")
        self.fetch("/")
        kinds = {each.name: (each.kind, each.is_monotonic, each.unit) for each in self.stopped()}
        assert kinds == kinds | {
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

    def test_process_and_what_runs(self) -> None:
        points = {point.name: point for point in self.stopped()}
        assert points["process.cpu.time"].value > 0
        assert time.time() - 60 < points["process.start_time"].value <= time.time()
        assert points["process.memory.usage"].value > 1_000_000
        build = points["build_info"]
        assert (build.value, build.attributes["service_version"]) == (1, VERSION)
        assert build.resource["service.name"] == SERVICE
        assert build.resource["service.instance.id"] == meter.instance_of(self.settings())

    def test_metrics_of_one_s_own(self) -> None:
        orders = metrics.counter("orders", 'Orders "placed".', ["country"])
        orders.labels('n"l\n\ud83d\ude00').inc(2.5)
        metrics.counter("never", "Never counted.")
        metrics.gauge("never_set", "Unknown.")
        metrics.gauge("nothing", "No number.").set(float("nan"))
        metrics.gauge("broken", "Raises.").set_function(lambda: 1 // 0)
        metrics.gauge("below", "Below zero.").set(-3)
        metrics.gauge("size_bytes", "Bytes.").set(1e30)
        metrics.histogram("query_seconds", "Queries.").observe(0.2)
        metrics.histogram("work", "Work.").observe(0.2)
        points = {point.name: point for point in self.stopped()}
        assert points["orders"].attributes == {"country": 'n"l\n??'}
        assert (points["orders"].value, points["never"].value) == (2.5, 0)
        assert (points["below"].value, points["size_bytes"].value) == (-3, 1e30)
        assert [points[name].unit for name in ("query_seconds", "work")] == ["s", ""]
        assert points["query_seconds"].counts[6] == sum(points["query_seconds"].counts) == 1
        assert not {"never_set", "nothing", "broken"} & points.keys()

    def test_what_a_feature_cannot_count_costs_itself_only(self) -> None:
        self.fetch("/")
        self.enterContext(mock.patch.object(self.counting, "totals", side_effect=LookupError))
        with self.assertLogs(meter.log) as logs:
            names = {point.name for point in self.stopped()}
        assert {"http.server.request.duration", "process.cpu.time", "build_info"} < names
        assert len(logs.records) == 1

    def test_value_that_cannot_be_encoded_costs_itself_only(self) -> None:
        self.counting.total = "many"  # type: ignore[assignment]
        with self.assertLogs(export.log) as logs:
            names = {point.name for point in self.stopped()}
        assert "process.cpu.time" in names
        assert logs.output == [mock.ANY]
        [exported] = self.metrics.exports()
        assert exported.dropped == 1

    def test_what_was_accepted_and_what_was_not_is_counted(self) -> None:
        self.receiver.answer = b'{"partialSuccess": {"rejectedDataPoints": "2"}}'
        points = self.stopped()
        # Its thread may wake up in the middle, and send what there is: of each request, two.
        rejected = sum(min(2, len([*decode(each)])) for each in self.receiver.requests)
        [exported] = self.metrics.exports()
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

    def trace(self) -> list[tuple[str, str, float]]:
        self.fetch("/", headers={"traceparent": f"00-{TRACE}-{CALLER}-01"})
        self.fetch("/", headers={"traceparent": f"00-{TRACE}-{CALLER}-00"})
        [point] = self.named("http.server.request.duration")
        return point.exemplars

    def test_exemplars_have_the_ids_of_what_is_recorded(self) -> None:
        [(trace_id, span_id, seconds)] = self.trace()
        assert (trace_id, len(bytes.fromhex(span_id))) == (TRACE, 8)
        assert 0 < seconds < 10


class TestNoExemplars(TestTraced):
    def settings(self) -> Settings:
        self.environ["OTEL_METRICS_EXEMPLAR_FILTER"] = "always_off"
        return super().settings()

    def test_exemplars_have_the_ids_of_what_is_recorded(self) -> None:
        assert self.trace() == []


class TestIntervals(OtlpTest):
    features = "stub otlp"

    def test_exemplar_is_sent_once(self) -> None:
        async def fetch() -> int:
            await self.next()
            headers = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
            await self.http_client.fetch(self.get_url("/"), headers=headers)
            await self.next()
            await self.next()
            return sum(len(point.exemplars) for point in self.points())

        assert self.run_async(fetch) == 1

    def test_nothing_is_collected_before_the_last_was_sent(self) -> None:
        async def outage() -> int:
            await self.next()
            self.receiver.statuses.extend([503] * 6)
            with mock.patch.object(
                self.metrics, "_collect", side_effect=self.metrics._collect
            ) as collect:
                await self.until(lambda: not self.receiver.statuses)
            await self.next()
            return collect.call_count

        # What was on its way before and after the outage, and not at each interval.
        assert self.run_async(outage) <= 2
        [exported] = self.metrics.exports()
        assert exported.dropped == 0


class TestRoom(OtlpTest):
    interval = "100"

    def test_room_is_waited_for(self) -> None:
        self.enterContext(mock.patch.object(export, "QUEUE_CHARACTERS", 20_000))
        self.enterContext(mock.patch.object(otlp, "ROOM_SECONDS", 0.001))
        orders = metrics.counter("orders", "Orders placed.", ["number"])
        for number in range(1_000):
            orders.labels(number).inc()

        def export_of() -> Export:
            [exported] = self.metrics.exports()
            return exported

        self.run_async(lambda: self.until(lambda: (export_of().sent or 0) > 1_000))
        numbers = {each.attributes.get("number") for each in self.points()}
        assert len(numbers - {None}) == 1_000
        assert export_of().dropped == 0


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

    def test_what_was_not_accepted_at_once_is_not_lost(self) -> None:
        orders = metrics.counter("orders", "Orders placed.")

        async def outage() -> None:
            await self.next()
            self.receiver.statuses.extend([503] * 5)
            for _ in range(5):
                orders.inc()
                await asyncio.sleep(0.002)
            await self.until(lambda: not self.receiver.statuses)

        self.run_async(outage)
        assert sum(point.value for point in self.named("orders")) == 5


class TestLowMemory(TestDelta):
    temporality = "lowmemory"
    expected = DELTA, CUMULATIVE


class TestDrain(OtlpTest):
    interval = "3600000"

    def test_last_push_has_what_ended_meanwhile(self) -> None:
        async def drain() -> None:
            async with self.busy():
                Slow.release.set()
            await self.metrics.shutdown()

        self.run_async(drain)
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
