"""What error tracking promises."""

import ast
import asyncio
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import TestCase

import newrelic.agent
from tornado_chassis.service import Service

from my_service import features

from . import service


async def connect() -> None:
    while not newrelic.agent.application().active:  # noqa: ASYNC110 (the agent has no event)
        await asyncio.sleep(0.01)
    print("Connected", flush=True)


def make_service(settings: features.Settings) -> Service:
    made = service.make_service(settings)
    made.on_startup.append(connect)
    return made


class TestErrors(TestCase):
    log = ""

    @classmethod
    def setUpClass(cls) -> None:
        """Two requests to a process whose agent writes down what it would send."""
        # On a busy machine, the last harvest may take longer than a stop waits.
        for _ in range(3):
            if "'method': 'error_event_data'" not in cls.log:
                cls.serve()

    @classmethod
    def serve(cls) -> None:
        secret = {"Authorization": "hidden", "X-Request-ID": "caller.1"}
        environ = {"NEW_RELIC_LICENSE_KEY": "0" * 40, "NEW_RELIC_DEVELOPER_MODE": "true"}
        with TemporaryDirectory() as directory:
            audit = Path(directory, "audit.log")
            environ |= {"NEW_RELIC_AUDIT_LOG": str(audit), "DRAIN_DELAY_SECONDS": "0"}
            with service.process(__name__, **environ) as process:
                client = HTTPConnection(process.read_until(r"Listening on http://(\S+:\d+)")[1])
                process.read_until("Connected")
                for method, path in ("GET", "/task/a"), ("POST", "/fail?token=hidden"):
                    client.request(method, path, "hidden", secret)
                    client.getresponse().read()
                client.close()
                process.terminate()
                assert process.end() == 0, process.output
            cls.log = audit.read_text()

    def events(self, method: str) -> list[Any]:
        """What the agent knows of each event, and the attributes that it was given."""
        for entry in self.log.split("=" * 78 + "\n"):
            head, _, data = entry.partition("\nDATA: ")
            if f"'method': '{method}'" in head:
                return [event[:2] for event in ast.literal_eval(data.strip())[2]]
        return []

    def test_a_request_is_one_transaction_of_its_route(self) -> None:
        names = [known["name"] for known, _ in self.events("analytic_event_data")]
        routes = "GET /task/{name}", "POST /fail"
        assert names == [f"WebTransaction/Tornado/{route}" for route in routes]

    def test_a_failed_request_is_one_report_with_its_route_and_its_id(self) -> None:
        ((known, given),) = self.events("error_event_data")
        assert known["error.class"] == "builtins:LookupError"
        assert known["error.message"] == "a detail"
        assert (given["http.route"], given["request_id"]) == ("/fail", "caller.1")

    def test_a_report_shows_neither_query_nor_headers_nor_body(self) -> None:
        assert "hidden" not in self.log
