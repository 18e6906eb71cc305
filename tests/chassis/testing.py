"""The service of `routes`, for the tests of the chassis: in this process, and as one of its own."""

import asyncio
import contextlib
import inspect
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import tornado_chassis
from tornado.httpclient import HTTPResponse
from tornado.websocket import WebSocketClientConnection, websocket_connect
from tornado_chassis.application import Application
from tornado_chassis.exchange import Exchange
from tornado_chassis.feature import Feature, Incident
from tornado_chassis.handlers import NotFound
from tornado_chassis.service import Service
from tornado_chassis.testing import UNWATCHED, ServiceTest

from . import routes
from .routes import ROUTES, Slow
from .settings import DEFAULT, Settings

# For child processes: the sources, and not what may be installed of them.
SOURCES = [str(Path(__file__).parents[2]), str(Path(tornado_chassis.__file__).parents[1])]
T = TypeVar("T")
STAND_IN = "tests.chassis.stand_in"
# Of whatever is waited for, while other tests run beside.
SECONDS = 60.0
# Runs a service whose module stands where `{}` is.
MAIN = """
import sys
from tornado_chassis import process
from tests.chassis.settings import Settings

process.main(sys.argv[1:], Settings, {})
"""
UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


def http(start: str, *headers: str, body: bytes | None = None, size: int | None = None) -> bytes:
    """A request as bytes, such as `http("PUT /upload", "Connection: close", body=b"all")`.

    `size` is what it announces, where that is not the size of the body.
    """
    lines = [f"{start} HTTP/1.1", "Host: a", *headers]
    if body is not None or size is not None:
        lines.append(f"Content-Length: {len(body or b'') if size is None else size}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def eventually(condition: Callable[[], T], say: Callable[[], object] = str) -> T:
    """Waits, without an event loop, until the condition is true, and returns what it is then; fails
    with what `say` returns."""
    deadline = time.monotonic() + SECONDS
    while not (result := condition()):
        assert time.monotonic() < deadline, say()
        time.sleep(0.02)
    return result


Work = Callable[[], Coroutine[Any, Any, Any]]


def does(action: Callable[[], object]) -> Work:
    """An async function that does this."""

    async def work() -> object:
        return action()

    return work


def raises(error: BaseException) -> Work:
    async def work() -> None:
        raise error

    return work


class Connections:
    """Connections of one's own to a port, for what an HTTP client would not send."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self, sent: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Opens one, which stays open until the end of the test, and sends these bytes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        writer.write(sent)
        return reader, writer

    async def disconnect(self) -> None:
        for writer in self._writers:
            if not writer.is_closing():
                writer.transport.abort()  # which waits for nobody who reads
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class Recorder(Feature):
    """Keeps what it is notified of."""

    def __init__(self) -> None:
        self.rejected: list[str] = []
        self.started: list[Exchange] = []
        self.failed: list[BaseException] = []
        self.ended: list[Exchange] = []
        self.background: list[tuple[str, str]] = []
        self.blocked: list[Incident] = []

    def clear(self) -> None:
        self.__init__()  # type: ignore[misc]

    def request_rejected(self, reason: str) -> None:
        self.rejected.append(reason)

    def request_started(self, exchange: Exchange) -> None:
        self.started.append(exchange)

    def request_failed(self, exchange: Exchange, error: BaseException) -> None:
        self.failed.append(error)

    def request_ended(self, exchange: Exchange) -> None:
        self.ended.append(exchange)

    def background_failed(self, name: str, error: BaseException) -> None:
        self.background.append((name, str(error)))

    def loop_blocked(self, incident: Incident) -> None:
        self.blocked.append(incident)

    def record(self, app: Application) -> None:
        """Is notified, after the features, of what happens in this application."""
        for name in vars(Recorder).keys() & app.runtime._hooks.keys():
            app.runtime._hooks[name].append(getattr(self, name))


class ChassisTest(ServiceTest):
    """Serves `routes.make_service`, with the settings and the features of the test alone."""

    kind: type[Settings] = Settings
    #: Names of `settings.FEATURES`.
    features = DEFAULT
    #: Routes of the test, before those of `routes`.
    handlers: ClassVar[list[Any]] = []

    def setUp(self) -> None:
        super().setUp()
        self._own = Connections(self.get_http_port())
        self._clients: list[WebSocketClientConnection] = []

    def tearDown(self) -> None:
        for client in self._clients:
            client.close()
        self.run_async(self._own.disconnect)
        super().tearDown()

    def settings(self) -> Settings:
        names = self.features

        class Chosen(self.kind):  # type: ignore[name-defined, misc]
            def features(self) -> list[Feature]:
                return list(self.make(names))

        return self.read(Chosen)

    def make_service(self) -> Service:
        return routes.make_service(self.settings(), self.handlers)

    def get_httpserver_options(self) -> dict[str, Any]:
        return {"max_body_size": 1024}

    def _callTestMethod(self, method: Callable[[], Any]) -> None:  # noqa: N802 (unittest's name)
        """Runs an async test on the loop that the service runs on."""
        if inspect.iscoroutinefunction(method):
            self.run_async(method)
        else:
            super()._callTestMethod(method)

    def observed_by(self, *features: Feature) -> Application:
        """The same application with further features."""
        features = *self.app.runtime.features, *features
        routes = [*self.handlers, *ROUTES]
        self.app.__init__(routes, features, default_handler_class=NotFound)  # type: ignore[misc]
        return self.app

    async def connect(self, sent: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection of one's own on which this is sent: see `Connections`."""
        return await self._own.connect(sent)

    async def answer_to(self, path: str, **options: Any) -> HTTPResponse:
        return await self.http_client.fetch(self.get_url(path), raise_error=False, **options)

    async def websocket(self, path: str = "/ws", **options: Any) -> WebSocketClientConnection:
        """A client, which is closed at the end of the test at the latest."""
        url = self.get_url(path).replace("http", "ws", 1)
        self._clients.append(await websocket_connect(url, **options))
        return self._clients[-1]

    @contextlib.asynccontextmanager
    async def busy(self) -> AsyncIterator[None]:
        """A block with `/slow` in flight, which is answered at its end or when `Slow` is let go."""
        Slow.entered.clear()
        Slow.release.clear()
        slow = asyncio.ensure_future(self.http_client.fetch(self.get_url("/slow")))
        await Slow.entered.wait()
        yield
        Slow.release.set()
        await slow

    def raw(self, request: bytes) -> bytes:
        """Sends bytes, and returns all that comes back until the service closes."""

        async def exchange() -> bytes:
            reader, writer = await self.connect(request)
            answer = await reader.read()
            writer.close()
            return answer

        return self.run_async(exchange)

    def leave(self, path: str = "/slow") -> None:
        """Asks for `Slow`, goes away before the answer, and lets it try to answer."""

        async def leave() -> None:
            _, writer = await self.connect(http(f"GET {path}"))
            await Slow.entered.wait()
            writer.close()
            await self.until(lambda: not self.app.runtime.in_flight)
            Slow.release.set()
            await asyncio.sleep(0.01)

        self.run_async(leave)


class RecordedTest(ChassisTest):
    """Keeps in `recorder` what the features are notified of."""

    def get_app(self) -> Application:
        app = super().get_app()
        self.recorder = Recorder()
        self.recorder.record(app)
        return app

    def one(self) -> Exchange:
        """The one exchange that there was: it started once and ended once, and holds nothing."""
        (exchange,) = self.recorder.ended
        assert self.recorder.started == [exchange]
        runtime = self.app.runtime
        assert (runtime.in_flight, runtime.body_bytes, [*runtime.exchanges]) == (0, 0, [])
        return exchange


class Process:
    """The service as a process of its own."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self.pid = process.pid
        #: Where it was started.
        self.directory = log.parent
        self._log = log

    @property
    def port(self) -> int:
        """The port of the first address that it says it listens on."""
        return self.ports[0]

    @property
    def ports(self) -> list[int]:
        listening = re.findall(r"Listening on http://[\w.:\[\]]*:(\d+)", self.output())
        assert listening, self.output()
        return [int(port) for port in listening]

    def output(self) -> str:
        return self._log.read_text()

    def fetch(self, path: str) -> bytes:
        """The body of the answer to a request."""
        url = f"http://127.0.0.1:{self.port}{path}"
        with urllib.request.urlopen(url, timeout=SECONDS) as response:
            body: bytes = response.read()
        return body

    def wait_until_listening(self) -> None:
        # By what it says: on the port, another process might answer.
        self.wait_for_output(" is running in ")

    def wait_for_output(self, text: str, times: int = 1) -> None:
        def is_said() -> bool:
            assert self.process.poll() is None, self.output()
            return self.output().count(text) >= times

        eventually(is_said, self.output)

    def connect(self, sent: bytes = b"", port: int = 0) -> socket.socket:
        """Sends bytes on a connection of its own, to its first port or another one."""
        connection = socket.create_connection(("127.0.0.1", port or self.port), timeout=SECONDS)
        connection.sendall(sent)
        return connection

    def get(self, path: str) -> socket.socket:
        return self.connect(http(f"GET {path}"))

    def wait(self) -> int:
        """The exit status."""
        return self.process.wait(SECONDS)

    def stop(self) -> int:
        """Stops it with SIGTERM, and returns the exit status."""
        self.process.terminate()
        return self.wait()


@contextlib.contextmanager
def process(module: str = STAND_IN, *arguments: str, **environ: str) -> Iterator[Process]:
    """Runs a module, or a program in lines, with these settings until the end of the block, on a
    free port."""
    defaults = {"PORT": "0", "ADMIN_PORT": "0", "DRAIN_DELAY_SECONDS": "0", **UNWATCHED}
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory, "log")
        with log.open("wb") as output:
            child = subprocess.Popen(
                [sys.executable, "-c" if "\n" in module else "-m", module, *arguments],
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


@contextlib.contextmanager
def listening(module: str = STAND_IN, *arguments: str, **environ: str) -> Iterator[Process]:
    """A `process` that has said that it listens."""
    with process(module, *arguments, **environ) as service:
        service.wait_until_listening()
        yield service


def inherited() -> dict[str, str]:
    """The environment of a child process: without settings of the service, but with `SOURCES`."""
    settings = {"FEATURES", *(each.name.upper() for each in fields(Settings))}
    kept = {name: value for name, value in os.environ.items() if name not in settings}
    return {**kept, "PYTHONPATH": os.pathsep.join(SOURCES)}


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A port that refuses connections, and that nobody is given meanwhile but who asks for it and
    sets SO_REUSEPORT."""
    with socket.socket() as reserved:
        if sys.platform != "win32":
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]
