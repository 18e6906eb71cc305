"""What is a team's stays a team's: names, classes, connections and targets of routes."""

import asyncio
import gc
import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import weakref
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import pytest
from tornado import web
from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    HTTPServerRequest,
    ResponseStartLine,
)
from tornado.routing import Router
from tornado.testing import bind_unused_port
from tornado.web import FallbackHandler, RequestHandler, StaticFileHandler
from tornado.websocket import WebSocketHandler
from tornado_chassis import limits, server
from tornado_chassis.application import Application, _name_routes
from tornado_chassis.service import Service

from .routes import Boom, Slow, broken, make_service, named
from .testing import RecordedTest, http


class Kind(type):
    """A metaclass that wants a keyword."""

    def __new__(cls, name: str, bases: Any, namespace: Any, *, label: str) -> "Kind":
        made = super().__new__(cls, name, bases, namespace)
        made.label = label
        return made

    def __init__(cls, name: str, bases: Any, namespace: Any, *, label: str) -> None:
        super().__init__(name, bases, namespace)

    label: str


class Named(RequestHandler, metaclass=Kind, label="one"):
    LIMITS: ClassVar[dict[type, int]] = {}

    def initialize(self) -> None:
        self.hold, self.drop, self.time_out, self._task = 1, 2, 3, 4
        self.exchange, self.route, self.outgoing, self._application = 5, 6, 7, 8

    def get(self) -> None:
        own = self.hold, self.drop, self.time_out, self._task
        theirs = self.exchange, self.route, self.outgoing, self._application
        limit = self.LIMITS[type(self)]
        self.finish({"own": [*own, *theirs], "label": type(self).label, "limit": limit})


Named.LIMITS[Named] = 7


class NamedSocket(WebSocketHandler):
    """An echo whose own names are those that a chassis could use."""

    hold = drop = time_out = _task = "mine"
    sockets: ClassVar[list[WebSocketHandler]] = []

    def open(self) -> None:
        assert type(self) is NamedSocket
        self._hold = self._drop = self._handler = self._read = self._write = "mine"
        self.sockets.append(self)

    def on_message(self, message: str | bytes) -> None:
        if message == "all":
            for each in self.sockets:
                each.write_message("to all")
        else:
            self.write_message(self.hold + self._hold)


class Broadcast(RequestHandler):
    def get(self) -> None:
        for each in NamedSocket.sockets:
            each.write_message("to all")


class Impatient(RequestHandler):
    """Says how long it may take in a way that is none."""

    values: ClassVar[list[Any]] = ["5", -1, float("nan"), object()]

    def initialize(self, value: object) -> None:
        self.request_timeout = value

    async def get(self) -> None:
        await asyncio.Event().wait()


