"""The service's spans: OpenTelemetry's API without its SDK.

They are written by hand because a span of the SDK adds 51 microseconds of CPU time to a request,
while a span whose attributes are put together once, at its end, adds 14.
"""

import random
import traceback
from collections.abc import Callable, Mapping, Sequence
from time import time_ns
from typing import Any, NamedTuple

from opentelemetry import trace

from .. import SERVICE
from .propagation import Parent

# The bits of `KNOWN_FLAGS`: no others are passed on.
_FLAGS = ("00", "01", "02", "03")

LIMIT = 128
"""Limit of a span's attributes, of its events and of its links, as in OpenTelemetry's SDK."""


TEXT_CHARACTERS = 32 * 1024
"""Maximum length of an exception's message and stack trace; longer ones are cut in the middle."""

_TIME_END = 1 << 63


class Event(NamedTuple):
    name: str
    #: Nanoseconds since 1970, like all times of a span.
    time: int
    attributes: Mapping[str, Any]


class Link(NamedTuple):
    trace_id: str
    span_id: str
    attributes: Mapping[str, Any]


class Encoded(NamedTuple):
    """A span, ready to be sent."""

    #: Name and version of the library that made it.
    scope: tuple[str, str]
    text: str


class Recurring:
    """Attributes that many spans have in common, and that are therefore encoded only once."""

    __slots__ = ("attributes", "encoded")

    def __init__(self, attributes: Mapping[str, Any]) -> None:
        self.attributes = attributes
        #: Set by the backend when it is first needed.
        self.encoded = ""


class Span(trace.Span):
    """A piece of work within a trace. Ids are lower-case hexadecimal.

    Without `on_end`, which is called with the span at its end, nothing is recorded.
    """

    recurring: Recurring | None = None
    events: Sequence[Event] = ()
    links: Sequence[Link] = ()
    ended = 0
    #: The name of an OpenTelemetry `StatusCode`.
    status = "UNSET"
    status_message = ""
    #: Name and version of the library that made the span.
    scope = SERVICE
    scope_version = ""

    def __init__(
        self,
        name: str,
        kind: str,
        trace_id: str,
        parent_id: str,
        flags: int,
        tracestate: str = "",
        on_end: Callable[["Span"], None] | None = None,
    ) -> None:
        self.name = name
        #: The name of an OpenTelemetry `SpanKind`.
        self.kind = kind
        self.trace_id = trace_id
        self.span_id = (random.getrandbits(64) or 1).to_bytes(8).hex()
        #: The parent span; empty for the first span of a trace.
        self.parent_id = parent_id
        self.flags = flags
        self.tracestate = tracestate
        #: Whether the span keeps what is set; False after its end.
        self.recording = on_end is not None
        self._on_end = on_end
        self.started = time_ns()
        self.attributes: dict[str, Any] = {}

    def ids(self) -> dict[str, str]:
        """The span's ids, as shown in log lines and reports."""
        return {
            "trace_id": self.trace_id,
            "span_id": self.span_id,
            "trace_flags": _FLAGS[self.flags],
        }

    def as_parent(self) -> Parent:
        return Parent(self.trace_id, self.span_id, self.flags, self.tracestate)

    def get_span_context(self) -> trace.SpanContext:
        return trace.SpanContext(
            int(self.trace_id, 16),
            int(self.span_id, 16),
            is_remote=False,
            trace_flags=trace.TraceFlags(self.flags),
            trace_state=trace.TraceState.from_header([self.tracestate]),
        )

    def is_recording(self) -> bool:
        return self.recording

    def update_name(self, name: str) -> None:
        self.name = name

    def set_attribute(self, key: str, value: Any) -> None:
        if self.recording and (len(self.attributes) < LIMIT or key in self.attributes):
            self.attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def add_event(
        self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None
    ) -> None:
        if self.recording and len(self.events) < LIMIT:
            self.events = [*self.events, Event(name, as_time(timestamp), attributes or {})]

    def add_link(
        self, context: trace.SpanContext, attributes: Mapping[str, Any] | None = None
    ) -> None:
        if self.recording and context.is_valid and len(self.links) < LIMIT:
            self.links = [*self.links, make_link(context, attributes)]

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        if self.recording:
            kind = type(exception)
            module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
            described = {
                "exception.type": module + kind.__qualname__,
                "exception.message": cut(str(exception)),
                "exception.stacktrace": cut("".join(traceback.format_exception(exception))),
            }
            self.add_event("exception", {**described, **(attributes or {})}, timestamp)

    def set_status(
        self, status: trace.Status | trace.StatusCode, description: str | None = None
    ) -> None:
        if isinstance(status, trace.StatusCode):
            status = trace.Status(status, description)
        # OK is final, and nothing changes back to unset.
        if self.recording and self.status != "OK" and not status.is_unset:
            self.status = status.status_code.name
            self.status_message = cut(status.description or "")

    def end(self, end_time: int | None = None) -> None:
        if self.recording and self._on_end:
            self.recording = False
            self.ended = as_time(end_time)
            self._on_end(self)


def make_link(context: trace.SpanContext, attributes: Mapping[str, Any] | None) -> Link:
    return Link(f"{context.trace_id:032x}", f"{context.span_id:016x}", attributes or {})


def as_time(given: Any) -> int:
    """Nanoseconds since 1970, as backends accept them; the current time if it is not a number.

    A backend refuses the whole batch if one time is negative or has a fraction.
    """
    if given is None:
        return time_ns()
    try:
        return min(max(int(given), 0), _TIME_END - 1)
    except (TypeError, ValueError, OverflowError):
        return time_ns()


def well_formed(text: str) -> str:
    """The text without lone surrogates, because of which a backend may refuse the whole batch."""
    return text.encode("utf-8", "replace").decode()


def cut(text: str) -> str:
    if len(text) <= TEXT_CHARACTERS:
        return text
    kept = TEXT_CHARACTERS // 2 - 32
    return f"{text[:kept]} ... {len(text) - 2 * kept} characters cut ... {text[-kept:]}"
