"""Where spans are sent in Zipkin's format."""

from .resource import endpoint, exporters, milliseconds
from .setting import group, setting
from .tracing import TracingSettings, propagators


@group
class ZipkinSettings(TracingSettings):
    unread = {  # noqa: RUF012 (never changed)
        "OTEL_EXPORTER_OTLP_*": "spans are sent to Zipkin: set ZIPKIN_ENDPOINT",
        "OTEL_EXPORTER_ZIPKIN_PROTOCOL": "spans are sent in version 2 of Zipkin's JSON format",
    }

    zipkin_endpoint: str | None = endpoint()
    """Where spans are sent, such as `http://zipkin:9411/api/v2/spans`. Without it, none are
    sent."""

    otel_exporter_zipkin_endpoint: str | None = endpoint()
    """OpenTelemetry's name for the same. `ZIPKIN_ENDPOINT` takes precedence."""

    otel_exporter_zipkin_timeout: int = setting(10_000, parse=milliseconds)
    """How long to wait for a response, in milliseconds; 0 means no limit."""

    otel_traces_exporter: str = setting("zipkin", parse=exporters("zipkin"))
    """`zipkin`, or `none` to send no spans."""

    otel_propagators: tuple[str, ...] = setting(("tracecontext", "b3"), parse=propagators)
