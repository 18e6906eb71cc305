"""Requests that there is no room for, that take too long, or that should have gone elsewhere."""

import asyncio
import json
import struct
from collections import Counter
from contextlib import suppress
from http import HTTPStatus
from typing import Any, ClassVar
from unittest import mock

from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine
from tornado.web import RequestHandler
from tornado.websocket import WebSocketClosedError, WebSocketHandler
from tornado_chassis import limits, websockets
from tornado_chassis.exchange import Exchange, Rejection
from tornado_chassis.feature import Feature
from tornado_chassis.handlers import JsonHandler
from tornado_chassis.service import Service

from .routes import ROUTES, Big, Slow, Upload, broken, named
from .testing import RecordedTest, Recorder, http

NEXT, BIG = http("GET /"), http("GET /big")
FORM = "Content-Type: application/x-www-form-urlencoded"
CHUNKED, EXPECT = "Transfer-Encoding: chunked", "Expect: 100-continue"
MIB = 2**20


def post(size: int, *headers: str, to: str = "POST /hello/x", sent: bytes | None = None) -> bytes:
    """A request with a body of this size, all of it unless other bytes are sent."""
    return http(to, *headers, body=b"x" * size if sent is None else sent, size=size)


class Probe(RequestHandler):
    is_probe = True

    def get(self) -> None:
        self.finish("alive")


class ReadingProbe(Probe):
    post = Probe.get


class Form(RequestHandler):
    def post(self) -> None:
        self.finish("parsed")


class Early(Upload):
    """Answers before it has read the body."""

    def prepare(self) -> None:
        self.set_status(403)
        self.finish("no")


class Begun(Upload):
    """Begins its answer before it has read the body."""

    async def prepare(self) -> None:
        self.write("half of it")
        await self.flush()


def function(request: HTTPServerRequest) -> None:
    connection: Any = request.connection
    connection.write_headers(ResponseStartLine("", 405, "No"), HTTPHeaders({"Content-Length": "0"}))
    connection.finish()


class Holding(WebSocketHandler):
    """Does not finish handling a message until it is let go."""

    messages: ClassVar[list[str | bytes]] = []

    def get_compression_options(self) -> dict[str, Any]:
        return {}

    async def on_message(self, message: str | bytes) -> None:
        Holding.messages.append(message)
        await Slow.release.wait()


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


Patient, Unhurried, Hasty = (
    type(name, (Waiting,), {"request_timeout": seconds})
    for name, seconds in (("Patient", None), ("Unhurried", 60), ("Hasty", 0.01))
)


class Unbegun(Waiting):
    """Is late before its task has run at all."""

    request_timeout = 0

    def initialize(self) -> None:
        application: Any = self.application
        [found] = (each for each in application.runtime.features if isinstance(each, limits.Limits))
        asyncio.get_running_loop().call_soon(found._sweep)


class Deaf(Waiting):
    async def get(self) -> None:
        with suppress(asyncio.CancelledError):
            await super().get()
        await Slow.release.wait()


class Started(Waiting):
    async def get(self) -> None:
        self.write("half of it")
        await self.flush()
        await super().get()


class PatientUpload(Upload, Waiting):
    put = Waiting.get  # type: ignore[assignment]


class AdmissionTest(RecordedTest):
    handlers: ClassVar = [
        *named(Probe, ReadingProbe, Waiting, Patient, Unhurried, Hasty, Unbegun, Deaf, Started),
        *named(PatientUpload, Form, Early, Begun, Holding),
        (r"/function", function),
    ]

    def make_service(self) -> Service:
        Waiting.cancelled = self.rejections = 0
        return super().make_service()

    def assert_rejected(self) -> None:
        """One more request was rejected: started once, ended once, no failure."""
        self.rejections += 1
        assert self.recorder.rejected == ["overload"]
        totals = {
            (name, *labels.values()): total for name, _, total, labels in self.app.runtime.totals()
        }
        assert totals["http_server_refused_requests", "overload"] == self.rejections
        (exchange,) = [each for each in self.recorder.ended if each.status == 503]
        assert self.recorder.started.count(exchange) == 1
        assert exchange.error_type == "503"
        assert self.recorder.failed == []
        assert (self.app.runtime.in_flight, self.app.runtime.body_bytes) == (0, 0)
        self.recorder.clear()


