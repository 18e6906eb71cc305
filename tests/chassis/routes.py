"""The service that the chassis is tested with: it misbehaves in every way that a handler can."""

import asyncio
import logging
import multiprocessing
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from tornado.iostream import StreamClosedError
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


ROUTES: list[Any] = [
    (r"/", Root),
    (r"/hello/(?P<name>[^/]+)", Hello),
    (r"/boom", Boom),
    (r"/status/(\d+)", Status),
    (r"/flushed", Flushed),
    (r"/finished", Finished),
    (r"/slow", Slow),
    (r"/thread", Thread),
    (r"/stubborn", Stubborn),
    (r"/stuck", Stuck),
    (r"/stream", Stream),
    (r"/fork", Fork),
    (r"/forked", Forked),
    (r"/exit/(\w+)", Exit),
    (r"/blocking/(\w+)/(\d+)", Blocking),
    (r"/upload", Upload),
    (r"/ws", Echo),
    (r"/big", Big),
    (r"/static/(?P<path>.*)", StaticFileHandler, {"path": str(Path(__file__).parent)}),
    (r"/old", RedirectHandler, {"url": "/"}),
]


def make_service(settings: Settings) -> Service:
    Slow.entered, Slow.release = asyncio.Event(), asyncio.Event()
    service = Service(settings, ROUTES)
    service.app.settings["background"] = service.background
    return service
