"""The service that the chassis is tested with: it misbehaves in every way that a handler can."""

import asyncio
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from tornado.web import (
    HTTPError,
    RedirectHandler,
    RequestHandler,
    StaticFileHandler,
    stream_request_body,
)
from tornado.websocket import WebSocketHandler
from tornado_chassis.handlers import JsonHandler
from tornado_chassis.service import Service

from .settings import Settings


async def ignore_cancellation() -> None:
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


async def exit_process() -> None:
    sys.exit(3)


class Root(JsonHandler):
    def get(self) -> None:
        self.finish({"at": "root"})


class Hello(JsonHandler):
    def get(self, name: str) -> None:
        self.finish({"hello": name})


class Boom(RequestHandler):
    def get(self) -> None:
        raise ValueError("boom")


def broken(
    base: type[Any], hooks: str, error: BaseException | type[BaseException], *, later: bool = False
) -> type[Any]:
    """A class whose methods of these names raise this, at once or when they have given way."""

    def fail(self: object, *args: object, **kwargs: object) -> None:
        raise error

    async def fail_later(self: object, *args: object, **kwargs: object) -> None:
        await asyncio.sleep(0)
        raise error

    name, hook = f"Broken{base.__name__}", fail_later if later else fail
    hook.__qualname__ = f"{name}.{hooks}"
    return type(name, (base,), dict.fromkeys(hooks.split(), hook))


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


class Thread(RequestHandler):
    """Waits for a thread that nobody can stop."""

    async def get(self) -> None:
        await asyncio.to_thread(time.sleep, 3600)


class Stubborn(RequestHandler):
    """Goes on whatever happens."""

    async def get(self) -> None:
        await ignore_cancellation()


class Stuck(RequestHandler):
    """Keeps the event loop for longer than any test runs."""

    def get(self) -> None:
        logging.getLogger(__name__).warning("Stuck")
        # Not for ever: whoever ends a run of the tests leaves this process behind.
        time.sleep(600)


class Blocking(RequestHandler):
    """Blocks the event loop for so many milliseconds, in its own code or in a task's."""

    async def get(self, how: str, milliseconds: str) -> None:
        seconds = int(milliseconds) / 1000
        if how == "task":
            await asyncio.create_task(self.wait(seconds))
        elif how == "compute":
            compute(seconds)
        else:
            compute(seconds / 4)
            block(seconds)
        self.finish("at last")

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(0)
        block(seconds)


def block(seconds: float) -> None:
    time.sleep(seconds)


def compute(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(1000))


class Fork(RequestHandler):
    """Starts a child, and answers with its number."""

    def get(self) -> None:
        if sys.platform == "win32":
            raise NotImplementedError
        child = multiprocessing.get_context("fork").Process(target=ignore_signals)
        child.start()
        self.finish(str(child.pid))


class Forked(RequestHandler):
    """Fails in a child that it has made without `multiprocessing`."""

    def get(self) -> None:
        if sys.platform == "win32":
            raise NotImplementedError
        if not os.fork():
            raise LookupError("in the child")
        self.finish("in the parent")


def ignore_signals() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(3600)


class Exit(RequestHandler):
    """Ends the process, from wherever it is asked to."""

    async def get(self, where: str) -> None:
        loop = asyncio.get_running_loop()
        match where:
            case "handler":
                sys.exit(3)
            case "later":
                await asyncio.sleep(0)
                sys.exit(3)
            case "callback":
                loop.call_soon(sys.exit, 3)
            case "thread":
                await asyncio.to_thread(sys.exit, 3)
            case "background":
                self.settings["background"](where, exit_process)
            case "interrupt":
                raise KeyboardInterrupt
            case "stop":
                loop.stop()
        self.finish("soon")


class Stream(RequestHandler):
    """Sends until the client has gone."""

    has_latency_objective = False

    async def get(self) -> None:
        while True:
            self.write("more" * 65536)
            await self.flush()


@stream_request_body
class Upload(RequestHandler):
    def initialize(self) -> None:
        self.size = 0

    def data_received(self, chunk: bytes) -> None:
        self.size += len(chunk)

    def put(self) -> None:
        self.finish(f"{self.size} uploaded")


class Echo(WebSocketHandler):
    #: The code and the reason of each that was closed.
    closed: ClassVar[list[tuple[int | None, str | None]]] = []

    def on_message(self, message: str | bytes) -> None:
        if message == "boom":
            raise ValueError("boom in a message")
        self.write_message(message, binary=isinstance(message, bytes))

    def on_close(self) -> None:
        Echo.closed.append((self.close_code, self.close_reason))


class Big(RequestHandler):
    """More than the buffers of a socket take."""

    SIZE = 16 * 1024 * 1024

    def get(self) -> None:
        self.finish(b"x" * self.SIZE)


def named(*handlers: type[RequestHandler]) -> list[Any]:
    """Routes of these, each at its own name."""
    return [(f"/{each.__name__.lower()}", each) for each in handlers]


ROUTES: list[Any] = [
    *named(
        Boom, Flushed, Finished, Slow, Thread, Stubborn, Stuck, Stream, Fork, Forked, Upload, Big
    ),
    (r"/", Root),
    (r"/hello/(?P<name>[^/]+)", Hello),
    (r"/unmade", broken(RequestHandler, "initialize", LookupError)),
    (r"/status/(\d+)", Status),
    (r"/exit/(\w+)", Exit),
    (r"/blocking/(\w+)/(\d+)", Blocking),
    (r"/ws", Echo),
    (r"/static/(?P<path>.*)", StaticFileHandler, {"path": str(Path(__file__).parent)}),
    (r"/old", RedirectHandler, {"url": "/"}),
]


def make_service(settings: Settings, handlers: Iterable[Any] = ()) -> Service:
    Slow.entered, Slow.release = asyncio.Event(), asyncio.Event()
    service = Service(settings, [*handlers, *ROUTES])
    service.app.settings["background"] = service.background
    return service
