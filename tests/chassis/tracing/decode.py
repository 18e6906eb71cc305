"""Requests of both formats, read back."""

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from ..settings import SERVICE

_KINDS = ("", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_STATUSES = ("UNSET", "OK", "ERROR")

# Tags of each span that describe the service.
_RESOURCE = (
    "service.version",
    "deployment.environment.name",
    "team",
    "telemetry.sdk.name",
    "telemetry.sdk.language",
    "telemetry.sdk.version",
)


class Received(SimpleNamespace):
    """A span. Times are in nanoseconds since 1970; the values of attributes are all strings."""


def decode(body: bytes) -> Iterator[Received]:
    decoded = json.loads(body)
    return _zipkin(decoded) if isinstance(decoded, list) else _otlp(decoded)


def _otlp(body: dict[str, Any]) -> Iterator[Received]:
    for resource in body["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                yield Received(
                    name=span["name"],
                    kind=_KINDS[span["kind"]],
                    trace_id=span["traceId"],
                    span_id=span["spanId"],
                    parent_id=span.get("parentSpanId", ""),
                    started=int(span["startTimeUnixNano"]),
                    ended=int(span["endTimeUnixNano"]),
                    attributes=_attributes(span["attributes"]),
                    events=[
                        (event["name"], _attributes(event["attributes"]))
                        for event in span.get("events", [])
                    ],
                    status=_STATUSES[span["status"]["code"]],
                    message=span["status"].get("message", ""),
                    scope=scope["scope"]["name"],
                    scope_version=scope["scope"].get("version", ""),
                    resource=_attributes(resource["resource"]["attributes"]),
                )


def _attributes(pairs: list[dict[str, Any]]) -> dict[str, str]:
    attributes: dict[str, str] = {}
    for pair in pairs:
        assert pair["key"] not in attributes
        (value,) = pair["value"].values()
        attributes[pair["key"]] = value if isinstance(value, str) else json.dumps(value)
    return attributes


def _zipkin(spans: list[dict[str, Any]]) -> Iterator[Received]:
    for span in spans:
        tags = span["tags"]
        resource = {name: tags.pop(name) for name in _RESOURCE if name in tags}
        yield Received(
            name=span["name"],
            kind=span.get("kind", "INTERNAL"),
            trace_id=span["traceId"],
            span_id=span["id"],
            parent_id=span.get("parentId", ""),
            started=span["timestamp"] * 1000,
            ended=(span["timestamp"] + span["duration"]) * 1000,
            events=[_event(each["value"]) for each in span.get("annotations", [])],
            status=tags.pop("otel.status_code", "UNSET"),
            message=tags.pop("error", ""),
            scope=tags.pop("otel.scope.name", SERVICE),
            scope_version=tags.pop("otel.scope.version", ""),
            attributes=tags,
            resource={"service.name": span["localEndpoint"]["serviceName"], **resource},
        )


def _event(value: str) -> tuple[str, dict[str, str]]:
    if not value.startswith('"'):
        return value, {}
    ((name, attributes),) = json.loads("{" + value + "}").items()
    return name, {key: str(each) for key, each in attributes.items()}
