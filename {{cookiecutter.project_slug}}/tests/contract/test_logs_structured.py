"""What the logs promise."""

import json
import logging
from typing import Any

from tornado_chassis.handlers import JsonHandler

from .service import ContractTest


class Talk(JsonHandler):
    def get(self) -> None:
        text = self.get_query_argument("text")
        logging.getLogger("contract").info("Heard %s", text, extra={"words": 2})
        self.finish({})


class TestLogs(ContractTest):
    routes = ((r"/talk", Talk),)

    def logged(self, path: str) -> list[dict[str, Any]]:
        """The lines that a request has written."""
        before = len(self.lines())
        self.fetch(path, headers={"X-Request-ID": "caller.1"})
        lines = [json.loads(line) for line in self.lines()[before:]]
        assert {line["request_id"] for line in lines} <= {"caller.1"}
        return lines

    def test_a_request_is_one_line_with_its_id_and_without_its_query(self) -> None:
        (line,) = self.logged("/task/a?token=hidden")
        assert (line["level"], line["message"]) == ("INFO", "GET /task/{name} 200")
        assert (line["url.path"], line["http.response.status_code"]) == ("/task/a", 200)
        assert line["duration"] > 0
        assert "hidden" not in str(line)

    def test_a_failed_request_is_one_error_with_its_traceback_and_one_line(self) -> None:
        error, line = self.logged("/fail")
        assert error["level"] == line["level"] == "ERROR"
        assert error["exception.stacktrace"].startswith("Traceback")
        assert error["exception.type"] == line["error.type"] == "LookupError"

    def test_a_line_of_a_handler_has_its_fields_and_the_id_of_its_request(self) -> None:
        line, _ = self.logged("/talk?text=hello")
        assert (line["message"], line["words"]) == ("Heard hello", 2)

    def test_text_from_outside_is_never_a_line_of_its_own(self) -> None:
        line, _ = self.logged("/talk?text=a%0A%7B%22level%22:%22ERROR%22%7D")
        assert line["message"] == 'Heard a\n{"level":"ERROR"}'

    def test_operators_alone_change_the_level_while_the_service_runs(self) -> None:
        level = '{"level": "WARNING"}'
        assert self.fetch("/loglevel", method="PUT", body=level).code == 404
        assert self.fetch_admin("/loglevel", method="PUT", body=level).code == 200
        assert self.logged("/task/a") == []
