"""What a scraper reads."""

import asyncio
import math
import re
from collections.abc import Iterator
from unittest import mock

import prometheus_client as client
import pytest
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from tornado_chassis import metrics
from tornado_chassis.application import Application
from tornado_chassis.exchange import Exchange
from tornado_chassis.feature import Feature
from tornado_chassis.metrics import meter, prometheus
from tornado_chassis.metrics.prometheus import Prometheus

from .settings import SERVICE, VERSION
from .test_metrics import DURATION, Measured, MetricsTest, Shown
from .test_values import Mute
from .testing import ChassisTest

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
COUNT = f"{DURATION}_count"
REFUSED = "http_server_refused_requests_total"
TEXT = r"""# HELP own_orders_total Orders placed.
# TYPE own_orders_total counter
own_orders_total{country="nl",paid="True"} 1.0
own_orders_total{country="d\"e\n?",paid="None"} 0.0
# HELP own_orders_created Orders placed.
# TYPE own_orders_created gauge
own_orders_created{country="nl",paid="True"} T
own_orders_created{country="d\"e\n?",paid="None"} T
# HELP own_degrees Now ?.
# TYPE own_degrees gauge
own_degrees{at="sea"} -2.5
# HELP own_failures Fails.
# TYPE own_failures gauge
own_failures{at="shore"} 7.0
# HELP own_queue_length Jobs waiting.
# TYPE own_queue_length gauge
own_queue_length 0.0
# HELP own_query_seconds Duration of queries.
# TYPE own_query_seconds histogram
BUCKETS
own_query_seconds_count{table="users"} 1.0
own_query_seconds_sum{table="users"} 0.2
# HELP own_query_seconds_created Duration of queries.
# TYPE own_query_seconds_created gauge
own_query_seconds_created{table="users"} T
"""
# Prometheus sorts them.
LABELS = [*meter.CALL_LABELS[:5], *meter.LABELS[3:], "reason", "direction", "code", "generation"]
LABELS += ["country", "table"]  # of the test's own


class Linked(Feature):
    """Stands for what knows more of an exchange."""

    def request_started(self, exchange: Exchange) -> None:
        exchange.exemplar = {"id": "abc"}


