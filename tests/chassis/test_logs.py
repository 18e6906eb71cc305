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
import threading
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO
from unittest import mock

import pytest
from tornado.web import FallbackHandler, RequestHandler
from tornado.wsgi import WSGIContainer
from tornado_chassis.exchange import correlation
from tornado_chassis.logs import Logs, output
from tornado_chassis.logs.output import WAITING_BYTES, Output
from tornado_chassis.service import Service
from tornado_chassis.settings import read
from tornado_chassis.testing import UNWATCHED, until

from .settings import PACKAGE, SERVICE, VERSION, Settings
from .testing import STAND_IN, ChassisTest, inherited, listening, process

log = logging.getLogger("some.library")
IMPORTS = """
import asyncio, logging, multiprocessing, os, signal, threading

from tornado_chassis.logs import Logs
from tests.chassis.settings import Settings


async def start():
    await Logs(Settings(log_format="json")).startup()


def die():
    os.kill(os.getpid(), signal.SIGKILL)


"""
DYING = """
async def main():
    await start()
    logging.info("before")
    logging.warning("last words")
    die()


asyncio.run(main())
"""
STARTING = """
import asyncio, os, signal

from tornado_chassis import process
from tests.chassis.settings import Settings

settings = process.configure([], Settings)
from tornado_chassis.service import Service

service = Service(settings, [])


async def started():
    os.mkdir(os.environ["READY"])
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
    await start()
    logging.info("held by the parent")
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(in_child, range(4), 1)
    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    die()


asyncio.run(main())
"""
STOPPED = """
async def main():
    await start()
    logging.info("in the last turn")


asyncio.new_event_loop().run_until_complete(main())
logging.info("after it")
die()
"""
ENVIRON = {"PORT": "0", "ADMIN_PORT": "0", "DRAIN_DELAY_SECONDS": "0", **UNWATCHED}
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


