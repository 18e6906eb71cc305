"""How a trace crosses services: W3C Trace Context and Baggage, and B3 in a single header or in
several. OTEL_PROPAGATORS chooses among them. Invalid headers start a new trace.
"""

import logging
import re
from collections.abc import Iterable, MutableMapping
from typing import NamedTuple

from opentelemetry import context
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.trace import TraceState
from tornado.httputil import HTTPHeaders

SAMPLED = 0x01
KNOWN_FLAGS = 0x03
"""The flags of W3C Trace Context: sampled, and random trace id."""

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_TRACESTATE_LENGTH = 512
_B3 = re.compile(r"([0-9a-f]{16}|[0-9a-f]{32})-([0-9a-f]{16})(?:-([^-]*)(?:-[^-]*)?)?")
# Some older libraries write the sampling decision as a word.
_B3_FLAGS = {"1": SAMPLED, "true": SAMPLED, "d": SAMPLED, "0": 0, "false": 0}

# The limits up to which W3C Baggage requires propagation.
_BAGGAGE_CHARACTERS = 8192
_BAGGAGE_MEMBERS = 64

_baggage = W3CBaggagePropagator()
# Their warnings would quote what callers send, one line per member.
for _library in (W3CBaggagePropagator, TraceState):
    logging.getLogger(_library.__module__).setLevel(logging.ERROR)


class Parent(NamedTuple):
    """A span as the other side of a call sees it."""

    #: Empty if the caller sent only the sampling decision.
    trace_id: str
    span_id: str
    #: None if the caller left the sampling decision open.
    flags: int | None
    tracestate: str = ""


class Propagation:
    """`names` are those of OTEL_PROPAGATORS: `tracecontext`, `baggage`, `b3`, `b3multi`, `none`.

    If a caller sends several formats, the last of these names takes precedence.
    """

    def __init__(self, names: Iterable[str]) -> None:
        names = [] if "none" in names else list(names)
        self._extract = [_EXTRACT[name] for name in reversed(names) if name in _EXTRACT]
        self._inject = [_INJECT[name] for name in names if name in _INJECT]
        self._baggage = "baggage" in names

    def extract(self, headers: HTTPHeaders) -> Parent | None:
        """The caller's span, or None if there is no valid one. Its baggage enters the context."""
        if self._baggage and (baggage := _baggage_of(headers)):
            context.attach(_baggage.extract({"baggage": baggage}))
        for extract in self._extract:
            if parent := extract(headers):
                return parent
        return None

    def inject(self, span: Parent, headers: MutableMapping[str, str]) -> None:
        """Writes the span and the context's baggage into the headers of an outgoing request."""
        for inject in self._inject:
            inject(span, headers)
        if self._baggage:
            _baggage.inject(headers)


def _baggage_of(headers: HTTPHeaders) -> str:
    baggage = ",".join(headers.get_list("baggage"))
    fits = len(baggage) <= _BAGGAGE_CHARACTERS and baggage.count(",") < _BAGGAGE_MEMBERS
    return baggage if fits else ""


def _from_tracecontext(headers: HTTPHeaders) -> Parent | None:
    # Not `get()`, which is slow if there is no such header.
    parents = headers.get_list("traceparent")
    match = _TRACEPARENT.fullmatch(parents[0]) if len(parents) == 1 else None
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    # A later version may append fields.
    if version == "ff" or (version == "00" and rest):
        return None
    if not int(trace_id, 16) or not int(span_id, 16):
        return None
    tracestate = ",".join(headers.get_list("tracestate"))
    if len(tracestate) > _TRACESTATE_LENGTH:
        tracestate = ""
    return Parent(trace_id, span_id, int(flags, 16) & KNOWN_FLAGS, tracestate)


def _to_tracecontext(span: Parent, headers: MutableMapping[str, str]) -> None:
    headers["traceparent"] = f"00-{span.trace_id}-{span.span_id}-{span.flags or 0:02x}"
    if span.tracestate:
        headers["tracestate"] = span.tracestate


def _from_b3(headers: HTTPHeaders) -> Parent | None:
    if (values := headers.get_list("b3")) and values[0]:
        value = values[0].lower()
    elif values := headers.get_list("X-B3-TraceId"):
        ids = [*values[:1], *headers.get_list("X-B3-SpanId")[:1]]
        value = "-".join([*ids, *_b3_decision(headers)]).lower()
    else:
        value = "".join(_b3_decision(headers)).lower()
    if value in _B3_FLAGS:
        return Parent("", "", _B3_FLAGS[value])
    match = _B3.fullmatch(value)
    if match is None:
        return None
    trace_id, span_id, sampled = match.groups()
    if not int(trace_id, 16) or not int(span_id, 16):
        return None
    flags = None if sampled is None else _B3_FLAGS.get(sampled, 0)
    return Parent(trace_id.zfill(32), span_id, flags)


def _b3_decision(headers: HTTPHeaders) -> list[str]:
    if headers.get_list("X-B3-Flags") == ["1"]:
        return ["d"]
    words = headers.get_list("X-B3-Sampled")[:1]
    return [str(_B3_FLAGS[word.lower()]) for word in words if word.lower() in _B3_FLAGS]


def _to_b3(span: Parent, headers: MutableMapping[str, str]) -> None:
    headers["b3"] = f"{span.trace_id}-{span.span_id}-{(span.flags or 0) & SAMPLED}"


def _to_b3_multi(span: Parent, headers: MutableMapping[str, str]) -> None:
    headers["X-B3-TraceId"] = span.trace_id
    headers["X-B3-SpanId"] = span.span_id
    headers["X-B3-Sampled"] = str((span.flags or 0) & SAMPLED)


# Each name of B3 reads both formats, as OpenTelemetry requires.
_EXTRACT = {"tracecontext": _from_tracecontext, "b3": _from_b3, "b3multi": _from_b3}
_INJECT = {"tracecontext": _to_tracecontext, "b3": _to_b3, "b3multi": _to_b3_multi}
