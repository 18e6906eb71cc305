"""Where spans are sent in Zipkin's format."""

from . import parsing
from .setting import group, setting
from .tracing import TracingSettings, propagators


@group
class ZipkinSettings(TracingSettings):
    # It may contain a password by mistake, or a key in its query.
    zipkin_endpoint: str | None = setting(None, parse=parsing.http_url, secret=True)
    """Where spans are sent, such as `http://zipkin:9411/api/v2/spans`. Without it, none are
    sent."""

    otel_propagators: tuple[str, ...] = setting(("tracecontext", "b3"), parse=propagators)
    """How traces cross services: `tracecontext`, `baggage`, `b3`, `b3multi`, several of them,
    comma-separated, or `none`. With `baggage`, what a caller sends reaches every service that is
    called."""
