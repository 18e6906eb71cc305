"""Where telemetry is sent with OTLP, OpenTelemetry's protocol."""

import re
from collections.abc import Mapping
from typing import Literal

from . import parsing
from .setting import group, setting
from .tracing import ResourceSettings, key_values


def headers(text: str) -> dict[str, str]:
    found = key_values(text)
    header = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~]*")
    if not all(header.fullmatch(f"{name}:{value}") for name, value in found.items()):
        raise ValueError("should contain names and values of HTTP headers")
    return found


@group
class OtlpSettings(ResourceSettings):
    # The URL may contain a password by mistake, or a key in their query.
    otel_exporter_otlp_endpoint: str | None = setting(None, parse=parsing.http_url, secret=True)
    """Where telemetry is sent with OTLP over HTTP, such as `http://collector:4318`. Without it,
    none is sent."""

    otel_exporter_otlp_headers: Mapping[str, str] = setting(
        default_factory=dict, parse=headers, secret=True
    )
    """Headers to send with it, such as a key: `name=value,name=value`."""

    otel_exporter_otlp_timeout: int = setting(10_000, parse=parsing.integer(1, 3_600_000))
    """How long to wait for a response, in milliseconds."""

    otel_exporter_otlp_compression: Literal["none", "gzip"] = "none"
    """`none` or, for a distant backend, `gzip`."""


@group
class OtlpTracesSettings(OtlpSettings):
    otel_exporter_otlp_traces_endpoint: str | None = setting(
        None, parse=parsing.http_url, secret=True
    )
    """The complete URL to send spans to, if it is another one or its path is not `/v1/traces`."""
