"""Work that goes on in the background, for as long as the service runs."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass
from time import monotonic
from typing import Any

from .exchange import is_cancelled

FIRST_DELAY_SECONDS = 1.0
MAX_DELAY_SECONDS = 60.0

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Work:
    """A piece of background work and its state."""

    name: str
    function: Callable[[], Awaitable[Any]]
    #: Whether it is restarted after an exception.
    restart: bool
    #: `waiting`, `running`, `failed`, `ended`, or `restarting` until it is started again.
    state: str = "waiting"
    #: When it last began, by `time.monotonic()`.
    started: float = 0.0
    #: How often it has ended with an exception.
    failures: int = 0
    task: "asyncio.Task[None] | None" = None


class Background:
    """Starts the work once the service is ready, and cancels it when the service stops.

    `report` is called with the name of the work and the exception that ended it.
    """

    def __init__(self, report: Callable[[str, BaseException], None]) -> None:
        self.works: list[Work] = []
        self._report = report
        self._is_running = False

    def add(self, name: str, function: Callable[[], Awaitable[Any]], restart: bool) -> None:
        work = Work(name, function, restart)
        self.works.append(work)
        if self._is_running:
            self._start(work)

    def start(self) -> None:
        self._is_running = True
        for work in self.works:
            self._start(work)

    async def stop(self, seconds: float) -> None:
        """Cancels all work, and waits at most `seconds` for it to end."""
        self._is_running = False
        tasks = {work.task for work in self.works if work.task}
        for task in tasks:
            task.cancel()
        _, late = await asyncio.wait(tasks, timeout=seconds) if tasks else (tasks, set())
        for task in late:
            log.error("Background work %s did not stop within %g s", task.get_name(), seconds)

    def _start(self, work: Work) -> None:
        # In a new context: work that a handler starts is not part of the handler's request.
        work.task = asyncio.create_task(self._run(work), name=work.name, context=Context())

    async def _run(self, work: Work) -> None:
        delay = FIRST_DELAY_SECONDS
        while True:
            work.state = "running"
            work.started = monotonic()
            try:
                await work.function()
                work.state = "ended"
                return
            except (Exception, asyncio.CancelledError) as error:
                if is_cancelled():
                    raise
                work.state = "failed"
                work.failures += 1
                log.exception("Background work %s failed", work.name)
                self._report(work.name, error)
            if not work.restart:
                return
            work.state = "restarting"
            if monotonic() - work.started > MAX_DELAY_SECONDS:
                delay = FIRST_DELAY_SECONDS
            log.info("Background work %s restarts in %g s", work.name, delay)
            await asyncio.sleep(delay)
            delay = min(2 * delay, MAX_DELAY_SECONDS)
