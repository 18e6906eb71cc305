"""What Graphite receives."""

import asyncio
import socket

import pytest

from my_service.chassis import metrics

from .testing import ChassisTest


class TestGraphite(ChassisTest):
    def setUp(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.server.close)
        self.environ = {
            "GRAPHITE_HOST": "127.0.0.1",
            "GRAPHITE_PORT": str(self.server.getsockname()[1]),
        }
        super().setUp()
        self.observer = metrics.Metrics(self.service.settings)

    def received(self) -> str:
        """What the last of a service's life sends."""
        self.run_async(self.observer.startup)
        self.run_async(self.observer.shutdown)
        self.server.settimeout(10)
        connection, _ = self.server.accept()
        with connection:
            return connection.makefile().read()

    def test_requests_are_counted_by_method_status_and_route(self) -> None:
        self.fetch("/nowhere/1")
        self.fetch("/nowhere/2")
        self.run_async(lambda: asyncio.sleep(0))
        assert "\nhttp_server_requests.GET.404.unmatched " in f"\n{self.received()}"

    def test_own_metrics_are_sent(self) -> None:
        metrics.counter("orders", "Orders placed.", ["country"]).labels("nl").inc()
        depth = metrics.gauge("queue_depth", "Waiting.")
        depth.set(5)
        depth.inc()
        depth.dec(2)
        metrics.histogram("query_seconds", "Queries.").observe(0.5)
        lines = self.received().splitlines()
        values = dict(line.rsplit(" ", 1)[0].split(" ") for line in lines)
        assert values["orders.nl"] == "1"
        assert values["queue_depth"] == "4"
        assert values["query_seconds"] == "0.5"

    def test_labels_are_as_many_as_declared(self) -> None:
        orders = metrics.counter("orders", "Orders placed.", ["country"])
        with pytest.raises(ValueError, match="has the labels"):
            orders.labels()
        with pytest.raises(ValueError, match="call labels"):
            orders.inc()

    def test_server_that_is_down_stops_nothing(self) -> None:
        self.server.close()
        with self.assertLogs(metrics.log, "WARNING") as logs:
            self.run_async(self.observer.startup)
            self.run_async(self.observer.shutdown)
        assert "Sending metrics to 127.0.0.1" in logs.output[0]


class TestIdle(ChassisTest):
    def test_without_a_host_nothing_is_sent_and_one_line_says_so(self) -> None:
        with self.assertLogs(metrics.log, "INFO") as logs:
            idle = metrics.Metrics(self.service.settings)
            self.run_async(idle.startup)
            self.run_async(idle.shutdown)
        assert logs.output == [
            f"INFO:{metrics.__name__}:Metrics are not sent: GRAPHITE_HOST is not set"
        ]
