"""Where spans are sent with OTLP, OpenTelemetry's protocol."""

import re
from collections.abc import Mapping
from typing import Literal

from . import parsing
from .server import ServerSettings
from .setting import group, setting
from .tracing import key_values


def _headers(text: str) -> dict[str, str]:
    headers = key_values(text)
    header = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~]*")
    if not all(header.fullmatch(f"{name}:{value}") for name, value in headers.items()):
        raise ValueError("should contain names and values of HTTP headers")
    return headers


@group
class OtlpSettings(ServerSettings):
    # These URLs may contain a password by mistake, or a key in their query.
    otel_exporter_otlp_endpoint: str | None = setting(None, parse=parsing.http_url, secret=True)
    """Where spans are sent with OTLP over HTTP, such as `http://jaeger:4318`. Without it, none are
    sent."""

    otel_exporter_otlp_traces_endpoint: str | None = setting(
        None, parse=parsing.http_url, secret=True
    )
    """The complete URL, if the path of the backend is not `/v1/traces`."""

    otel_exporter_otlp_headers: Mapping[str, str] = setting(
        default_factory=dict, parse=_headers, secret=True
    )
    """Headers to send with spans, such as a key: `name=value,name=value`."""

    otel_exporter_otlp_timeout: int = setting(10_000, parse=parsing.integer(1, 3_600_000))
    """How long to wait for a response, in milliseconds."""

    otel_exporter_otlp_compression: Literal["none", "gzip"] = "none"
    """`none` or, for a distant backend, `gzip`."""