class TestOverload(AdmissionTest):
    environ = {"MAX_REQUESTS_IN_FLIGHT": "1"}  # noqa: RUF012

    async def test_request_too_many_is_a_problem_and_a_probe_is_answered(self) -> None:
        async with self.busy():
            answer, probe = await self.answer_to("/hello/x"), await self.answer_to("/probe")
        assert answer.code == 503
        assert answer.headers["Retry-After"] == "1"
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert json.loads(answer.body) == {
            "title": "The service is overloaded",
            "status": 503,
            "request_id": answer.headers["X-Request-ID"],
        }
        assert probe.body == b"alive"
        assert self.recorder.ended[0].route == "/hello/{name}"
        self.assert_rejected()

    async def test_connection_stays_open(self) -> None:
        # The body is read all the same, or a client that still sends would lose the answer.
        for head, body in ((NEXT, b""), (post(1000, sent=b""), b"x" * 1000)):
            async with self.busy():
                reader, writer = await self.connect(head)
                assert b" 503 " in await reader.readuntil(b'"}')
            for rest in (body + NEXT, NEXT):  # there is a place for one after another
                writer.write(rest)
                assert b" 200 " in await reader.readuntil(b"}")
            self.assert_rejected()

    async def test_answer_comes_once_where_handlers_begin_later(self) -> None:
        self.app.runtime.eager_start = False
        async with self.busy():
            reader, writer = await self.connect(post(9))
            answer = await reader.readuntil(b'"}')
        writer.write(http("GET /", "Connection: close"))
        answer += await reader.read()
        assert answer.count(b"HTTP/1.1 503 ") == answer.count(b"HTTP/1.1 ") - 1 == 1
        self.assert_rejected()

    async def test_what_is_rejected_is_neither_waited_for_nor_parsed(self) -> None:
        go_ahead = post(1000, EXPECT, sent=b"")
        form = post(1, "Content-Type: multipart/form-data", sent=b"-")
        for request in (go_ahead, form, post(9, to="PUT /upload")):
            async with self.busy():
                reader, writer = await self.connect(request)
                assert (await reader.readline()).startswith(b"HTTP/1.1 503 ")
                # What does not send its body is sent nothing else, and closed.
                assert request is not go_ahead or b"HTTP/1.1 " not in await reader.read()
                writer.close()
            self.assert_rejected()

    async def test_announced_bodies_hold_no_place_and_no_memory(self) -> None:
        for path in ("/hello/x", "/function"):
            await self.connect(post(1000, to=f"POST {path}", sent=b""))
        await self.until(lambda: self.app.runtime.in_flight == 2)
        assert self.app.runtime.body_bytes == 0
        assert (await self.answer_to("/hello/x")).code == 200
        assert self.recorder.rejected == []

    async def test_body_that_is_complete_takes_a_place(self) -> None:
        reader, writer = await self.connect(post(2, sent=b"x"))
        await self.until(lambda: self.app.runtime.body_bytes)
        async with self.busy():
            writer.write(b"x")
            assert b" 503 " in await reader.readuntil(b'"}')
        writer.write(NEXT)
        assert b" 200 " in await reader.readuntil(b"}")
        self.assert_rejected()


