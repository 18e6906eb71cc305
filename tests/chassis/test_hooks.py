"""Whatever a team's hook raises: the request ends once, and everything else goes on."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

from tornado.web import HTTPError, RequestHandler, stream_request_body
from tornado.websocket import WebSocketHandler
from tornado_chassis import limits, server
from tornado_chassis.connections import Server
from tornado_chassis.service import Service

from .routes import broken, make_service
from .testing import UPGRADE, RecordedTest, http

NEXT, GET = http("GET /hello/next"), http("GET %s")
POST = http("POST %s", body=b"body")
CUT_OFF = POST.removesuffix(b"dy")
HANDSHAKE = http("GET %s", *UPGRADE, "Origin: http://b", "Sec-WebSocket-Protocol: chat")
#: A message, a ping, a pong and the end, masked with zeros.
FRAMES = b"".join(
    bytes((0x80 | opcode, 0x82, 0, 0, 0, 0)) + data
    for opcode, data in ((1, b"hi"), (9, b"hi"), (10, b"hi"), (8, b"\x03\xe8"))
)


class Custom(BaseException):
    """What `except Exception` does not catch."""


ERRORS = (ValueError, StopIteration, HTTPError, Custom, asyncio.CancelledError)


class Plain(RequestHandler):
    def get(self) -> None:
        self.finish("plain")

    post = get


class Refusing(RequestHandler):
    def get(self) -> None:
        raise HTTPError(409, "a conflict")


class Waiting(RequestHandler):
    request_timeout = 0.001

    async def get(self) -> None:
        await asyncio.Event().wait()


class Patient(Waiting):
    request_timeout = 60.0


class Flushing(RequestHandler):
    async def get(self) -> None:
        self.write("half of it")
        await self.flush()


class Baking(RequestHandler):
    def get(self) -> None:
        self.set_cookie("taste", "sweet")


@stream_request_body
class Upload(Plain):
    def data_received(self, chunk: bytes) -> None:
        pass


class Socket(WebSocketHandler):
    def check_origin(self, origin: str) -> bool:
        return True

    def on_message(self, message: str | bytes) -> None:
        self.write_message(message)


class Case(NamedTuple):
    """A hook, and the request that calls it."""

    base: type[RequestHandler]
    request: bytes
    hooks: str


CASES = [
    Case(Plain, GET, "initialize set_default_headers clear prepare get decode_argument"),
    Case(Plain, GET, "compute_etag set_etag_header check_etag_header set_header"),
    Case(Plain, GET, "write flush finish _log on_finish _execute"),
    Case(Plain, POST, "check_xsrf_cookie prepare post on_finish"),
    Case(Refusing, GET, "send_error write_error log_exception clear set_status on_finish finish"),
    Case(Waiting, GET, "send_error write_error log_exception clear set_status on_finish finish"),
    Case(Baking, GET, "add_header"),
    Case(Flushing, GET, "write flush finish on_finish"),
    Case(Patient, GET, "on_connection_close"),
    Case(Upload, POST, "initialize prepare data_received post on_finish"),
    Case(Upload, CUT_OFF, "on_connection_close on_finish"),
    Case(Socket, HANDSHAKE, "initialize prepare get check_origin select_subprotocol open"),
    Case(Socket, HANDSHAKE, "get_compression_options get_websocket_protocol on_finish"),
    Case(Socket, HANDSHAKE, "on_message on_ping on_pong on_close on_connection_close"),
    Case(Socket, HANDSHAKE, "on_ws_connection_close"),
]
KINDS = {GET: "get", POST: "post", CUT_OFF: "cut", HANDSHAKE: "handshake"}
#: What the handler may await.
ASYNCHRONOUS = "prepare get post data_received open on_message on_ping on_pong".split()


def cases() -> Iterator[tuple[str, bytes, type[Any]]]:
    """Path, request and handler for each way in which a hook can fail."""
    for base, request, hooks in CASES:
        for hook in hooks.split():
            for error in ERRORS:
                for later in (False, True) if hook in ASYNCHRONOUS else (False,):
                    kind = KINDS[request]
                    way = f"{error.__name__}{'/later' if later else ''}"
                    path = f"/{base.__name__}/{kind}/{hook}/{way}"
                    yield path, request, broken(base, hook, error, later=later)


class HooksTest(RecordedTest):
    environ = {"DRAIN_DELAY_SECONDS": "0"}  # noqa: RUF012

    def setUp(self) -> None:
        sweep = mock.patch.object(limits, "SWEEP_SECONDS", 0.001)
        sweep.start()
        self.addCleanup(sweep.stop)
        super().setUp()
        # A thousand stack traces help nobody.
        logging.disable(logging.CRITICAL)
        self.addCleanup(logging.disable, logging.NOTSET)

    def make_service(self) -> Service:
        own = [(path, handler) for path, _, handler in cases()]
        service = make_service(
            self.settings(), [*own, ("/waiting", Waiting), ("/patient", Patient)]
        )
        service.app.settings["xsrf_cookies"] = True
        return service

    async def send(self, path: str, request: bytes) -> int:
        """Sends the request, then another one on the same connection; how many are answered."""
        reader, writer = await self.connect()
        answers = b""
        with suppress(asyncio.IncompleteReadError):  # It was closed instead.
            if request is HANDSHAKE:
                writer.write(request % path.encode() + FRAMES)
                if b" 101 " in await reader.readline():
                    await reader.read()
            elif request is CUT_OFF or "on_connection_close" in path:
                writer.write(request % path.encode())
                await self.until(lambda: self.recorder.started)
            else:
                writer.write(request % path.encode() + NEXT)
                answers = await reader.readuntil(b'"next"}')
        writer.close()
        return answers.count(b"HTTP/1.1 ")

    async def fault(self, path: str, request: bytes) -> str:
        """What is wrong after a hook has failed; empty if nothing is."""
        runtime = self.app.runtime
        if (answered := await self.send(path, request)) not in (0, 2):
            return f"{answered} of two are answered"
        await self.until(lambda: all(each.route != path for each in runtime.exchanges))
        started, ended = (
            [each for each in notified if each.route == path]
            for notified in (self.recorder.started, self.recorder.ended)
        )
        if ended != started or len(ended) != 1:
            return f"ended {len(ended)} times"
        if not (ended[0].status and ended[0].duration):
            return "has no status or duration"
        if runtime.body_bytes or runtime.websocket_bytes or len(runtime.websockets):
            return "still holds memory"
        other, waiting = await self.answer_to("/hello/other"), await self.answer_to("/waiting")
        if (other.code, waiting.code) != (200, 503):
            return f"others are answered {other.code} and {waiting.code}"
        return ""

    def test_request_ends_once_and_others_are_served(self) -> None:
        faults = {}
        for path, request, _ in cases():
            self.recorder.clear()
            try:
                if fault := self.run_async(partial(self.fault, path, request)):
                    faults[path] = fault
            except TimeoutError:
                faults[path] = "neither answers nor closes, or stays in flight"
        assert faults == {}
        self.run_async(self.stopped)

    async def stopped(self) -> None:
        """Nothing is left that a stop would have to wait for, or to close."""
        await self.until(lambda: not any("_execute" in repr(each) for each in asyncio.all_tasks()))
        assert isinstance(self.http_server, Server)
        with mock.patch.object(server, "finish"), mock.patch.object(server, "_bounded") as closed:
            await server.drain(self.http_server, self.service, asyncio.Future())
        assert not self.http_server.is_open()
        assert closed.await_count == 1
