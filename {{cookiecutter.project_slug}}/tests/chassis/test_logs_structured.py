"""Log lines: one for each exchange, all in one format, and none that a client can forge."""

import io
import json
import logging
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal
from unittest import mock

import pytest
from tornado.web import FallbackHandler
from tornado.websocket import websocket_connect
from tornado.wsgi import WSGIContainer

from my_service.chassis import PACKAGE, SERVICE, __version__
from my_service.chassis.application import correlation
from my_service.chassis.logs import AccessLog
from my_service.chassis.service import Service
from my_service.chassis.settings import Settings, read

from .testing import ChassisTest, inherited, process

log = logging.getLogger("some.library")
DYING = """
import asyncio, logging, os, signal

from my_service.chassis.logs import AccessLog
from my_service.chassis.settings import Settings


async def main():
    AccessLog(Settings(log_format="json"))
    logging.info("before")
    logging.warning("last words")
    os.kill(os.getpid(), signal.SIGKILL)


asyncio.run(main())
"""
HOSTILE = "a\nb\r\x1b[31mc\x00\x7f\x85\x9b31m\u2028\u202e"


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level, sys.excepthook, threading.excepthook
    yield
    root.handlers[:], root.level, sys.excepthook, threading.excepthook = before
    logging.captureWarnings(False)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextmanager
def logging_to(stream: io.StringIO, log_format: Literal["json", "console"]) -> Iterator[None]:
    # pytest's own handlers raise an exception if a record can't be formatted.
    logging.getLogger().handlers.clear()
    AccessLog(Settings(log_format=log_format, log_level="DEBUG"), stream)
    yield