class TestBodies(AdmissionTest):
    """The sum of what bodies take is bounded, whether their lengths are known or not."""

    def half_sent(self, request: bytes) -> bytes:
        """What a second client is answered while the first one still sends."""

        async def ask() -> bytes:
            first, to_first = await self.connect(post(900, sent=b"x" * 899))
            await self.until(lambda: self.app.runtime.body_bytes == 899)
            second, to_second = await self.connect(request)
            answer = await second.readline()
            to_first.write(b"x")
            assert b" 405 " in await first.readline()
            to_first.close()
            to_second.close()
            return answer

        with mock.patch.object(limits, "MAX_BODY_BYTES", 1000):
            return self.run_async(ask)

    def test_what_has_arrived_and_what_it_takes_counts(self) -> None:
        chunked = http("POST /hello/x", CHUNKED)
        for status, request in (
            (503, post(200)),
            (503, post(200, to="POST /function")),
            # Each argument takes more than its text.
            (503, post(3, FORM, sent=b"a&b")),
            (503, http("GET /?" + "a&" * 990)),
            (405, chunked + b"5\r\n12345\r\n0\r\n\r\n"),
            (503, chunked + b"c8\r\n" + b"x" * 200 + b"\r\n0\r\n\r\n"),
            (200, post(9, to="POST /readingprobe")),
            (503, post(200, to="POST /readingprobe")),
            # What nobody reads is not held.
            *((405, post(200, to=f"POST {probe}")) for probe in ("/probe", "/livez")),
            *((200, post(200, to=f"GET {probe}")) for probe in ("/probe", "/livez")),
            (200, NEXT),
        ):
            assert int(self.half_sent(request)[9:12]) == status, request[:99]
            if status == 503:
                self.assert_rejected()
            assert self.recorder.rejected == []

    async def test_client_that_goes_away_leaves_room(self) -> None:
        _, writer = await self.connect(post(900, sent=b"x"))
        await self.until(lambda: self.app.runtime.body_bytes == 1)
        writer.close()
        await self.until(lambda: not self.app.runtime.body_bytes)
        assert self.app.runtime.in_flight == 0
        assert self.recorder.started == []


class TestLargeBodies(AdmissionTest):
    environ = {"MAX_BODY_BYTES": "3000000"}  # noqa: RUF012

    def get_httpserver_options(self) -> dict[str, Any]:
        return {"max_body_size": 3_000_000}

    def test_one_has_room_beside_the_others(self) -> None:
        # As a form, it takes twice as much.
        for kind, status in (("application/x-www-form-urlencoded", 503), ("text/plain", 200)):
            with mock.patch.object(limits, "MAX_BODY_BYTES", 2**20):
                headers = {"Content-Type": kind}
                answer = self.fetch("/form", method="POST", body=b"x" * 3_000_000, headers=headers)
            assert answer.code == status


