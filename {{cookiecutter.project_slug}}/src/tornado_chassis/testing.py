"""A service on a real socket, for the tests of its handlers."""

import asyncio
import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen
from threading import Timer
from typing import Any, TypeVar, cast

from dotenv import dotenv_values
from tornado import web
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.simple_httpclient import SimpleAsyncHTTPClient
from tornado.testing import AsyncHTTPTestCase, bind_unused_port

from .application import Application
from .connections import Server
from .server import finish, start
from .service import Service
from .settings import AnySettings, read

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
        return read(kind, UNWATCHED | DEVELOPMENT | environ | self.environ)

    def setUp(self) -> None:
        # Whatever is written from here on, the logs before all, is read back by `lines()`.
        self.output = io.StringIO()
        self.enterContext(contextlib.redirect_stdout(self.output))
        self._servers: list[HTTPServer] = []
        self._is_stopped = False
        super().setUp()
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
        # Not the one that the application may have configured: this is somebody else's.
        return SimpleAsyncHTTPClient()

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

    def fetch_admin(self, path: str, **kwargs: Any) -> HTTPResponse:
        return self.fetch(f"http://127.0.0.1:{self.admin_port}{path}", **kwargs)

    def run_async(self, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Runs `work` on the loop that the service runs on; a test that hangs fails."""
        return cast(Result, self.io_loop.run_sync(work, timeout=10))

    async def until(self, condition: Callable[[], object]) -> None:
        await until(condition)

    def lines(self) -> list[str]:
        """What has been logged."""
        # Lines leave at the end of a turn of the loop.
        self.run_async(lambda: asyncio.sleep(0))
        return self.output.getvalue().splitlines()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (the service has no event for this)
            await asyncio.sleep(0.001)


class Process(Popen[str]):
    """Python in a process of its own, such as `Process("-m", "shop", PORT="0")`: with the
    modules of this one, but without its settings and `.env`, and for at most half a minute."""

    def __init__(self, *arguments: str, **environ: str) -> None:
        env = {name: text for name, text in os.environ.items() if name.startswith(KEPT)}
        env |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **UNWATCHED, **environ}
        argv = [sys.executable, *arguments]
        super().__init__(argv, env=env, cwd=sys.prefix, stdout=PIPE, stderr=STDOUT, text=True)
        self.output = ""
        timer = Timer(30, self.kill)
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
