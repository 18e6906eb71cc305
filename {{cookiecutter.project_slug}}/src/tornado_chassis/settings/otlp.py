"""Where telemetry is sent with OTLP, OpenTelemetry's protocol, and how."""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from .resource import ResourceSettings, endpoint, key_values, milliseconds
from .setting import group, setting

if TYPE_CHECKING:
    from ssl import SSLContext


def headers(text: str) -> dict[str, str]:
    found = key_values(text)
    header = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~]*")
    if not all(header.fullmatch(f"{name}:{value}") for name, value in found.items()):
        raise ValueError("should contain names and values of HTTP headers")
    return found


def certificate_file(text: str) -> str:
    _tls_context(text)
    return text


def _tls_context(
    ca: str | None, certificate: str | None = None, key: str | None = None
) -> "SSLContext | None":
    """How connections are secured with these files; None for the usual way.

    Raises ValueError if they cannot be used.
    """
    if not (ca or certificate):
        return None
    # Imported only if it is needed.
    import ssl

    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:  # ssl.SSLError is one
        raise ValueError(f"should be a file with certificates in PEM format ({error})") from None
    if certificate:
        try:
            # Without a password, it would be asked for on the terminal.
            context.load_cert_chain(certificate, key, password="")
        except OSError as error:
            raise ValueError(f"should have its key, not encrypted ({error})") from None
    return context


@group
class OtlpExporterSettings(ResourceSettings):
    """What OpenTelemetry specifies for all kinds of telemetry:
    https://opentelemetry.io/docs/specs/otel/protocol/exporter/
    """

    unread = {  # noqa: RUF012 (never changed)
        "OTEL_EXPORTER_OTLP_*PROTOCOL=http/json": "",
        "OTEL_EXPORTER_OTLP_*PROTOCOL=http/protobuf": "it is http/json, to the same port",
        "OTEL_EXPORTER_OTLP_*PROTOCOL": "telemetry is sent over HTTP: send to port 4318",
        "OTEL_EXPORTER_OTLP_*INSECURE": "the endpoint decides, with http:// or https://",
    }

    otel_exporter_otlp_endpoint: str | None = endpoint()
    """Where telemetry is sent with OTLP over HTTP, such as `http://collector:4318`. Without it,
    none is sent."""

    otel_exporter_otlp_headers: Mapping[str, str] = setting(
        default_factory=dict, parse=headers, secret=True
    )
    """Headers to send with it, such as a key: `name=value,name=value`."""

    otel_exporter_otlp_timeout: int = setting(10_000, parse=milliseconds)
    """How long to wait for a response, in milliseconds; 0 means no limit."""

    otel_exporter_otlp_compression: Literal["none", "gzip"] = "none"
    """`none` or, for a distant backend, `gzip`."""

    otel_exporter_otlp_certificate: str | None = setting(None, parse=certificate_file)
    """File with the certificates, in PEM format, that the backend's is checked against. Default:
    those of the system."""

    otel_exporter_otlp_client_certificate: str | None = None
    """File with the certificate, in PEM format, that the service shows to the backend."""

    otel_exporter_otlp_client_key: str | None = None
    """File with the key of that certificate, in PEM format and unencrypted."""

    def conflicts(self) -> Iterable[str]:
        yield from super().conflicts()
        for signal in ("", "_TRACES", "_METRICS"):
            prefix = f"OTEL_EXPORTER_OTLP{signal}"
            url, certificate, key = (
                getattr(self, f"{prefix}_{name}".lower(), None)
                for name in ("ENDPOINT", "CLIENT_CERTIFICATE", "CLIENT_KEY")
            )
            if url and urlsplit(url).port == 4317:
                yield (
                    f"{prefix}_ENDPOINT: port 4317 is usually for gRPC, but telemetry is sent over "
                    "HTTP: send to port 4318"
                )
            if key and not certificate:
                missing = f"{prefix}_CLIENT_CERTIFICATE"
                yield f"{prefix}_CLIENT_KEY: ignored, because {missing} is not set"
            try:
                _tls_context(None, certificate, key)
            except ValueError as error:
                yield f"{prefix}_CLIENT_CERTIFICATE: {error}. It is ignored"

    def tls_with(
        self, ca: str | None, certificate: str | None, key: str | None
    ) -> "SSLContext | None":
        """How connections are secured, with these files in place of those for all telemetry; None
        for the usual way."""
        ca = ca or self.otel_exporter_otlp_certificate
        if not certificate:
            certificate = self.otel_exporter_otlp_client_certificate
            key = self.otel_exporter_otlp_client_key
        try:
            return _tls_context(ca, certificate, key)
        except ValueError:  # which `conflicts` reports
            return _tls_context(ca)


@group
class OtlpSettings(OtlpExporterSettings):
    unread = {  # noqa: RUF012 (never changed)
        "OTEL_EXPORTER_JAEGER_*": "Jaeger takes OTLP: set OTEL_EXPORTER_OTLP_ENDPOINT",
    }

    otel_exporter_otlp_traces_endpoint: str | None = endpoint()
    """The complete URL to send spans to, if it is another one or its path is not `/v1/traces`."""

    otel_exporter_otlp_traces_headers: Mapping[str, str] = setting(
        default_factory=dict, parse=headers, secret=True
    )
    """Takes precedence over `OTEL_EXPORTER_OTLP_HEADERS`, as do those below over theirs."""

    otel_exporter_otlp_traces_timeout: int | None = setting(None, parse=milliseconds)
    """Like `OTEL_EXPORTER_OTLP_TIMEOUT`."""

    otel_exporter_otlp_traces_compression: Literal["none", "gzip"] | None = None
    """Like `OTEL_EXPORTER_OTLP_COMPRESSION`."""

    otel_exporter_otlp_traces_certificate: str | None = setting(None, parse=certificate_file)
    """Like `OTEL_EXPORTER_OTLP_CERTIFICATE`."""

    otel_exporter_otlp_traces_client_certificate: str | None = None
    """Like `OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE`."""

    otel_exporter_otlp_traces_client_key: str | None = None
    """Like `OTEL_EXPORTER_OTLP_CLIENT_KEY`."""

    def traces_tls(self) -> "SSLContext | None":
        return self.tls_with(
            self.otel_exporter_otlp_traces_certificate,
            self.otel_exporter_otlp_traces_client_certificate,
            self.otel_exporter_otlp_traces_client_key,
        )
