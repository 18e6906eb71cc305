"""How a trace crosses services: W3C Trace Context, or other formats. Invalid headers start a new
trace.
"""

import re
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, NamedTuple

from tornado.httputil import HTTPHeaders

from . import Span

SAMPLED = 0x01
KNOWN_FLAGS = 0x03
"""The flags of W3C Trace Context: sampled, and random trace id."""

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_TRACESTATE_LENGTH = 512


class Parent(NamedTuple):
    """A span as the other side of a call sees it."""

    #: Empty if the caller sent only the sampling decision.
    trace_id: str
    span_id: str
    #: None if the caller left the sampling decision open.
    flags: int | None
    tracestate: str = ""


def _extract(headers: HTTPHeaders) -> Parent | None:
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


def _inject(span: Parent | Span, headers: MutableMapping[str, str]) -> None:
    headers["traceparent"] = f"00-{span.trace_id}-{span.span_id}-{span.flags or 0:02x}"
    if span.tracestate:
        headers["tracestate"] = span.tracestate


Format = tuple[
    Callable[[HTTPHeaders], Parent | None],
    Callable[[Parent | Span, MutableMapping[str, str]], None],
]
"""What reads a span from headers, and what writes one."""

TRACE_CONTEXT: Format = (_extract, _inject)


class Propagation:
    """If a caller sends several of these formats, the last takes precedence."""

    #: Propagators of OpenTelemetry's API, if there are any besides.
    others: Sequence[Any] = ()

    def __init__(self, formats: Sequence[Format] = (TRACE_CONTEXT,)) -> None:
        self._extract = [extract for extract, _ in reversed(formats)]
        self._inject = [inject for _, inject in formats]

    def extract(self, headers: HTTPHeaders) -> Parent | None:
        """The caller's span, or None if there is no valid one."""
        for extract in self._extract:
            if parent := extract(headers):
                return parent
        return None

    def inject(self, span: Parent | Span, headers: MutableMapping[str, str]) -> None:
        """Writes the span into the headers of an outgoing request."""
        for inject in self._inject:
            inject(span, headers)
