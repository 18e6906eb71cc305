"""What a scraper reads."""

import asyncio
import socket
import time
from unittest import mock

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse
from prometheus_client.samples import Sample
from tornado.httpclient import AsyncHTTPClient
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine
from tornado.websocket import websocket_connect

from my_service.chassis import SERVICE, __version__, metrics
from my_service.chassis.application import Application, Exchange, Observer
from my_service.chassis.client import ObservedClient
from my_service.chassis.handlers import NotFound

from .routes import Slow
from .testing import ChassisTest

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
COUNT = "http_server_request_duration_seconds_count"


class Linked(Observer):
    """Stands for what knows more of an exchange, and counts its own work."""

    def request_started(self, exchange: Exchange) -> None:
        exchange.exemplar = {"id": "abc"}

    def totals(self) -> list[tuple[str, str, int]]:
        return [("linked_exchanges", "Exchanges linked.", 7)]


class TestMetrics(ChassisTest):
    def get_app(self) -> Application:
        self.enterContext(mock.patch.object(metrics, "LAG_INTERVAL_SECONDS", 0.1))
        super().get_app()
        return self.observed_by(Linked())

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

    def test_every_handler_is_measured(self) -> None:
        self.fetch("/nowhere")
        self.fetch("/static/testing.py")
        self.fetch("/old", follow_redirects=False)
        self.fetch("/boom")
        self.fetch("/status/503")
        self.raw(b"GET /flushed HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        self.raw(b"BREW / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert self.requests() == {
            ("GET", "404", "unmatched", ""): 1,
            ("GET", "200", "/static/{path}", ""): 1,
            ("GET", "301", "/old", ""): 1,
            ("GET", "500", "/boom", "ValueError"): 1,
            ("GET", "503", "/status/{1}", "503"): 1,
            ("GET", "200", "/flushed", "ValueError"): 1,
            ("_OTHER", "405", "/", ""): 1,
        }

    def test_websocket_is_measured_once(self) -> None:
        async def talk() -> None:
            websocket = await websocket_connect(self.get_url("/ws").replace("http", "ws"))
            await websocket.write_message("hello")
            await websocket.read_message()
            websocket.close()

        self.run_async(talk)
        assert self.requests() == {("GET", "101", "/ws", ""): 1}

    def test_malformed_request_is_not_measured(self) -> None:
        self.raw(b"nonsense\r\n\r\n")
        assert self.requests() == {}

    def test_active_requests(self) -> None:
        async def leave() -> None:
            _, writer = await self.connect()
            writer.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            await Slow.entered.wait()
            active = await asyncio.to_thread(self.ask, "http_server_active_requests")
            assert active == 1
            writer.close()
            await self.until(lambda: not self.app.in_flight)
            Slow.release.set()

        self.run_async(leave)
        assert self.value("http_server_active_requests") == 0
        assert self.requests() == {("GET", "499", "/slow", ""): 1}

    def ask(self, name: str) -> float:
        """Asks from another thread, while the loop is at work."""
        with socket.create_connection(("127.0.0.1", self.admin_port)) as connection:
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        families = parse(answer.partition("\r\n\r\n")[2])
        (asked,) = [each for each in families if each.name == name]
        return asked.samples[0].value

    def test_a_hundred_thousand_paths_add_one_series(self) -> None:
        async def flood() -> None:
            reader, writer = await self.connect()
            for path in range(1_000):
                writer.write(b"GET /%x HTTP/1.1\r\nHost: a\r\n\r\n" % path)
                await reader.readuntil(b"}")
            writer.close()

        self.run_async(flood)
        # The rest go the same way but for the socket, which would take longer than all other tests.
        (measured,) = [each for each in self.app.observers if isinstance(each, metrics.Metrics)]
        headers = HTTPHeaders({"Host": "a"})
        for path in range(99_000):
            line = RequestStartLine("GET", f"/{path:x}", "HTTP/1.1")
            request = HTTPServerRequest(headers=headers, start_line=line)
            exchange = self.app.exchange(request, "", NotFound)
            measured.request_started(exchange)
            exchange.status = 404
            measured.request_ended(exchange)
        assert self.requests() == {("GET", "404", "unmatched", ""): 100_000}

    def test_event_loop_lag(self) -> None:
        async def block() -> None:
            await asyncio.sleep(metrics.LAG_INTERVAL_SECONDS / 2)
            time.sleep(metrics.LAG_INTERVAL_SECONDS)  # noqa: ASYNC251 (that is the point)
            await asyncio.sleep(metrics.LAG_INTERVAL_SECONDS)

        self.run_async(block)
        assert self.value("event_loop_lag_seconds") >= metrics.LAG_INTERVAL_SECONDS / 4

    def test_the_worst_lag_is_kept_for_15_to_30_seconds(self) -> None:
        clock = mock.Mock(return_value=time.monotonic())

        async def pass_seconds(seconds: float) -> None:
            clock.return_value += seconds
            seen = clock.call_count
            # Each time it wakes, it reads the clock twice.
            await self.until(lambda: clock.call_count >= seen + 2)

        def lag_after(steps: list[int]) -> float:
            for seconds in steps:
                self.run_async(lambda: pass_seconds(seconds))  # noqa: B023 (it has run by then)
            return self.value("event_loop_lag_seconds")

        self.enterContext(mock.patch.object(metrics, "monotonic", clock))
        self.enterContext(mock.patch.object(metrics, "LAG_INTERVAL_SECONDS", 0.001))
        assert lag_after([5]) > 4
        assert lag_after([1] * 15) > 4
        assert lag_after([1] * 15) < 2

    def test_build_process_and_garbage_collection(self) -> None:
        samples = {sample.name: sample for sample in self.scrape()}
        assert samples["build_info"].labels["service"] == SERVICE
        assert samples["build_info"].labels["version"] == __version__
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
        [export] = (each for each in self.app.exports() if each.backend == "Prometheus")
        assert (export.backend, export.sent, export.dropped) == ("Prometheus", 3, None)

    def test_totals_of_other_features(self) -> None:
        assert self.value("linked_exchanges_total") == 7

    def test_metrics_of_one_s_own(self) -> None:
        counter = metrics.counter("greetings", "Greetings given.", ["language"])
        gauge = metrics.gauge("queue_length", "Jobs waiting.")
        histogram = metrics.histogram("query_duration_seconds", "Duration of queries.")
        try:
            counter.labels("en").inc()
            gauge.set(3)
            histogram.observe(0.2)
            assert self.value("greetings_total") == 1
            assert self.value("queue_length") == 3
            assert self.value("query_duration_seconds_count") == 1
        finally:
            for collector in (counter, gauge, histogram):
                metrics.registry.unregister(collector)

    def test_strange_accept_header_gets_text(self) -> None:
        for accept in ("application/openmetrics-text; version=x", "image/png"):
            response = self.fetch_admin("/metrics", headers={"Accept": accept})
            assert response.headers["Content-Type"].startswith("text/plain")

    def test_outgoing_calls(self) -> None:
        async def call() -> None:
            await AsyncHTTPClient().fetch(self.get_url("/hello/a"))
            await AsyncHTTPClient().fetch(self.get_url("/status/503"), raise_error=False)

        ObservedClient._servers.clear()
        self.run_async(call)
        name = "http_client_request_duration_seconds_count"
        calls = [sample for sample in self.scrape() if sample.name == name]
        server = {
            "http_request_method": "GET",
            "server_address": "127.0.0.1",
            "server_port": str(self.get_http_port()),
            "url_scheme": "http",
        }
        assert [(sample.labels, sample.value) for sample in calls] == [
            ({**server, "http_response_status_code": "200", "error_type": ""}, 1),
            ({**server, "http_response_status_code": "503", "error_type": "503"}, 1),
        ]

    def test_what_is_counted_beside_the_requests(self) -> None:
        self.raw(b"nonsense\r\n\r\n")

        async def talk() -> None:
            websocket = await websocket_connect(self.get_url("/ws").replace("http", "ws"))
            await websocket.write_message("hello")
            await websocket.read_message()
            value = await asyncio.to_thread(self.ask, "websocket_connections")
            assert value == 1
            websocket.close(1001)
            await self.until(lambda: self.app.websocket_closes)

        self.run_async(talk)
        counted = {(sample.name, *sample.labels.values()): sample.value for sample in self.scrape()}
        assert counted["http_server_refused_requests_total", "malformed"] == 1
        assert counted["http_server_refused_requests_total", "too_large"] == 0
        assert counted["websocket_messages_total", "received"] == 1
        assert counted["websocket_messages_total", "sent"] == 1
        assert counted["websocket_closes_total", "1001"] == 1
        assert counted["websocket_connections",] == 0
        assert counted["python_gc_pause_seconds_total", "2"] >= 0

    def test_metrics_are_not_for_the_public(self) -> None:
        assert self.fetch("/metrics").code == 404
