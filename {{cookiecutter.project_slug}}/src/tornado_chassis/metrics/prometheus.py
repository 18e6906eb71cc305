"""Metrics for Prometheus, on `/metrics` of the admin port.

Names, labels and buckets follow OpenTelemetry's stable HTTP conventions.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import zip_longest
from types import SimpleNamespace
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
from ..exchange import contain
from ..feature import Export
from ..settings.server import ServerSettings
from ..values import encodable, text
from . import BUCKETS
from .meter import Meter, Series

_BOUNDS = [*map(floatToGoString, BUCKETS), "+Inf"]
_FAMILIES: dict[str, type[Any]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}

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
        metrics.check_free({name}, name)


def _check_own(exposed: set[str], name: str) -> None:
    if any(exposed.intersection(names) for names in REGISTRY._collector_to_names.values()):
        raise ValueError(f"{name} is taken by a metric of prometheus_client's registry")


if _check_own not in metrics.checks:
    REGISTRY.register = _register_if_free  # type: ignore[method-assign]
    metrics.checks.append(_check_own)


class Prometheus(Meter, Collector):
    """Measures each exchange and the event loop, and serves the metrics to a scraper."""

    shows_unset = True
    measures_process = False

    def __init__(self, settings: ServerSettings) -> None:
        super().__init__(settings)
        self.scrapes = 0
        # What was registered before this module was imported.
        for collector in [*REGISTRY._collector_to_names]:
            _check(collector)
        self._failures: dict[str, BaseException] = {}

    def admin_routes(self) -> list[Any]:
        """For the admin port, because labels reveal how the service is built."""
        return [(r"/metrics", Exposition, {"metrics": self})]

    def exports(self) -> Iterable[Export]:
        yield Export("Prometheus", "scrapes", self.scrapes)

    def collect(self) -> Iterator[Metric]:
        for collector in [*REGISTRY._collector_to_names]:
            yield from self._collected(collector)
        families: dict[str, Metric] = {}
        for series in self.series():
            _add(series, families)
        yield from families.values()

    def _collected(self, collector: Collector) -> list[Metric]:
        """What a collector of the team's or of a library has; nothing if it fails."""
        try:
            return [*collector.collect()]
        except BaseException as error:
            contain(error)
            self.report(collector, error)
            return []

    def report(self, what: object, error: BaseException) -> None:
        """Logs what fails, but only the first time: every scrape repeats it."""
        if self._failures.setdefault(text(what), error) is error:
            log.error("Cannot collect %s", text(what), exc_info=error)

    def repaired(self, encode: Callable[[Any], bytes]) -> bytes:
        """What is encoded, without the samples that can't be."""
        families = []
        for family in self.collect():
            family.documentation = encodable(text(family.documentation))
            samples, kept = family.samples, []
            for sample in samples:
                try:
                    labels = {name: encodable(text(each)) for name, each in sample.labels.items()}
                    family.samples = [sample._replace(labels=labels)]
                    encode(SimpleNamespace(collect=partial(list, [family])))
                    kept += family.samples
                except Exception as error:
                    self.report(family.name, error)
            family.samples = kept
            families.append(family)
        return encode(SimpleNamespace(collect=lambda: families))


def _add(series: Series, families: dict[str, Metric]) -> None:
    name, meaning, labels = series.name, series.documentation, {**series.labels}
    if series.kind == "info":
        families[name] = InfoMetricFamily(name.removesuffix("_info"), meaning, labels)
        return
    if name not in families:
        families[name] = _FAMILIES[series.kind](name, meaning, labels=[*labels])
    family: Any = families[name]
    if series.kind == "histogram":
        family.add_metric([*labels.values()], _buckets(series), series.value)
    else:
        family.add_metric([*labels.values()], series.value)
    if series.created and series.kind != "gauge" and getattr(client, "_use_created", True):
        family.add_sample(f"{family.name}_created", labels, series.created)


def _buckets(series: Series) -> list[Any]:
    total = 0
    buckets: list[Any] = []
    for bound, count, exemplar in zip_longest(_BOUNDS, series.counts, series.exemplars):
        total += count
        buckets.append((bound, total, Exemplar(*exemplar)) if exemplar else (bound, total))
    return buckets


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
        try:
            shown = encode(self.metrics)
        except Exception:  # A label that UTF-8 cannot hold, or a value that is no number.
            shown = self.metrics.repaired(encode)
        self.finish(shown)
        self.metrics.scrapes += 1
