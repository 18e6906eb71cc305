"""Metrics for OpenTelemetry's Collector, or for any other backend that accepts OTLP over HTTP.

Names, attributes and units are those of OpenTelemetry's conventions, and from them Prometheus makes
the names that its own backend has here.
"""

import asyncio
import logging
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quote
from math import isfinite
from time import time_ns
from typing import Any, NamedTuple

from ..export import Sender, resource_of
from ..feature import Export
from ..otlp import Requests, attributes, by_first_line
from ..settings.otlp_metrics import OtlpMetricsSettings
from . import BUCKETS, MAX_SERIES, Gauge, Histogram, dropped, instruments
from .meter import (
    CALL_LABELS,
    LABELS,
    Durations,
    Meter,
    Values,
    instance_of,
    process_gauges,
    process_totals,
)

SLICE = 50
"""How many series are collected before other work has its turn."""

ROOM_SECONDS = 0.1

_DELTA, _CUMULATIVE = 1, 2

# Name and unit of what the chassis measures, by the name that it has for other backends.
_WIRE = {
    name.replace(".", "_") + {"s": "_seconds", "By": "_bytes"}.get(unit, ""): (name, unit)
    for name, unit in (
        ("event_loop.blocked", "s"),
        ("event_loop.lag", "s"),
        ("http.client.request.duration", "s"),
        ("http.server.active_requests", "{request}"),
        ("http.server.refused_requests", "{request}"),
        ("http.server.request.duration", "s"),
        ("log.lines.dropped", "{line}"),
        ("otel.spans.dropped", "{span}"),
        ("otel.spans.exported", "{span}"),
        ("otel.spans.failed", "{span}"),
        ("process.cpu.time", "s"),
        ("process.memory.usage", "By"),
        ("python.gc.collections", "{collection}"),
        ("python.gc.pause", "s"),
        ("websocket.closes", "{connection}"),
        ("websocket.connections", "{connection}"),
        ("websocket.messages", "{message}"),
    )
}
# Gauges that are sums: of all instances, of all methods.
_SUMS = {"http_server_active_requests", "process_memory_usage_bytes", "websocket_connections"}
_ATTRIBUTES = {
    label: label.replace("_", ".").replace("status.code", "status_code")
    for label in (*LABELS, *CALL_LABELS)
}
_INTEGERS = {"http_response_status_code", "server_port"}
_BOUNDS = ",".join(map(str, BUCKETS))

log = logging.getLogger(__name__)


class Point(NamedTuple):
    """The present value of a series. Times are in nanoseconds since 1970."""

    name: str
    documentation: str
    #: `gauge`, `up_down`, `sum` or `histogram`.
    kind: str
    temporality: int
    attributes: Mapping[str, str | int]
    started: int
    ended: int
    #: Of a histogram, the sum.
    value: float
    counts: Sequence[int] = ()
    exemplars: Sequence[tuple[dict[str, str], float, float]] = ()


class Backend(Requests):
    """Where metrics are sent, and in which format."""

    def __init__(self, settings: OtlpMetricsSettings) -> None:
        super().__init__(
            settings,
            "metrics",
            # Without it, the counts of two instances would be taken for those of one.
            {"service.instance.id": instance_of(settings), **resource_of(settings)},
            settings.otel_exporter_otlp_metrics_endpoint,
            settings.otel_exporter_otlp_metrics_headers,
            settings.otel_exporter_otlp_metrics_timeout,
            settings.otel_exporter_otlp_metrics_compression,
            settings.metrics_tls(),
        )
        self._scope = f'{{"scope":{{"name":{quote(settings.service_name)}}},"metrics":['

    def encode(self, point: Point) -> str:
        """A line for the metric, and one for the series."""
        described = attributes(point.attributes)
        start = f'{{"attributes":[{described}],"timeUnixNano":"{point.ended}",'
        if point.kind != "gauge":
            start += f'"startTimeUnixNano":"{point.started}",'
        value = float.__repr__(float(point.value))
        head = _head(point.name, point.documentation, point.kind, point.temporality)
        if point.kind != "histogram":
            return f'{head}\n{start}"asDouble":{value}}}'
        counts = ",".join([f'"{count}"' for count in point.counts])
        exemplars = ",".join(map(_exemplar, point.exemplars))
        return (
            f'{head}\n{start}"count":"{sum(point.counts)}","sum":{value},"bucketCounts":[{counts}],'
            f'"explicitBounds":[{_BOUNDS}],"exemplars":[{exemplars}]}}'
        )

    def body(self, points: Sequence[str]) -> bytes:
        """The request for these series."""
        metrics = [f"{head}{own}]}}}}" for head, own in by_first_line(points)]
        return self.request(f"{self._scope}{','.join(metrics)}]}}")