class Late(RequestHandler):
    """Goes on after it was given up."""

    request_timeout = 0.001
    release: asyncio.Event

    async def get(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await Late.release.wait()
        connection: Any = self.request.connection
        connection.write_headers(ResponseStartLine("", 200, "OK"), HTTPHeaders(), b"too late")
        connection.write(b"too late")
        connection.finish()


class OwnCallback(RequestHandler):
    left = 0

    async def get(self, on: str) -> None:
        connection: Any = self.request.connection
        target = connection.stream if on == "stream" else connection
        gone = asyncio.Event()
        target.set_close_callback(gone.set)
        Slow.entered.set()
        await gone.wait()
        OwnCallback.left += 1


class Careless(RequestHandler):
    """Goes on to write, without waiting for it, when its client is cut off."""

    async def get(self) -> None:
        await asyncio.sleep(0.01)  # Tornado notices a closed connection from here on.
        for _ in range(2):
            self.write(b"x" * 16_000_000)
            self.flush()
        connection: Any = self.request.connection
        connection.stream.close()
        for _ in range(3):
            self.write(b"more")
            self.flush()
            await asyncio.sleep(0)


class Reach(RequestHandler):
    """Uses what Tornado's own connection has."""

    def get(self) -> None:
        connection: Any = self.request.connection
        tornados = connection._connection
        names = [name for name in dir(tornados) if not name.startswith("_")]
        connection.no_keep_alive = connection.set_max_body_size(7) is None
        missing = [name for name in names if not hasattr(connection, name)]
        has_set = tornados.no_keep_alive, tornados._max_body_size == 7
        self.finish({"missing": missing, "has set": has_set})


class Answer(HTTPMessageDelegate):
    """A delegate that answers with what it was sent, or fails at a stage."""

    def __init__(self, connection: Any, stage: str = "") -> None:
        self.connection, self.stage, self.body = connection, stage, b""

    def headers_received(self, start_line: Any, headers: HTTPHeaders) -> None:
        self.reach("headers")

    def data_received(self, data: bytes) -> None:
        self.reach("data")
        self.body += data

    def finish(self) -> None:
        self.reach("finish")
        head = HTTPHeaders({"Content-Length": str(len(self.body))})
        self.connection.write_headers(ResponseStartLine("", 200, "OK"), head, self.body)
        self.connection.finish()

    def reach(self, stage: str) -> None:
        if stage == self.stage:
            raise ValueError(stage)


class Answers(HTTPServerConnectionDelegate):
    def start_request(self, server_conn: object, request_conn: Any) -> HTTPMessageDelegate:
        return Answer(request_conn)


class Stages(Router):
    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> HTTPMessageDelegate:
        stage = request.path.rpartition("/")[2]
        if stage == "find":
            raise ValueError("find")
        return Answer(request.connection, stage)


def function(request: HTTPServerRequest) -> None:
    if request.arguments.get("fail"):
        raise ValueError("function")
    connection: Any = request.connection
    head = HTTPHeaders({"Content-Length": "2"})
    connection.write_headers(ResponseStartLine("", 200, "OK"), head, b"ok")
    connection.finish()


def silent(request: HTTPServerRequest) -> None:
    """Never answers."""


class TeamTest(RecordedTest):
    def make_service(self) -> Service:
        Late.release = asyncio.Event()
        NamedSocket.sockets.clear()
        silenced = broken(Boom, "send_error", ValueError)
        inner, fallback = (
            [(f"{at}/failing", Boom), (f"{at}/silent", silenced), (f"{at}/hello", Named)]
            for at in ("/inner", "/fallback")
        )
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        large = Path(self.directory.name, "large")
        large.touch()
        os.truncate(large, 16_000_000)
        own = [
            *((f"/impatient/{n}", Impatient, {"value": v}) for n, v in enumerate(Impatient.values)),
            *named(Named, NamedSocket, Broadcast, Late, Reach, Careless),
            ("/callback/(.*)", OwnCallback),
            ("/files/(?P<path>.*)", StaticFileHandler, {"path": self.directory.name}),
            ("/function", function),
            ("/silent", silent),
            ("/answers", Answers()),
            ("/stages/.*", Stages()),
            ("/inner/.*", web.Application(inner)),
            ("/fallback/.*", FallbackHandler, {"fallback": web.Application(fallback)}),
        ]
        return make_service(self.settings(), own)


class TestNames(TeamTest):
    def test_names_and_classes_are_what_a_team_wrote(self) -> None:
        answer = json.loads(self.fetch("/named").body)
        assert answer == {"own": [1, 2, 3, 4, 5, 6, 7, 8], "label": "one", "limit": 7}

    async def test_names_of_a_websocket_are_its_own(self) -> None:
        client = await self.websocket("/namedsocket")
        await client.write_message("hello")
        answer = await client.read_message()
        assert answer == "minemine"

    def test_nothing_is_kept_for_each_class(self) -> None:
        made = type("Made", (Impatient,), {"request_timeout": "soon"})
        kept = weakref.ref(made)
        self.app.wildcard_router.add_rules([("/made", made, {"value": "soon"})])
        _name_routes(self.app.default_router)
        del made
        with mock.patch.object(limits.Limits, "_seconds", return_value=0.0):
            assert self.fetch("/made").code == 503
        del self.app.wildcard_router.rules[-1]
        self.recorder.clear()
        gc.collect()
        assert kept() is None


class TestTimes(TeamTest):
    environ = {"REQUEST_TIMEOUT_SECONDS": "0.01"}  # noqa: RUF012

    def test_time_out_that_is_none_is_the_default_for_its_handler_and_no_other(self) -> None:
        with self.assertLogs(limits.log, "ERROR") as logs:
            for number, _ in enumerate(Impatient.values):
                assert self.fetch(f"/impatient/{number}").code == 503
            assert self.fetch("/slow").code == 503
        assert len(logs.output) == 1
        assert "Impatient" in logs.output[0]

    async def test_what_is_written_after_the_end_reaches_nobody(self) -> None:
        reader, writer = await self.connect(http("GET /late"))
        await reader.readuntil(b"</html>")
        writer.write(http("GET /slow"))
        await Slow.entered.wait()
        Late.release.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        Slow.release.set()
        answer = await reader.readuntil(b"slow")
        writer.close()
        assert answer.startswith(b"HTTP/1.1 200 OK\r\nContent-Type")


class TestConnections(TeamTest):
    async def test_client_that_leaves_during_a_flush_or_a_file_is_no_failure(self) -> None:
        for path, route in (("/stream", "/stream"), ("/files/large", "/files/{path}")):
            for is_reset in (False, True):
                self.recorder.clear()
                with self.assertNoLogs("tornado.general", "ERROR"):
                    reader, writer = await self.connect(http(f"GET {path}"))
                    await reader.readuntil(b"\r\n\r\n")
                    await reader.readexactly(3)
                    if is_reset:  # as a browser's tab would
                        linger = socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                        writer.get_extra_info("socket").setsockopt(*linger)
                    writer.close()
                    await self.until(lambda: self.recorder.ended)
                assert (self.one().route, self.one().status) == (route, 499)
                assert self.recorder.failed == []

    async def test_close_callback_of_a_team_s_own_is_called(self) -> None:
        for on in ("connection", "stream"):
            self.recorder.clear()
            OwnCallback.left = 0
            Slow.entered.clear()
            _, writer = await self.connect(http(f"GET /callback/{on}"))
            await Slow.entered.wait()
            writer.close()
            await self.until(lambda: OwnCallback.left and self.recorder.ended)
            assert (self.one().route, self.one().status) == ("/callback/{1}", 499)

    def test_what_is_written_to_a_closed_connection_is_no_error(self) -> None:
        with self.assertNoLogs("asyncio", "ERROR"):
            self.raw(b"GET /careless HTTP/1.1\r\nHost: a\r\n\r\n")
            self.until(lambda: self.recorder.ended)
        assert (self.one().route, self.one().status) == ("/careless", 499)
        assert self.recorder.failed == []

    def test_handlers_reach_all_that_is_public_of_tornado_s_own(self) -> None:
        answer = json.loads(self.fetch("/reach").body)
        assert answer == {"missing": [], "has set": [True, True]}

    def test_body_that_is_malformed_or_late_is_not_the_client_s_leave(self) -> None:
        head = http("PUT /upload", "Transfer-Encoding: chunked")
        malformed = b"zz\r\n", b"2\r\nokXX", b"2\r\nok\r\n0\r\nXX", b"9" * 99
        cases = [(400, head + each) for each in malformed]
        for status, request in (*cases, (408, http("PUT /upload", body=b"half", size=9))):
            self.recorder.clear()
            self.http_server.conn_params.body_timeout = 0.01 if status == 408 else None
            self.raw(request)
            assert (self.one().route, self.one().status) == ("/upload", status)

    async def test_websocket_of_another_client_that_has_closed_is_a_failure(self) -> None:
        gone = await self.websocket("/namedsocket")
        gone.close()
        await gone.read_message()
        await self.until(lambda: not self.app.runtime.websockets)
        here = await self.websocket("/namedsocket")
        await here.write_message("all")
        assert await here.read_message() is None
        assert [type(each).__name__ for each in self.recorder.failed] == ["WebSocketClosedError"]
        self.recorder.clear()
        assert (await self.answer_to("/broadcast")).code == 500
        assert [type(each).__name__ for each in self.recorder.failed] == ["WebSocketClosedError"]


class TestTargets(TeamTest):
    environ = {"MAX_REQUESTS_IN_FLIGHT": "4"}  # noqa: RUF012

    def test_each_target_of_a_route_is_observed(self) -> None:
        for path, route in (
            ("/function", "/function"),
            ("/answers", "/answers"),
            ("/stages/none", "/stages/.*"),
            ("/inner/hello", "/inner/hello"),
            ("/fallback/hello", "/fallback/.*"),
        ):
            self.recorder.clear()
            answer = self.fetch(path, headers={"X-Request-ID": "r1"})
            assert (answer.code, answer.headers["X-Request-ID"]) == (200, "r1")
            assert (self.one().route, self.one().status) == (route, 200)

    def test_what_a_target_raises_is_reported_without_the_query(self) -> None:
        for path in (
            "/function?fail=1&",
            *(f"/stages/{stage}?" for stage in ("find", "headers", "data", "finish")),
            "/inner/failing?",
            "/fallback/failing?",
            "/inner/silent?",
            "/fallback/silent?",
        ):
            self.recorder.clear()
            with self.assertLogs(level="INFO") as logs:
                method, body = ("POST", "x") if "data" in path else ("GET", None)
                answer = self.fetch(f"{path}token=secret", method=method, body=body)
            assert answer.code == 500, path
            assert self.one().status == 500
            assert [type(each) for each in self.recorder.failed] == [ValueError], path
            # Without a log of its own, a service has Tornado's access log, which has it.
            own = [each for each in logs.records if each.name != "tornado.access"]
            assert not [each for each in own if "secret" in each.getMessage()], path

    def test_form_that_is_malformed_is_the_client_s_mistake(self) -> None:
        form = {"Content-Type": "multipart/form-data"}
        assert self.fetch("/function", method="POST", headers=form, body="-").code == 400
        assert self.recorder.failed == []

    async def test_target_that_does_not_answer_is_waited_for_by_a_stop(self) -> None:
        _, writer = await self.connect(http("GET /silent"))
        await self.until(lambda: self.app.runtime.in_flight)
        assert server._in_flight(self.app.runtime).startswith("1 request: GET /silent")
        writer.close()
        await self.until(lambda: self.recorder.ended)
        assert (self.one().route, self.one().status) == ("/silent", 499)


class TestForgery(TeamTest):
    """With `xsrf_cookies`, what no handler of the team's answers stays what it is."""

    environ = {"MAX_REQUESTS_IN_FLIGHT": "1"}  # noqa: RUF012

    def get_app(self) -> Application:
        app = super().get_app()
        app.settings["xsrf_cookies"] = True
        return app

    async def test_statuses(self) -> None:
        async def post(path: str) -> int:
            return (await self.answer_to(path, method="POST", body="")).code

        assert [await post(path) for path in ("/nowhere", "/unmade", "/hello/x")] == [404, 500, 403]
        async with self.busy():
            assert await post("/hello/x") == 503


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate")
class TestHttps(TeamTest):
    def test_answers_and_certificates_are_those_of_the_connection(self) -> None:
        made = Path(self.directory.name, "made.pem")
        command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost"
        command += f" -keyout {made} -out {made}"
        subprocess.run(command.split(), check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made)
        listening, port = bind_unused_port()
        https = HTTPServer(self.app, ssl_options=context)
        https.add_socket(listening)
        answer = self.fetch(f"https://127.0.0.1:{port}/hello/x", validate_cert=False)
        assert (answer.code, answer.body) == (200, b'{"hello":"x"}')
        assert (self.one().route, self.one().status) == ("/hello/{name}", 200)
        assert self.one().request.protocol == "https"
        https.stop()
