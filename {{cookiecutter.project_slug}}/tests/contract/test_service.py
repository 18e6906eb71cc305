"""What every service promises."""

import json
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection

from tornado_chassis import metrics, tracing
from tornado_chassis.service import Service
from tornado_chassis.testing import Process

from my_service import features

from .service import ContractTest, process


@dataclass(frozen=True, kw_only=True)
class Settings(features.Settings):
    price_list: str


class TestService(ContractTest):
    def make_service(self) -> Service:
        self.ran: list[str] = []
        service = super().make_service()
        service.on_startup += [partial(self.note, "open"), partial(self.note, "warm up")]
        service.on_shutdown += [partial(self.note, "close"), partial(self.note, "cool down")]
        return service

    async def note(self, name: str) -> None:
        self.ran.append(name)

    def test_an_unknown_path_is_a_404_problem_with_the_id_of_its_request(self) -> None:
        response = self.fetch("/unknown")
        assert response.code == 404
        assert response.headers["Content-Type"] == "application/problem+json"
        request_id = response.headers["X-Request-ID"]
        problem = {"title": "Not Found", "status": 404, "request_id": request_id}
        assert json.loads(response.body) == problem

    def test_the_request_id_of_a_caller_is_kept(self) -> None:
        response = self.fetch("/task/a", headers={"X-Request-ID": "caller.1"})
        assert response.headers["X-Request-ID"] == "caller.1"

    def test_an_exception_is_a_500_problem_that_reveals_nothing(self) -> None:
        response = self.fetch("/fail")
        assert response.code == 500
        assert json.loads(response.body)["title"] == "Internal Server Error"
        assert b"detail" not in response.body

    def test_a_method_that_is_not_allowed_is_a_405_that_names_those_that_are(self) -> None:
        response = self.fetch("/task/a", method="DELETE")
        assert (response.code, response.headers["Allow"]) == (405, "GET")

    def test_code_can_count_and_trace_whatever_was_chosen(self) -> None:
        metrics.counter("contract_work_done", "Work done.").inc()
        with tracing.span("work"):
            tracing.inject({})

    def test_startup_callbacks_run_in_order_and_shutdown_callbacks_in_reverse(self) -> None:
        assert self.ran == ["open", "warm up"]
        self.stop_service()
        assert self.ran[2:] == ["cool down", "close"]

    def test_a_setting_of_the_service_that_is_missing_is_reported(self) -> None:
        with self.assertRaisesRegex(ValueError, "PRICE_LIST: is required"):
            self.read(Settings)

    def test_every_invalid_setting_is_reported_at_once_with_status_78(self) -> None:
        with Process("-m", "my_service", PORT="x", REUSE_PORT="y") as service:
            assert service.end() == 78
        assert "  PORT: should be a whole number" in service.output
        assert "  REUSE_PORT: should be true or false" in service.output
        assert "Traceback" not in service.output

    def test_a_request_in_flight_is_answered_before_the_service_stops_with_status_0(self) -> None:
        with process(DRAIN_DELAY_SECONDS="0") as service:
            client = HTTPConnection(service.read_until(r"Listening on http://(\S+:\d+)")[1])
            client.request("GET", "/late")
            service.read_until("In flight")
            service.terminate()
            assert json.loads(client.getresponse().read()) == {"late": True}
            client.close()
            assert service.end() == 0