class OtlpMetrics(Meter):
    """Measures each exchange and the event loop, and sends the metrics at each interval.

    While the last ones could not be sent yet, nothing is collected: it costs nothing to wait for a
    backend, and what was counted meanwhile comes with the next ones.
    """

    def __init__(self, settings: OtlpMetricsSettings) -> None:
        super().__init__()
        self._names = {
            "service_name": settings.service_name,
            "service_version": settings.service_version,
            "python": platform.python_version(),
        }
        self._interval = settings.otel_metric_export_interval / 1000
        preferred = settings.otel_exporter_otlp_metrics_temporality_preference
        # Of what is counted as it happens, and of what others have counted.
        self._temporality = _CUMULATIVE if preferred == "cumulative" else _DELTA
        self._temporality_of_totals = _DELTA if preferred == "delta" else _CUMULATIVE
        self._has_exemplars = settings.otel_metrics_exemplar_filter != "always_off"
        self._backend = backend = Backend(settings)
        self._sender: Sender | None = None
        if settings.otel_sdk_disabled:
            log.info("Metrics are not sent: OTEL_SDK_DISABLED is set")
        elif settings.otel_metrics_exporter == "none":
            log.info("Metrics are not sent: OTEL_METRICS_EXPORTER is none")
        elif not backend.url:
            log.info("Metrics are not sent: %s is not set", backend.setting)
        else:
            self._sender = Sender(
                "data point",
                backend.url,
                backend.headers,
                backend.timeout,
                backend.body,
                backend.proxy,
                backend.tls,
            )
        self._started = self._collected = time_ns()
        #: What was sent of each series, if only what was added is sent.
        self._sent: dict[tuple[str, ...], tuple[int, float, Sequence[int]]] = {}
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        if self._sender:
            await super().startup()
            self._sender.start()
            self._task = asyncio.create_task(self._push_at_intervals(self._sender))

    async def shutdown(self) -> None:
        await super().shutdown()
        if self._sender and self._task:
            self._task.cancel()
            for point in self._collect():
                self._sender.put(self._backend.encode, point)
            await self._sender.stop()

    def exports(self) -> Iterable[Export]:
        if sender := self._sender:
            lost = sender.failed + sender.dropped + int(dropped.value)
            yield Export("OTLP", "data points", sender.sent, lost)
        else:
            yield Export("OTLP", "data points")

    async def _push_at_intervals(self, sender: Sender) -> None:
        while True:
            await asyncio.sleep(self._interval)
            if not sender.is_idle:
                continue
            for number, point in enumerate(self._collect(), 1):
                sender.put(self._backend.encode, point)
                if number % SLICE == 0:
                    await asyncio.sleep(0)
                while sender.is_full:  # noqa: ASYNC110 (the thread that makes room has no loop)
                    await asyncio.sleep(ROOM_SECONDS)

    def _collect(self) -> Iterator[Point]:
        """All series. What is measured while this is suspended may be in them or in the next."""
        # The clock may be set back.
        collected, self._collected = self._collected, max(time_ns(), self._collected)
        for part in (
            self._own(),
            self._durations(collected),
            self._gauges(self.gauges()),
            self._gauges(process_gauges()),
            self._gauges(iter([("build_info", "What is running.", 1, self._names)])),
            self._totals(self.runtime.totals()),
            self._totals(process_totals()),
        ):
            try:
                yield from part
            except Exception:  # from a feature's own totals
                log.exception("Could not collect metrics")

    def _own(self) -> Iterator[Point]:
        """Metrics of the service's own."""
        for metric in [*instruments.values()]:
            for series in metric.series():
                labels = dict(zip(metric.label_names, series.label_values, strict=True))
                described = metric.name, metric.documentation
                started = int(series.created * 1e9)
                if isinstance(series, Gauge):
                    value = series.read() if series.is_set else None
                    if value is not None and isfinite(value):
                        yield self._gauge(*described, value, labels)
                elif isinstance(series, Histogram):
                    yield from self._counted(
                        *described, "histogram", labels, series.value, series.counts, started
                    )
                else:
                    yield from self._counted(*described, "sum", labels, series.value, (), started)

    def _durations(self, collected: int) -> Iterator[Point]:
        for side, names, found in (
            ("server", LABELS, self.durations),
            ("client", CALL_LABELS, self.calls),
        ):
            name = f"http_{side}_request_duration_seconds"
            described = name, f"Duration of HTTP {side} requests.", "histogram"
            series: Any
            for values, series in [*found.items()]:
                labels = dict(zip(names, values, strict=True))
                if side == "server":
                    labels["http_route"] = labels["http_route"] or "unmatched"
                yield from self._counted(
                    *described,
                    _attributes(labels),
                    series.value,
                    series.counts,
                    self._started,
                    self._exemplars(series, collected / 1e9),
                )

    def _exemplars(self, series: Durations, since: float) -> Sequence[Any]:
        """Those of requests that were traced and ended since then, in seconds since 1970."""
        found = series.exemplars if self._has_exemplars else ()
        return [each for each in found if each and each[2] >= since and "trace_id" in each[0]]

    def _gauges(self, values: Values) -> Iterator[Point]:
        for name, documentation, value, labels in [*values]:
            yield self._gauge(name, documentation, value, _attributes(labels))

    def _totals(self, values: Values) -> Iterator[Point]:
        for name, documentation, value, labels in [*values]:
            yield from self._counted(
                name, documentation, "total", _attributes(labels), value, (), self._started
            )

    def _gauge(
        self, name: str, documentation: str, value: float, labels: Mapping[str, str | int]
    ) -> Point:
        kind = "up_down" if name in _SUMS else "gauge"
        ended = self._collected
        return Point(name, documentation, kind, _CUMULATIVE, labels, self._started, ended, value)

    def _counted(
        self,
        name: str,
        documentation: str,
        kind: str,
        labels: Mapping[str, str | int],
        value: float,
        counts: Sequence[int],
        started: int,
        exemplars: Sequence[Any] = (),
    ) -> Iterator[Point]:
        """What was counted since the start or, if only that is sent, since the last time."""
        temporality = self._temporality
        if kind == "total":
            kind, temporality = "sum", self._temporality_of_totals
        ended, counts = self._collected, [*counts]
        if temporality == _DELTA:
            key = (name, *map(str, labels.values()))
            before = self._sent.get(key, (started, 0.0, [0] * len(counts)))
            self._sent[key] = ended, value, counts
            if before[1:] == (value, counts):
                return
            started, value = before[0], value - before[1]
            counts = [now - then for now, then in zip(counts, before[2], strict=True)]
        yield Point(
            name, documentation, kind, temporality, labels, started, ended, value, counts, exemplars
        )


