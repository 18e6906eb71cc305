"""What the console remembers: the most recent data, in a fixed amount of memory.

The request path appends a tuple and counts. Everything that takes longer waits until somebody
looks.
"""

import logging
import traceback
from collections import deque
from math import exp, log
from time import time
from types import TracebackType
from typing import Any, NamedTuple

from ..counts import resident_memory
from ..exchange import Exchange, correlation
from ..values import extra, message, name_of, stack, text, trace, traceback_of
from ..watch import is_own

REQUESTS = 500
FAILURES = 100
SPANS = 1800
LINES = 1000
LINE_CHARACTERS = 512 * 1024
SECONDS = 15 * 60

# Limits of an entry. Characters beyond ASCII take up to four bytes, so fewer of them are kept.
PATH, MESSAGE, STACK = 256, 1000, 4000

# Durations are counted in buckets that are each 15 % wider than the one before.
_FIRST, _WIDTH, _BUCKETS = 1e-5, 1.15, 124
_SCALE = 1 / log(_WIDTH)
_SHIFT = -log(_FIRST) * _SCALE


class Request(NamedTuple):
    number: int
    #: When it ended, in seconds since 1970.
    time: float
    method: str
    route: str
    path: str
    status: int
    #: Seconds.
    duration: float
    ids: dict[str, str]
    client: str
    user_agent: str


class Failure(NamedTuple):
    number: int
    time: float
    type: str
    message: str
    #: The route, or the name of background work.
    where: str
    #: The innermost line of the service's own code.
    place: str
    stack: str
    request_id: str


class Span(NamedTuple):
    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    #: Nanoseconds since 1970.
    started: int
    ended: int
    #: Why it failed; empty if it did not.
    error: str = ""
    attributes: str = ""


class Line(NamedTuple):
    number: int
    time: float
    level: int
    logger: str
    message: str
    request_id: str
    fields: str
    stack: str


class Second(NamedTuple):
    """What happened within one second; durations and the lag in seconds, memory in bytes."""

    time: float
    requests: int
    errors: int
    p50: float | None
    p95: float | None
    p99: float | None
    in_flight: int
    lag: float
    memory: int | None


class Histogram:
    """Counts of durations; each quantile is accurate to 15 %."""

    __slots__ = ("buckets", "count", "errors")

    def __init__(self) -> None:
        self.count = 0
        self.errors = 0
        self.buckets = [0] * _BUCKETS

    def quantile(self, ratio: float) -> float | None:
        rank, seen = ratio * self.count, 0
        for index, count in enumerate(self.buckets):
            seen += count
            if count and seen >= rank:
                return exp((index + 0.5 - _SHIFT) / _SCALE)
        return None


