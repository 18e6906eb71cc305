"""Where metrics are sent with OTLP, and how."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from . import parsing
from .otlp import OtlpExporterSettings, certificate_file, headers
from .resource import endpoint, exporters, milliseconds
from .setting import group, setting

if TYPE_CHECKING:
    from ssl import SSLContext


@group
class OtlpMetricsSettings(OtlpExporterSettings):
    unread = {  # noqa: RUF012 (never changed)
        "OTEL_METRIC_EXPORT_TIMEOUT": "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT limits each request",
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": (
            "histograms have the buckets of OpenTelemetry's conventions"
        ),
    }

    otel_metrics_exporter: str = setting("otlp", parse=exporters("otlp"))
    """`otlp`, or `none` to send no metrics."""

    otel_exporter_otlp_metrics_endpoint: str | None = endpoint()
    """The complete URL to send metrics to, if it is another one or its path is not `/v1/metrics`.
    Prometheus's own is `http://prometheus:9090/api/v1/otlp/v1/metrics`."""

    otel_exporter_otlp_metrics_headers: Mapping[str, str] = setting(
        default_factory=dict, parse=headers, secret=True
    )
    """Takes precedence over `OTEL_EXPORTER_OTLP_HEADERS`, as do those below over theirs."""

    otel_exporter_otlp_metrics_timeout: int | None = setting(None, parse=milliseconds)
    """Like `OTEL_EXPORTER_OTLP_TIMEOUT`."""

    otel_exporter_otlp_metrics_compression: Literal["none", "gzip"] | None = None
    """Like `OTEL_EXPORTER_OTLP_COMPRESSION`."""

    otel_exporter_otlp_metrics_certificate: str | None = setting(None, parse=certificate_file)
    """Like `OTEL_EXPORTER_OTLP_CERTIFICATE`."""

    otel_exporter_otlp_metrics_client_certificate: str | None = None
    """Like `OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE`."""

    otel_exporter_otlp_metrics_client_key: str | None = None
    """Like `OTEL_EXPORTER_OTLP_CLIENT_KEY`."""

    otel_exporter_otlp_metrics_temporality_preference: Literal[
        "cumulative", "delta", "lowmemory"
    ] = "cumulative"
    """`cumulative`, or `delta` for a backend that wants to be sent only what was added. With
    `lowmemory`, counts that the service keeps anyway stay cumulative."""

    otel_metric_export_interval: int = setting(60_000, parse=parsing.integer(1, 2**31 - 1))
    """How often metrics are sent, in milliseconds."""

    otel_metrics_exemplar_filter: Literal["trace_based", "always_on", "always_off"] = "trace_based"
    """`always_off` sends no ids of traces with durations."""

    def metrics_tls(self) -> "SSLContext | None":
        return self.tls_with(
            self.otel_exporter_otlp_metrics_certificate,
            self.otel_exporter_otlp_metrics_client_certificate,
            self.otel_exporter_otlp_metrics_client_key,
        )
