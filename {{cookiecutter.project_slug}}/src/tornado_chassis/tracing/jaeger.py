"""Tracing with Jaeger, or with any other backend that accepts OTLP over HTTP."""

from ..export import resource_of
from ..settings.otlp import OtlpSettings
from ..settings.tracing import TracingSettings
from .otel import Exporting
from .otlp import Otlp


class Jaeger(Exporting):
    """`settings` are also `OtlpSettings`."""

    def __init__(self, settings: TracingSettings) -> None:
        assert isinstance(settings, OtlpSettings)
        super().__init__(settings, Otlp(settings, resource_of(settings)))
