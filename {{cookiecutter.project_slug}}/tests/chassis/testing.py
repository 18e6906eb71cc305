"""The service on a real socket, for the tests of its handlers and for those of the chassis."""

import asyncio
import contextlib
import io
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dotenv import dotenv_values
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.simple_httpclient import SimpleAsyncHTTPClient
from tornado.testing import AsyncHTTPTestCase, bind_unused_port

from my_service.chassis.application import Application, Observer
from my_service.chassis.connections import Server
from my_service.chassis.handlers import NotFound
from my_service.chassis.server import finish, start
from my_service.chassis.service import Service
from my_service.chassis.settings import Settings, read

from . import routes
from .routes import ROUTES, Slow

if TYPE_CHECKING:
    from my_service.settings import Settings as TeamSettings

PROJECT = Path(__file__).parents[2]
STAND_IN = "tests.chassis.stand_in"

# A test may block the event loop, and a busy machine does.
UNWATCHED = {"LOOP_BLOCKED_SECONDS": "0"}

Result = TypeVar("Result")


class ServiceTest(AsyncHTTPTestCase):
    """Serves the team's `make_service` at `get_url()`, with what it starts and stops.

    Settings are those of `tests/settings.env`, and those of `environ`.
    """

    #: Settings of the test, by the names of the environment.
    environ: dict[str, str] = {}  # noqa: RUF012 (never changed, only replaced)
    service: Service
    app: Application

    def make_service(self) -> Service:
        """The service to test; override it to give it something else in place of a backend."""
        # Here: the tests of the chassis do without.
        from my_service.app import make_service

        return make_service(self.settings())

    def settings(self) -> "TeamSettings":
        """The settings of `tests/settings.env` and `environ`."""
        from my_service.settings import Settings as TeamSettings

        kept = dotenv_values(PROJECT / "tests" / "settings.env")
        environ = {name: value for name, value in kept.items() if value}
        return read(TeamSettings, UNWATCHED | environ | self.environ)

    def setUp(self) -> None:
        # Whatever is written from here on, the logs before all, is read back by `lines()`.
        self.output = io.StringIO()
        redirected = contextlib.redirect_stdout(self.output)
        redirected.__enter__()
        self.addCleanup(redirected.__exit__, None, None, None)
        super().setUp()
        self.run_async(lambda: start(self.service))

    def tearDown(self) -> None:
        self.run_async(lambda: finish(self.service, self.io_loop.time()))
        for server in self.admin_servers:
            server.stop()
            self.run_async(server.close_all_connections)
        super().tearDown()

    def get_app(self) -> Application:
        self.service = self.make_service()
        self.app = self.service.app
        self.admin_servers: list[HTTPServer] = []
        self.admin_port = 0
        for endpoint in self.service.endpoints[1:]:
            admin_socket, self.admin_port = bind_unused_port()
            server = HTTPServer(endpoint.app)
            server.add_socket(admin_socket)
            self.admin_servers.append(server)
        return self.app

    def get_http_server(self) -> HTTPServer:
        return Server(self._app, **self.get_httpserver_options())

    def get_http_client(self) -> AsyncHTTPClient:
        # Not the one that the application may have configured: this is somebody else's.
        return SimpleAsyncHTTPClient()

    def fetch_admin(self, path: str, **kwargs: Any) -> HTTPResponse:
        return self.fetch(f"http://127.0.0.1:{self.admin_port}{path}", **kwargs)

    def run_async(self, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Runs `work` on the loop that the service runs on; a test that hangs fails."""
        result: Result = self.io_loop.run_sync(work, timeout=10)
        return result

    async def until(self, condition: Callable[[], object]) -> None:
        await until(condition)

    def lines(self) -> list[str]:
        """What has been logged."""
        # Lines leave at the end of a turn of the loop.
        self.run_async(lambda: asyncio.sleep(0))
        return self.output.getvalue().splitlines()


class ChassisTest(ServiceTest):
    """Serves `routes.make_service`, with the settings of the test alone."""

    def make_service(self) -> Service:
        return routes.make_service(read(Settings, UNWATCHED | self.environ))

    def get_httpserver_options(self) -> dict[str, Any]:
        return {"max_body_size": 1024}

    def observed_by(self, *observers: Observer) -> Application:
        """The same application with further observers, in place of the one before."""
        self.app = self.service.app = Application(
            ROUTES, [*self.app.observers, *observers], default_handler_class=NotFound
        )
        return self.app

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection of one's own, for what an HTTP client would not send."""
        return await asyncio.open_connection("127.0.0.1", self.get_http_port())

    def raw(self, request: bytes) -> bytes:
        """Sends bytes, and returns all that comes back until the service closes."""

        async def exchange() -> bytes:
            reader, writer = await self.connect()
            writer.write(request)
            answer = await reader.read()
            writer.close()
            return answer

        return self.run_async(exchange)

    def leave(self) -> None:
        """Asks for `/slow`, goes away before the answer, and lets it try to answer."""

        async def leave() -> None:
            _, writer = await self.connect()
            writer.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            await Slow.entered.wait()
            writer.close()
            await self.until(lambda: not self.app.in_flight)
            Slow.release.set()
            await asyncio.sleep(0.01)

        self.run_async(leave)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (the service has no event for this)
            await asyncio.sleep(0.001)


class Process:
    """The service as a process of its own."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self.pid = process.pid
        self._log = log

    @property
    def port(self) -> int:
        """The port of the first address that it says it listens on."""
        listening = re.search(r"Listening on http://127\.0\.0\.1:(\d+)", self.output())
        assert listening, self.output()
        return int(listening[1])

    def output(self) -> str:
        return self._log.read_text()

    def fetch(self, path: str) -> bytes:
        """The body of the answer to a request."""
        url = f"http://127.0.0.1:{self.port}{path}"
        with urllib.request.urlopen(url, timeout=30) as response:
            body: bytes = response.read()
        return body

    def wait_until_listening(self) -> None:
        # By what it says: on the port, another process might answer.
        self.wait_for_output(" is running in ")

    def wait_for_output(self, text: str, timeout: float = 30) -> None:
        deadline = time.monotonic() + timeout
        while text not in self.output():
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.02)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def get(self, path: str) -> socket.socket:
        """Sends a request on a connection of its own."""
        connection = self.connect()
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        return connection

    def wait(self, timeout: float = 30) -> int:
        """The exit status."""
        return self.process.wait(timeout)


@contextlib.contextmanager
def process(module: str = STAND_IN, *arguments: str, **environ: str) -> Iterator[Process]:
    """Runs a module with these settings until the end of the block, on a free port."""
    defaults = {"PORT": "0", "ADMIN_PORT": "0", "DRAIN_DELAY_SECONDS": "0", **UNWATCHED}
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory, "log")
        with log.open("wb") as output:
            child = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", module, *arguments],
                env={**inherited(), "PYTHONPATH": str(PROJECT), **defaults, **environ},
                cwd=directory,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            yield Process(child, log)
        finally:
            child.kill()
            child.wait()


def inherited() -> dict[str, str]:
    """The environment without what would set the service otherwise than a test expects."""
    settings = {each.name.upper() for each in fields(Settings)}
    return {name: value for name, value in os.environ.items() if name not in settings}


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A port that refuses connections, and that nobody is given meanwhile but who asks for it and
    sets SO_REUSEPORT."""
    with socket.socket() as reserved:
        if sys.platform != "win32":
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]
