"""Trace context as Zipkin's libraries pass it on: B3, in a single header or in several.
https://github.com/openzipkin/b3-propagation
"""

import re
from collections.abc import MutableMapping

from tornado.httputil import HTTPHeaders

from . import Span
from .propagation import SAMPLED, Parent

_B3 = re.compile(r"([0-9a-f]{16}|[0-9a-f]{32})-([0-9a-f]{16})(?:-([^-]*)(?:-[^-]*)?)?")
# Some older libraries write the sampling decision as a word.
_FLAGS = {"1": SAMPLED, "true": SAMPLED, "d": SAMPLED, "0": 0, "false": 0}


def _extract(headers: HTTPHeaders) -> Parent | None:
    if (values := headers.get_list("b3")) and values[0]:
        value = values[0].lower()
    elif values := headers.get_list("X-B3-TraceId"):
        ids = [*values[:1], *headers.get_list("X-B3-SpanId")[:1]]
        value = "-".join([*ids, *_decision(headers)]).lower()
    else:
        value = "".join(_decision(headers)).lower()
    if value in _FLAGS:
        return Parent("", "", _FLAGS[value])
    match = _B3.fullmatch(value)
    if match is None:
        return None
    trace_id, span_id, sampled = match.groups()
    if not int(trace_id, 16) or not int(span_id, 16):
        return None
    flags = None if sampled is None else _FLAGS.get(sampled, 0)
    return Parent(trace_id.zfill(32), span_id, flags)


def _decision(headers: HTTPHeaders) -> list[str]:
    if headers.get_list("X-B3-Flags") == ["1"]:
        return ["d"]
    words = headers.get_list("X-B3-Sampled")[:1]
    return [str(_FLAGS[word.lower()]) for word in words if word.lower() in _FLAGS]


def _inject(span: Parent | Span, headers: MutableMapping[str, str]) -> None:
    headers["b3"] = f"{span.trace_id}-{span.span_id}-{(span.flags or 0) & SAMPLED}"


def _inject_multi(span: Parent | Span, headers: MutableMapping[str, str]) -> None:
    headers["X-B3-TraceId"] = span.trace_id
    headers["X-B3-SpanId"] = span.span_id
    headers["X-B3-Sampled"] = str((span.flags or 0) & SAMPLED)


# Both read both, as OpenTelemetry requires.
B3 = (_extract, _inject)
B3_MULTI = (_extract, _inject_multi)
