"""What a scraper reads."""

import re
from unittest import mock

import prometheus_client
import pytest
from prometheus_client import REGISTRY
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine
from tornado_chassis import metrics
from tornado_chassis.application import Application
from tornado_chassis.exchange import Exchange
from tornado_chassis.feature import Feature
from tornado_chassis.metrics import meter, prometheus
from tornado_chassis.metrics.prometheus import Prometheus

from .settings import SERVICE, VERSION
from .test_metrics import DURATION, Measured, Shown, no_metrics
from .testing import ChassisTest

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
COUNT = f"{DURATION}_count"
REFUSED = "http_server_refused_requests_total"
# Prometheus sorts them.
LABELS = [*meter.CALL_LABELS[:5], *meter.LABELS[3:], "reason", "direction", "code", "generation"]


class Linked(Feature):
    """Stands for what knows more of an exchange, and counts its own work."""

    def request_started(self, exchange: Exchange) -> None:
        exchange.exemplar = {"id": "abc"}

    def totals(self) -> list[tuple[str, str, int]]:
        return [("linked_exchanges", "Exchanges linked.", 7)]


class TestMetrics(Measured, ChassisTest):
    features = "prometheus"

    def get_app(self) -> Application:
        self.enterContext(no_metrics())
        self.enterContext(mock.patch.object(meter, "LAG_INTERVAL_SECONDS", 0.001))
        super().get_app()
        return self.observed_by(Linked())

    async def shown(self, name: str) -> Shown:
        url = f"http://127.0.0.1:{self.admin_port}/metrics"
        text = (await self.http_client.fetch(url)).body.decode()
        return {
            tuple(sample.labels[label] for label in LABELS if label in sample.labels): sample.value
            for family in parse(text)
            for sample in family.samples
            if sample.name in (name, f"{name}_total", f"{name}_count") and sample.value
        }

    def reserved(self) -> set[str]:
        return {sample.name for sample in self.scrape()} - {"linked_exchanges_total"}

    def scrape(self, accept: str = "") -> list[Sample]:
        response = self.fetch_admin("/metrics", headers={"Accept": accept})
        families = (parse_openmetrics if accept else parse)(response.body.decode())
        return [sample for family in families for sample in family.samples]

    def requests(self) -> dict[tuple[str, str, str, str], float]:
        """How many requests there were by method, status, route and error."""
        names = "http_request_method", "http_response_status_code", "http_route", "error_type"
        return {
            tuple(sample.labels[name] for name in names): sample.value  # type: ignore[misc]
            for sample in self.scrape()
            if sample.name == COUNT
        }

    def value(self, name: str) -> float:
        (sample,) = [sample for sample in self.scrape() if sample.name == name]
        return sample.value

    def test_request(self) -> None:
        self.fetch("/hello/a")
        self.fetch("/hello/b")
        assert self.requests() == {("GET", "200", "/hello/{name}", ""): 2}
        (first, *_) = [sample for sample in self.scrape() if sample.name == COUNT]
        assert first.labels["url_scheme"] == "http"

    def test_buckets_are_those_of_the_conventions(self) -> None:
        self.fetch("/")
        bounds = [
            sample.labels["le"]
            for sample in self.scrape()
            if sample.name == "http_server_request_duration_seconds_bucket"
        ]
        expected = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
        assert [float(bound) for bound in bounds] == [*expected, float("inf")]

    def test_a_hundred_thousand_paths_add_one_series(self) -> None:
        async def flood() -> None:
            reader, writer = await self.connect()
            for path in range(1_000):
                writer.write(b"GET /%x HTTP/1.1\r\nHost: a\r\n\r\n" % path)
                await reader.readuntil(b"}")
            writer.close()

        self.run_async(flood)
        # The rest go the same way but for the socket, which would take longer than all other tests.
        (measured,) = [each for each in self.app.runtime.features if isinstance(each, Prometheus)]
        headers = HTTPHeaders({"Host": "a"})
        for path in range(99_000):
            line = RequestStartLine("GET", f"/{path:x}", "HTTP/1.1")
            request = HTTPServerRequest(headers=headers, start_line=line)
            exchange = Exchange(request, "", is_probe=False)
            measured.request_started(exchange)
            exchange.status = 404
            measured.request_ended(exchange)
        assert self.requests() == {("GET", "404", "unmatched", ""): 100_000}

    def test_build_process_and_garbage_collection(self) -> None:
        samples = {sample.name: sample for sample in self.scrape()}
        assert samples["build_info"].labels["service"] == SERVICE
        assert samples["build_info"].labels["version"] == VERSION
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
        [export] = (each for each in self.app.runtime.exports() if each.backend == "Prometheus")
        assert (export.backend, export.sent, export.dropped) == ("Prometheus", 3, None)

    def test_totals_of_other_features(self) -> None:
        assert self.value("linked_exchanges_total") == 7
        counts = {
            sample.labels["reason"]: sample.value
            for sample in self.scrape()
            if REFUSED in sample.name
        }
        # From the start, because a rate does not include the first value of a series.
        assert counts == {"malformed": 0, "overload": 0, "timeout": 0, "too_large": 0}

    def own(self, accept: str = "") -> list[str]:
        """The lines about metrics of one's own, without the times when these were created."""
        response = self.fetch_admin("/metrics", headers={"Accept": accept})
        lines = [line for line in response.body.decode().splitlines() if "own_" in line]
        return [re.sub(r"^(own_\S+_created\S*) \S+$", r"\1 T", line) for line in lines]

    def test_metrics_of_one_s_own(self) -> None:
        orders = metrics.counter("own_orders", "Orders placed.", ["country", "paid"])
        orders.labels("nl", True).inc()
        orders.labels('d"e\n\ud800', None)
        metrics.gauge("own_queue_length", "Jobs waiting.")
        metrics.gauge("own_degrees", "Now \ud800.", ["at"]).labels("sea").set(-2.5)
        failing = metrics.gauge("own_failures", "Fails.", ["at"])
        failing.labels("sea").set_function(lambda: 1 // 0)
        failing.labels("shore").set_function(lambda: 7)
        queries = metrics.histogram("own_query_seconds", "Duration of queries.", ["table"])
        queries.labels("users").observe(0.2)
        counts = 6 * [0] + 8 * [1]
        buckets = [
            f'own_query_seconds_bucket{{le="{bound}",table="users"}} {count}.0'
            for bound, count in zip([*metrics.BUCKETS, "+Inf"], [*counts, 1], strict=True)
        ]
        expected = [
            "# HELP own_orders_total Orders placed.",
            "# TYPE own_orders_total counter",
            'own_orders_total{country="nl",paid="True"} 1.0',
            'own_orders_total{country="d\\"e\\n?",paid="None"} 0.0',
            "# HELP own_orders_created Orders placed.",
            "# TYPE own_orders_created gauge",
            'own_orders_created{country="nl",paid="True"} T',
            'own_orders_created{country="d\\"e\\n?",paid="None"} T',
            "# HELP own_queue_length Jobs waiting.",
            "# TYPE own_queue_length gauge",
            "own_queue_length 0.0",
            "# HELP own_degrees Now ?.",
            "# TYPE own_degrees gauge",
            'own_degrees{at="sea"} -2.5',
            "# HELP own_failures Fails.",
            "# TYPE own_failures gauge",
            'own_failures{at="shore"} 7.0',
            "# HELP own_query_seconds Duration of queries.",
            "# TYPE own_query_seconds histogram",
            *buckets,
            'own_query_seconds_count{table="users"} 1.0',
            'own_query_seconds_sum{table="users"} 0.2',
            "# HELP own_query_seconds_created Duration of queries.",
            "# TYPE own_query_seconds_created gauge",
            'own_query_seconds_created{table="users"} T',
        ]
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
        jobs = prometheus_client.Counter("library_jobs", "Jobs.", ["queue"])
        self.addCleanup(REGISTRY.unregister, jobs)
        jobs.labels("mail").inc(3)
        assert self.value("library_jobs_total") == 3
        with pytest.raises(ValueError, match=r"library_jobs is taken by .* registry"):
            metrics.gauge("library_jobs", "Ours.")
        metrics.gauge("library_jobs_waiting", "Ours.")

    def test_library_is_refused_names_that_are_taken(self) -> None:
        metrics.counter("own_orders", "Orders placed.")
        for name in ("own_orders", "build_info", "websocket_closes", "http_server_active_requests"):
            for kind in (prometheus_client.Counter, prometheus_client.Gauge):
                with pytest.raises(ValueError, match=name):
                    kind(name, "Theirs.")
        assert len([line for line in self.own() if line.startswith("own_orders_total")]) == 1

    def test_default_collectors_may_be_registered_again(self) -> None:
        REGISTRY.unregister(prometheus_client.GC_COLLECTOR)
        assert "python_gc_collections_total" not in {sample.name for sample in self.scrape()}
        REGISTRY.register(prometheus_client.GC_COLLECTOR)
        assert "python_gc_collections_total" in {sample.name for sample in self.scrape()}

    def test_name_that_a_library_took_first_is_refused_at_the_start(self) -> None:
        with mock.patch.object(REGISTRY, "register", prometheus._register):
            self.register(prometheus_client.Gauge("event_loop_lag_seconds", "T.", registry=None))
        with pytest.raises(ValueError, match="event_loop_lag_seconds"):
            Prometheus(self.settings())

    def test_collector_that_fails_costs_itself_only(self) -> None:
        class Failing(Collector):
            def describe(self) -> list[Metric]:
                return []

            def collect(self) -> list[Metric]:
                raise OSError("no such device")

        class Invalid(Failing):
            def collect(self) -> list[Metric]:
                family = GaugeMetricFamily("library_invalid", "No text.", labels=["a"])
                family.add_metric([None], 1)  # type: ignore[list-item]
                return [family]

        self.register(Failing())
        self.register(Invalid())
        self.register(prometheus_client.Gauge("library_last", "After those.", registry=None))
        for accept in ("", OPENMETRICS):
            names = {sample.name for sample in self.scrape(accept)}
            assert {"build_info", "library_last"} <= names
            assert "library_invalid" not in names

    def test_strange_accept_header_gets_text(self) -> None:
        for accept in ("application/openmetrics-text; version=x", "image/png"):
            response = self.fetch_admin("/metrics", headers={"Accept": accept})
            assert response.headers["Content-Type"].startswith("text/plain")

    def test_metrics_are_not_for_the_public(self) -> None:
        assert self.fetch("/metrics").code == 404
