"""Zipkin, in version 2 of its JSON format: https://zipkin.io/zipkin-api/

What has no field in this format is written as OpenTelemetry specifies:
https://opentelemetry.io/docs/specs/otel/trace/sdk_exporters/zipkin/

Encoded by hand because OpenTelemetry's own Zipkin exporter is deprecated, with fixes promised only
until December 2026: https://opentelemetry.io/blog/2025/deprecating-zipkin-exporters/
"""

import gzip
import json
import re
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring_ascii as _quote
from typing import Any

from ..settings.zipkin import ZipkinSettings
from ..values import TEXT_CHARACTERS, exceeds, text
from .otel import Exporting
from .spans import Event, Span, SpanBackend

_encode = json.JSONEncoder(default=str).encode


def _tags(attributes: Mapping[str, Any]) -> str:
    """All values are strings; any other value is written as JSON in a string."""
    return ",".join(
        [
            f"{_quote(key)}:{_quote(value if isinstance(value, str) else _json(value))}"
            for key, value in attributes.items()
        ]
    )


def _json(value: object) -> str:
    if type(value) is not str and exceeds(value, TEXT_CHARACTERS):
        raise ValueError
    return _encode(value)


class Backend(SpanBackend):
    """`resource` describes the service."""

    name = "Zipkin"
    setting = "ZIPKIN_ENDPOINT"
    attributes = staticmethod(_tags)

    def __init__(self, settings: ZipkinSettings, resource: Mapping[str, str]) -> None:
        url = settings.zipkin_endpoint or settings.otel_exporter_zipkin_endpoint or ""
        if re.fullmatch("https?://[^/]+/?", url):
            url = url.rstrip("/") + "/api/v2/spans"
        timeout = settings.otel_exporter_zipkin_timeout
        super().__init__(settings, url, timeout, {"Content-Encoding": "gzip"})
        rest = dict(resource)
        self._service = '{"serviceName":' + _quote(rest.pop("service.name")) + "}"
        self._resource = _tags(rest)

    def encode_whole(self, span: Span) -> str:
        # By hand, because even a fast encoder takes longer for nested dictionaries.
        parent = f'"parentId":"{span.parent_id}",' if span.parent_id else ""
        kind = f'"kind":"{span.kind}",' if span.kind != "INTERNAL" else ""
        annotations = ",".join(map(_annotation, span.events))
        events = f'"annotations":[{annotations}],' if annotations else ""
        recurring = span.recurring.encoded if span.recurring else ""
        tags = [self._resource, recurring, _tags(span.attributes), _tags(_without_field(span))]
        return (
            f'{{"traceId":"{span.trace_id}","id":"{span.span_id}",{parent}{kind}'
            f'"name":{_quote(span.name)},"timestamp":{span.started // 1000},'
            f'"duration":{max((span.ended - span.started) // 1000, 1)},'
            f'"localEndpoint":{self._service},{_remote(span)}{events}'
            f'"tags":{{{",".join(filter(None, tags))}}}}}'
        )

    def body(self, texts: Sequence[str]) -> bytes:
        return gzip.compress(f"[{','.join(texts)}]".encode(), 1)


class Zipkin(Exporting):
    backend = Backend


def _remote(span: Span) -> str:
    """The other side: a caller's address, or the name that was called."""
    if span.kind == "SERVER" and (address := text(span.attributes.get("client.address", ""))):
        family = "ipv6" if ":" in address else "ipv4"
        return '"remoteEndpoint":{' + _quote(family) + ":" + _quote(address) + "},"
    if span.kind == "CLIENT" and (name := text(span.attributes.get("server.address", ""))):
        return '"remoteEndpoint":{"serviceName":' + _quote(name) + "},"
    return ""


def _without_field(span: Span) -> dict[str, Any]:
    """What the format has no field for."""
    tags: dict[str, Any] = {}
    if span.status != "UNSET":
        tags["otel.status_code"] = span.status
    if span.status == "ERROR":
        recurring = span.recurring.attributes if span.recurring else {}
        kind = span.attributes.get("error.type") or recurring.get("error.type", "")
        tags["error"] = span.status_message or text(kind)
    if span.scope:
        tags["otel.scope.name"] = span.scope
    if span.scope_version:
        tags["otel.scope.version"] = span.scope_version
    if span.dropped_attributes:
        tags["otel.dropped_attributes_count"] = span.dropped_attributes
    return tags


def _annotation(event: Event) -> str:
    value = event.name
    if event.attributes:
        pairs = [f"{_quote(key)}: {_json(each)}" for key, each in event.attributes.items()]
        value = f"{_quote(value)}:{{{', '.join(pairs)}}}"
    return '{"timestamp":' + str(event.time // 1000) + ',"value":' + _quote(value) + "}"
