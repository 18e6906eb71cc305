"""Requests that there is no room for, that take too long, or that should have gone elsewhere."""

import asyncio
import json
import struct
from contextlib import suppress
from typing import Any
from unittest import mock

from tornado.httpclient import HTTPResponse
from tornado.web import RequestHandler, stream_request_body
from tornado.websocket import WebSocketClosedError
from tornado_chassis import limits, websockets
from tornado_chassis.admin import AllowedHosts
from tornado_chassis.application import Application
from tornado_chassis.exchange import Exchange, Rejection
from tornado_chassis.feature import Feature
from tornado_chassis.handlers import JsonHandler
from tornado_chassis.service import Service
from tornado_chassis.settings import read
from tornado_chassis.testing import UNWATCHED

from .routes import ROUTES, Slow
from .settings import Settings
from .testing import ChassisTest, Recorder

POST = b"POST /hello/x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"


class Probe(RequestHandler):
    is_probe = True

    def get(self) -> None:
        self.finish("alive")


class Waiting(JsonHandler):
    """Waits until it is cancelled, or let go."""

    cancelled = 0

    async def get(self) -> None:
        try:
            await Slow.release.wait()
        except asyncio.CancelledError:
            Waiting.cancelled += 1
            raise
        self.finish("waited")


class Patient(Waiting):
    request_timeout = None


class Unhurried(Waiting):
    request_timeout = 60


class Hasty(Waiting):
    request_timeout = 0.01


class Deaf(Waiting):
    """Ignores cancellation."""

    async def get(self) -> None:
        with suppress(asyncio.CancelledError):
            await super().get()
        await Slow.release.wait()


class Started(Waiting):
    """Has sent a part of its answer."""

    async def get(self) -> None:
        self.write("half of it")
        await self.flush()
        await super().get()


@stream_request_body
class PatientUpload(Waiting):
    def data_received(self, chunk: bytes) -> None:
        pass

    put = Waiting.get


class AdmissionTest(ChassisTest):
    def make_service(self) -> Service:
        Slow.entered, Slow.release = asyncio.Event(), asyncio.Event()
        Waiting.cancelled = 0
        own = [
            (r"/probe", Probe),
            (r"/waiting", Waiting),
            (r"/patient", Patient),
            (r"/unhurried", Unhurried),
            (r"/hasty", Hasty),
            (r"/deaf", Deaf),
            (r"/started", Started),
            (r"/patient/upload", PatientUpload),
        ]
        return Service(read(Settings, UNWATCHED | self.environ), [*ROUTES, *own])

    def get_app(self) -> Application:
        app = super().get_app()
        self.recorder = Recorder()
        self.recorder.record(app)
        return app

    def occupied(self, path: str = "/hello/x") -> HTTPResponse:
        """The answer that somebody gets while `/slow` is in flight."""

        async def ask() -> HTTPResponse:
            async with self.busy():
                answer = await self.http_client.fetch(self.get_url(path), raise_error=False)
            return answer

        return self.run_async(ask)

    def assert_rejected(self) -> None:
        """One request was rejected: started once, ended once, and no failure."""
        assert self.recorder.rejected == ["overload"]
        totals = {
            (name, *labels.values()): total for name, _, total, labels in self.app.runtime.totals()
        }
        assert totals["http_server_refused_requests", "overload"] == 1
        (exchange,) = [each for each in self.recorder.ended if each.status == 503]
        assert self.recorder.started.count(exchange) == 1
        assert exchange.error_type == "503"
        assert self.recorder.failed == []
        assert (self.app.runtime.in_flight, self.app.runtime.body_bytes) == (0, 0)


