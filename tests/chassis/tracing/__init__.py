"""Spans and their ids, as these tests have them."""

from collections.abc import Callable
from typing import Any

from tornado_chassis.tracing.otel import ApiSpan

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


def make_span(
    kind: str = "INTERNAL", on_end: Callable[[Any], None] | None = lambda span: None
) -> ApiSpan:
    return ApiSpan("work", kind, TRACE, "", 1, "", on_end)
