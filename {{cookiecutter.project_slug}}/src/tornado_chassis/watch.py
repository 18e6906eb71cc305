"""Names what blocks the event loop.

While a function computes, or waits in a call that blocks, nothing else runs: no request, no timer,
no probe. asyncio's debug mode names only the function that runs every handler, and only afterwards.
"""

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from itertools import islice
from types import FrameType

from tornado.web import RequestHandler

from .exchange import correlation
from .feature import Feature, Incident, Runtime
from .settings.server import ServerSettings
from .settings.setting import in_force

HANGS_SECONDS = 5.0
"""After this time it is logged without waiting for the end, which may never come."""

MAX_FRAMES = 50

_WAITING = ("selectors", f"{__package__}.process")
"""Where the loop is if it runs nothing; the second one if it is not written in Python."""

_EXECUTE = RequestHandler._execute.__code__
_RUN = asyncio.Handle._run.__code__

log = logging.getLogger(__name__)


class Watch(Feature):
    """Watches the event loop from a thread, and logs what blocked it."""

    def __init__(self, settings: ServerSettings) -> None:
        self._limit = float(in_force(settings, "loop_blocked_seconds"))
        self._package = settings.service_package
        self._interval = self._limit / 4
        self._blocked_seconds = 0.0
        self._runtime: Runtime
        self._loop: asyncio.AbstractEventLoop
        self._loop_thread = 0
        self._clock: int | None = None
        self._stat = ""
        self._timer: asyncio.TimerHandle | None = None
        #: When the loop should run again. Written by the loop, read by the thread.
        self._due = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="Watch", daemon=True)

    def attach(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def startup(self) -> None:
        if self._limit:
            self._loop = asyncio.get_running_loop()
            self._loop_thread = threading.get_ident()
            self._stat = f"/proc/self/task/{threading.get_native_id()}/stat"
            if hasattr(time, "pthread_getcpuclockid"):
                self._clock = time.pthread_getcpuclockid(self._loop_thread)
            self._beat()
            self._thread.start()

    async def shutdown(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._stopping.set()
            self._thread.join()

    def totals(self) -> Iterable[tuple[str, str, float]]:
        if self._limit:
            yield (
                "event_loop_blocked_seconds",
                "How long the event loop was blocked, by more than LOOP_BLOCKED_SECONDS at a time.",
                self._blocked_seconds,
            )

    def _beat(self) -> None:
        self._due = time.monotonic() + self._interval
        self._timer = self._loop.call_later(self._interval, self._beat)

    def _watch(self) -> None:
        since = 0.0
        while True:
            due, used, now = self._due, self._used(), time.monotonic()
            wake_at = max(due + self._limit, now + self._limit / 10)
            if self._stopping.wait(wake_at - now):
                return
            if self._runtime.state == "starting":
                since = time.monotonic()  # Nobody waits yet.
            elif self._due == due and time.monotonic() >= due + self._limit:
                self._sample_loop(due, max(due, since), used, wake_at)

    def _sample_loop(self, due: float, since: float, used: float, wake_at: float) -> None:
        """Samples where the loop is, until it runs again.

        It is late since `since`. It had used this much processor time before this thread went to
        sleep until `wake_at`.
        """
        began = time.time() - (time.monotonic() - since)
        samples: dict[tuple[str, int | None], _Sample] = {}
        is_logged = False
        now, idle = since, since - due
        while self._due == due:
            before, used_before = now, used
            now, used = time.monotonic(), self._used()
            # As this thread is, too: nobody got a processor, or the process was stopped.
            is_late = now > wake_at + self._limit
            seconds = now - before
            if frame := sys._current_frames().get(self._loop_thread):
                if frame.f_globals.get("__name__") in _WAITING:
                    seconds = 0.0
                elif is_late or self._is_runnable():
                    seconds = min(seconds, used - used_before)
                if seconds:
                    sample = _Sample(frame, self._package)
                    place = sample.place.filename, sample.place.lineno
                    samples.setdefault(place, sample).seconds += seconds
                del frame  # which would keep everything that it refers to
            idle += now - before - seconds
            late = now - due - idle
            if late > HANGS_SECONDS and samples and not is_logged:
                is_logged = True
                most = max(samples.values(), key=lambda each: each.seconds)
                _log(most.incident(began, late), "has been blocked so far", logging.WARNING)
            # Less often, the longer it takes.
            wait = max(self._limit / 10, late / 20)
            # From the time that was read above: the process may have been stopped since.
            wake_at = now + wait
            if self._stopping.wait(wait):
                return
        ended = self._due - self._interval
        if time.monotonic() > wake_at + self._limit:  # The loop was first to run again.
            idle += max(ended - now - (self._used() - used), 0.0)
        duration = ended - due - idle
        if samples and duration > self._limit:
            self._blocked_seconds += duration
            most = max(samples.values(), key=lambda each: each.seconds)
            incident = most.incident(began, duration)
            _log(incident, "was blocked", logging.INFO if is_logged else logging.WARNING)
            notify = self._runtime.notify
            self._loop.call_soon_threadsafe(notify, Feature.loop_blocked, incident)

    def _used(self) -> float:
        """Processor time of the loop's thread, in seconds; elsewhere than on Linux, of all."""
        if sys.platform == "win32" or self._clock is None:
            return time.process_time()
        return time.clock_gettime(self._clock)

    def _is_runnable(self) -> bool:
        """Whether the loop's thread is not waiting for anything but a processor."""
        try:
            with open(self._stat, "rb") as file:
                return b") R " in file.read()
        except OSError:
            return False


class _Sample:
    """Where the loop was at some time; does not keep the frame."""

    route = ""
    request_id = ""

    def __init__(self, frame: FrameType, package: str) -> None:
        self.seconds = 0.0
        frames = list(islice(traceback.walk_stack(frame), MAX_FRAMES))
        # Without the source lines, which would have to be read from disk.
        self.stack = traceback.StackSummary.extract(reversed(frames), lookup_lines=False)
        own = (index for index, (each, _) in enumerate(frames) if is_own(each, package))
        self.place = self.stack[-1 - next(own, 0)]
        for each, _ in traceback.walk_stack(frame):
            self._recognise(each)
            if self.request_id:
                break

    def incident(self, began: float, duration: float) -> Incident:
        """What blocked the loop, if it was here for most of the time."""
        file, line, function = self.place.filename, self.place.lineno or 0, self.place.name
        stack = "".join(self.stack.format())
        ids = self.route, self.request_id
        return Incident(began, duration, file, line, function, *ids, stack)

    def _recognise(self, frame: FrameType) -> None:
        """Learns from a frame which exchange it runs for, if the frame has one."""
        if frame.f_code is _EXECUTE:
            request = getattr(frame.f_locals.get("self"), "request", None)
            exchange = getattr(getattr(request, "connection", None), "exchange", None)
            if exchange:
                self.route, self.request_id = exchange.route, exchange.request_id
        elif frame.f_code is _RUN:
            # A task or a callback that an exchange has started, and that runs in its context.
            context = getattr(frame.f_locals.get("self"), "_context", None)
            if context:
                self.request_id = context.get(correlation, {}).get("request_id", "")


def is_own(frame: FrameType, package: str) -> bool:
    """Whether a frame runs code of this package, except for its entry point, which is on every
    stack."""
    module = str(frame.f_globals.get("__name__"))
    is_within = module == package or module.startswith(f"{package}.")
    return is_within and module != f"{package}.__main__"


def _log(incident: Incident, did: str, level: int) -> None:
    if log.isEnabledFor(level):
        message = "The event loop %s for %.3f s by %s"
        arguments = did, incident.duration, incident.place
        ids = {"http.route": incident.route, "request_id": incident.request_id}
        extra = {name: value for name, value in ids.items() if value}
        where, stack = (incident.file, incident.line), incident.stack.rstrip()
        record = log.makeRecord(
            log.name, level, *where, message, arguments, None, incident.function, extra, stack
        )
        log.handle(record)
