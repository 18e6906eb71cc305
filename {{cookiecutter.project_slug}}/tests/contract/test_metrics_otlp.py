"""What the metrics promise."""

import json
from typing import Any

from tornado.web import Application, RequestHandler
from tornado_chassis import metrics
from tornado_chassis.service import Service

from .service import ContractTest

DURATION = "http.server.request.duration"

sold = metrics.counter("contract_sold", "Things sold.", ["thing"])


class Collector(RequestHandler):
    """Takes OTLP over HTTP."""

    def initialize(self, received: list[Any]) -> None:
        self.received = received

    def post(self) -> None:
        (resource,) = json.loads(self.request.body)["resourceMetrics"]
        self.received += [each for scope in resource["scopeMetrics"] for each in scope["metrics"]]


class TestMetrics(ContractTest):
    def make_service(self) -> Service:
        self.received: list[dict[str, Any]] = []
        port = self.serve(Application([(r"/v1/metrics", Collector, {"received": self.received})]))
        self.environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
        return super().make_service()

    def sent(self, name: str) -> dict[str, float]:
        """The value of each series of a metric, or how many durations it has, by its attributes.

        Stops the service, which sends its metrics once more.
        """
        self.stop_service()
        return {
            " ".join(str(*each["value"].values()) for each in point["attributes"]): float(
                point.get("count") or point["asDouble"]
            )
            for metric in self.received
            if metric["name"] == name
            for data in (metric.get("histogram") or metric["sum"],)
            for point in data["dataPoints"]
        }

    def test_requests_are_measured_by_their_route(self) -> None:
        self.fetch("/task/a")
        self.fetch("/task/b")
        assert self.sent(DURATION) == {"GET http 200 /task/{name}": 2}

    def test_a_failed_request_is_one_measurement_with_its_error(self) -> None:
        self.fetch("/fail")
        assert self.sent(DURATION) == {"GET http 500 /fail LookupError": 1}

    def test_paths_without_a_route_are_one_series(self) -> None:
        self.fetch("/unknown")
        self.fetch("/unheard")
        assert self.sent(DURATION) == {"GET http 404 unmatched": 2}

    def test_a_call_to_another_service_is_one_measurement(self) -> None:
        self.fetch("/call")
        assert [*self.sent("http.client.request.duration").values()] == [1]

    def test_metrics_of_the_service_stand_beside_them(self) -> None:
        before = sold.labels("tea").value
        sold.labels("tea").inc()
        assert self.sent("contract_sold") == {"tea": before + 1}
