"""A service on a real socket, for the tests of its handlers."""

import asyncio
import contextlib
import io
import os
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen
from threading import Timer
from typing import Any, TypeVar, cast

from dotenv import dotenv_values
from tornado import web
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.simple_httpclient import SimpleAsyncHTTPClient
from tornado.testing import AsyncHTTPTestCase, bind_unused_port, get_async_test_timeout

from . import tracing
from .application import Application
from .bodies import encode
from .connections import Server
from .metrics import Gauge, Histogram, Instrument, instruments
from .server import finish, start
from .service import Service
from .settings import AnySettings, read
from .tracing.recording import RecordedSpan, RecordingTracer

# How long a test waits for whatever it waits for. A busy machine exceeds Tornado's 5 seconds.
os.environ.setdefault("ASYNC_TEST_TIMEOUT", "30")

# A test may block the event loop, and a busy machine does.
UNWATCHED = {"LOOP_BLOCKED_SECONDS": "0"}
# Which is not said by a terminal here.
DEVELOPMENT = {"ENVIRONMENT": "development"}
# What Python, and what measures its coverage, read from the environment.
KEPT = ("COVERAGE_", "LD_", "PYTHON", "SYSTEMROOT")

Result = TypeVar("Result")


class ServiceTest(AsyncHTTPTestCase):
    """Serves what `make_service` returns at `get_url()`, with all that it starts and stops."""

    #: Settings of the test, by the names of the environment.
    environ: dict[str, str] = {}  # noqa: RUF012 (never changed, only replaced)
    service: Service
    app: Application

    def make_service(self) -> Service:
        """The service to test; override it to give it something else in place of a backend."""
        raise NotImplementedError

    def read(self, kind: type[AnySettings], file: Path | None = None) -> AnySettings:
        """Settings of this class: those of `environ`, and of a file with lines `NAME=value`.

        Raises ValueError with a line for each setting that is invalid or missing.
        """
        kept = dotenv_values(file) if file else {}
        environ = {name: value for name, value in kept.items() if value}
        try:
            return read(kind, UNWATCHED | DEVELOPMENT | environ | self.environ)
        except ValueError as error:
            if file is None:
                raise
            name = f"{file.parent.name}/{file.name}"
            raise ValueError(f"Wrong or missing in {name} and `environ`:\n{error}") from None

    def setUp(self) -> None:
        # Whatever is written from here on, the logs before all, is read back by `lines()`.
        self.output = io.StringIO()
        self.enterContext(contextlib.redirect_stdout(self.output))
        self._servers: list[HTTPServer] = []
        self._is_stopped = False
        self._measured = {
            each: _measured(each) for metric in instruments.values() for each in metric.series()
        }
        super().setUp()
        self._tracer = RecordingTracer(tracing._tracer)
        tracing.use(self._tracer)
        self.addCleanup(tracing.use, self._tracer.inner)
        self.run_async(lambda: start(self.service))

    def tearDown(self) -> None:
        self.stop_service()
        for server in self._servers:
            server.stop()
            self.run_async(server.close_all_connections)
        super().tearDown()

    def get_app(self) -> Application:
        self.service = self.make_service()
        self.app = self.service.app
        self.admin_port = 0
        for endpoint in self.service.endpoints[1:]:
            self.admin_port = self.serve(endpoint.app)
        return self.app

    def get_http_server(self) -> HTTPServer:
        return Server(self._app, **self.get_httpserver_options())

    def get_http_client(self) -> AsyncHTTPClient:
        seconds = get_async_test_timeout()
        limits = {"connect_timeout": seconds, "request_timeout": seconds}
        client = SimpleAsyncHTTPClient(force_instance=True, defaults=limits)
        # It is somebody else's: with a `fetch_impl` of its own, the service does not observe it.
        client.fetch_impl = client.fetch_impl  # type: ignore[method-assign]
        return client

    def serve(self, app: web.Application) -> int:
        """Serves what stands for another service; returns its port, which `environ` may need."""
        listener, port = bind_unused_port()
        server = HTTPServer(app, decompress_request=True)
        server.add_socket(listener)
        self._servers.append(server)
        return port

    def stop_service(self) -> None:
        """Stops the service before the test ends, which sends what is left of its telemetry."""
        if not self._is_stopped:
            self._is_stopped = True
            self.run_async(lambda: finish(self.service, self.io_loop.time()))

    def fetch(self, path: str, raise_error: bool = False, **kwargs: Any) -> HTTPResponse:
        """Sends a request to the service; with `json`, whatever `JsonHandler` can answer with, a
        POST with that as its body."""
        if "json" in kwargs:
            headers = {"Content-Type": "application/json", **kwargs.get("headers", {})}
            body = {"method": "POST", "body": encode(kwargs.pop("json"))}
            kwargs = {**body, **kwargs, "headers": headers}
        return super().fetch(path, raise_error, **kwargs)

    def fetch_admin(self, path: str, **kwargs: Any) -> HTTPResponse:
        return self.fetch(f"http://127.0.0.1:{self.admin_port}{path}", **kwargs)

    def run_async(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """Runs `work` on the loop that the service runs on; a test that hangs fails."""
        return cast(Result, self.io_loop.run_sync(work, get_async_test_timeout()))

    def until(self, condition: Callable[[], object]) -> Awaitable[None]:
        """Lets the service run until `condition()` is true; an async function has to await it.

        Fails after half a minute, or the seconds in the variable `ASYNC_TEST_TIMEOUT`.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:  # not in an async function
            self.run_async(lambda: until(condition))
            done: asyncio.Future[None] = self.io_loop.asyncio_loop.create_future()  # type: ignore
            done.set_result(None)
            return done
        return until(condition)

    def metric(self, name: str, **labels: object) -> float:
        """What a metric of the service's own shows, whichever backend there is.

        Of a counter, how much it has grown in this test; of a histogram, how many durations it was
        given in this test; of a gauge, its present value.
        """
        assert name in instruments, f"{name} is none of {', '.join(instruments)}"
        series = instruments[name].labels(**labels)
        if isinstance(series, Gauge):
            value = series.read()
            assert value is not None, f"the function of {name} has raised"
            return value
        return _measured(series) - self._measured.get(series, 0)

    def spans(self) -> list[RecordedSpan]:
        """The spans of the service's own that have ended in this test, in that order, whichever
        backend there is: each with its `name`, `attributes`, `parent` and `error`."""
        return self._tracer.ended

    def lines(self) -> list[str]:
        """What has been logged."""
        # Lines leave at the end of a turn of the loop.
        self.run_async(lambda: asyncio.sleep(0))
        return self.output.getvalue().splitlines()


def _measured(series: Instrument) -> float:
    return sum(series.counts) if isinstance(series, Histogram) else series.value


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(get_async_test_timeout()):
        while not condition():  # noqa: ASYNC110 (the service has no event for this)
            await asyncio.sleep(0.001)


class Process(Popen[str]):
    """Python in a process of its own, such as `Process("-m", "shop", PORT="0")`: with the
    modules of this one, but without its settings and `.env`, and for at most as long as `until`
    waits."""

    def __init__(self, *arguments: str, **environ: str) -> None:
        env = {name: text for name, text in os.environ.items() if name.startswith(KEPT)}
        env |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **UNWATCHED, **environ}
        argv = [sys.executable, *arguments]
        super().__init__(argv, env=env, cwd=sys.prefix, stdout=PIPE, stderr=STDOUT, text=True)
        self.output = ""
        timer = Timer(get_async_test_timeout(), self.kill)
        timer.daemon = True
        timer.start()

    def read_until(self, pattern: str) -> "re.Match[str]":
        """Reads the output up to a line in which this regular expression is found."""
        for line in self.stdout or ():
            self.output += line
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"no {pattern} in:\n{self.output}")

    def end(self) -> int:
        """Reads the rest of the output, and returns the exit status."""
        self.output += self.stdout.read() if self.stdout else ""
        return self.wait()