def logging_to(log_format: str, stream: io.StringIO | None = None) -> io.StringIO:
    """What is logged from here on."""
    stream = stream or io.StringIO()
    # pytest's own handlers raise an exception if a record can't be formatted.
    logging.getLogger().handlers.clear()
    Logs(read(Settings, {"LOG_FORMAT": log_format, "LOG_LEVEL": "DEBUG"}), stream)
    return stream


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
        assert 0 < line.pop("duration") < 60
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

    def test_unmatched_path_static_file_and_exception_after_flush(self) -> None:
        self.fetch("/nowhere")
        self.fetch("/static/testing.py")
        self.raw(b"GET /flushed HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        unmatched, static, flushed = self.accesses()
        assert (unmatched["http.response.status_code"], unmatched["level"]) == (404, "INFO")
        assert "http.route" not in unmatched
        assert static["http.route"] == "/static/{path}"
        assert (flushed["http.response.status_code"], flushed["level"]) == (200, "ERROR")

    def test_exception(self) -> None:
        self.fetch("/boom")
        line = self.one()
        assert (line["level"], line["error.type"]) == ("ERROR", "ValueError")
        (error,) = [each for each in map(json.loads, self.lines()) if "exception.type" in each]
        assert error["exception.type"] == "ValueError"
        assert error["exception.message"] == "boom"
        assert error["exception.stacktrace"].startswith("Traceback ")
        assert error["request_id"] == line["request_id"]

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

    def test_client_that_goes_away_and_websocket(self) -> None:
        self.leave()
        self.run_async(self.websocket).close()
        assert [line["http.response.status_code"] for line in self.accesses()] == [499, 101]

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
        titles = dict.fromkeys(('{"level": "LOUD"}', '{"level": 3}', "[]", "{}"), choices)
        titles |= dict.fromkeys(("nonsense", "[" * 100_000), "The body is not valid JSON")
        for body, title in titles.items():
            response = self.fetch_admin("/loglevel", method="PUT", body=body)
            assert response.code == 400
            assert response.headers["Content-Type"] == "application/problem+json"
            request_id = response.headers["X-Request-ID"]
            expected = {"title": title, "status": 400, "request_id": request_id}
            assert json.loads(response.body) == expected
        assert json.loads(self.fetch_admin("/loglevel").body) == {"level": "INFO"}


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
    token = correlation.set({"request_id": "r1"})
    for log_format, stream in (("json", io.StringIO()), ("console", Terminal())):
        logging_to(log_format, stream)
        log.info("said %s", HOSTILE, extra={"who": HOSTILE})
        (line,) = stream.getvalue().split("\n")[:-1]
        if log_format == "json":
            assert line.isascii()
            assert line.isprintable()
            assert json.loads(line)["message"] == f"said {HOSTILE}"
            assert json.loads(line)["who"] == HOSTILE
        else:
            assert line.count("\x1b") == 2  # the level's colour, on and off
            assert line.replace("\x1b[32m", "").replace("\x1b[0m", "").isprintable()
            assert "request_id=r1" in line
    correlation.reset(token)


def test_console_indents_stack_traces() -> None:
    stream = logging_to("console")
    try:
        raise ValueError("a\nINFO forged \x1b[31m")
    except ValueError:
        log.exception("failed", stack_info=True)
    first, *rest = stream.getvalue().splitlines()
    assert " ERROR    failed " in first
    assert rest
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


def test_no_colour_without_a_terminal_or_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = logging_to("console")
    log.error("plain")
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = logging_to("console", Terminal())
    log.error("plain")
    assert "\x1b" not in stream.getvalue() + terminal.getvalue()
    assert "plain" in terminal.getvalue()


def test_anything_that_is_logged_makes_a_line() -> None:
    stream = logging_to("json")
    log.info("%d of %d", 1)
    log.info("extras", extra={"c": {(1,): 2}, "d": {"deep": object()}})
    log.info("surrogate \ud800", stack_info=True)
    first, second, third = written(stream)
    assert first["message"] == "%d of %d (1,)"
    assert second["d"]["deep"].startswith("<object ")
    assert third["stacktrace"].startswith("Stack ")


class Unfinished:
    def __del__(self) -> None:
        raise LookupError


def test_warnings_and_uncaught_exceptions_have_the_same_format(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Not pytest's, which stays.
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    stream = logging_to("json")
    with warnings.catch_warnings():
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
    # Which of them is the message, and which the object, differs between versions of Python.
    assert re.match(r"Exception ignored .*<function Unfinished.__del__ [^>]+>$", ignored["message"])


def test_interrupt_is_not_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    stream = logging_to("json")
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert stream.getvalue() == ""
    assert "KeyboardInterrupt" in capsys.readouterr().err


def test_lines_for_a_stream_that_is_closed_are_counted() -> None:
    stream = logging_to("json")
    closed = Output(stream, "{} lost\n".format)
    stream.close()
    log.error("to nobody")
    for _ in range(2):
        closed.write("to nobody\n")
    assert closed.dropped == 2


class Pipe:
    """An output that writes to a pipe, which is read only when a test does so."""

    def __init__(self, reading: int, stream: TextIO) -> None:
        self._reading, self.stream = reading, stream
        self.output = Output(stream, "{} lost\n".format)

    def read(self) -> bytes:
        """What is in the pipe."""
        received = b""
        with suppress(BlockingIOError):
            while more := os.read(self._reading, 65536):
                received += more
        return received


@pytest.fixture
def pipe(request: pytest.FixtureRequest) -> Iterator[Pipe]:
    if sys.platform == "win32":
        pytest.skip("Windows cannot poll a pipe")
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with open(writing, "w", encoding=getattr(request, "param", "utf-8")) as stream:
        yield Pipe(reading, stream)
        os.close(reading)


async def test_reader_that_comes_back_before_the_end_gets_every_line(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "LAST_CHANCE_SECONDS", 60.0)
    # More than the pipe takes, and together more than may wait.
    lines = "".join(f"{number} {'x' * 3 * (number % 50) ** 2}\n" for number in range(300))
    assert 3 * len(lines) > WAITING_BYTES > len(lines) > 500_000

    async def read(size: int) -> bytes:
        received = b""
        async with asyncio.timeout(60):
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
    await asyncio.wait_for(pipe.output.close(), 60)
    assert set(pipe.read()) == set(b"x")


async def test_what_is_logged_while_lines_are_written_comes_after_them(pipe: Pipe) -> None:
    """As garbage collection or a signal handler may do."""
    numbers = [f"{number:99}\n" for number in range(1000)]
    pipe.output.open()
    pipe.output.write("".join(numbers))
    pipe.output.flush()
    received = pipe.read()
    within = iter(("within\n",))

    def flush() -> None:
        for line in within:
            pipe.output.write(line)
            pipe.output.flush()

    pipe.stream.flush = flush  # type: ignore[method-assign]
    for _ in numbers:
        pipe.output.flush()
        received += pipe.read()
    assert received.decode() == "".join([*numbers, "within\n"])


async def test_loss_is_told_also_to_a_reader_that_comes_back_while_lines_are_written(
    pipe: Pipe,
) -> None:
    received, poll = [b""], pipe.output._poll

    class Reading:
        """Reads each time that somebody has asked whether there is room."""

        def poll(self, timeout: float) -> Any:
            answer = poll.poll(timeout)
            received.append(pipe.read())
            return answer

    pipe.output.open()
    pipe.output.write(f"{'x' * 3000}\n" * 1000)
    pipe.output.flush()
    assert pipe.output.dropped > 500
    with mock.patch.object(pipe.output, "_poll", Reading()):
        pipe.output.flush()
        await until(lambda: b" lost\n" in b"".join([*received, pipe.read()]))


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
    with process(IMPORTS + script) as child:
        assert child.wait() == -signal.SIGKILL, child.output()
        return [json.loads(line)["message"] for line in child.output().splitlines()]


def test_warning_is_written_before_the_turn_of_the_loop_ends() -> None:
    assert messages(DYING) == ["before", "last words"]


def test_process_logs_only_json() -> None:
    with listening() as service:
        assert service.stop() == 0
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
            readable, _, _ = select.select([self._pipe], [], [], 60)
            more = os.read(self._pipe, 65536) if readable else b""
            assert more, f"{text!r} did not come"
            self.output += more

    def stop(self) -> None:
        """Stops the service while nobody reads."""
        self.process.terminate()
        assert self.process.wait(60) == 0

    def lines(self) -> list[dict[str, Any]]:
        """All of them, once it has stopped."""
        while more := os.read(self._pipe, 65536):
            self.output += more
        return [json.loads(line) for line in self.output.splitlines()]

    def ask(self, *paths: str) -> list[int]:
        """The statuses of these requests, one after the other."""
        statuses = []
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            for path in paths:
                connection.request("GET", path)
                with connection.getresponse() as response:
                    response.read()
                    statuses.append(response.status)
        return statuses


@contextmanager
def piped() -> Iterator[Piped]:
    environ = {**inherited(), **ENVIRON, "LOG_FORMAT": "json"}
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
        lines = service.lines()
        service.stop()
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
        service.process.terminate()
        assert numbers(service.lines()) == list(range(1000))
        assert b"dropped" not in service.output


async def test_dropped_lines_are_counted(pipe: Pipe) -> None:
    logging.getLogger().handlers.clear()
    logs = Logs(Settings(log_format="json"), pipe.stream)
    await logs.startup()
    for _ in range(1000):
        log.info("x" * 3000)
    await asyncio.sleep(0)  # at the end of a turn they are written
    ((name, _, total),) = logs.totals()
    assert name == "log_lines_dropped"
    assert 600 < total < 700
    assert pipe.read()


def test_signal_ends_the_service_while_nobody_reads() -> None:
    with piped() as service:
        service.ask(*["/hello/1-"] * 1000)
        service.stop()


@pytest.mark.parametrize("closed", ["1", "1 2"])
def test_closed_standard_output_does_not_stop_the_service(closed: str, tmp_path: Path) -> None:
    redirected = " ".join(f"{descriptor}>&-" for descriptor in closed.split())
    command = ["sh", "-c", f'exec {sys.executable} -c "$0" {redirected}', STARTING]
    environ = {**inherited(), **ENVIRON, "READY": str(tmp_path / "ready")}
    done = subprocess.run(command, env=environ, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "ready").exists()


def test_children_and_threads_beside_the_loop_hold_no_line() -> None:
    written = messages(BESIDE)
    assert written.count("held by the parent") == 1
    in_children = sorted(each for each in written if each.startswith("in child"))
    assert in_children == [f"in child {number}" for number in range(4)]
    in_thread = [each for each in written if each.startswith("in thread")]
    assert in_thread == [f"in thread {number}" for number in range(2000)]


def test_stopped_loop_holds_no_line() -> None:
    assert messages(STOPPED) == ["in the last turn", "after it"]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_long_fields_are_cut(log_format: str) -> None:
    stream = logging_to(log_format)
    try:
        raise ValueError("x" * 5_000_000)
    except ValueError:
        log.exception("y" * 5_000_000, extra={"a": "z" * 5_000_000, "b": ["w" * 5_000_000]})
    text = stream.getvalue()
    assert len(text) < 200_000
    assert "ValueError: xxx" in text
    assert len(re.findall(r"\.\.\. [0-9]{7} characters cut \.\.\.", text)) >= 4
