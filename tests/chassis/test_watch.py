"""What is logged and reported where something blocks the event loop."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from types import FrameType
from typing import Any
from unittest import mock

import pytest
from tornado_chassis import watch
from tornado_chassis.application import Application
from tornado_chassis.feature import Incident
from tornado_chassis.settings import read
from tornado_chassis.settings.setting import in_force
from tornado_chassis.watch import Watch, is_own

from . import routes
from .settings import Settings
from .testing import Process, RecordedTest, eventually, listening

LIMIT = 0.05


def frame_of(module: str, file: str) -> FrameType:
    """The frame of a function in a module of this name."""
    namespace: dict[str, Any] = {"__name__": module}
    exec(compile("import sys\ndef here(): return sys._getframe()", file, "exec"), namespace)
    frame: FrameType = namespace["here"]()
    return frame


class WatchTest(RecordedTest):
    def get_app(self) -> Application:
        app = super().get_app()
        (self.watch,) = [each for each in app.runtime.features if isinstance(each, Watch)]
        return app

    def incident(self, path: str) -> Incident:
        ids = (f"abc-{number}-" for number in count())
        return self.found(lambda: self.fetch(path, headers={"X-Request-ID": next(ids)}))

    def found(self, block: Callable[[], object]) -> Incident:
        """What is found where this blocks, again and again: a busy machine may hold the loop
        elsewhere, or the watching thread, which then has not seen most of it."""

        def is_found() -> list[Incident]:
            block()
            self.run_async(lambda: asyncio.sleep(0.1))
            seen = [each for each in self.recorder.blocked if each.duration > 0.3]
            return [each for each in seen if routes.__file__ in each.stack]

        return eventually(is_found)[0]


class TestWatch(WatchTest):
    environ = {"LOOP_BLOCKED_SECONDS": str(LIMIT)}  # noqa: RUF012

    def test_where_most_of_the_time_went(self) -> None:
        incident = self.incident("/blocking/call/400")
        line = routes.block.__code__.co_firstlineno + 1
        assert incident.place == f"{routes.__file__}:{line} in block"
        assert incident.route == "/blocking/{1}/{2}"
        assert incident.request_id.startswith("abc-")
        assert incident.duration > LIMIT
        assert abs(time.time() - incident.time) < 60
        assert "in get\n    block(seconds)" in incident.stack
        assert incident.stack.endswith("in block\n    time.sleep(seconds)\n")

    def test_function_of_a_computation_and_of_a_task(self) -> None:
        for how, function in (("compute", "compute"), ("task", "block")):
            self.recorder.clear()
            assert self.incident(f"/blocking/{how}/400").function == function

    def test_service_s_own_code_is_named_rather_than_what_it_calls(self) -> None:
        self.watch._package = "tornado.web"
        assert self.incident("/blocking/call/400").function == "_execute"

    def test_own_code_is_what_is_imported_from_its_package(self) -> None:
        library = "/orders/.venv/lib/python3/site-packages/library.py"
        for module, file, own in (
            ("orders", "a.py", True),
            ("orders.app", "/elsewhere/app.py", True),
            ("orders_too", "a.py", False),
            ("library", library, False),
            (watch.__name__, "a.py", False),
            # It is on every stack, and blocks nothing itself.
            ("orders.__main__", "/elsewhere/__main__.py", False),
        ):
            assert is_own(frame_of(module, file), "orders") is own, module

    def test_what_no_request_runs(self) -> None:
        async def blocking() -> None:
            await asyncio.sleep(LIMIT)
            routes.block(0.4)

        incident = self.found(lambda: self.run_async(blocking))
        assert (incident.function, incident.route, incident.request_id) == ("block", "", "")

    async def test_loop_that_waits_is_not_blocked_however_late_it_is(self) -> None:
        # It is in `select` when its timer is due, as if it had not got a processor.
        assert self.watch._timer
        self.watch._timer.cancel()
        await asyncio.sleep(4 * LIMIT)
        self.watch._beat()
        await asyncio.sleep(4 * LIMIT)
        # The machine itself may have held the loop, too.
        waited = [each for each in self.recorder.blocked if "in select" in each.stack[-200:]]
        assert waited == []

    def test_total(self) -> None:
        ((name, _, before),) = self.watch.totals()
        assert (name, before) == ("event_loop_blocked_seconds", 0)
        self.incident("/blocking/call/400")
        ((_, _, after),) = self.watch.totals()
        assert after >= sum(each.duration for each in self.recorder.blocked) > LIMIT

    def test_it_is_logged_once_with_its_stack(self) -> None:
        with self.assertLogs(watch.log) as logs:
            request_id = self.incident("/blocking/call/400").request_id
        (record,) = [record for record in logs.records if request_id in str(vars(record))]
        assert record.levelname == "WARNING"
        assert record.getMessage().startswith("The event loop was blocked for 0.")
        assert "in block" in str(record.stack_info)

    def test_what_hangs_is_logged_before_it_is_over(self) -> None:
        with mock.patch.object(watch, "HANGS_SECONDS", 0.0), self.assertLogs(watch.log) as logs:
            request_id = self.incident("/blocking/call/600").request_id
        first, last = [record for record in logs.records if request_id in str(vars(record))]
        assert first.levelname == "WARNING"
        assert "The event loop has been blocked so far for 0." in first.getMessage()
        assert last.levelname == "INFO"

    def test_thread_ends_with_the_service(self) -> None:
        assert self.watch._thread.is_alive()
        self.run_async(self.watch.shutdown)
        assert not self.watch._thread.is_alive()


class TestOff(WatchTest):
    environ = {"LOOP_BLOCKED_SECONDS": "0"}  # noqa: RUF012

    def test_there_is_no_thread(self) -> None:
        assert not self.watch._thread.is_alive()
        assert list(self.watch.totals()) == []


def incidents(running: Process) -> list[str]:
    return [line for line in running.output().splitlines() if "The event loop was blocked" in line]


def durations(running: Process) -> list[float]:
    return [float(re.findall(r"blocked for ([\d.]+) s", line)[0]) for line in incidents(running)]


def test_process_in_development_is_watched_by_default_but_not_while_it_starts() -> None:
    with listening(LOOP_BLOCKED_SECONDS="", STUBBORN="blocking") as running:

        def is_found() -> list[str]:
            running.fetch("/blocking/call/400")
            return [
                each for each in incidents(running) if "routes.py" in each and "in block" in each
            ]

        eventually(is_found, running.output)
        assert running.stop() == 0
        assert not [line for line in incidents(running) if "in start" in line]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux can pin a process")
def test_process_without_a_processor_has_blocked_nothing() -> None:
    if sys.platform == "win32":
        raise NotImplementedError
    hog = [sys.executable, "-c", "while True: pass"]
    with listening(LOOP_BLOCKED_SECONDS="0.02") as running, contextlib.ExitStack() as stack:
        running.fetch("/")
        for _ in range(4):
            hogging = stack.enter_context(subprocess.Popen(hog))
            stack.callback(hogging.kill)
            os.sched_setaffinity(hogging.pid, {0})
        os.sched_setaffinity(running.pid, {0})
        os.setpriority(os.PRIO_PROCESS, running.pid, 19)
        before = incidents(running)
        time.sleep(3)
        assert incidents(running) == before


def test_process_elsewhere_may_block_for_longer() -> None:
    limit = in_force(read(Settings, {"ENVIRONMENT": "production"}), "loop_blocked_seconds")
    with listening(LOOP_BLOCKED_SECONDS="", ENVIRONMENT="production") as running:
        running.fetch("/blocking/call/300")
        assert running.stop() == 0
        # A busy machine may have held the loop, too.
        assert min(durations(running), default=limit) >= limit > 0.3


def test_process_that_was_stopped_has_blocked_nothing() -> None:
    if sys.platform == "win32":
        pytest.skip("Windows has no such signals")
    with listening(LOOP_BLOCKED_SECONDS=str(LIMIT), ENVIRONMENT="x") as running:
        running.fetch("/")
        for _ in range(2):
            os.kill(running.pid, signal.SIGSTOP)
            time.sleep(40 * LIMIT)
            os.kill(running.pid, signal.SIGCONT)
            running.fetch("/")
        assert running.stop() == 0
        # A busy machine may have held the loop, too, but not for as long as a stop.
        assert max(durations(running), default=0.0) < 20 * LIMIT
