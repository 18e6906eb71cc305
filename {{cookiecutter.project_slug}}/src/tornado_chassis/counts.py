"""What features that show counts need besides those of requests."""

import gc
import mmap
from collections import Counter
from collections.abc import Iterable
from time import perf_counter

from .feature import Feature, Runtime, Total

REASONS = "malformed", "overload", "timeout", "too_large"

MAX_NAMES = 100
"""How many names of background work are told apart; the others are `_OTHER`."""

_MEMORY = "/proc/self/statm"


def resident_memory() -> int | None:
    """In bytes; None if the system does not report it, as only Linux does."""
    try:
        with open(_MEMORY, "rb") as pages:
            return int(pages.read().split()[1]) * mmap.PAGESIZE
    except OSError:
        return None


class Rejections(Feature):
    """Counts requests that never reached their handler, by reason."""

    def __init__(self) -> None:
        # From the start, because a rate does not include the first value of a series.
        self._counts = Counter(dict.fromkeys(REASONS, 0))

    def request_rejected(self, reason: str) -> None:
        self._counts[reason] += 1

    def totals(self) -> Iterable[Total]:
        name, meaning = "http_server_refused_requests", "Requests that never reached their handler."
        for reason, count in self._counts.items():
            yield name, meaning, count, {"reason": reason}


class WebSockets(Feature):
    """Shows the counts of WebSockets."""

    def attach(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def totals(self) -> Iterable[Total]:
        for direction, count in self._runtime.websocket_messages.items():
            yield "websocket_messages", "Messages of WebSockets.", count, {"direction": direction}
        for code, count in self._runtime.websocket_closes.items():
            yield "websocket_closes", "WebSockets that were closed.", count, {"code": code}


class BackgroundWork(Feature):
    """Counts exceptions that ended background work, by its name."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def attach(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def background_failed(self, name: str, error: BaseException) -> None:
        self._add(name, 1)

    def totals(self) -> Iterable[Total]:
        for work in self._runtime.background.works:
            self._add(work.name, 0)
        name, meaning = "background_failures", "Exceptions that ended background work."
        for work_name, count in self._counts.items():
            yield name, meaning, count, {"work": work_name}

    def _add(self, name: str, number: int) -> None:
        is_known = name in self._counts or len(self._counts) < MAX_NAMES
        self._counts[name if is_known else "_OTHER"] += number


class GarbageCollection(Feature):
    """Adds up how long garbage collection stopped everything else, by generation."""

    def __init__(self) -> None:
        self._seconds = [0.0] * len(gc.get_count())
        self._started = 0.0

    async def startup(self) -> None:
        gc.callbacks.append(self._collected)

    async def shutdown(self) -> None:
        if self._collected in gc.callbacks:
            gc.callbacks.remove(self._collected)

    def totals(self) -> Iterable[Total]:
        name, meaning = "python_gc_pause_seconds", "How long garbage collection took."
        for generation, seconds in enumerate(self._seconds):
            yield name, meaning, seconds, {"generation": str(generation)}

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._started = perf_counter()
        else:
            self._seconds[info["generation"]] += perf_counter() - self._started


COUNTS = (Rejections, WebSockets, BackgroundWork, GarbageCollection)
