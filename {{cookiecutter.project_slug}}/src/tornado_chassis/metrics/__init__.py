"""Metrics of the service's own: create them with `counter`, `gauge` and `histogram`.

They exist whichever backend was chosen, and without one. Create each once, when its module is
imported: it keeps what it counted, and a backend reads it once there is one.

    orders = metrics.counter("orders", "Orders placed.", ["country"])
    orders.labels("nl").inc()

Any thread may use them. Each combination of label values is a series. The process keeps MAX_SERIES
and drops what is measured of others, so no label should hold what a client can choose.
"""

import logging
import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from threading import RLock
from time import perf_counter, time
from typing import Self, TypeVar

from ..text import cut, encodable, text

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Upper bounds of a histogram's buckets, in seconds. The last bucket has none."""

MAX_SERIES = 10_000

LABEL_CHARACTERS = 1000
"""Maximum length of a label's value; a longer one is cut in the middle."""

_NAME = re.compile(r"(?!__)[A-Za-z_][A-Za-z0-9_]*")
# What the chassis and the backends measure themselves, with what Prometheus appends.
_RESERVED = (
    r"(build|target_info|event_loop_(blocked|lag)_seconds"
    r"|http_(client|server)_request_duration_seconds"
    r"|http_server_((active|refused)_requests|(max|open)_connections)"
    r"|http_server_route_without_latency_objective|background_failures"
    r"|(log_lines|statsd)_dropped|otel_(spans_[a-z]+|attributes_dropped)"
    r"|process_(cpu(_time)?_seconds|start_time_seconds|(max|open)_fds)"
    r"|process_(memory_usage|(resident|virtual)_memory)_bytes"
    r"|python_gc_[a-z_]+|websocket_(closes|connections|messages))"
    r"(_(bucket|count|created|info|sum|total))?"
)

log = logging.getLogger(__name__)

# Reentrant: a signal handler may count something while its thread holds the lock.
_lock = RLock()


class Instrument:
    """A metric or, with the values of its labels, one series of it."""

    kind: str
    #: What Prometheus appends to the name.
    suffixes: tuple[str, ...] = ("",)

    def __init__(self, name: str, documentation: str, label_names: tuple[str, ...] = ()) -> None:
        self.name = name
        self.documentation = documentation
        #: Empty for a series, which has values instead.
        self.label_names = label_names
        self.label_values: tuple[str, ...] = ()
        #: Of a histogram, the sum.
        self.value = 0.0
        #: Whether anything was measured.
        self.is_set = False
        #: In seconds since 1970.
        self.created = time()
        self._children: dict[tuple[str, ...], Self] = {}
        self._has_room = True

    def labels(self, /, *values: object, **by_name: object) -> Self:
        """The series with these values, in the order of the labels or by name. They become text.

        Raises ValueError unless there is one value for each label.
        """
        if not values and by_name.keys() == {*self.label_names}:
            values, by_name = tuple(by_name[name] for name in self.label_names), {}
        if by_name or len(values) != len(self.label_names):
            given = ", ".join([*(text(value, repr) for value in values), *by_name])
            raise ValueError(f"{self.name} has the labels {self.label_names}, not ({given})")
        if not values:
            return self
        key = tuple(encodable(cut(text(value), LABEL_CHARACTERS)) for value in values)
        with _lock:
            child = self._children.get(key)
            if child is None:
                child = type(self)(self.name, self.documentation)
                child.label_values = key
                series = sum(len(each._children) or 1 for each in instruments.values())
                child._has_room = series < MAX_SERIES
                if child._has_room:
                    self._children[key] = child
        if not child._has_room:
            _warn(self.name)
        return child

    def series(self) -> "list[Self]":
        """All series of the metric; itself if it has no labels."""
        with _lock:
            return [*self._children.values()] if self.label_names else [self]

    def _check(self) -> None:
        if self.label_names:
            raise ValueError(f"{self.name} has labels: call labels() first")

    def _add(self, amount: float) -> bool:
        """Whether it was added. It is not if the result would be no finite number."""
        self._check()
        amount = _float(amount)
        with _lock:
            after = self.value + amount
            if self._has_room and math.isfinite(after):
                self.value, self.is_set = after, True
                return True
        dropped.inc()
        return False


class Counter(Instrument):
    kind = "counter"
    suffixes = ("", "_total", "_created")

    def inc(self, amount: float = 1) -> None:
        """Raises ValueError for a negative amount."""
        if amount < 0:
            raise ValueError(f"{self.name} cannot grow by {amount}: a counter only grows")
        self._add(amount)


