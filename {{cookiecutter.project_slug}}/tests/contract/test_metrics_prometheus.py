"""What the metrics promise."""

from prometheus_client.parser import text_string_to_metric_families
from tornado_chassis import metrics

from .service import ContractTest

DURATION = "http_server_request_duration_seconds_count"

sold = metrics.counter("contract_sold", "Things sold.", ["thing"])


class TestMetrics(ContractTest):
    def values(self, name: str, **labels: str) -> list[float]:
        """Values of the series that have these labels."""
        response = self.fetch_admin("/metrics")
        assert response.code == 200
        return [
            sample.value
            for family in text_string_to_metric_families(response.body.decode())
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]

    def test_requests_are_measured_by_their_route(self) -> None:
        self.fetch("/task/a")
        self.fetch("/task/b")
        assert self.values(DURATION, http_route="/task/{name}") == [2]

    def test_a_failed_request_is_one_measurement_with_its_error(self) -> None:
        self.fetch("/fail")
        labels = {"http_response_status_code": "500", "error_type": "LookupError"}
        assert self.values(DURATION, http_route="/fail") == [1]
        assert self.values(DURATION, **labels) == [1]

    def test_paths_without_a_route_are_one_series(self) -> None:
        self.fetch("/unknown")
        self.fetch("/unheard")
        assert self.values(DURATION, http_route="unmatched") == [2]

    def test_a_call_to_another_service_is_one_measurement(self) -> None:
        self.fetch("/call")
        assert self.values("http_client_request_duration_seconds_count") == [1]

    def test_metrics_of_the_service_stand_beside_them(self) -> None:
        before = sum(self.values("contract_sold_total", thing="tea"))
        sold.labels("tea").inc()
        assert self.values("contract_sold_total", thing="tea") == [before + 1]

    def test_only_the_admin_port_shows_them(self) -> None:
        assert self.fetch("/metrics").code == 404