def _attributes(labels: Mapping[str, Any]) -> dict[str, str | int]:
    """Labels with the names of the conventions, without those that have no value."""
    return {
        _ATTRIBUTES.get(name, name): int(value) if name in _INTEGERS else value
        for name, value in labels.items()
        if value != ""
    }


@lru_cache(maxsize=MAX_SERIES)
def _head(name: str, documentation: str, kind: str, temporality: int) -> str:
    """A metric up to its series; `]}}` ends it."""
    # What others have named keeps its name.
    name, unit = _WIRE.get(name, (name, "s" if name.endswith("_seconds") else ""))
    head = f'{{"name":{quote(name)},"description":{quote(documentation)},"unit":"{unit}",'
    if kind == "gauge":
        return head + '"gauge":{"dataPoints":['
    if kind != "histogram":
        is_monotonic = "true" if kind == "sum" else "false"
        kind = f'sum":{{"isMonotonic":{is_monotonic},"aggregationTemporality":{temporality}'
        return f'{head}"{kind},"dataPoints":['
    return f'{head}"histogram":{{"aggregationTemporality":{temporality},"dataPoints":['


def _exemplar(exemplar: tuple[dict[str, str], float, float]) -> str:
    ids, seconds, time = exemplar
    return (
        f'{{"timeUnixNano":"{int(time * 1e9)}","asDouble":{seconds!r},'
        f'"traceId":"{ids["trace_id"]}","spanId":"{ids["span_id"]}"}}'
    )
