"""OTLP over HTTP in its JSON format, as spans and metrics are sent alike:
https://opentelemetry.io/docs/specs/otlp/
"""

import gzip
from collections.abc import Iterable, Iterator, Mapping
from json.encoder import encode_basestring_ascii as quote
from math import isfinite
from ssl import SSLContext
from typing import Any

from .export import Backend
from .settings.otlp import OtlpExporterSettings
from .values import TEXT_CHARACTERS, exceeds

_INT64_END = 1 << 63


class OtlpBackend(Backend):
    """`resource` describes the service. What is set for this signal alone replaces what is set for
    all."""

    setting = "OTEL_EXPORTER_OTLP_ENDPOINT"

    def __init__(
        self,
        settings: OtlpExporterSettings,
        resource: Mapping[str, str],
        url: str | None,
        headers: Mapping[str, str],
        timeout: int | None,
        compression: str | None,
        tls: SSLContext | None,
    ) -> None:
        if not url and settings.otel_exporter_otlp_endpoint:
            url = f"{settings.otel_exporter_otlp_endpoint.rstrip('/')}/v1/{self.signal}"
        timeout = timeout or settings.otel_exporter_otlp_timeout
        headers = headers or settings.otel_exporter_otlp_headers
        super().__init__(settings, url, timeout, headers, tls)
        self.service = settings.service_name
        self._gzip = (compression or settings.otel_exporter_otlp_compression) == "gzip"
        if self._gzip:
            self.headers["Content-Encoding"] = "gzip"
        kind = {"traces": "Spans", "metrics": "Metrics"}[self.signal]
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


def attributes(values: Mapping[str, Any]) -> str:
    """Raises ValueError for a value that is too long or contains itself."""
    return ",".join(
        [
            '{"key":' + quote(key) + ',"value":{"stringValue":' + quote(value) + "}}"
            if isinstance(value, str)
            else '{"key":' + quote(key) + ',"value":' + _value(value) + "}"
            for key, value in values.items()
        ]
    )


def _value(value: Any) -> str:
    """OTLP's `AnyValue` in protobuf's JSON, where 64-bit integers are strings."""
    if isinstance(value, bool):
        return '{"boolValue":' + str(value).lower() + "}"
    if isinstance(value, int) and -_INT64_END <= value < _INT64_END:
        return '{"intValue":"' + str(int(value)) + '"}'
    # Jaeger accepts NaN and Infinity, but cannot show a trace that has one.
    if isinstance(value, float) and isfinite(value):
        return '{"doubleValue":' + float.__repr__(value) + "}"
    if exceeds(value, TEXT_CHARACTERS):
        raise ValueError
    if isinstance(value, list | tuple):
        return '{"arrayValue":{"values":[' + ",".join(map(_value, value)) + "]}}"
    if isinstance(value, Mapping):
        return '{"kvlistValue":{"values":[' + attributes(value) + "]}}"
    return '{"stringValue":' + quote(value if isinstance(value, str) else str(value)) + "}"
