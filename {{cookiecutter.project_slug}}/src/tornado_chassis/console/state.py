"""What the console knows of the service: the pages read it, and show it."""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Mapping
from time import monotonic, time
from typing import Any
from weakref import WeakKeyDictionary

from ..admin import change_level
from ..client import Calls
from ..counts import Counts
from ..exchange import Exchange, correlation
from ..feature import Feature, Runtime
from ..health import checks
from ..settings import source
from ..settings.console import ConsoleSettings
from .profile import Profile
from .recorder import STACK, Recorder, Tail, keep_latest, short

TICKS = 10
"""How many times per second the lag of the event loop is measured."""

LOOK_SECONDS = 15
"""How often checks are run and tasks are looked at if nothing else does so."""

HISTORY = 20

log = logging.getLogger(__package__)


class State(Feature):
    """Records what happens."""

    needs = (Calls, Counts)

    def __init__(self, settings: ConsoleSettings) -> None:
        self.settings = settings
        #: In it, `{trace_id}` stands for the id of the trace that it leads to.
        self.trace_url: str | None = getattr(settings, "trace_url", None)
        self.started = time()
        self.recorder = Recorder(settings.service_package)
        self.tail = Tail(settings.console_token)
        self.runtime: Runtime
        #: The latest.
        self.profile: Profile | None = None
        #: By the name of the logger: the level that was found, the one that it was changed to, and
        #: the timer that changes it back.
        self.changed_levels: dict[str, tuple[int, int, asyncio.TimerHandle]] = {}
        #: When background work failed last, and with what, by its name.
        self.failed_work: dict[str, tuple[float, str]] = {}
        #: The latest results of each check, but only those that differ from the one before.
        self.history: dict[str, list[Mapping[str, Any]]] = {}
        #: How much each backend had accepted, and when that last changed.
        self.sent: dict[str, tuple[int, float]] = {}
        #: When each task was first seen, by `time.monotonic()`.
        self.tasks: WeakKeyDictionary[asyncio.Task[Any], float] = WeakKeyDictionary()
        self.rejected: Counter[str] = Counter()
        self.blocked: deque[dict[str, Any]] = deque(maxlen=HISTORY)
        self._ticks = 0
        self._lag = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def attach(self, runtime: Runtime) -> None:
        self.runtime = runtime
        root = logging.getLogger()
        for each in root.handlers[:]:
            if isinstance(each, Tail):
                root.removeHandler(each)
        root.addHandler(self.tail)

    async def startup(self) -> None:
        self.note_new_tasks()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(1 / TICKS, self._tick, loop.time() + 1 / TICKS)
        if self.settings.environment == "development" and self.settings.admin_port:
            host = self.settings.admin_host.partition(",")[0]
            # From all addresses, the one to open; and the token, which no other line shows.
            every = ("0.0.0.0", "::")
            host = "127.0.0.1" if host in every else f"[{host}]" if ":" in host else host
            # A default says nothing about who reads the log.
            token = self.settings.console_token if source(self.settings, "environment") else None
            opens_with = f"?token={token}" if token else ""
            if not (self.settings.console_token or self.settings.opens_without_token()):
                opens_with = ", once ENVIRONMENT=development is set"
            log.info("Console: http://%s:%d/%s", host, self.settings.admin_port, opens_with)

    async def shutdown(self) -> None:
        if self._timer:
            self._timer.cancel()
        for name in list(self.changed_levels):
            self.restore_level(name)
        if self.profile:
            self.profile.stopping.set()
        logging.getLogger().removeHandler(self.tail)

    def request_started(self, exchange: Exchange) -> None:
        if not exchange.is_probe:
            self.recorder.request_started(exchange)

    def request_failed(self, exchange: Exchange, error: BaseException) -> None:
        number = self.recorder.in_flight.get(exchange, 0)
        self.recorder.failed(error, str(exchange), number, exchange.request_id)

    def request_ended(self, exchange: Exchange) -> None:
        if not exchange.is_probe:
            self.recorder.request_ended(exchange)

    def background_failed(self, name: str, error: BaseException) -> None:
        self.recorder.failed(error, f"background work {name}", 0, "")
        failure = self.recorder.failures[-1]
        said = f"{failure.type}: {failure.message}"
        keep_latest(self.failed_work, name, (failure.time, said))

    def request_rejected(self, reason: str) -> None:
        self.rejected[reason] += 1

    def loop_blocked(self, incident: Any) -> None:
        names = "time", "duration", "line", "function", "route", "request_id"
        found = {name: getattr(incident, name) for name in names}
        file, stack = short(incident.file), incident.stack[-STACK:]
        self.blocked.append({**found, "file": file, "stack": stack})

    def call_ended(self, call: Any) -> None:
        ids = correlation.get()
        # Where there are spans, it is one of them.
        if ids and "trace_id" not in ids:
            self.recorder.call_ended(call, ids["request_id"])

    def span_ended(self, part: Any) -> None:
        self.recorder.span_ended(part)

    def set_level(self, name: str, level: int, seconds: float, who: str) -> None:
        """Changes a logger's level, and changes it back after this time."""
        logger = logging.getLogger(name)
        found = logger.level
        if before := self.changed_levels.pop(name, None):
            before[2].cancel()
            # What was there before both, but for a change that somebody else has made meanwhile.
            found = before[0] if before[1] == found else found
        timer = asyncio.get_running_loop().call_later(seconds, self.restore_level, name)
        self.changed_levels[name] = found, level, timer
        change_level(logger, level, f"{who} for {seconds:g} s")

    def restore_level(self, name: str) -> None:
        found, level, timer = self.changed_levels.pop(name)
        timer.cancel()
        logger = logging.getLogger(name)
        if logger.level == level:
            change_level(logger, found, "the console, as before")

    async def check(self) -> Mapping[str, Any]:
        """The result of each check. One that differs from the last is added to its history."""
        results = await checks.results(self.runtime.health)
        for name, result in results.items():
            history = self.history.setdefault(name, [])
            known = history[-1] if history else {}
            if any(known.get(key) != result.get(key) for key in ("status", "output")):
                self.history[name] = [*history, result][-HISTORY:]
        return results

    def note_new_tasks(self) -> set[asyncio.Task[Any]]:
        """All tasks. Each is noted when it is seen for the first time, as it has no time itself."""
        tasks = asyncio.all_tasks()
        now = monotonic()
        for task in tasks:
            self.tasks.setdefault(task, now)
        return tasks

    def _tick(self, due: float) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._lag = max(self._lag, now - due)
        self._ticks += 1
        if self._ticks % TICKS == 0:
            self.recorder.end_second(self._lag)
            self._lag = 0.0
            self._note_exports()
        if self._ticks % (TICKS * LOOK_SECONDS) == 0:
            self.note_new_tasks()
            self._checking = loop.create_task(self.check(), name="console checks")
        self._timer = loop.call_at(now + 1 / TICKS, self._tick, now + 1 / TICKS)

    def _note_exports(self) -> None:
        for each in self.runtime.exports():
            if each.sent and each.sent != self.sent.get(each.backend, (0,))[0]:
                self.sent[each.backend] = each.sent, time()
