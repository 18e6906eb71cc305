"""What these tests have in common."""

from collections.abc import Callable
from typing import Any

import pytest
from tornado.web import RequestHandler
from tornado_chassis.feature import Feature
from tornado_chassis.settings import read
from tornado_chassis.tracing.otel import ApiSpan
from tornado_chassis.tracing.otlp import Otlp
from tornado_chassis.tracing.zipkin import Backend as Zipkin

from ..settings import Settings, SettingsOfZipkin

OTLP = Otlp(read(Settings, {}), {"service.name": "test"})
ZIPKIN = Zipkin(read(SettingsOfZipkin, {}), {"service.name": "test"})
each_backend = pytest.mark.parametrize("backend", [OTLP, ZIPKIN], ids=lambda each: each.name)
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


class Parts(Feature):
    """Keeps the parts that end."""

    def __init__(self) -> None:
        self.parts: list[Any] = []

    def span_ended(self, part: Any) -> None:
        self.parts.append(part)


class Headers(RequestHandler):
    """Answers with the headers of the request."""

    def get(self) -> None:
        self.finish({name.lower(): value for name, value in self.request.headers.items()})


def make_span(
    kind: str = "INTERNAL", on_end: Callable[[Any], None] | None = lambda span: None
) -> ApiSpan:
    return ApiSpan("work", kind, TRACE, "", 1, "", on_end)
