"""Tracing with Jaeger, or with any other backend that accepts OTLP over HTTP."""

from .otel import Exporting
from .otlp import Otlp


class Jaeger(Exporting):
    """`settings` are also `OtlpSettings`."""

    backend = Otlp
