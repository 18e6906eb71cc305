"""What features that show counts need besides those of requests."""

import gc
import mmap
from collections import Counter
from collections.abc import Iterable, Mapping
from time import perf_counter
from typing import Any

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


def _each(name: str, description: str, label: str, counts: Mapping[Any, float]) -> Iterable[Total]:
    for value, total in counts.items():
        yield name, description, total, {label: str(value)}


class Counts(Feature):
    """Counts what no handler sees: rejected requests, failures of background work, and how long
    garbage collection stopped everything else. Shows the counts of WebSockets, too."""

    def __init__(self) -> None:
        # From the start, because a rate does not include the first value of a series.
        self._rejections = Counter(dict.fromkeys(REASONS, 0))
        self._failures: Counter[str] = Counter()
        #: In seconds, by generation.
        self._pauses = dict.fromkeys(range(len(gc.get_count())), 0.0)
        self._started = 0.0

    def attach(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def startup(self) -> None:
        gc.callbacks.append(self._collected)

    async def shutdown(self) -> None:
        if self._collected in gc.callbacks:
            gc.callbacks.remove(self._collected)

    def request_rejected(self, reason: str) -> None:
        self._rejections[reason] += 1

    def background_failed(self, name: str, error: BaseException) -> None:
        self._add_failures(name, 1)

    def totals(self) -> Iterable[Total]:
        runtime = self._runtime
        for work in runtime.background.works:
            self._add_failures(work.name, 0)
        refused = "Requests that never reached their handler."
        yield from _each("http_server_refused_requests", refused, "reason", self._rejections)
        messages, closes = runtime.websocket_messages, runtime.websocket_closes
        yield from _each("websocket_messages", "Messages of WebSockets.", "direction", messages)
        yield from _each("websocket_closes", "WebSockets that were closed.", "code", closes)
        failed = "Exceptions that ended background work."
        yield from _each("background_failures", failed, "work", self._failures)
        paused = "How long garbage collection took."
        yield from _each("python_gc_pause_seconds", paused, "generation", self._pauses)

    def _add_failures(self, name: str, number: int) -> None:
        is_known = name in self._failures or len(self._failures) < MAX_NAMES
        self._failures[name if is_known else "_OTHER"] += number

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._started = perf_counter()
        else:
            self._pauses[info["generation"]] += perf_counter() - self._started
