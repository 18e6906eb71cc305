"""Log lines: one for each exchange, all in one format, and none that a client can forge."""

import asyncio
import http.client
import io
import json
import logging
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from tornado.web import FallbackHandler, RequestHandler
from tornado.wsgi import WSGIContainer
from tornado_chassis.exchange import correlation
from tornado_chassis.logs import Logs, output
from tornado_chassis.logs.output import WAITING_BYTES, Output
from tornado_chassis.service import Service
from tornado_chassis.settings import read
from tornado_chassis.testing import UNWATCHED

from .settings import PACKAGE, SERVICE, VERSION, Settings
from .testing import STAND_IN, ChassisTest, inherited, process

log = logging.getLogger("some.library")
IMPORTS = """
import asyncio, logging, multiprocessing, os, signal, threading

from tornado_chassis.logs import Logs
from tests.chassis.settings import Settings
"""
DYING = """
async def main():
    await Logs(Settings(log_format="json")).startup()
    logging.info("before")
    logging.warning("last words")
    os.kill(os.getpid(), signal.SIGKILL)


asyncio.run(main())
"""
STARTING = """
import asyncio, os, signal, sys

from tornado_chassis import process
from tests.chassis.settings import Settings

settings = process.configure([], Settings)
from tornado_chassis.service import Service

service = Service(settings, [])


async def started():
    with open(os.environ["READY"], "w") as ready:
        ready.write("ready")
    asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGTERM)


service.on_startup.append(started)
process.run(service)
"""
BESIDE = """
def in_child(number):
    logging.info("in child %d", number)


def in_thread():
    async def log():
        for number in range(2000):
            if number == 1999:
                loop.stop()  # after this turn
            logging.info("in thread %d", number)
            if number == 1000:
                await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    task = loop.create_task(log())
    loop.run_forever()


async def main():
    await Logs(Settings(log_format="json")).startup()
    logging.info("held by the parent")
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(in_child, range(4), 1)
    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    os.kill(os.getpid(), signal.SIGKILL)


asyncio.run(main())
"""
STOPPED = """
async def main():
    await Logs(Settings(log_format="json")).startup()
    logging.info("in the last turn")


asyncio.new_event_loop().run_until_complete(main())
logging.info("after it")
os.kill(os.getpid(), signal.SIGKILL)
"""
PORTS = {"PORT": "0", "ADMIN_PORT": "0", "DRAIN_DELAY_SECONDS": "0"}
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
def logging_to(stream: io.StringIO, log_format: str) -> Iterator[None]:
    # pytest's own handlers raise an exception if a record can't be formatted.
    logging.getLogger().handlers.clear()
    Logs(read(Settings, {"LOG_FORMAT": log_format, "LOG_LEVEL": "DEBUG"}), stream)
    yield


