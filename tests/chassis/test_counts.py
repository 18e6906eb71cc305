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
from .testing import ChassisTest, RecordedTest, http, raises


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
        limits = {"max_header_size": 2048, "idle_connection_timeout": 2, "body_timeout": 2}
        return {**super().get_httpserver_options(), **limits}

    async def test_what_else_ends_is_no_refusal(self) -> None:
        async def say_no_more(sent: bytes) -> None:
            reader, _ = await self.connect(sent)
            await reader.read()

        _, writer = await self.connect(http("POST /", body=b"half", size=9))
        await self.until(lambda: self.http_server._connections)
        writer.close()  # the client goes away
        for path in ("/nowhere", "/status/413"):
            await self.answer_to(path)
        # An upload that has reached its handler.
        await say_no_more(http("PUT /upload", "Transfer-Encoding: chunked") + b"zz\r\n")
        # All of which time out.
        sent = b"", http("GET /"), http("PUT /upload", body=b"half", size=9)
        await asyncio.gather(*map(say_no_more, sent))
        self.http_client.close()
        await self.until(lambda: not self.http_server._connections)
        assert [each.status for each in self.recorder.ended] == [404, 413, 400, 200, 408]
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
        self.service.background("mail", raises(ValueError()))
        self.service.background("post", asyncio.Event().wait)
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
            time.sleep(0.01)  # which is no pause
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
