"""What error tracking promises."""

import json
from typing import Any

from tornado.web import Application, RequestHandler
from tornado_chassis.service import Service

from .service import ContractTest


class Ingest(RequestHandler):
    """Takes envelopes as Sentry does, and keeps their events."""

    def initialize(self, events: list[Any]) -> None:
        self.events = events

    def post(self) -> None:
        _, *items = self.request.body.split(b"\n")
        for header, payload in zip(items[::2], items[1::2], strict=False):
            if json.loads(header)["type"] == "event":
                self.events.append(json.loads(payload))


class TestErrors(ContractTest):
    def make_service(self) -> Service:
        self.events: list[Any] = []
        port = self.serve(Application([(r"/api/1/envelope/", Ingest, {"events": self.events})]))
        self.environ = {"SENTRY_DSN": f"http://key@127.0.0.1:{port}/1"}
        return super().make_service()

    def report(self) -> dict[str, Any]:
        """The only report, once the service has stopped."""
        self.stop_service()
        ((event,),) = [self.events]
        assert isinstance(event, dict)
        return event

    def test_a_failed_request_is_one_report_with_its_route_and_its_id(self) -> None:
        self.fetch("/fail", headers={"X-Request-ID": "caller.1"})
        report = self.report()
        (error,) = report["exception"]["values"]
        assert (error["type"], error["value"]) == ("LookupError", "a detail")
        assert report["transaction"] == "GET /fail"
        assert report["tags"]["request_id"] == "caller.1"

    def test_a_report_shows_neither_query_nor_headers_nor_body(self) -> None:
        secret = {"Authorization": "hidden", "Cookie": "session=hidden"}
        self.fetch("/fail?token=hidden", method="POST", headers=secret, body="hidden")
        assert "hidden" not in json.dumps(self.report())

    def test_background_work_that_fails_is_one_report(self) -> None:
        async def refresh() -> None:
            raise LookupError("no prices")

        async def fail() -> None:
            self.service.background("refresh prices", refresh)
            await self.until(lambda: self.events)

        self.run_async(fail)
        assert self.report()["transaction"] == "refresh prices"

    def test_a_request_that_does_not_fail_is_no_report(self) -> None:
        self.fetch("/unknown")
        self.stop_service()
        assert self.events == []