class Recorder:
    def __init__(self, package: str) -> None:
        self._package = package
        #: The number of each request in flight, oldest first.
        self.in_flight: dict[Exchange, int] = {}
        self.requests: deque[tuple[Any, ...]] = deque(maxlen=REQUESTS)
        self.failures: deque[Failure] = deque(maxlen=FAILURES)
        #: How often, when first, and the latest, by type, route and place.
        self.errors: dict[tuple[str, str, str], tuple[int, float, Failure]] = {}
        self.spans: deque[Span] = deque(maxlen=SPANS)
        self.seconds: deque[Second] = deque(maxlen=SECONDS)
        self.routes: dict[tuple[str, str], Histogram] = {}
        self.total = 0
        self._second = Histogram()

    def request_started(self, exchange: Exchange) -> None:
        self.total += 1
        self.in_flight[exchange] = self.total

    def request_ended(self, exchange: Exchange) -> None:
        request, duration = exchange.request, exchange.duration
        path, agents = request.path, request.headers.get_list("User-Agent")
        # The exchange itself would keep its body and its connection alive.
        self.requests.append(
            (
                self.in_flight.pop(exchange, 0),
                time(),
                exchange.method,
                exchange.route,
                path if len(path) < PATH and path.isascii() else _bounded(path, PATH),
                exchange.status,
                duration,
                exchange.ids,
                request.remote_ip,
                _bounded(agents[0], PATH) if agents else "",
            )
        )
        key = exchange.method, exchange.route
        route = self.routes.get(key) or self.routes.setdefault(key, Histogram())
        bucket = min(max(int(log(duration or _FIRST) * _SCALE + _SHIFT), 0), _BUCKETS - 1)
        second = self._second
        route.count += 1
        second.count += 1
        route.buckets[bucket] += 1
        second.buckets[bucket] += 1
        if exchange.status >= 500 or exchange.error is not None:
            route.errors += 1
            second.errors += 1

    def failed(self, error: BaseException, where: str, number: int, request_id: str) -> None:
        kind, place = name_of(error), place_of(traceback_of(error), self._package)
        said, trace = _bounded(text(error), MESSAGE), _bounded(stack(error), -STACK)
        failure = Failure(number, time(), kind, said, where, place, trace, request_id)
        self.failures.append(failure)
        key = kind, where, place
        count, first, _ = self.errors.get(key, (0, failure.time, failure))
        keep_latest(self.errors, key, (count + 1, first, failure))

    def span_ended(self, span: Any) -> None:
        ids, times = (span.trace_id, span.span_id, span.parent_id), (span.started, span.ended)
        error, attributes = "", getattr(span, "attributes", {})
        if getattr(span, "status", "") == "ERROR":
            error = span.status_message or text(attributes.get("error.type", "failed"))
            error = _bounded(error, PATH // 2)
        shown = " ".join([f"{key}={text(value)[:PATH]}" for key, value in attributes.items()])
        shown = _bounded(shown, PATH - _bytes(error))
        self.spans.append(
            Span(*ids, _bounded(text(span.name), PATH), span.kind, *times, error, shown)
        )

    def call_ended(self, call: Any, request_id: str) -> None:
        """An outgoing call, in a request that has no trace."""
        ended = int(time() * 1e9)
        name = _bounded(f"{call.method} {call.server_address}:{call.server_port}", PATH)
        started = ended - int(call.duration * 1e9)
        self.spans.append(Span(request_id, "", "", name, "CLIENT", started, ended))

    def end_second(self, lag: float) -> None:
        """Sums up the counts since the last call."""
        second, self._second = self._second, Histogram()
        counts = second.count, second.errors
        quantiles = second.quantile(0.5), second.quantile(0.95), second.quantile(0.99)
        state = len(self.in_flight), lag
        self.seconds.append(Second(time(), *counts, *quantiles, *state, resident_memory()))

    def spans_of(self, ids: dict[str, str]) -> list[Span]:
        """The spans below that of a request, in the order in which they started."""
        # Without a trace, calls go by the request's own id.
        trace_id = ids.get("trace_id") or ids["request_id"]
        known = {ids.get("span_id", "")}
        of_trace = [each for each in self.spans if each.trace_id == trace_id]
        found = []
        for span in sorted(of_trace, key=lambda span: span.started):
            if span.parent_id in known:
                known.add(span.span_id)
                found.append(span)
        return found


class Tail(logging.Handler):
    """The last lines of the log, without `secret`."""

    def __init__(self, secret: str | None) -> None:
        super().__init__()
        self.lines: deque[Line] = deque(maxlen=LINES)
        self._secret = secret
        self._count = self._size = 0

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "tornado.access":
            return  # It would add a line to each request, with what the console shows anyway.
        said = message(record)
        if self._secret:
            said = said.replace(self._secret, "…")
        fields = " ".join([f"{name}={text(value)}" for name, value in extra(record)])
        self._count += 1
        line = Line(
            self._count,
            record.created if isinstance(record.created, int | float) else 0.0,
            record.levelno if isinstance(record.levelno, int) else logging.NOTSET,
            _bounded(text(record.name), PATH),
            _bounded(said, MESSAGE),
            # The watching thread names the request that it has seen; it does not run in one.
            getattr(record, "request_id", "") or correlation.get().get("request_id", ""),
            _bounded(fields, MESSAGE),
            _bounded(trace(record) or record.stack_info or "", -STACK),
        )
        if len(self.lines) == LINES:
            self._size -= _size(self.lines[0])
        self.lines.append(line)
        self._size += _size(line)
        while self._size > LINE_CHARACTERS:
            self._size -= _size(self.lines.popleft())


def place_of(trace: TracebackType | None, package: str) -> str:
    """The innermost line of the service's own code or, if there is none, of any code."""
    frames = list(traceback.walk_tb(trace))
    own = [each for each in frames if is_own(each[0], package)]
    for frame, line in (own or frames)[-1:]:
        return f"{short(frame.f_code.co_filename)}:{line} in {frame.f_code.co_name}"
    return ""


def short(file: str) -> str:
    """A path, starting at its package."""
    for folder in ("/site-packages/", "/src/", "/lib/python"):
        if folder in file:
            return file.rpartition(folder)[2]
    return file


def keep_latest(kept: dict[Any, Any], key: object, value: object) -> None:
    """Adds an entry at the end, for which the one that was set the longest ago makes room."""
    kept.pop(key, None)
    kept[key] = value
    if len(kept) > FAILURES:
        del kept[next(iter(kept))]


def _size(line: Line) -> int:
    return sum(map(_bytes, (line.message, line.fields, line.stack)))


def _bytes(text: str) -> int:
    """At most as many as a text takes."""
    return len(text) * (1 if text.isascii() else 4)


def _bounded(text: str, length: int) -> str:
    """The start of a text or, with a negative length, its end."""
    if not text.isascii():
        length //= 4
    if len(text) <= abs(length):
        return text
    return f"{text[:length]}…" if length > 0 else f"…{text[length:]}"
