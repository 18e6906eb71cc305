"""Background work: when it starts, what becomes of its exceptions, and how it ends."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from unittest import mock

from tornado_chassis import background
from tornado_chassis.exchange import correlation
from tornado_chassis.server import finish, start

from .testing import SECONDS, RecordedTest, does, raises


class TestBackground(RecordedTest):
    def work(self, function: Callable[[], Awaitable[object]], **options: bool) -> None:
        self.service.background("work", function, **options)

    async def ended(self) -> background.Work:
        """The only work, once it has ended."""
        (work,) = self.app.runtime.background.works
        assert work.task
        await asyncio.wait({work.task}, timeout=SECONDS)
        return work

    async def delays(self, work: Callable[[], Awaitable[object]]) -> list[float]:
        """How long it waits each time before it starts this work again, until that returns."""
        delays: list[float] = []

        async def sleep(seconds: float) -> None:
            delays.append(seconds)

        with mock.patch("asyncio.sleep", sleep):
            self.work(work, restart=True)
            await self.ended()
        return delays

    async def test_starts_once_the_service_is_ready(self) -> None:
        states: list[str] = []
        await finish(self.service, self.io_loop.time())
        self.app.runtime.state = "starting"
        self.work(does(lambda: states.append(self.app.runtime.state)))
        await asyncio.sleep(0)
        assert states == []
        await start(self.service)
        await self.until(lambda: states)
        assert states == ["ready"]

    async def test_what_a_handler_starts_begins_at_once_and_is_no_part_of_its_request(self) -> None:
        seen: list[dict[str, str]] = []
        token = correlation.set({"request_id": "r1"})
        self.work(does(lambda: seen.append(dict(correlation.get()))))
        correlation.reset(token)
        await self.until(lambda: seen)
        assert seen == [{}]

    async def test_exception_or_cancellation_of_what_it_waits_for_is_logged_and_reported(
        self,
    ) -> None:
        for error in (ValueError("no queue"), asyncio.CancelledError("no queue")):
            self.recorder.clear()
            self.app.runtime.background.works.clear()
            with self.assertLogs(background.__name__, logging.ERROR) as logs:
                self.work(raises(error))
                added = await self.ended()
            assert (added.state, added.failures) == ("failed", 1)
            assert self.recorder.background == [("work", "no queue")]
            assert "Background work work failed" in logs.output[0]
            assert f"{type(error).__name__}: no queue" in logs.output[0]

    async def test_starts_again_where_asked_with_growing_delays(self) -> None:
        attempts = []

        async def work() -> None:
            attempts.append(1)
            if len(attempts) < 10:
                raise ValueError("no queue")

        assert await self.delays(work) == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        (added,) = self.app.runtime.background.works
        assert (added.state, added.failures) == ("ended", 9)
        assert len(self.recorder.background) == 9

    async def test_delay_is_short_again_after_a_long_run(self) -> None:
        clock = iter([0, 1, 1, 2, 2, 100, 100, 101, 101])

        async def work() -> None:
            if len(self.recorder.background) < 4:
                raise ValueError("no queue")

        with mock.patch.object(background, "monotonic", clock.__next__):
            assert await self.delays(work) == [1, 2, 1, 2]

    async def test_is_cancelled_before_the_shutdown_callbacks(self) -> None:
        ended = []
        started = asyncio.Event()

        async def work() -> None:
            started.set()
            try:
                await asyncio.sleep(3600)
            finally:
                ended.append("work")

        self.work(work)
        self.service.on_shutdown.append(does(lambda: ended.append("pool")))
        await started.wait()
        await finish(self.service, self.io_loop.time() + 5)
        assert ended == ["work", "pool"]
        self.service.on_shutdown.clear()

    async def test_work_that_does_not_stop_holds_nothing(self) -> None:
        released, started = asyncio.Event(), asyncio.Event()

        async def stubborn() -> None:
            started.set()
            while not released.is_set():
                try:
                    await released.wait()
                except asyncio.CancelledError:
                    continue

        self.work(stubborn)
        await started.wait()
        with self.assertLogs(background.__name__, logging.ERROR) as logs:
            await self.app.runtime.background.stop(0.01)
        released.set()
        await self.ended()
        assert "Background work work did not stop within 0.01 s" in logs.output[0]
