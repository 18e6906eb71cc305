"""What every service counts besides its requests."""

import gc
from collections import Counter
from collections.abc import Iterable
from time import perf_counter

from .application import Application, Observer, Total

REASONS = "malformed", "overload", "timeout", "too_large"


class Refusals(Observer):
    """Counts requests that never reached their handler, by reason."""

    def __init__(self) -> None:
        # From the start, because a rate does not include the first value of a series.
        self._counts = Counter(dict.fromkeys(REASONS, 0))

    def request_refused(self, reason: str) -> None:
        self._counts[reason] += 1

    def totals(self) -> Iterable[Total]:
        name, meaning = "http_server_refused_requests", "Requests that never reached their handler."
        for reason, count in self._counts.items():
            yield name, meaning, count, {"reason": reason}


class WebSockets(Observer):
    """Shows the application's counts of WebSockets."""

    def attach(self, application: Application) -> None:
        self._application = application

    def totals(self) -> Iterable[Total]:
        for direction, count in self._application.websocket_messages.items():
            yield "websocket_messages", "Messages of WebSockets.", count, {"direction": direction}
        for code, count in self._application.websocket_closes.items():
            yield "websocket_closes", "WebSockets that were closed.", count, {"code": code}


class GarbageCollection(Observer):
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
