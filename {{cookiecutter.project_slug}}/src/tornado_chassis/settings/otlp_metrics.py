"""Where and how metrics are sent with OTLP."""

import logging
from dataclasses import fields
from typing import Any

from . import parsing
from .otlp import OtlpSettings
from .setting import group, setting

log = logging.getLogger(__name__)


@group
class OtlpMetricsSettings(OtlpSettings):
    # All are text, and read with `heed`: a variable that others share keeps no service from
    # starting.
    otel_metrics_exporter: str = "otlp"
    """`none` turns off the export of metrics."""

    otel_exporter_otlp_metrics_endpoint: str | None = setting(None, secret=True)
    """The complete URL to send metrics to, if it is another one or its path is not `/v1/metrics`.
    Prometheus's own is `http://prometheus:9090/api/v1/otlp/v1/metrics`."""

    otel_exporter_otlp_metrics_headers: str | None = setting(None, secret=True)
    """Headers to send with metrics, in place of `OTEL_EXPORTER_OTLP_HEADERS`."""

    otel_exporter_otlp_metrics_timeout: str | None = None
    """How long to wait for a response to metrics, in milliseconds."""

    otel_exporter_otlp_metrics_compression: str | None = None
    """`none` or `gzip`, for metrics alone."""

    otel_exporter_otlp_metrics_protocol: str = "http/json"
    """There is no other: the endpoint has to be one for OTLP over HTTP, usually port 4318."""

    otel_exporter_otlp_metrics_temporality_preference: str = "cumulative"
    """`cumulative`, or `delta` for a backend that wants to be sent only what was added. With
    `lowmemory`, counts that the service keeps anyway stay cumulative."""

    otel_metric_export_interval: str = "60000"
    """How often metrics are sent, in milliseconds."""

    otel_metrics_exemplar_filter: str = "trace_based"
    """`always_off` sends no ids of traces with durations."""


def heed(settings: OtlpMetricsSettings, name: str, parse: parsing.Parser) -> Any:
    """What the text of a field says. If that is malformed, it is logged, and the default counts."""
    text, default = getattr(settings, name), getattr(type(settings), name)
    try:
        return text and parse(text)
    except ValueError as error:
        [field] = [each for each in fields(settings) if each.name == name]
        shown = "" if field.metadata.get("secret") else f", not {parsing.quoted(text)}"
        log.warning("%s is ignored: it %s%s", name.upper(), error, shown)
        return default and parse(default)