class TestUnreadable(AdmissionTest):
    """What is rejected before it is parsed; the client can read why, even while it sends."""

    def get_httpserver_options(self) -> dict[str, Any]:
        return {"max_body_size": 256 * 1024, "max_header_size": 32 * 1024, "body_timeout": 1}

    def rejection(self, request: bytes) -> int:
        answer = self.raw(request).removeprefix(b"HTTP/1.1 100 (Continue)\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        assert b"application/problem+json" in head
        assert json.loads(body) == {"title": HTTPStatus(status).phrase, "status": status}
        self.until(lambda: self.recorder.rejected)
        assert self.app.runtime.in_flight == 0
        return status

    def test_what_cannot_be_read_is_rejected_counted_and_logged_without_the_request(self) -> None:
        fields = "Host: a", "Connection: close", *["a: b"] * 98
        head = "\r\n".join(("GET / HTTP/1.1", *fields, "")).encode()
        assert b" 200 " in self.raw(head + b"\r\n")
        large, root, counts = b"x" * 4 * MIB, "POST /", Counter[str]()
        for status, reason, request in (
            # The last one could not be parsed.
            (431, "too_large", head + b"\0\r\n\r\n" + b"x" * 99_999),
            # Counted before all have arrived.
            (431, "too_large", b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 4000),
            (431, "too_large", b"GET / HTTP/1.1\r\nsecret: " + b"x" * 200_000),
            (413, "too_large", http(root, body=large)),
            (413, "too_large", http(root, CHUNKED) + b"%x\r\n" % len(large) + large),
            (413, "too_large", http(root, CHUNKED) + (b"200\r\n" + b"x" * 512 + b"\r\n") * 999),
            (413, "too_large", http(root, body=b"secret", size=999_999)),
            (400, "malformed", b"GET / HTTP/1.1\r\n\r\n" + b"x" * 999_999),
            (400, "malformed", b"GET\x00/ HTTP/1.1\r\n\r\n"),
            (400, "malformed", b"GET /secret HTTP/1.1\r\n\r\n"),
            (400, "malformed", b"GET / HTTP/1.1\r\nsecret\r\n\r\n"),
            (400, "malformed", b"secret\r\n\r\n"),
            (400, "malformed", http(root, "Content-Length: secret")),
            (400, "malformed", http(root, "Transfer-Encoding: secret")),
            (400, "malformed", http(root, CHUNKED) + b"secret\r\n"),
            (408, "timeout", http(root, body=b"secret", size=9)),
            # These were told to go ahead.
            (413, "too_large", http(root, EXPECT, size=999_999)),
            (400, "malformed", http(root, EXPECT, CHUNKED) + b"secret\r\n"),
            (408, "timeout", http(root, EXPECT, body=b"secret", size=9)),
            (408, "timeout", b"GET /secret HTTP/1.1\r\nHost: a\r\n"),
        ):
            self.recorder.clear()
            assert self.rejection(request) == status, request[:99]
            assert (self.recorder.rejected, self.recorder.started) == ([reason], [])
            counts[reason] += 1
            logged = [line for line in self.lines() if "Rejected a request: " in line]
            assert len(logged) <= counts.total()
            assert "secret" not in self.output.getvalue()
            totals = {
                labels["reason"]: total
                for name, _, total, labels in self.app.runtime.totals()
                if name == "http_server_refused_requests"
            }
            assert totals == {"overload": 0, "timeout": 0, "malformed": 0, **counts}
        assert self.fetch("/").code == 200

    def test_number_of_arguments_fields_and_parts_is_limited(self) -> None:
        assert self.rejection(http("GET /?" + "a&" * 1000)) == 400
        part = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n'
        for kind, body in (
            ("application/x-www-form-urlencoded", b"a&" * 1000),
            ("multipart/form-data; boundary=b", part * 1000 + b"--b--\r\n"),
        ):
            answer = self.fetch("/form", method="POST", body=body, headers={"Content-Type": kind})
            assert answer.code == 400

    def test_early_answer_of_an_upload_can_be_read(self) -> None:
        assert self.raw(post(256_000, to="PUT /early")).startswith(b"HTTP/1.1 403 ")

    def test_answer_that_has_begun_is_not_followed_by_another(self) -> None:
        for rest in (b"zz\r\n", b"9" * 99):
            answer = self.raw(http("PUT /begun", CHUNKED, EXPECT) + rest)
            assert answer.count(b"HTTP/1.1 ") == 1
            assert answer.endswith(b"half of it\r\n")


class TestUnread(AdmissionTest):
    """What clients do not read is bounded in memory."""

    def get_httpserver_options(self) -> dict[str, Any]:
        return {"max_unread_bytes": 2 * Big.SIZE}

    async def test_sum_is_bounded_and_what_is_read_arrives(self) -> None:
        server: Any = self.http_server
        for _ in range(6):
            await self.connect(BIG * 9)
        await self.until(lambda: len(self.recorder.ended) >= 6)
        assert sum(len(each._write_buffer or b"") for each in server._streams) <= 2 * Big.SIZE
        assert len((await self.answer_to("/big")).body) == Big.SIZE
        await self.until(lambda: server._unread_bytes <= 2 * Big.SIZE)
        assert self.output.getvalue().count("Closing connections whose clients do not read") == 1

    async def test_one_large_answer_arrives(self) -> None:
        self.http_server._max_unread_bytes = 1024  # type: ignore[attr-defined]
        assert len((await self.answer_to("/big")).body) == Big.SIZE


class TestStalled(AdmissionTest):
    """It is bounded in time, too."""

    def get_httpserver_options(self) -> dict[str, Any]:
        return {"stall_timeout": 1.0}

    async def test_client_that_reads_slowly_is_waited_for(self) -> None:
        reader, _ = await self.connect(http("GET /big", "Connection: close"))
        size = 0
        # For longer than the timeout, but never stalled.
        while data := await reader.read(MIB):
            size += len(data)
            await asyncio.sleep(0.02)
        assert size > Big.SIZE

    async def test_client_that_pipelines_and_never_reads_is_cut(self) -> None:
        await self.connect(BIG * 9)
        server: Any = self.http_server
        await self.until(lambda: server._streams)
        await self.until(lambda: not (server._streams or server._connections))
        # Whatever else it has sent is for nobody.
        assert self.one().route == "/big"

    async def test_websocket_that_never_reads_is_cut(self) -> None:
        client = await self.websocket()
        assert client.protocol
        await self.until(lambda: self.app.runtime.open_websockets)
        (websocket,) = self.app.runtime.websockets
        websocket.write_message(b"x" * Big.SIZE)
        await self.until(lambda: not self.app.runtime.open_websockets)


class TestTimeout(AdmissionTest):
    environ = {"REQUEST_TIMEOUT_SECONDS": "0.01"}  # noqa: RUF012

    def test_handler_that_takes_too_long_is_cancelled(self) -> None:
        answer = self.fetch("/waiting")
        assert answer.code == 503
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert Waiting.cancelled == 1
        assert (self.one().status, self.one().error_type) == (503, "TimeoutError")
        assert (self.recorder.rejected, self.recorder.failed) == ([], [])
        # It goes on watching for as long as the service runs.
        assert [self.fetch("/waiting").code for _ in range(2)] == [503] * 2

    def test_handler_that_ignores_it_is_answered_for(self) -> None:
        assert self.fetch("/deaf").code == 503
        assert self.app.runtime.in_flight == 0
        Slow.release.set()

    def test_handler_that_has_not_begun_is_answered_for(self) -> None:
        self.app.runtime.eager_start = False
        assert self.fetch("/unbegun").code == 503
        assert (self.one().status, self.one().error_type) == (503, "TimeoutError")
        assert self.recorder.failed == []
        assert self.app.runtime.in_flight == 0

    def test_answer_that_has_begun_is_cut_off(self) -> None:
        with self.assertNoLogs(level="ERROR"):
            answer = self.raw(http("GET /started"))
        assert b"half of it" in answer
        assert not answer.endswith(b"0\r\n\r\n")
        assert (self.one().status, self.one().error_type) == (200, "TimeoutError")

    async def test_handler_may_have_more_time_or_no_limit(self) -> None:
        cases = ("GET", "/unhurried"), ("GET", "/patient"), ("PUT", "/patientupload")
        for method, path in cases:
            Slow.release.clear()
            body = "x" if method == "PUT" else None
            task = asyncio.create_task(self.answer_to(path, method=method, body=body))
            # The sweep that would end it has ended this one.
            assert (await self.answer_to("/waiting")).code == 503
            Slow.release.set()
            assert (await task).body == b"waited"

    async def test_websocket_has_no_limit(self) -> None:
        client = await self.websocket()
        await self.answer_to("/waiting")
        await client.write_message("hello")
        assert await client.read_message() == "hello"


class TestOwnTimeout(AdmissionTest):
    environ = {"REQUEST_TIMEOUT_SECONDS": "0"}  # noqa: RUF012

    async def test_handler_may_have_less_time(self) -> None:
        waiting = asyncio.create_task(self.answer_to("/waiting"))
        hasty = await self.answer_to("/hasty")
        Slow.release.set()
        assert (hasty.code, (await waiting).code) == (503, 200)


class TestRejection(AdmissionTest):
    def test_feature_may_reject(self) -> None:
        class Full(Feature):
            def reject(self, exchange: Exchange) -> Rejection | None:
                if exchange.method == "GET":
                    return None
                return Rejection(429, "Slow down", "rate", {"Retry-After": "7"})

        recorder = Recorder()
        self.observed_by(broken(Feature, "reject", RuntimeError)(), Full(), recorder)
        assert self.fetch("/").code == 200
        answer = self.fetch("/", method="DELETE")
        assert (answer.code, answer.headers["Retry-After"]) == (429, "7")
        assert json.loads(answer.body)["title"] == "Slow down"
        assert recorder.rejected == ["rate"]
        assert [each.status for each in recorder.ended] == [200, 429]


class TestLargeMessages(AdmissionTest):
    def make_service(self) -> Service:
        return Service(self.settings(), ROUTES, websocket_max_message_size=24 * MIB)

    async def test_message_may_be_as_large_as_its_setting(self) -> None:
        client = await self.websocket(max_message_size=24 * MIB)
        for message in ("x" * 20 * MIB, b"x" * 3 * MIB):
            await client.write_message(message, binary=isinstance(message, bytes))
            assert await client.read_message() == message


class TestWebSocketLimits(AdmissionTest):
    async def test_client_that_never_reads_is_cut_off(self) -> None:
        client = await self.websocket()
        # Not that of all together.
        without = mock.patch.object(websockets, "MAX_WEBSOCKET_BYTES", 10**9)
        with without, self.assertNoLogs(level="ERROR"), self.assertRaises(WebSocketClosedError):
            for _ in range(200):
                await client.write_message("x" * 262_144)
        assert self.recorder.failed == []

    async def test_message_over_the_limit_closes_the_connection(self) -> None:
        client = await self.websocket()
        await client.write_message("x" * (MIB + 1))
        assert await client.read_message() is None
        assert client.close_code == 1009

    async def test_what_clients_do_not_read_is_limited_together(self) -> None:
        def unread() -> int:
            streams = [
                getattr(each.ws_connection, "stream", None) for each in self.app.runtime.websockets
            ]
            return sum(len(each._write_buffer or "") for each in streams if each)

        self.http_server._max_unread_bytes = 1_000_000  # type: ignore[attr-defined]
        for _ in range(4):
            await self.websocket()
        for _ in range(2000):
            for websocket in list(self.app.runtime.websockets):
                with suppress(WebSocketClosedError):
                    websocket.write_message(b"x" * 65_536)
                assert unread() <= 1_000_000
            if self.app.runtime.open_websockets < 4:
                break
            await asyncio.sleep(0)
        assert self.app.runtime.open_websockets == 3

    @mock.patch.object(websockets, "MAX_WEBSOCKET_BYTES", 1_000_000)
    async def test_messages_that_arrive_are_limited_together(self) -> None:
        part = struct.pack("!BBQ", 0x02, 0xFF, 100_000) + bytes(4 + 100_000)
        begun = struct.pack("!BBQ", 0x00, 0xFF, 200_000) + bytes(4 + 199_999)
        streams: list[Any] = []
        for _ in range(4):
            client: Any = await self.websocket()
            streams.append(client.protocol.stream)
            await streams[-1].write(part + begun)
        await self.until(lambda: self.app.runtime.open_websockets == 3)
        # What is not yet a whole chunk of them does not count.
        assert self.app.runtime.websocket_bytes >= 3 * (300_000 - websockets.CHUNK_BYTES)
        assert self.app.runtime.websocket_bytes <= 900_000
        for stream in streams:
            stream.close()
        await self.until(lambda: not self.app.runtime.websocket_bytes)

    @mock.patch.object(websockets, "MAX_WEBSOCKET_BYTES", 1_000_000)
    async def test_messages_are_limited_together_as_they_are_held(self) -> None:
        # How many of ten reach their handlers, which then hold them.
        for count, message, compressed in (
            (5, b"x" * 200_000, False),
            (3, b"x" * 300_000, True),
            # As text, with one character that takes four bytes, each takes four.
            (3, "x" * 50_000 + "\N{GRINNING FACE}", False),
        ):
            assert await self.held(message, compressed) == count

    async def held(self, message: str | bytes, compressed: bool) -> int:
        Holding.messages.clear()
        Slow.release.clear()
        options: dict[str, Any] = {"compression_options": {}} if compressed else {}
        clients = [await self.websocket("/holding", **options) for _ in range(10)]
        for client in clients:
            await client.write_message(message, binary=isinstance(message, bytes))
        runtime = self.app.runtime
        await self.until(lambda: runtime.open_websockets == len(Holding.messages) < 10)
        assert runtime.websocket_bytes <= 1_000_000
        Slow.release.set()
        for client in clients:
            client.close()
        await self.until(lambda: not runtime.websockets)
        assert runtime.websocket_bytes == 0
        return len(Holding.messages)

    async def test_compressed_data_that_is_malformed_is_the_client_s_mistake(self) -> None:
        compressed = struct.pack("!BBL", 0xC1, 0x84, 0) + b"\xff" * 4
        client: Any = await self.websocket("/holding", compression_options={})
        with self.assertNoLogs(level="ERROR"):
            await client.protocol.stream.write(compressed)
            assert await client.read_message() is None
        await self.until(lambda: not self.app.runtime.websockets)
        assert self.recorder.failed == []

    def test_clients_are_pinged(self) -> None:
        assert 0 < self.app.settings["websocket_ping_timeout"] <= 30
        assert 0 < self.app.settings["websocket_ping_interval"] <= 30