class Gauge(Instrument):
    kind = "gauge"
    _function: Callable[[], float] | None = None
    _has_failed = False

    def set(self, value: float) -> None:
        self._check()
        with _lock:
            self.value, self.is_set, self._function = _float(value), True, None
        if not self._has_room:
            dropped.inc()

    def inc(self, amount: float = 1) -> None:
        self._add(amount)

    def dec(self, amount: float = 1) -> None:
        self._add(-amount)

    def set_function(self, function: Callable[[], float]) -> None:
        """Takes the value from `function` each time that a backend reads it, on the event loop.

        While `function` raises, there is no value. Its first exception is logged.
        """
        self._check()
        self._function, self.is_set = function, True

    def read(self) -> float | None:
        """The present value; None if the function raises."""
        try:
            return float(self._function()) if self._function else self.value
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            if not self._has_failed:
                log.exception("Cannot read the gauge %s", self.name)
            self._has_failed = True
            return None


class Histogram(Instrument):
    kind = "histogram"
    suffixes = ("", "_bucket", "_sum", "_count", "_created")

    def __init__(self, name: str, documentation: str, label_names: tuple[str, ...] = ()) -> None:
        super().__init__(name, documentation, label_names)
        self.counts = [0] * (len(BUCKETS) + 1)

    def observe(self, seconds: float) -> None:
        if self._add(seconds):
            with _lock:
                self.counts[bisect_left(BUCKETS, seconds)] += 1
            for subscriber in tuple(subscribers):
                subscriber(self, seconds)

    @contextmanager
    def time(self) -> Iterator[None]:
        """Observes how long a block takes, also if it raises."""
        self._check()
        started = perf_counter()
        try:
            yield
        finally:
            self.observe(perf_counter() - started)


Kind = TypeVar("Kind", bound=Instrument)

instruments: dict[str, Instrument] = {}
"""For backends: all metrics by name."""

checks: list[Callable[[set[str], str], None]] = []
"""For backends: called with the names under which a new metric will be exposed, and with its own.
They raise ValueError if one of them is taken."""

subscribers: list[Callable[[Histogram, float], object]] = []
"""For backends: called with each duration, in seconds, and its series, in the thread that measured
it."""


def counter(name: str, documentation: str, labels: Sequence[str] = ()) -> Counter:
    """A number that only grows: `.labels(...).inc()`. Prometheus appends `_total` to the name.

    Like the others, raises ValueError if the name is taken or reserved, or if it or a label is not
    made of letters, digits and `_`.
    """
    return _register(Counter, name, documentation, labels)


def gauge(name: str, documentation: str, labels: Sequence[str] = ()) -> Gauge:
    """A number that goes up and down, from 0: `.labels(...).set(...)`."""
    return _register(Gauge, name, documentation, labels)


def histogram(name: str, documentation: str, labels: Sequence[str] = ()) -> Histogram:
    """Durations in seconds: `.labels(...).observe(...)`."""
    return _register(Histogram, name, documentation, labels)


def _register(kind: type[Kind], name: str, documentation: str, labels: Sequence[str]) -> Kind:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} should be letters, digits and _, as Prometheus demands")
    is_valid = all(_NAME.fullmatch(each) and each != "le" for each in labels)
    if isinstance(labels, str) or not is_valid or len({*labels}) < len(labels):
        raise ValueError(f"{name}: {labels!r} should be different names of letters, digits and _")
    metric = kind(name, encodable(documentation), tuple(labels))
    with _lock:
        check_free(_exposed(metric), name)
        for check in checks:
            check(_exposed(metric), name)
        instruments[name] = metric
    return metric


def check_free(exposed: set[str], name: str) -> None:
    """Raises ValueError if the chassis has metrics of its own with this name, or if there is a
    metric that is exposed under one of these names."""
    if re.fullmatch(_RESERVED, name):
        raise ValueError(f"{name} is the name of one of the chassis' own metrics")
    for other in instruments.values():
        if exposed & _exposed(other):
            owner = f"the {other.kind} {other.name} with the labels {other.label_names}"
            raise ValueError(f"{name} is taken by {owner}")


def _exposed(metric: Instrument) -> set[str]:
    name = metric.name.removesuffix("_total") if metric.kind == "counter" else metric.name
    return {name + suffix for suffix in metric.suffixes}


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer that is too large
        return math.nan


@cache
def _warn(name: str) -> None:
    log.warning("%s: measurements are dropped, as there are %d series already", name, MAX_SERIES)


dropped = counter("metrics_dropped", "Measurements that had no room, or were no number.")