def written(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


class TestLogs(ChassisTest):
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
            "service.version": VERSION,
            "url.path": "/hello/world",
            "client.address": "127.0.0.1",
        }
        assert "secret" not in "".join(self.lines())

    def test_unmatched_path_and_static_file(self) -> None:
        self.fetch("/nowhere")
        self.fetch("/static/testing.py")
        unmatched, static = self.accesses()
        assert (unmatched["http.response.status_code"], unmatched["level"]) == (404, "INFO")
        assert "http.route" not in unmatched
        assert static["http.route"] == "/static/{path}"

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

    def test_probe_that_answers_503_is_no_error(self) -> None:
        class Probe(RequestHandler):
            is_probe = True

            def get(self, status: str) -> None:
                self.set_status(int(status))

        self.app.add_handlers(".*", [(r"/probe/(\d+)", Probe)])
        self.fetch("/probe/503")
        assert self.accesses() == []
        logging.getLogger().setLevel("DEBUG")
        self.fetch("/probe/503")
        self.fetch("/probe/500")
        assert [line["level"] for line in self.accesses()] == ["DEBUG", "ERROR"]

    def test_client_that_goes_away(self) -> None:
        self.leave()
        assert self.one()["http.response.status_code"] == 499

    def test_websocket(self) -> None:
        async def talk() -> None:
            socket = await self.websocket()
            await socket.write_message("hello")
            await socket.read_message()
            socket.close()

        self.run_async(talk)
        assert self.one()["http.response.status_code"] == 101

    def test_malformed_request_has_its_own_line(self) -> None:
        self.raw(b"GET /\x1b[31m\nforged HTTP/1.1\r\n\r\n")
        assert self.accesses() == []
        lines = [json.loads(line) for line in self.lines()]
        (line,) = [line for line in lines if line["message"] == "Rejected a request: malformed"]
        assert line["client.address"] == "127.0.0.1"
        assert "forged" not in str(lines)

    def test_path_is_cut_and_cannot_forge_a_line(self) -> None:
        for path in (b"/" + b"x" * 50_000, b'/"}{"level":"\xc2\x9b31m%0a'):
            self.raw(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        cut, hostile = [line["url.path"] for line in self.accesses()]
        assert len(cut) < 40_000
        assert " characters cut " in cut
        assert hostile.startswith('/"}{"level":"')
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
        return Service(read(Settings, UNWATCHED), [(r"/legacy/.*", FallbackHandler, fallback)])

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
        assert self.app.runtime.in_flight == 0


class TestConsole(ChassisTest):
    environ = {"LOG_FORMAT": "console"}  # noqa: RUF012

    def test_access_line(self) -> None:
        self.fetch("/hello/world?token=secret")
        self.raw(b"GET /a\xc2\x9b31mb HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        line, hostile = [line for line in self.lines() if "GET" in line]
        assert " INFO     GET /hello/world 200 " in line
        assert "client.address=127.0.0.1" in line
        assert "secret" not in line
        assert hostile.isprintable()


def test_record_stays_on_one_line() -> None:
    stream, terminal = io.StringIO(), Terminal()
    token = correlation.set({"request_id": "r1"})
    for each, log_format in ((stream, "json"), (terminal, "console")):
        with logging_to(each, log_format):
            log.info("said %s", HOSTILE, extra={"who": HOSTILE})
    correlation.reset(token)
    (line,) = stream.getvalue().splitlines()
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["message"] == f"said {HOSTILE}"
    assert json.loads(line)["who"] == HOSTILE
    (line,) = terminal.getvalue().split("\n")[:-1]
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


class Unfinished:
    def __del__(self) -> None:
        raise LookupError


def test_warnings_and_uncaught_exceptions_have_the_same_format(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Not pytest's, which stays.
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    stream = io.StringIO()
    with logging_to(stream, "json"), warnings.catch_warnings():
        warnings.simplefilter("default")
        logging.captureWarnings(True)
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()
        sys.excepthook(ValueError, ValueError("at the top"), None)
        Unfinished()
    warning, in_thread, uncaught, ignored = written(stream)
    assert "old ways" in warning["message"]
    assert (in_thread["level"], in_thread["exception.type"]) == ("CRITICAL", "ZeroDivisionError")
    assert uncaught["exception.message"] == "at the top"
    assert (ignored["level"], ignored["exception.type"]) == ("ERROR", "LookupError")
    assert ignored["message"].startswith("Exception ignored in: <function Unfinished.__del__")


def test_interrupt_is_not_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    with logging_to(stream, "json"):
        sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert stream.getvalue() == ""
    assert "KeyboardInterrupt" in capsys.readouterr().err


def test_lines_for_a_stream_that_is_closed_are_counted() -> None:
    stream = io.StringIO()
    closed = Output(stream, "{} lost\n".format)
    with logging_to(stream, "json"):
        stream.close()
        log.error("to nobody")
    for _ in range(2):
        closed.write("to nobody\n")
    assert closed.dropped == 2


class Pipe:
    """An output that writes to a pipe, which is read only when a test does so."""

    def __init__(self, encoding: str) -> None:
        self._reading, writing = os.pipe()
        if sys.platform != "win32":
            os.set_blocking(self._reading, False)
        self._stream = open(writing, "w", encoding=encoding)  # noqa: SIM115 (closed by `close`)
        self.output = Output(self._stream, "{} lost\n".format)

    def read(self) -> bytes:
        """What is in the pipe."""
        received = b""
        with suppress(BlockingIOError):
            while more := os.read(self._reading, 65536):
                received += more
        return received

    def close(self) -> None:
        os.close(self._reading)
        self._stream.close()


@pytest.fixture
def pipe(request: pytest.FixtureRequest) -> Iterator[Pipe]:
    if sys.platform == "win32":
        pytest.skip("Windows cannot poll a pipe")
    pipe = Pipe(getattr(request, "param", "utf-8"))
    yield pipe
    pipe.close()


async def test_reader_that_comes_back_before_the_end_gets_every_line(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "LAST_CHANCE_SECONDS", 60.0)
    # More than the pipe takes, and together more than may wait.
    lines = "".join(f"{number} {'x' * 3 * (number % 50) ** 2}\n" for number in range(300))
    assert 3 * len(lines) > WAITING_BYTES > len(lines) > 500_000

    async def read(size: int) -> bytes:
        received = b""
        async with asyncio.timeout(30):
            while len(received) < size:
                received += pipe.read()
                await asyncio.sleep(0.001)
        return received

    pipe.output.open()
    for last in (False, False, True):
        for line in lines.splitlines(keepends=True):
            pipe.output.write(line)
        closing = asyncio.create_task(pipe.output.close() if last else asyncio.sleep(0))
        # As long as nobody reads, the loop goes on.
        await asyncio.sleep(2 * output.RETRY_SECONDS)
        assert closing.done() != last
        assert await read(len(lines)) == lines.encode()
        await closing
    assert pipe.read() == b""
    assert pipe.output.dropped == 0


async def test_reader_that_stays_away_holds_the_end_for_a_moment_only(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "LAST_CHANCE_SECONDS", 0.1)
    pipe.output.open()
    pipe.output.write("x" * 200_000 + "\n")
    await asyncio.wait_for(pipe.output.close(), 30)
    assert set(pipe.read()) == set(b"x")


def test_lines_of_other_processes_do_not_come_between_two_halves() -> None:
    """Others may write to the same pipe."""
    if sys.platform != "linux":
        pytest.skip("only Linux has pipes that keep what is written apart")
    reading, writing = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)
    with open(writing, "w") as stream:
        shared = Output(stream, "{} lost\n".format)
        shared.write("".join(f"{number:99}\n" for number in range(100)))
        for _ in range(3):
            assert os.read(reading, 65536).endswith(b"\n")
    os.close(reading)


@pytest.mark.parametrize("pipe", ["ascii"], indirect=True)
def test_characters_beyond_the_encoding_are_escaped(pipe: Pipe) -> None:
    pipe.output.write("caf\u00e9\n")
    assert pipe.read() == b"caf\\xe9\n"


def messages(script: str) -> list[str]:
    """What a process that is killed in the end has logged until then."""
    if sys.platform == "win32":
        pytest.skip("Windows has no such signal")
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            [sys.executable, "-c", IMPORTS + script],
            env=inherited(),
            stdout=output,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (-signal.SIGKILL, b"")
        output.seek(0)
        return [json.loads(line)["message"] for line in output]


def test_warning_is_written_before_the_turn_of_the_loop_ends() -> None:
    assert messages(DYING) == ["before", "last words"]


def test_process_logs_only_json() -> None:
    with process() as service:
        service.wait_for_output("is running")
        service.process.terminate()
        assert service.wait() == 0
        for line in service.output().splitlines():
            assert json.loads(line)["service.name"] == SERVICE


class Piped:
    """The service with a pipe as its standard output, which is read only when a test does so."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        assert process.stdout
        self._pipe = process.stdout.fileno()
        self.output = b""
        self.read_until(b" is running in ")
        (port, *_) = re.findall(rb"Listening on http://127.0.0.1:(\d+)", self.output)
        self.port = int(port)

    def read_until(self, text: bytes) -> None:
        while text not in self.output[-200_000:]:
            readable, _, _ = select.select([self._pipe], [], [], 30)
            assert readable, f"{text!r} did not come"
            more = os.read(self._pipe, 65536)
            assert more, f"{text!r} did not come before the end"
            self.output += more

    def read(self) -> None:
        """Reads to the end."""
        while more := os.read(self._pipe, 65536):
            self.output += more

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.splitlines()]

    def ask(self, *paths: str) -> list[int]:
        """The statuses of these requests, one after the other."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        statuses = []
        for path in paths:
            connection.request("GET", path)
            with connection.getresponse() as response:
                response.read()
                statuses.append(response.status)
        connection.close()
        return statuses


@contextmanager
def piped() -> Iterator[Piped]:
    environ = {**inherited(), **PORTS, **UNWATCHED, "LOG_FORMAT": "json"}
    command = [sys.executable, "-m", STAND_IN]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE) as child:
        try:
            yield Piped(child)
        finally:
            child.kill()


def numbers(lines: list[dict[str, Any]]) -> list[int]:
    """Those of requests for `/hello/{number}-...`, as they were logged."""
    paths = (line.get("url.path", "") for line in lines)
    return [int(path[7:].partition("-")[0]) for path in paths if path.startswith("/hello/")]


def test_nothing_waits_for_a_reader_that_stalls() -> None:
    with piped() as service:
        # Three times as much as may wait.
        paths = [f"/hello/{number}-{'x' * 3000}" for number in range(1000)]
        assert service.ask(*paths) == [200] * 1000
        assert service.ask("/boom") == [500]
        service.read_until(b"lines were dropped")
        service.ask("/hello/1000-")
        service.process.terminate()
        service.read()
        assert service.process.wait(30) == 0
    lines = service.lines()
    *kept, last = numbers(lines)
    assert last == 1000
    assert kept == list(range(len(kept)))
    (dropped,) = [line for line in lines if "were dropped" in line["message"]]
    assert dropped["level"] == "WARNING"
    assert dropped["message"].endswith(" lines were dropped: standard output was not read")
    # What a failure logs, beside its access line.
    assert int(dropped["message"].split()[0]) == 1000 - len(kept) + 2
    assert 300 < len(kept) < 400


def test_lines_that_fit_are_kept_for_a_reader_that_stalls() -> None:
    with piped() as service:
        service.ask(*(f"/hello/{number}-" for number in range(1000)))
        service.read_until(b"/hello/999-")
        assert numbers(service.lines()) == list(range(1000))
        assert b"dropped" not in service.output


def test_dropped_lines_are_counted() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as unread, os.fdopen(writer, "w") as stream:
        logging.getLogger().handlers.clear()
        access = Logs(Settings(log_format="json"), stream)

        async def flood() -> None:
            await access.startup()
            for _ in range(1000):
                log.info("x" * 3000)

        asyncio.run(flood())
        ((name, _, total),) = access.totals()
        assert name == "log_lines_dropped"
        assert 600 < total < 700
        assert select.select([unread], [], [], 0)[0]


def test_signal_ends_the_service_while_nobody_reads() -> None:
    with piped() as service:
        service.ask(*["/hello/1-"] * 1000)
        service.process.terminate()
        assert service.process.wait(30) == 0


@pytest.mark.parametrize("closed", ["1", "1 2"])
def test_closed_standard_output_does_not_stop_the_service(closed: str) -> None:
    redirected = " ".join(f"{descriptor}>&-" for descriptor in closed.split())
    with tempfile.TemporaryDirectory() as directory:
        ready = Path(directory, "ready")
        script = f'exec {sys.executable} -c "$0" {redirected}'
        command = ["sh", "-c", script, STARTING]
        environ = {**inherited(), **PORTS, "READY": str(ready)}
        with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE) as child:
            _, errors = child.communicate(timeout=30)
        assert (child.returncode, errors) == (0, b"")
        assert ready.read_text() == "ready"


def test_children_and_threads_beside_the_loop_hold_no_line() -> None:
    written = messages(BESIDE)
    assert written.count("held by the parent") == 1
    in_children = sorted(each for each in written if each.startswith("in child"))
    assert in_children == [f"in child {number}" for number in range(4)]
    in_thread = [each for each in written if each.startswith("in thread")]
    assert in_thread == [f"in thread {number}" for number in range(2000)]


def test_stopped_loop_holds_no_line() -> None:
    assert messages(STOPPED) == ["in the last turn", "after it"]


def test_long_fields_are_cut() -> None:
    for log_format in ("json", "console"):
        stream = io.StringIO()
        with logging_to(stream, log_format):
            try:
                raise ValueError("x" * 5_000_000)
            except ValueError:
                log.exception("y" * 5_000_000, extra={"a": "z" * 5_000_000, "b": ["w" * 5_000_000]})
        text = stream.getvalue()
        assert len(text) < 200_000
        assert "ValueError: xxx" in text
        assert len(re.findall(r"\.\.\. [0-9]{7} characters cut \.\.\.", text)) >= 4
