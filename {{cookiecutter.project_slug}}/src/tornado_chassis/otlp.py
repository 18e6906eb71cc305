"""OTLP over HTTP in its JSON format, as spans and metrics are sent alike:
https://opentelemetry.io/docs/specs/otlp/
"""

import gzip
from collections.abc import Iterable, Iterator, Mapping
from json.encoder import encode_basestring_ascii as quote
from typing import TYPE_CHECKING

from .settings.otlp import OtlpExporterSettings

if TYPE_CHECKING:
    from ssl import SSLContext


class Requests:
    """Where `traces` or `metrics` are sent, and in which format; `resource` describes the service.

    What the service sets for this signal alone replaces what it sets for all.
    """

    setting = "OTEL_EXPORTER_OTLP_ENDPOINT"

    def __init__(
        self,
        settings: OtlpExporterSettings,
        signal: str,
        resource: Mapping[str, str],
        url: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: int | None = None,
        compression: str | None = None,
        tls: "SSLContext | None" = None,
    ) -> None:
        #: Empty if it is not set.
        self.url = url or ""
        if not url and settings.otel_exporter_otlp_endpoint:
            self.url = f"{settings.otel_exporter_otlp_endpoint.rstrip('/')}/v1/{signal}"
        self.proxy, self.tls = settings.proxy_for(self.url), tls
        #: Seconds to wait for a response.
        self.timeout = (timeout or settings.otel_exporter_otlp_timeout) / 1000
        self.headers = {
            "Content-Type": "application/json",
            "User-Agent": f"{settings.service_name}/{settings.service_version}",
            **(headers or settings.otel_exporter_otlp_headers),
        }
        self._gzip = (compression or settings.otel_exporter_otlp_compression) == "gzip"
        if self._gzip:
            self.headers["Content-Encoding"] = "gzip"
        kind = {"traces": "Spans", "metrics": "Metrics"}[signal]
        self._start = f'{{"resource{kind}":[{{"resource":{{"attributes":['
        self._start += f'{attributes(resource)}]}},"scope{kind}":['

    def request(self, scopes: str) -> bytes:
        """The body of a request with these scopes and what they contain."""
        body = f"{self._start}{scopes}]}}]}}".encode()
        return gzip.compress(body, 1) if self._gzip else body


def by_first_line(texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each first line of these texts, and the rest of all that begin with it, comma-separated."""
    found: dict[str, list[str]] = {}
    for text in texts:
        first, _, rest = text.partition("\n")
        found.setdefault(first, []).append(rest)
    for first, rests in found.items():
        yield first, ",".join(rests)


def attributes(values: Mapping[str, str | int]) -> str:
    return ",".join(
        f'{{"key":{quote(key)},"value":{{"intValue":"{value}"}}}}'
        if isinstance(value, int)
        else f'{{"key":{quote(key)},"value":{{"stringValue":{quote(value)}}}}}'
        for key, value in values.items()
    )
