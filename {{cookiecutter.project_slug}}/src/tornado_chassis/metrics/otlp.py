"""Metrics for OpenTelemetry's Collector, or for any other backend that accepts OTLP over HTTP.

Names, attributes and units are those of OpenTelemetry's conventions, and from them Prometheus makes
the names that its own backend has here.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from json.encoder import encode_basestring_ascii as quote
from math import isfinite
from time import time_ns

from ..export import Sender, make_sender, resource_of
from ..feature import Export
from ..otlp import OtlpBackend, attributes, by_first_line
from ..settings.otlp_metrics import OtlpMetricsSettings
from . import BUCKETS, MAX_SERIES, dropped
from .meter import CALL_LABELS, LABELS, Exemplar, Meter, Series, instance_of

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
        ("process.start_time", "s"),
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


class Backend(OtlpBackend):
    name = "OTLP"
    signal = "metrics"
    unit = "data point"
    idle = "Metrics are not sent"

    def __init__(self, settings: OtlpMetricsSettings) -> None:
        # Without it, the counts of two instances would be taken for those of one.
        instance = {"service.instance.id": instance_of(settings)}
        super().__init__(
            settings,
            {**instance, **resource_of(settings)},
            settings.otel_exporter_otlp_metrics_endpoint,
            settings.otel_exporter_otlp_metrics_headers,
            settings.otel_exporter_otlp_metrics_timeout,
            settings.otel_exporter_otlp_metrics_compression,
            settings.metrics_tls(),
        )
        self._scope = f'{{"scope":{{"name":{quote(self.service)}}},"metrics":['
        preferred = settings.otel_exporter_otlp_metrics_temporality_preference
        # Of what is counted as it happens, and of what others have counted.
        self._temporality = _CUMULATIVE if preferred == "cumulative" else _DELTA
        self._temporality_of_totals = _DELTA if preferred == "delta" else _CUMULATIVE
        self._has_exemplars = settings.otel_metrics_exemplar_filter != "always_off"
        # In nanoseconds since 1970, like all times here.
        self.started = self._before = self._now = time_ns()
        #: What was sent of each series and when, if only what was added is sent.
        self._sent: dict[tuple[str, ...], tuple[int, float, Sequence[int]]] = {}

    def collect(self) -> None:
        """Begins a collection: what is encoded from now on has its time."""
        # The clock may be set back.
        self._before, self._now = self._now, max(time_ns(), self._now)

    def encode(self, item: Series) -> str:
        """A line for the metric, and one for the series. Empty if its value is no number or, where
        only what was added is sent, if nothing was."""
        name, documentation, kind, labels, value, counts, exemplars, created = item
        started = self.started if created is None else int(created * 1e9)
        temporality = self._temporality
        if kind in ("gauge", "info"):
            if not isfinite(value):
                return ""
            temporality = _CUMULATIVE
        elif kind == "counter" and created is None:
            temporality = self._temporality_of_totals
        if temporality == _DELTA:
            key, counts = (name, *labels.values()), [*counts]
            since, sent, sent_counts = self._sent.get(key, (started, 0.0, [0] * len(counts)))
            self._sent[key] = self._now, value, counts
            if (sent, sent_counts) == (value, counts):
                return ""
            started, value = since, value - sent
            counts = [now - then for now, then in zip(counts, sent_counts, strict=True)]
        # The service's own labels stay as they are.
        described = attributes(labels if created is not None else _by_convention(labels))
        point = f'{{"attributes":[{described}],"timeUnixNano":"{self._now}",'
        if kind in ("counter", "histogram") or name in _SUMS:
            point += f'"startTimeUnixNano":"{started}",'
        head = _head(name, documentation, kind, temporality)
        number = float.__repr__(float(value))
        if kind != "histogram":
            return f'{head}\n{point}"asDouble":{number}}}'
        buckets = ",".join([f'"{count}"' for count in counts])
        shown = ",".join([_exemplar(each) for each in exemplars if each and self._is_new(each)])
        return (
            f'{head}\n{point}"count":"{sum(counts)}","sum":{number},"bucketCounts":[{buckets}],'
            f'"explicitBounds":[{_BOUNDS}],"exemplars":[{shown}]}}'
        )

    def _is_new(self, exemplar: Exemplar) -> bool:
        """Whether it is to be sent: of a request that was traced, since the last time."""
        ids, _, ended = exemplar
        return self._has_exemplars and ended >= self._before / 1e9 and "trace_id" in ids

    def body(self, texts: Sequence[str]) -> bytes:
        metrics = [f"{head}{own}]}}}}" for head, own in by_first_line(texts)]
        return self.request(f"{self._scope}{','.join(metrics)}]}}")


class OtlpMetrics(Meter):
    """Measures each exchange and the event loop, and sends the metrics at each interval.

    While the last ones could not be sent yet, nothing is collected: it costs nothing to wait for a
    backend, and what was counted meanwhile comes with the next ones.
    """

    def __init__(self, settings: OtlpMetricsSettings) -> None:
        super().__init__(settings)
        self._interval = settings.otel_metric_export_interval / 1000
        self._backend = Backend(settings)
        self._sender = make_sender(self._backend, settings, settings.otel_metrics_exporter)
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
            for series in self._collect():
                self._sender.put(series)
            await self._sender.stop()

    def exports(self) -> Iterable[Export]:
        yield Export(*self._backend.exported(self._sender, int(dropped.value)))

    async def _push_at_intervals(self, sender: Sender) -> None:
        while True:
            await asyncio.sleep(self._interval)
            if not sender.is_idle:
                continue
            for number, series in enumerate(self._collect(), 1):
                sender.put(series)
                if number % SLICE == 0:
                    await asyncio.sleep(0)
                while sender.is_full:  # noqa: ASYNC110 (the thread that makes room has no loop)
                    await asyncio.sleep(ROOM_SECONDS)

    def _collect(self) -> Iterator[Series]:
        """All series. What is measured while this is suspended may be in them or in the next."""
        self._backend.collect()
        # A receiver that is not Prometheus's library has no other sign of a restart.
        name, meaning = "process_start_time_seconds", "When the service started, since 1970."
        started = Series(name, meaning, "gauge", {}, self._backend.started / 1e9)
        return chain([started], self.series())


def _by_convention(labels: Mapping[str, str]) -> dict[str, str | int]:
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
    wire, unit = _WIRE.get(name, (name, "s" if name.endswith("_seconds") else ""))
    data = f'"aggregationTemporality":{temporality},'
    if kind == "counter" or name in _SUMS:
        data += f'"isMonotonic":{"true" if kind == "counter" else "false"},'
        kind = "sum"
    elif kind != "histogram":
        kind, data = "gauge", ""
    described = f'"name":{quote(wire)},"description":{quote(documentation)},"unit":"{unit}"'
    return f'{{{described},"{kind}":{{{data}"dataPoints":['


def _exemplar(exemplar: Exemplar) -> str:
    ids, seconds, time = exemplar
    return (
        f'{{"timeUnixNano":"{int(time * 1e9)}","asDouble":{seconds!r},'
        f'"traceId":"{ids["trace_id"]}","spanId":"{ids["span_id"]}"}}'
    )
