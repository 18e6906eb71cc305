"""Background work: when it starts, what becomes of its exceptions, and how it ends."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from unittest import mock

from my_service.chassis import background
from my_service.chassis.application import Application, Observer, correlation
from my_service.chassis.server import finish, start

from .testing import ChassisTest


class Failures(Observer):
    def __init__(self) -> None:
        self.failed: list[tuple[str, str]] = []

    def background_failed(self, name: str, error: BaseException) -> None:
        self.failed.append((name, str(error)))


class TestBackground(ChassisTest):
    def get_app(self) -> Application:
        super().get_app()
        self.failures = Failures()
        app = self.observed_by(self.failures)
        self.service.background_work = background.Background(app.report_background_failure)
        return app

    def work(self, function: Callable[[], Awaitable[object]], **options: bool) -> None:
        self.service.background("work", function, **options)

    def test_starts_once_the_service_is_ready(self) -> None:
        states = []

        async def work() -> None:
            states.append(self.app.state)

        async def run() -> None:
            await finish(self.service, self.io_loop.time())
            self.app.state = "starting"
            self.work(work)
            await asyncio.sleep(0)
            assert states == []
            await start(self.service)
            await self.until(lambda: states)

        self.run_async(run)
        assert states == ["ready"]

    def test_what_is_added_later_starts_at_once(self) -> None:
        done = asyncio.Event()

        async def work() -> None:
            done.set()

        async def run() -> None:
            self.work(work)
            await done.wait()

        self.run_async(run)

    def test_what_a_handler_starts_is_no_part_of_its_request(self) -> None:
        seen: list[dict[str, str]] = []

        async def work() -> None:
            seen.append(dict(correlation.get()))

        async def run() -> None:
            token = correlation.set({"request_id": "r1"})
            self.work(work)
            correlation.reset(token)
            await self.until(lambda: seen)

        self.run_async(run)
        assert seen == [{}]

    def test_exception_is_logged_and_reported(self) -> None:
        async def work() -> None:
            raise ValueError("no queue")

        async def run() -> None:
            self.work(work)
            (added,) = self.service.background_work.works
            assert added.task
            await asyncio.wait_for(added.task, 5)

        with self.assertLogs(background.__name__, logging.ERROR) as logs:
            self.run_async(run)
        assert self.failures.failed == [("work", "no queue")]
        assert "Background work work failed" in logs.output[0]
        assert "ValueError: no queue" in logs.output[0]
        (work_,) = self.service.background_work.works
        assert (work_.state, work_.failures) == ("failed", 1)

    def test_starts_again_where_asked_with_growing_delays(self) -> None:
        delays: list[float] = []
        attempts = []

        async def work() -> None:
            attempts.append(1)
            if len(attempts) < 10:
                raise ValueError("no queue")

        async def sleep(seconds: float) -> None:
            delays.append(seconds)

        async def run() -> None:
            with mock.patch("asyncio.sleep", sleep):
                self.work(work, restart=True)
                (added,) = self.service.background_work.works
                assert added.task
                await added.task
            assert (added.state, added.failures) == ("ended", 9)

        self.run_async(run)
        assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        assert len(self.failures.failed) == 9

    def test_delay_is_short_again_after_a_long_run(self) -> None:
        delays: list[float] = []
        clock = iter([0, 1, 1, 2, 2, 100, 100, 101, 101])

        async def work() -> None:
            if len(delays) < 4:
                raise ValueError("no queue")

        async def sleep(seconds: float) -> None:
            delays.append(seconds)

        async def run() -> None:
            with (
                mock.patch("asyncio.sleep", sleep),
                mock.patch.object(background, "monotonic", clock.__next__),
            ):
                self.work(work, restart=True)
                (added,) = self.service.background_work.works
                assert added.task
                await added.task

        self.run_async(run)
        assert delays == [1, 2, 1, 2]

    def test_is_cancelled_before_the_shutdown_callbacks(self) -> None:
        ended = []
        started = asyncio.Event()

        async def work() -> None:
            started.set()
            try:
                await asyncio.sleep(3600)
            finally:
                ended.append("work")

        async def close_pool() -> None:
            ended.append("pool")

        async def run() -> None:
            self.work(work)
            self.service.on_shutdown.append(close_pool)
            await started.wait()
            await finish(self.service, self.io_loop.time() + 5)

        self.run_async(run)
        assert ended == ["work", "pool"]
        self.service.on_shutdown.clear()

    def test_work_that_does_not_stop_holds_nothing(self) -> None:
        released, started = asyncio.Event(), asyncio.Event()

        async def stubborn() -> None:
            started.set()
            while not released.is_set():
                try:
                    await released.wait()
                except asyncio.CancelledError:
                    continue

        async def run() -> None:
            self.work(stubborn)
            await started.wait()
            await self.service.background_work.stop(0.01)
            released.set()
            (work,) = self.service.background_work.works
            assert work.task
            await work.task

        with self.assertLogs(background.__name__, logging.ERROR) as logs:
            self.run_async(run)
        assert "Background work work did not stop within 0.01 s" in logs.output[0]
