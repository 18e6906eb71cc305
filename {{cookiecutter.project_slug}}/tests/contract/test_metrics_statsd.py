"""What the metrics promise."""

import socket

from tornado_chassis import metrics
from tornado_chassis.service import Service

from .service import ContractTest

DURATION = "http_server_request_duration_seconds"

sold = metrics.counter("contract_sold", "Things sold.", ["thing"])


class TestMetrics(ContractTest):
    def make_service(self) -> Service:
        self.daemon = self.enterContext(socket.socket(type=socket.SOCK_DGRAM))
        self.daemon.bind(("127.0.0.1", 0))
        self.daemon.settimeout(10)
        port = str(self.daemon.getsockname()[1])
        self.environ = {"STATSD_HOST": "127.0.0.1", "STATSD_PORT": port, "STATSD_PREFIX": "shop"}
        return super().make_service()

    def received(self, name: str) -> list[str]:
        """The lines of a metric that the daemon has received when the service has stopped."""
        self.stop_service()
        self.daemon.sendto(b"end", self.daemon.getsockname())
        lines: list[str] = []
        while "end" not in lines:
            lines += self.daemon.recv(65536).decode().splitlines()
        return [line for line in lines if line.startswith(f"shop.{name}.")]

    def test_requests_are_measured_by_their_route(self) -> None:
        self.fetch("/task/a")
        self.fetch("/task/b")
        names = [line.partition(":")[0] for line in self.received(DURATION)]
        assert names == [f"shop.{DURATION}.GET.http.200._task_name_.none"] * 2

    def test_a_failed_request_is_one_measurement_with_its_error(self) -> None:
        self.fetch("/fail")
        (line,) = self.received(DURATION)
        name = f"shop.{DURATION}.GET.http.500._fail.LookupError"
        self.assertRegex(line, rf"^{name}:[0-9.]+\|ms$")

    def test_a_call_to_another_service_is_one_measurement(self) -> None:
        self.fetch("/call")
        (line,) = self.received("http_client_request_duration_seconds")
        assert ".200.none:" in line

    def test_metrics_of_the_service_stand_beside_them(self) -> None:
        sold.labels("tea").inc()
        assert self.received("contract_sold") == ["shop.contract_sold.tea:1|c"]