class TestMetrics(Measured, MetricsTest):
    features = "prometheus"
    backend = Prometheus

    def get_app(self) -> Application:
        super().get_app()
        return self.observed_by(Linked())

    async def samples(self) -> list[Sample]:
        url = f"http://127.0.0.1:{self.admin_port}/metrics"
        text = (await self.http_client.fetch(url)).body.decode()
        return [sample for family in parse(text) for sample in family.samples]

    async def shown(self, name: str) -> Shown:
        return {
            tuple(sample.labels[label] for label in LABELS if label in sample.labels): sample.value
            for sample in await self.samples()
            if sample.name in (name, f"{name}_total", f"{name}_count") and sample.value
        }

    async def reserved(self) -> set[str]:
        return {sample.name for sample in await self.samples()} - {"work_done_total"}

    def scrape(self, accept: str = "") -> list[Sample]:
        response = self.fetch_admin("/metrics", headers={"Accept": accept})
        families = (parse_openmetrics if accept else parse)(response.body.decode())
        return [sample for family in families for sample in family.samples]

    def value(self, name: str) -> float:
        (sample,) = [sample for sample in self.scrape() if sample.name == name]
        return sample.value

    def test_buckets_are_those_of_the_conventions(self) -> None:
        self.fetch("/")
        samples = [each for each in self.scrape() if each.name == f"{DURATION}_bucket"]
        expected = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
        bounds = [float(sample.labels["le"]) for sample in samples]
        assert bounds == [*expected, float("inf")]

    def test_build_process_and_garbage_collection(self) -> None:
        samples = {sample.name: sample for sample in self.scrape()}
        assert samples["build_info"].labels["service_name"] == SERVICE
        assert samples["build_info"].labels["service_version"] == VERSION
        assert "python_gc_objects_collected_total" in samples
        assert "process_cpu_seconds_total" in samples

    def test_exemplars_in_openmetrics_alone(self) -> None:
        self.fetch("/")
        exemplars = [sample.exemplar for sample in self.scrape(OPENMETRICS) if sample.exemplar]
        assert [exemplar.labels for exemplar in exemplars] == [{"id": "abc"}]
        assert not any(sample.exemplar for sample in self.scrape())

    def test_scrapes_are_counted(self) -> None:
        for _ in range(3):
            self.scrape()
        export = self.exported()
        assert (export.backend, export.sent, export.dropped) == ("Prometheus", 3, None)

    def test_reasons_of_rejections_are_there_from_the_start(self) -> None:
        counts = {
            sample.labels["reason"]: sample.value
            for sample in self.scrape()
            if REFUSED in sample.name
        }
        # Because a rate does not include the first value of a series.
        assert counts == {"malformed": 0, "overload": 0, "timeout": 0, "too_large": 0}

    def own(self, accept: str = "") -> list[str]:
        """The lines about metrics of one's own, without the times when these were created."""
        response = self.fetch_admin("/metrics", headers={"Accept": accept})
        lines = [line for line in response.body.decode().splitlines() if "own_" in line]
        return [re.sub(r"^(own_\S+_created\S*) \S+$", r"\1 T", line) for line in lines]

    def test_text_of_one_s_own(self) -> None:
        orders = metrics.counter("own_orders", "Orders placed.", ["country", "paid"])
        orders.labels("nl", True).inc()
        orders.labels('d"e\n\ud800', None)
        metrics.gauge("own_degrees", "Now \ud800.", ["at"]).labels("sea").set(-2.5)
        failing = metrics.gauge("own_failures", "Fails.", ["at"])
        failing.labels("sea").set_function(lambda: 1 // 0)
        failing.labels("shore").set_function(lambda: 7)
        metrics.gauge("own_queue_length", "Jobs waiting.")
        queries = metrics.histogram("own_query_seconds", "Duration of queries.", ["table"])
        queries.labels("users").observe(0.2)
        counts = 6 * [0] + 9 * [1]
        buckets = [
            f'own_query_seconds_bucket{{le="{bound}",table="users"}} {count}.0'
            for bound, count in zip([*metrics.BUCKETS, "+Inf"], counts, strict=True)
        ]
        expected = TEXT.replace("BUCKETS", "\n".join(buckets)).splitlines()
        assert self.own() == expected
        samples = [line for line in expected if line.startswith("own_")]
        found = [line for line in self.own(OPENMETRICS) if line.startswith("own_")]
        assert sorted(found) == sorted(samples)
        with mock.patch("prometheus_client.metrics._use_created", False):
            assert self.own() == [line for line in expected if "_created" not in line]

    def register(self, collector: Collector) -> None:
        """As a library does, with what it measures."""
        REGISTRY.register(collector)
        self.addCleanup(REGISTRY.unregister, collector)

    def test_metrics_of_libraries(self) -> None:
        jobs = client.Counter("library_jobs", "Jobs.", ["queue"])
        self.addCleanup(REGISTRY.unregister, jobs)
        jobs.labels("mail").inc(3)
        assert self.value("library_jobs_total") == 3
        with pytest.raises(ValueError, match=r"library_jobs is taken by .* registry"):
            metrics.gauge("library_jobs", "Ours.")
        metrics.gauge("library_jobs_waiting", "Ours.")

    def test_library_is_refused_names_that_are_taken(self) -> None:
        metrics.counter("own_orders", "Orders placed.")
        for name in ("own_orders", "build_info", "websocket_closes", "http_server_active_requests"):
            for kind in (client.Counter, client.Gauge):
                with pytest.raises(ValueError, match=name):
                    kind(name, "Theirs.")
        assert len([line for line in self.own() if line.startswith("own_orders_total")]) == 1

    def test_default_collectors_may_be_registered_again(self) -> None:
        REGISTRY.unregister(client.GC_COLLECTOR)
        assert "python_gc_collections_total" not in {sample.name for sample in self.scrape()}
        REGISTRY.register(client.GC_COLLECTOR)
        assert "python_gc_collections_total" in {sample.name for sample in self.scrape()}

    def test_name_that_a_library_took_first_is_refused_at_the_start(self) -> None:
        with mock.patch.object(REGISTRY, "register", prometheus._register):
            self.register(client.Gauge("event_loop_lag_seconds", "T.", registry=None))
        with pytest.raises(ValueError, match="event_loop_lag_seconds"):
            Prometheus(self.settings())

    def test_what_a_library_cannot_collect_costs_itself_only(self) -> None:
        class Failing(Collector):
            def collect(self) -> Iterator[Metric]:
                yield GaugeMetricFamily("lib_before", "Lost.", 1)
                raise asyncio.CancelledError

        class Odd(Collector):
            def collect(self) -> list[Metric]:
                odd = GaugeMetricFamily("lib_odd", "Odd.", labels=["at"])
                odd.add_metric(["shore"], "high")  # type: ignore[arg-type]
                odd.add_metric(["sea"], 5)
                odd.add_metric([Mute()], 6)  # type: ignore[list-item]
                return [odd]

        own = CollectorRegistry()
        self.enterContext(mock.patch.object(prometheus, "REGISTRY", own))
        client.Gauge("lib_raises", "Raises.", registry=own).set_function(lambda: 1 // 0)
        client.Counter("lib_calls", "Calls \ud800.", ["at"], registry=own).labels("\udfff").inc()
        client.Gauge("lib_nan", "No number.", registry=own).set(float("nan"))
        own._collector_to_names |= {Failing(): [], Odd(): []}
        with self.assertLogs(prometheus.log) as logs:
            for accept in ("", OPENMETRICS, ""):
                found = {
                    (sample.name, sample.labels.get("at", "")): sample.value
                    for sample in self.scrape(accept)
                    if sample.name.startswith("lib_") and "_created" not in sample.name
                }
                assert math.isnan(found.pop(("lib_nan", "")))
                assert found == {
                    ("lib_calls_total", "?"): 1,
                    ("lib_odd", "sea"): 5,
                    ("lib_odd", "<Mute whose text fails: Detached>"): 6,
                }
        raised = [record.exc_info[0].__name__ for record in logs.records]  # type: ignore
        assert sorted(raised) == ["CancelledError", "ValueError", "ZeroDivisionError"]

    def test_strange_accept_header_gets_text(self) -> None:
        for accept in ("application/openmetrics-text; version=x", "image/png"):
            response = self.fetch_admin("/metrics", headers={"Accept": accept})
            assert response.headers["Content-Type"].startswith("text/plain")

    def test_metrics_are_not_for_the_public(self) -> None:
        assert self.fetch("/metrics").code == 404


class TestProbesOfTheAdminPort(ChassisTest):
    features = "probes prometheus"

    def test_they_are_measured_and_nothing_else_there_is(self) -> None:
        for path in ("/livez", "/readyz", "/readyz", "/metrics", "/nowhere"):
            self.fetch_admin(path)
        text = self.fetch_admin("/metrics").body.decode()
        samples = [sample for family in parse(text) for sample in family.samples]
        found = [(each.labels["http_route"], each.value) for each in samples if each.name == COUNT]
        assert sorted(found) == [("/livez", 1), ("/readyz", 2)]
