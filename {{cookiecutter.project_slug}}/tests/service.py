"""The world that the tests live in: the real application on a real socket, with routes beside its
own that misbehave in every way that a handler can."""

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
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.simple_httpclient import SimpleAsyncHTTPClient
from tornado.testing import AsyncHTTPTestCase, bind_unused_port
from tornado.web import (
    HTTPError,
    RedirectHandler,
    RequestHandler,
    StaticFileHandler,
    stream_request_body,
)
from tornado.websocket import WebSocketHandler

# {% filter replace("my_service", cookiecutter.__package) %}
from my_service.app import make_service
from my_service.exchange import Application
from my_service.settings import Settings, read

PACKAGE = "my_service"
# {% endfilter %}

Result = TypeVar("Result")


class Boom(RequestHandler):
    def get(self) -> None:
        raise ValueError("boom")


class Status(RequestHandler):
    """Raises the HTTPError that is asked for."""

    def get(self, status: str) -> None:
        raise HTTPError(int(status))


class Flushed(RequestHandler):
    """Fails when its 200 is already on the wire."""

    async def get(self) -> None:
        self.write("half of it")
        await self.flush()
        raise ValueError("after flush")


class Finished(RequestHandler):
    """Fails when its answer is already complete."""

    async def get(self) -> None:
        await self.finish("all of it")
        raise ValueError("after finish")


class Slow(RequestHandler):
    """Answers when it is let go, so that tests can do something meanwhile."""

    entered = asyncio.Event()
    release = asyncio.Event()

    async def get(self) -> None:
        self.entered.set()
        await self.release.wait()
        self.finish("slow")


class Stream(RequestHandler):
    """Sends until the client has gone."""

    failed = False

    async def get(self) -> None:
        Stream.failed = False
        try:
            while True:
                self.write("more" * 65536)
                await self.flush()
        except StreamClosedError:
            Stream.failed = True
            raise


@stream_request_body
class Upload(RequestHandler):
    def data_received(self, chunk: bytes) -> None:
        pass

    def put(self) -> None:
        self.finish("uploaded")


class Echo(WebSocketHandler):
    def on_message(self, message: str | bytes) -> None:
        if message == "boom":
            raise ValueError("boom in a message")
        self.write_message(message)


class Big(RequestHandler):
    """More than the buffers of a socket take."""

    SIZE = 16 * 1024 * 1024

    def get(self) -> None:
        self.finish(b"x" * self.SIZE)


ROUTES: list[Any] = [
    (r"/boom", Boom),
    (r"/status/(\d+)", Status),
    (r"/flushed", Flushed),
    (r"/finished", Finished),
    (r"/slow", Slow),
    (r"/stream", Stream),
    (r"/upload", Upload),
    (r"/ws", Echo),
    (r"/big", Big),
    (r"/static/(?P<path>.*)", StaticFileHandler, {"path": str(Path(__file__).parent)}),
    (r"/old", RedirectHandler, {"url": "/"}),
]


class ServiceTest(AsyncHTTPTestCase):
    """Serves the application at `get_url()`, and the admin application where there is one."""

    #: Settings of the test, by the names of the environment.
    environ: dict[str, str] = {}  # noqa: RUF012 (never changed, only replaced)

    def setUp(self) -> None:
        # Whatever is written from here on, the logs before all, is read back by `lines()`.
        self.output = io.StringIO()
        redirected = contextlib.redirect_stdout(self.output)
        redirected.__enter__()
        self.addCleanup(redirected.__exit__, None, None, None)
        super().setUp()
        Slow.entered, Slow.release = asyncio.Event(), asyncio.Event()
        for observer in self.app.observers:
            self.run_async(observer.startup)
        self.app.state = "ready"

    def tearDown(self) -> None:
        for observer in self.app.observers:
            self.run_async(observer.shutdown)
        if self.admin_server:
            self.admin_server.stop()
            self.run_async(self.admin_server.close_all_connections)
        super().tearDown()

    def get_app(self) -> Application:
        main, *others = make_service(read(self.environ))
        self.app = main.app
        self.app.add_handlers(".*", ROUTES)
        self.admin_server: HTTPServer | None = None
        self.admin_port = 0
        for endpoint in others:
            admin_socket, self.admin_port = bind_unused_port()
            self.admin_server = HTTPServer(endpoint.app)
            self.admin_server.add_socket(admin_socket)
        return self.app

    def get_http_client(self) -> AsyncHTTPClient:
        # Not the one that the application may have configured: this is somebody else's.
        return SimpleAsyncHTTPClient()

    def get_httpserver_options(self) -> dict[str, Any]:
        return {"max_body_size": 1024}

    def fetch_admin(self, path: str, **kwargs: Any) -> HTTPResponse:
        return self.fetch(f"http://127.0.0.1:{self.admin_port}{path}", **kwargs)

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

    def run_async(self, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Runs `work` on the loop that the service runs on; a test that hangs fails."""
        result: Result = self.io_loop.run_sync(work, timeout=10)
        return result

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():  # noqa: ASYNC110 (the service has no event for this)
            await asyncio.sleep(0.001)

    def lines(self) -> list[str]:
        """What has been logged."""
        # Lines leave at the end of a turn of the loop.
        self.run_async(lambda: asyncio.sleep(0))
        return self.output.getvalue().splitlines()


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

    def wait_until_listening(self) -> None:
        # By what it says: on the port, another process might answer.
        self.wait_for_output(" is running in ")

    def wait_for_output(self, text: str, timeout: float = 30) -> None:
        deadline = time.monotonic() + timeout
        while text not in self.output():
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.02)

    def wait(self, timeout: float = 30) -> int:
        """The exit status."""
        return self.process.wait(timeout)


@contextlib.contextmanager
def process(**environ: str) -> Iterator[Process]:
    """Runs the service with these settings until the end of the block, on a free port."""
    defaults = {"PORT": "0", "ADMIN_PORT": "0", "DRAIN_DELAY_SECONDS": "0"}
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory, "log")
        with log.open("wb") as output:
            child = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", PACKAGE],
                env={**inherited(), **defaults, **environ},
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
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]
