"""Metrics for Prometheus, on `/metrics` of the admin port.

Names, labels and buckets follow OpenTelemetry's stable HTTP conventions.
"""

import logging
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from prometheus_client import REGISTRY, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client import metrics as client
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

from .. import metrics
from ..feature import Export
from ..settings.server import ServerSettings
from . import BUCKETS, Gauge, Histogram, Instrument, instruments
from .meter import CALL_LABELS, LABELS, Durations, Meter

_BOUNDS = [*map(floatToGoString, BUCKETS), "+Inf"]

_DEFAULT = ProcessCollector, PlatformCollector, GCCollector
_register = REGISTRY.register

log = logging.getLogger(__name__)


def _register_if_free(collector: Collector) -> None:
    """In place of `REGISTRY.register`: also refuses names of what is exposed besides."""
    _register(collector)
    try:
        _check(collector)
    except ValueError:
        REGISTRY.unregister(collector)
        raise


def _check(collector: Collector) -> None:
    if isinstance(collector, _DEFAULT):
        return
    for name in REGISTRY._collector_to_names[collector]:
        metrics.check_reserved(name)
        metrics.check_free({name}, name)


def _check_own(exposed: set[str], name: str) -> None:
    if any(exposed.intersection(names) for names in REGISTRY._collector_to_names.values()):
        raise ValueError(f"{name} is taken by a metric of prometheus_client's registry")


if _check_own not in metrics.checks:
    REGISTRY.register = _register_if_free  # type: ignore[method-assign]
    metrics.checks.append(_check_own)


class Prometheus(Meter, Collector):
    """Measures each exchange and the event loop, and serves the metrics to a scraper."""

    def __init__(self, settings: ServerSettings) -> None:
        super().__init__()
        self._names = {"service": settings.service_name, "version": settings.service_version}
        self.scrapes = 0
        # What was registered before this module was imported.
        for collector in [*REGISTRY._collector_to_names]:
            _check(collector)

    def admin_routes(self) -> list[Any]:
        """For the admin port, because labels reveal how the service is built."""
        return [(r"/metrics", Exposition, {"metrics": self})]

    def exports(self) -> Iterable[Export]:
        yield Export("Prometheus", "scrapes", self.scrapes)

    def collect(self) -> Iterator[Metric]:
        for collector in [*REGISTRY._collector_to_names]:
            try:
                yield from [*collector.collect()]
            except Exception:  # of a library
                _log_failure(type(collector).__qualname__)
        yield from map(_own, [*instruments.values()])
        build = {**self._names, "python": platform.python_version()}
        yield InfoMetricFamily("build", "What is running.", build)
        durations = HistogramMetricFamily(
            "http_server_request_duration_seconds",
            "Duration of HTTP server requests.",
            labels=LABELS,
        )
        for (method, scheme, status, route, error), series in self.durations.items():
            labels = method, scheme, str(status), route or "unmatched", error
            durations.add_metric(labels, _buckets(series), series.value)
        yield durations
        calls = HistogramMetricFamily(
            "http_client_request_duration_seconds",
            "Duration of HTTP client requests.",
            labels=CALL_LABELS,
        )
        for call, series in self.calls.items():
            calls.add_metric(call, _buckets(series), series.value)
        yield calls
        yield from _families(GaugeMetricFamily, self.gauges())
        yield from _families(CounterMetricFamily, self.runtime.totals())


@cache
def _log_failure(name: str) -> None:
    """Once for each collector, and not at each scrape."""
    log.exception("Cannot show the metrics of %s", name)


def _own(metric: Instrument) -> Metric:
    """A metric of the service's own."""
    family: Any
    kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
    kind = kinds.get(metric.kind, HistogramMetricFamily)
    family = kind(metric.name, metric.documentation, labels=metric.label_names)
    for series in metric.series():
        labels = series.label_values
        if isinstance(series, Gauge):
            value = series.read()
            if value is not None:
                family.add_metric(labels, value)
            continue
        if isinstance(series, Histogram):
            family.add_metric(labels, _buckets(series), series.value)
        else:
            family.add_metric(labels, series.value)
        if getattr(client, "_use_created", True):
            names = dict(zip(metric.label_names, labels, strict=True))
            family.add_sample(f"{family.name}_created", names, series.created)
    made: Metric = family
    return made


def _families(
    kind: type[CounterMetricFamily | GaugeMetricFamily],
    values: Iterable[tuple[str, str, float, Mapping[str, str]]],
) -> Iterable[Metric]:
    families: dict[str, Any] = {}
    for name, documentation, value, labels in values:
        if name not in families:
            families[name] = kind(name, documentation, labels=[*labels])
        families[name].add_metric([*labels.values()], value)
    return families.values()


def _buckets(series: Durations | Histogram) -> list[Any]:
    total = 0
    buckets: list[Any] = []
    exemplars = series.exemplars if isinstance(series, Durations) else [None] * len(_BOUNDS)
    for bound, count, exemplar in zip(_BOUNDS, series.counts, exemplars, strict=True):
        total += count
        buckets.append((bound, total, Exemplar(*exemplar)) if exemplar else (bound, total))
    return buckets


class _Families(list[Metric], Collector):
    def collect(self) -> Iterable[Metric]:
        return self


def _is_valid(family: Metric, encode: Callable[[Any], bytes]) -> bool:
    try:
        encode(_Families([family]))
    except Exception:
        return False
    return True


class Exposition(RequestHandler):
    """Serves OpenMetrics, which has exemplars, or Prometheus's own text format."""

    is_probe = True

    def initialize(self, metrics: Prometheus) -> None:
        self.metrics = metrics

    def get(self) -> None:
        try:
            encode, content_type = choose_encoder(self.request.headers.get("Accept", ""))
        except (TypeError, ValueError):  # a version that is not a number
            encode, content_type = choose_encoder("")
        self.set_header("Content-Type", content_type)
        self.finish(self._encode(encode))
        self.metrics.scrapes += 1

    def _encode(self, encode: Callable[[Any], bytes]) -> bytes:
        families = _Families(self.metrics.collect())
        try:
            return encode(families)
        except Exception:
            # A collector has made something that is no metric.
            _log_failure("a library")
            return encode(_Families(each for each in families if _is_valid(each, encode)))