def written(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


class TestAccessLog(ChassisTest):
    def accesses(self) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.lines()]
        return [line for line in lines if "url.path" in line]

    def one(self) -> dict[str, Any]:
        (line,) = self.accesses()
        return line

    def test_fields(self) -> None:
        response = self.fetch("/hello/world?token=secret", headers={"Cookie": "a=secret"})
        line = self.one()
        assert line.pop("timestamp").endswith("Z")
        assert 0 < line.pop("duration") < 10
        assert line.pop("request_id") == response.headers["X-Request-ID"]
        assert {name: line[name] for name in line if not name.endswith(("_id", "_flags"))} == {
            "level": "INFO",
            "logger": f"{PACKAGE}.access",
            "message": "GET /hello/{name} 200",
            "http.request.method": "GET",
            "http.route": "/hello/{name}",
            "http.response.status_code": 200,
            "service.name": SERVICE,
            "service.version": __version__,
            "url.path": "/hello/world",
            "client.address": "127.0.0.1",
        }
        assert "secret" not in "".join(self.lines())

    def test_unmatched_path(self) -> None:
        self.fetch("/nowhere")
        line = self.one()
        assert (line["http.response.status_code"], line["level"]) == (404, "INFO")
        assert "http.route" not in line

    def test_static_file(self) -> None:
        self.fetch("/static/testing.py")
        assert self.one()["http.route"] == "/static/{path}"

    def test_exception(self) -> None:
        self.fetch("/boom")
        line = self.one()
        assert (line["level"], line["error.type"]) == ("ERROR", "ValueError")
        (error,) = [each for each in map(json.loads, self.lines()) if "exception.type" in each]
        assert error["exception.type"] == "ValueError"
        assert error["exception.message"] == "boom"
        assert error["exception.stacktrace"].startswith("Traceback ")
        assert error["request_id"] == line["request_id"]

    def test_exception_after_flush(self) -> None:
        self.raw(b"GET /flushed HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        line = self.one()
        assert (line["http.response.status_code"], line["level"]) == (200, "ERROR")

    def test_client_that_goes_away(self) -> None:
        self.leave()
        assert self.one()["http.response.status_code"] == 499

    def test_websocket(self) -> None:
        async def talk() -> None:
            socket = await websocket_connect(self.get_url("/ws").replace("http", "ws"))
            await socket.write_message("hello")
            await socket.read_message()
            socket.close()

        self.run_async(talk)
        assert self.one()["http.response.status_code"] == 101

    def test_malformed_request_has_its_own_line(self) -> None:
        self.raw(b"GET /\x1b[31m\nforged HTTP/1.1\r\n\r\n")
        assert self.accesses() == []
        lines = [json.loads(line) for line in self.lines()]
        (line,) = [line for line in lines if line["message"] == "Refused a request: malformed"]
        assert line["client.address"] == "127.0.0.1"
        assert "forged" not in str(lines)

    def test_path_cannot_forge_a_line(self) -> None:
        path = b'/"}{"level":"\xc2\x9b31m%0a'
        self.raw(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert self.one()["url.path"].startswith('/"}{"level":"')
        assert all(line.isascii() and line.isprintable() for line in self.lines())

    def test_level_changes_at_run_time(self) -> None:
        assert json.loads(self.fetch_admin("/loglevel").body) == {"level": "INFO"}
        self.fetch("/")
        response = self.fetch_admin("/loglevel", method="PUT", body='{"level": "warning"}')
        assert json.loads(response.body) == {"level": "WARNING"}
        self.fetch("/")
        assert [each["url.path"] for each in self.accesses()] == ["/loglevel", "/"]
        self.fetch("/boom")
        assert self.accesses()[-1]["url.path"] == "/boom"

    def test_unknown_level_is_a_problem(self) -> None:
        choices = "level must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL"
        for body in ('{"level": "LOUD"}', '{"level": 3}', "[]", "{}"):
            assert self.problem(body) == choices
        for body in ("nonsense", "[" * 100_000):
            assert self.problem(body) == "The body is not valid JSON"
        assert json.loads(self.fetch_admin("/loglevel").body) == {"level": "INFO"}

    def problem(self, body: str) -> str:
        """The title of the problem with this body of a request to change the level."""
        response = self.fetch_admin("/loglevel", method="PUT", body=body)
        assert response.code == 400
        assert response.headers["Content-Type"] == "application/problem+json"
        problem = json.loads(response.body)
        title: str = problem.pop("title")
        assert problem == {"status": 400, "request_id": response.headers["X-Request-ID"]}
        return title

    def test_level_is_not_on_the_main_port(self) -> None:
        assert self.fetch("/loglevel").code == 404


class TestWsgi(ChassisTest):
    def make_service(self) -> Service:
        def legacy(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            start_response("202 Accepted", [("Content-Type", "text/plain")])
            return [environ["QUERY_STRING"].encode()]

        fallback = {"fallback": WSGIContainer(legacy)}
        return Service(read(Settings, {}), [(r"/legacy/.*", FallbackHandler, fallback)])

    def test_one_line_without_the_query_string(self) -> None:
        response = self.fetch("/legacy/page?token=secret")
        assert (response.code, response.body) == (202, b"token=secret")
        lines = [line for line in self.lines() if "legacy" in line]
        (access,) = map(json.loads, lines)
        assert access["http.response.status_code"] == 202
        assert access["http.route"] == "/legacy/.*"
        assert access["url.path"] == "/legacy/page"
        assert access["request_id"] == response.headers["X-Request-ID"]
        assert "secret" not in "".join(self.lines())
        assert self.app.in_flight == 0


class TestConsole(ChassisTest):
    environ = {"LOG_FORMAT": "console"}  # noqa: RUF012

    def test_access_line(self) -> None:
        self.fetch("/hello/world?token=secret")
        (line,) = [line for line in self.lines() if "/hello/" in line]
        assert " INFO     GET /hello/world 200 " in line
        assert "client.address=127.0.0.1" in line
        assert "secret" not in line

    def test_path_cannot_control_a_terminal(self) -> None:
        self.raw(b"GET /a\xc2\x9b31mb HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        (line,) = [line for line in self.lines() if "GET" in line]
        assert line.isprintable()


def test_json_stays_on_one_line() -> None:
    stream = io.StringIO()
    with logging_to(stream, "json"):
        log.info("said %s", HOSTILE, extra={"who": HOSTILE})
    (line,) = stream.getvalue().splitlines()
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["message"] == f"said {HOSTILE}"
    assert json.loads(line)["who"] == HOSTILE


def test_console_stays_on_one_line() -> None:
    stream = Terminal()
    token = correlation.set({"request_id": "r1"})
    with logging_to(stream, "console"), mock.patch.dict("os.environ"):
        log.info("said %s", HOSTILE, extra={"who": HOSTILE})
    correlation.reset(token)
    (line,) = stream.getvalue().split("\n")[:-1]
    assert line.count("\x1b") == 2  # the level's colour, on and off
    assert line.replace("\x1b[32m", "").replace("\x1b[0m", "").isprintable()
    assert "request_id=r1" in line


def test_console_indents_stack_traces() -> None:
    stream = io.StringIO()
    with logging_to(stream, "console"):
        try:
            raise ValueError("a\nINFO forged \x1b[31m")
        except ValueError:
            log.exception("failed", stack_info=True)
    first, *rest = stream.getvalue().splitlines()
    assert " ERROR    failed " in first
    assert rest
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


def test_no_colour_without_a_terminal_or_with_no_color() -> None:
    stream = io.StringIO()
    with logging_to(stream, "console"):
        log.error("plain")
    terminal = Terminal()
    with mock.patch.dict("os.environ", {"NO_COLOR": "1"}), logging_to(terminal, "console"):
        log.error("plain")
    assert "\x1b" not in stream.getvalue() + terminal.getvalue()


def test_anything_that_is_logged_makes_a_line() -> None:
    circle: list[Any] = []
    circle.append(circle)
    stream = io.StringIO()
    with logging_to(stream, "json"):
        log.info("%d of %d", 1)
        log.info("extras", extra={"a": float("nan"), "b": circle, "c": {(1,): 2}, "d": object()})
        log.info("surrogate \ud800", stack_info=True)
        log.info("object", extra={"d": {"deep": object()}})
    first, second, third, fourth = written(stream)
    assert first["message"] == "%d of %d (1,)"
    assert second["a"] == "nan"
    assert third["stacktrace"].startswith("Stack ")
    assert fourth["d"]["deep"].startswith("<object ")


def test_warnings_and_uncaught_exceptions_have_the_same_format() -> None:
    stream = io.StringIO()
    with logging_to(stream, "json"), warnings.catch_warnings():
        warnings.simplefilter("default")
        logging.captureWarnings(True)
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()
        sys.excepthook(ValueError, ValueError("at the top"), None)
    warning, in_thread, uncaught = written(stream)
    assert "old ways" in warning["message"]
    assert (in_thread["level"], in_thread["exception.type"]) == ("CRITICAL", "ZeroDivisionError")
    assert uncaught["exception.message"] == "at the top"


def test_interrupt_is_not_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    with logging_to(stream, "json"):
        sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert stream.getvalue() == ""
    assert "KeyboardInterrupt" in capsys.readouterr().err


def test_reader_that_has_gone_does_not_stop_the_service() -> None:
    stream = io.StringIO()
    with logging_to(stream, "json"):
        stream.close()
        log.error("to nobody")


def test_warning_is_written_before_the_turn_of_the_loop_ends() -> None:
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", DYING],
        env=inherited(),
        stdout=subprocess.PIPE,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert [json.loads(line)["message"] for line in done.stdout.splitlines()] == [
        "before",
        "last words",
    ]


def test_process_logs_only_json() -> None:
    with process() as service:
        service.wait_for_output("is running")
        service.process.terminate()
        assert service.wait() == 0
        for line in service.output().splitlines():
            assert json.loads(line)["service.name"] == SERVICE
