"""The service's spans: OpenTelemetry's API, without what its SDK spends on each."""

import random
import traceback
from collections.abc import Callable, Mapping, Sequence
from time import time_ns
from typing import Any, NamedTuple

from opentelemetry import trace

from . import SERVICE
from .tracing_propagation import Parent

# Of the flags only these two are known, and passed on.
_FLAGS = ("00", "01", "02", "03")

LIMIT = 128
"""Attributes, events and links that a span keeps of each, as OpenTelemetry's SDK does."""


class Event(NamedTuple):
    name: str
    #: Nanoseconds since 1970, as all times of a span.
    time: int
    attributes: Mapping[str, Any]


class Link(NamedTuple):
    trace_id: str
    span_id: str
    attributes: Mapping[str, Any]


class Encoded(NamedTuple):
    """A span as it is sent."""

    scope: str
    text: str


class Recurring:
    """Attributes that many spans have in common, so that they need to be encoded but once."""

    __slots__ = ("attributes", "encoded")

    def __init__(self, attributes: Mapping[str, Any]) -> None:
        self.attributes = attributes
        #: Filled in by the backend, the first time.
        self.encoded = ""


class Span(trace.Span):
    """A piece of work within a trace. Ids are lower-case hexadecimal.

    What is set is kept where the span is recorded, and goes to `on_end` at its end.
    """

    recurring: Recurring | None = None
    events: Sequence[Event] = ()
    links: Sequence[Link] = ()
    ended = 0
    #: The name of an OpenTelemetry `StatusCode`.
    status = "UNSET"
    status_message = ""
    #: Name of the library that made the span.
    scope = SERVICE

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
        self.span_id = f"{random.getrandbits(64) or 1:016x}"
        #: The span that this one is a part of; empty for the first of a trace.
        self.parent_id = parent_id
        self.flags = flags
        self.tracestate = tracestate
        #: None where the span is not recorded, or no longer.
        self.on_end = on_end
        self.started = time_ns()
        self.attributes: dict[str, Any] = {}

    def ids(self) -> dict[str, str]:
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
        return self.on_end is not None

    def update_name(self, name: str) -> None:
        self.name = name

    def set_attribute(self, key: str, value: Any) -> None:
        if self.on_end and (len(self.attributes) < LIMIT or key in self.attributes):
            self.attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def add_event(
        self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None
    ) -> None:
        if self.on_end and len(self.events) < LIMIT:
            self.events = [*self.events, Event(name, timestamp or time_ns(), attributes or {})]

    def add_link(
        self, context: trace.SpanContext, attributes: Mapping[str, Any] | None = None
    ) -> None:
        if self.on_end and len(self.links) < LIMIT:
            self.links = [*self.links, make_link(context, attributes)]

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        if self.on_end:
            kind = type(exception)
            module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
            described = {
                "exception.type": module + kind.__qualname__,
                "exception.message": str(exception),
                "exception.stacktrace": "".join(traceback.format_exception(exception)),
            }
            self.add_event("exception", {**described, **(attributes or {})}, timestamp)

    def set_status(
        self, status: trace.Status | trace.StatusCode, description: str | None = None
    ) -> None:
        if isinstance(status, trace.StatusCode):
            status = trace.Status(status, description)
        # OK is final, and nothing goes back to unset.
        if self.on_end and self.status != "OK" and not status.is_unset:
            self.status = status.status_code.name
            self.status_message = status.description or ""

    def end(self, end_time: int | None = None) -> None:
        on_end, self.on_end = self.on_end, None
        if on_end:
            self.ended = end_time or time_ns()
            on_end(self)


def make_link(context: trace.SpanContext, attributes: Mapping[str, Any] | None) -> Link:
    return Link(f"{context.trace_id:032x}", f"{context.span_id:016x}", attributes or {})