class TestOverload(AdmissionTest):
    environ = {"MAX_REQUESTS_IN_FLIGHT": "1"}  # noqa: RUF012

    def test_request_too_many_is_a_problem(self) -> None:
        answer = self.occupied()
        assert answer.code == 503
        assert answer.headers["Retry-After"] == "1"
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert json.loads(answer.body) == {
            "title": "The service is overloaded",
            "status": 503,
            "request_id": answer.headers["X-Request-ID"],
        }
        self.assert_rejected()
        assert self.recorder.ended[0].route == "/hello/{name}"

    def test_one_after_another_are_answered(self) -> None:
        for _ in range(3):
            assert self.fetch("/hello/x").code == 200
        assert self.recorder.rejected == []

    def test_probes_are_answered(self) -> None:
        assert self.occupied("/probe").body == b"alive"
        assert self.recorder.rejected == []

    async def test_connection_stays_open(self) -> None:
        async with self.busy():
            reader, writer = await self.connect()
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b" 503 " in await reader.readuntil(b'"}')
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b" 200 " in await reader.readuntil(b"}")
        writer.close()
        self.assert_rejected()

    async def test_answer_comes_before_the_body_is_read(self) -> None:
        async with self.busy():
            reader, writer = await self.connect()
            writer.write(POST % 1000)
            assert b" 503 " in await reader.readuntil(b'"}')
        # The body is read all the same, or a client that still sends would lose the answer.
        writer.write(b"x" * 1000 + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b" 200 " in await reader.readuntil(b"}")
        writer.close()
        self.assert_rejected()

    async def test_answer_comes_once_where_handlers_begin_later(self) -> None:
        self.app.runtime.eager_start = False
        async with self.busy():
            reader, writer = await self.connect()
            writer.write(POST % 9 + b"x" * 9)
            answer = await reader.readuntil(b'"}')
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer += await reader.read()
        writer.close()
        assert answer.count(b"HTTP/1.1 503 ") == answer.count(b"HTTP/1.1 ") - 1 == 1
        self.assert_rejected()

    async def test_client_that_waits_for_a_go_ahead_is_rejected(self) -> None:
        async with self.busy():
            reader, writer = await self.connect()
            writer.write(POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n") % 1000)
            answer = await reader.read()
            writer.close()
        assert answer.startswith(b"HTTP/1.1 503 ")
        self.assert_rejected()

    async def test_form_is_rejected_without_being_parsed(self) -> None:
        async with self.busy():
            reader, writer = await self.connect()
            head = POST.replace(b"Host", b"Content-Type: multipart/form-data\r\nHost") % 1
            writer.write(head + b"-")
            answer = await reader.readline()
            writer.close()
        assert b" 503 " in answer
        self.assert_rejected()

    async def test_upload_is_rejected(self) -> None:
        async with self.busy():
            upload = self.http_client.fetch(
                self.get_url("/upload"), method="PUT", body="all of it", raise_error=False
            )
            status = (await upload).code
        assert status == 503
        self.assert_rejected()


class TestBodies(AdmissionTest):
    """The sum of what bodies take is bounded, whether their lengths are known or not."""

    def half_sent(self, head: bytes) -> bytes:
        """What a second client is answered while the first one still sends."""

        async def ask() -> bytes:
            first, to_first = await self.connect()
            to_first.write(POST % 900)
            await self.until(lambda: self.app.runtime.body_bytes)
            second, to_second = await self.connect()
            to_second.write(head)
            if head.startswith(b"POST"):
                to_second.write(b"0\r\n\r\n" if b"chunked" in head else b"x" * 200)
            answer = await second.readline()
            to_first.write(b"x" * 900)
            assert b" 405 " in await first.readline()
            to_first.close()
            to_second.close()
            return answer

        with mock.patch.object(limits, "MAX_BODY_BYTES", 1000):
            return self.run_async(ask)

    def test_body_too_many_is_rejected(self) -> None:
        assert b" 503 " in self.half_sent(POST % 200)
        self.assert_rejected()

    def test_body_of_unknown_length_counts_as_the_longest(self) -> None:
        head = POST.replace(b"Content-Length: %d", b"Transfer-Encoding: chunked")
        assert b" 503 " in self.half_sent(head)
        self.assert_rejected()

    def test_requests_without_a_body_are_answered(self) -> None:
        assert b" 200 " in self.half_sent(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")

    async def test_client_that_goes_away_leaves_room(self) -> None:
        _, writer = await self.connect()
        writer.write(POST % 900)
        await self.until(lambda: self.app.runtime.body_bytes)
        writer.close()
        await self.until(lambda: not self.app.runtime.body_bytes)
        assert self.app.runtime.in_flight == 0
        assert self.recorder.started == []


class TestTimeout(AdmissionTest):
    environ = {"REQUEST_TIMEOUT_SECONDS": "0.01"}  # noqa: RUF012

    def test_handler_that_takes_too_long_is_cancelled(self) -> None:
        answer = self.fetch("/waiting")
        assert answer.code == 503
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert Waiting.cancelled == 1
        (exchange,) = self.recorder.ended
        assert (exchange.status, exchange.error_type) == (503, "TimeoutError")
        assert (self.recorder.rejected, self.recorder.failed) == ([], [])
        assert self.app.runtime.in_flight == 0

    def test_handler_that_ignores_it_is_answered_for(self) -> None:
        assert self.fetch("/deaf").code == 503
        assert self.app.runtime.in_flight == 0
        Slow.release.set()

    def test_answer_that_has_begun_is_cut_off(self) -> None:
        answer = self.raw(b"GET /started HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"half of it" in answer
        assert not answer.endswith(b"0\r\n\r\n")
        (exchange,) = self.recorder.ended
        assert (exchange.status, exchange.error_type) == (200, "TimeoutError")

    def patient(self, method: str, path: str) -> bytes:
        async def ask() -> bytes:
            task = asyncio.ensure_future(
                self.http_client.fetch(
                    self.get_url(path), method=method, body="x" if method == "PUT" else None
                )
            )
            # The sweep that would end it has ended this one.
            assert (await self.http_client.fetch(self.get_url("/waiting"), raise_error=False)).code
            Slow.release.set()
            return (await task).body

        return self.run_async(ask)

    def test_handler_may_have_more_time(self) -> None:
        assert self.patient("GET", "/unhurried") == b"waited"

    def test_handler_may_have_no_limit(self) -> None:
        assert self.patient("GET", "/patient") == b"waited"

    def test_handlers_are_watched_for_as_long_as_the_service_runs(self) -> None:
        assert [self.fetch("/waiting").code for _ in range(3)] == [503] * 3

    def test_upload_has_no_limit(self) -> None:
        assert self.patient("PUT", "/patient/upload") == b"waited"

    async def test_websocket_has_no_limit(self) -> None:
        client = await self.websocket()
        await self.http_client.fetch(self.get_url("/waiting"), raise_error=False)
        await client.write_message("hello")
        answer = await client.read_message()
        client.close()
        assert answer == "hello"


class TestOwnTimeout(AdmissionTest):
    environ = {"REQUEST_TIMEOUT_SECONDS": "0"}  # noqa: RUF012

    def test_handler_may_have_less_time(self) -> None:
        assert self.patience() == (503, 200)

    def patience(self) -> tuple[int, int]:
        async def ask() -> tuple[int, int]:
            waiting = asyncio.ensure_future(self.http_client.fetch(self.get_url("/waiting")))
            hasty = await self.http_client.fetch(self.get_url("/hasty"), raise_error=False)
            Slow.release.set()
            return hasty.code, (await waiting).code

        return self.run_async(ask)


class TestRejection(AdmissionTest):
    def test_feature_may_reject(self) -> None:
        class Full(Feature):
            def reject(self, exchange: Exchange) -> Rejection | None:
                if exchange.method == "GET":
                    return None
                return Rejection(429, "Slow down", "rate", {"Retry-After": "7"})

        class Broken(Feature):
            def reject(self, exchange: Exchange) -> Rejection | None:
                raise RuntimeError("broken feature")

        recorder = Recorder()
        features = [*self.app.runtime.features, Broken(), Full(), recorder]
        self._app.__init__(ROUTES, features)  # type: ignore[misc]
        assert self.fetch("/").code == 200
        answer = self.fetch("/", method="DELETE")
        assert (answer.code, answer.headers["Retry-After"]) == (429, "7")
        assert json.loads(answer.body)["title"] == "Slow down"
        assert recorder.rejected == ["rate"]
        assert [each.status for each in recorder.ended] == [200, 429]

    def test_hosts(self) -> None:
        features = [*self.app.runtime.features, AllowedHosts(["Ops.example"])]
        self._app.__init__(ROUTES, features)  # type: ignore[misc]
        statuses = {
            host: self.fetch("/", headers={"Host": host}).code
            for host in (
                "127.0.0.1:8001",
                "[::1]:8001",
                "localhost",
                "LOCALHOST:1",
                "ops.example:8001",
                "evil.example",
                "127.0.0.1.evil.example",
                "localhost.evil.example",
            )
        }
        evil = {host for host, status in statuses.items() if "evil" in host}
        assert statuses == {host: 421 if host in evil else 200 for host in statuses}

    def test_admin_port_is_not_for_every_host(self) -> None:
        assert self.fetch_admin("/", headers={"Host": "evil.example"}).code == 421
        assert self.fetch_admin("/", headers={"Host": "localhost"}).code != 421


class TestWebSocketLimits(AdmissionTest):
    def test_client_that_never_reads_is_cut_off(self) -> None:
        async def write(client: Any) -> int:
            for count in range(200):
                try:
                    await client.write_message("x" * 262_144)
                except WebSocketClosedError:
                    return count
            return 200

        async def talk() -> int:
            client = await self.websocket()
            count = await write(client)
            client.close()
            return count

        # Not that of all together.
        without = mock.patch.object(websockets, "MAX_WEBSOCKET_BYTES", 10**9)
        with without, self.assertNoLogs(level="ERROR"):
            assert self.run_async(talk) < 200
        assert self.recorder.failed == []

    async def test_message_over_the_limit_closes_the_connection(self) -> None:
        client = await self.websocket()
        await client.write_message("x" * (1024 * 1024 + 1))
        assert await client.read_message() is None
        assert client.close_code == 1009

    def test_what_clients_do_not_read_is_limited_together(self) -> None:
        def unread() -> int:
            streams = [
                getattr(each.ws_connection, "stream", None) for each in self.app.runtime.websockets
            ]
            return sum(len(each._write_buffer or "") for each in streams if each)

        async def write() -> None:
            clients = [await self.websocket() for _ in range(4)]
            for _ in range(2000):
                for websocket in list(self.app.runtime.websockets):
                    with suppress(WebSocketClosedError):
                        websocket.write_message(b"x" * 65_536)
                    assert unread() <= 1_000_000
                if self.app.runtime.open_websockets < 4:
                    break
                await asyncio.sleep(0)
            assert self.app.runtime.open_websockets == 3
            for client in clients:
                client.close()
            await self.until(lambda: not self.app.runtime.websocket_bytes)

        with mock.patch.object(websockets, "MAX_WEBSOCKET_BYTES", 1_000_000):
            self.run_async(write)

    def test_messages_that_arrive_are_limited_together(self) -> None:
        part = struct.pack("!BBQ", 0x02, 0xFF, 100_000) + bytes(4 + 100_000)
        begun = struct.pack("!BBQ", 0x00, 0xFF, 200_000) + bytes(4 + 1)

        async def send() -> None:
            streams = []
            for _ in range(4):
                client = await self.websocket()
                assert client.protocol
                assert client.protocol.stream
                streams.append(client.protocol.stream)
                await streams[-1].write(part + begun)
            await self.until(lambda: self.app.runtime.open_websockets == 3)
            assert self.app.runtime.websocket_bytes == 900_000
            for stream in streams:
                stream.close()
            await self.until(lambda: not self.app.runtime.websocket_bytes)

        with mock.patch.object(websockets, "MAX_WEBSOCKET_BYTES", 1_000_000):
            self.run_async(send)

    def test_clients_are_pinged(self) -> None:
        assert 0 < self.app.settings["websocket_ping_timeout"] <= 30
        assert 0 < self.app.settings["websocket_ping_interval"] <= 30
