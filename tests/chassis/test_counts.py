"""What is counted beside the requests."""

import asyncio
import gc
import time
from collections.abc import Mapping
from time import perf_counter
from typing import Any

from tornado_chassis.counts import MAX_NAMES
from tornado_chassis.feature import Feature

from .routes import Echo
from .testing import ChassisTest, RecordedTest, http

POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

#: Requests that never reach their handler, by the reason.
REFUSED = [
    ("malformed", b"secret\r\n\r\n"),
    ("malformed", b"GET / HTTP/1.1\r\nsecret\r\n\r\n"),
    ("malformed", b"GET /secret HTTP/1.1\r\n\r\n"),
    ("malformed", POST + b"Content-Length: secret\r\n\r\n"),
    ("malformed", POST + b"Transfer-Encoding: secret\r\n\r\n"),
    ("malformed", CHUNKED + b"secret\r\n"),
    ("too_large", POST + b"Content-Length: 999999\r\n\r\nsecret"),
    ("too_large", CHUNKED + (b"200\r\n" + b"x" * 512 + b"\r\n") * 4),
    ("too_large", b"GET / HTTP/1.1\r\nsecret: " + b"x" * 9999),
    ("timeout", POST + b"Content-Length: 9\r\n\r\nsecret"),
    ("timeout", b"GET /secret HTTP/1.1\r\nHost: a\r\n"),
]


class CountsTest(ChassisTest):
    def totals(self, name: str) -> list[tuple[Mapping[str, str], float]]:
        return [
            (labels, total) for its, _, total, labels in self.app.runtime.totals() if its == name
        ]

    def total(self, name: str, label: str) -> float:
        (total,) = [total for labels, total in self.totals(name) if label in labels.values()]
        return total


class TestRefusals(RecordedTest, CountsTest):
    def get_httpserver_options(self) -> dict[str, object]:
        limits = {"max_header_size": 2048, "idle_connection_timeout": 0.2, "body_timeout": 0.2}
        return {**super().get_httpserver_options(), **limits}

    def test_refusals_are_counted_by_reason_and_logged_without_the_request(self) -> None:
        counts = dict.fromkeys(("malformed", "overload", "timeout", "too_large"), 0)
        for reason, request in REFUSED:
            self.recorder.clear()
            self.raw(request)
            self.run_async(lambda: self.until(lambda: self.recorder.rejected))
            assert self.recorder.rejected == [reason], request
            counts[reason] += 1
            refused = [line for line in self.lines() if "Rejected a request: " in line]
            assert len(refused) <= sum(counts.values())
            assert "secret" not in self.output.getvalue()
            totals = [({"reason": each}, count) for each, count in counts.items()]
            assert self.totals("http_server_refused_requests") == totals

    def test_idle_connection_is_no_refusal(self) -> None:
        self.raw(http("GET /"))
        self.raw(b"")
        assert self.recorder.rejected == []

    async def test_client_that_goes_away_is_no_refusal(self) -> None:
        _, writer = await self.connect(POST + b"Content-Length: 9\r\n\r\nhalf")
        await self.until(lambda: self.http_server._connections)
        writer.close()
        await self.until(lambda: not self.http_server._connections)
        assert self.recorder.rejected == []

    async def test_upload_that_has_reached_its_handler_is_no_refusal(self) -> None:
        for rest in (b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b"Content-Length: 9\r\n\r\nhalf"):
            reader, writer = await self.connect(b"PUT /upload HTTP/1.1\r\nHost: a\r\n" + rest)
            await reader.read()
            writer.close()
        await self.until(lambda: not self.http_server._connections)
        assert [each.status for each in self.recorder.ended] == [400, 408]
        assert self.recorder.rejected == []

    def test_answer_of_a_handler_is_no_refusal(self) -> None:
        self.fetch("/nowhere")
        self.fetch("/status/413")
        assert self.recorder.rejected == []


class TestWebSockets(CountsTest):
    async def test_open_websockets_and_their_messages(self) -> None:
        first, second = await self.websocket(), await self.websocket()
        await self.until(lambda: self.app.runtime.open_websockets == 2)
        for message in ("one", b"two"):
            await first.write_message(message, binary=isinstance(message, bytes))
            assert await first.read_message() == message
        assert self.totals("websocket_messages") == [
            ({"direction": "received"}, 2),
            ({"direction": "sent"}, 2),
        ]
        first.close()
        await self.until(lambda: self.app.runtime.open_websockets == 1)
        second.close()
        await self.until(lambda: self.app.runtime.open_websockets == 0)

    async def test_close_codes(self) -> None:
        codes = (1000, 1001, 1001, 1014, 3000, 4321, 4999, None)
        Echo.closed.clear()
        for code in codes:
            client = await self.websocket()
            client.close(code, "why" if code else None)
            await client.read_message()
        await self.until(lambda: len(Echo.closed) == len(codes))
        assert self.totals("websocket_closes") == [
            ({"code": "1000"}, 1),
            ({"code": "1001"}, 2),
            ({"code": "1014"}, 1),
            ({"code": "3xxx"}, 1),
            ({"code": "4xxx"}, 2),
            ({"code": "none"}, 1),
        ]
        # The handler sees them, too.
        assert Echo.closed == [(code, "why" if code else None) for code in codes]

    async def test_lost_connection_and_failing_handler(self) -> None:
        lost: Any = await self.websocket()
        lost.protocol.stream.close()
        failing = await self.websocket()
        await failing.write_message("boom")
        assert await failing.read_message() is None
        await self.until(lambda: self.totals("websocket_closes") == [({"code": "none"}, 2)])
        assert self.app.runtime.open_websockets == 0


class TestBackgroundWork(CountsTest):
    async def test_failures_by_name_from_zero(self) -> None:
        async def fail() -> None:
            raise ValueError

        async def wait() -> None:
            await asyncio.Event().wait()

        self.service.background("mail", fail)
        self.service.background("post", wait)
        await self.until(lambda: self.app.runtime.background.works[0].failures)
        counted = [({"work": "mail"}, 1), ({"work": "post"}, 0)]
        assert sorted(self.totals("background_failures"), key=str) == counted

    def test_names_are_bounded(self) -> None:
        for number in range(MAX_NAMES + 5):
            self.app.runtime.notify(Feature.background_failed, f"mail {number}", ValueError())
        assert len(self.totals("background_failures")) == MAX_NAMES + 1
        assert self.total("background_failures", "_OTHER") == 5


class TestGarbageCollection(CountsTest):
    def test_pauses(self) -> None:
        def pauses() -> dict[str, float]:
            totals = self.totals("python_gc_pause_seconds")
            return {labels["generation"]: total for labels, total in totals}

        # No other collection, which could come between two readings of the clock.
        gc.disable()
        self.addCleanup(gc.enable)
        for generation in (0, 0, 2):
            before = pauses()
            # A time that is no pause.
            time.sleep(0.01)
            started = perf_counter()
            gc.collect(generation)
            passed = perf_counter() - started
            after, name = pauses(), str(generation)
            assert before[name] < after[name] <= before[name] + passed
            assert {**after, name: 0} == {**before, name: 0}

    def test_nothing_is_left_behind(self) -> None:
        def callbacks() -> list[str]:
            return [each for each in map(str, gc.callbacks) if "counts.Counts" in each]

        assert len(callbacks()) == 1
        for observer in self.app.runtime.features:
            self.run_async(observer.shutdown)
        assert callbacks() == []
