"""Zipkin's JSON, read back."""

import json
from collections.abc import Iterator
from typing import Any

from my_service.chassis import SERVICE

ENDPOINT = "ZIPKIN_ENDPOINT"
PATH = "/api/v2/spans"

# Tags of each span that describe the service.
_RESOURCE = (
    "service.version",
    "deployment.environment.name",
    "team",
    "telemetry.sdk.name",
    "telemetry.sdk.language",
    "telemetry.sdk.version",
)


def decode(body: str) -> Iterator[dict[str, Any]]:
    """What tests expect of each span."""
    for span in json.loads(body):
        tags = span["tags"]
        resource = {name: tags.pop(name) for name in _RESOURCE if name in tags}
        yield {
            "name": span["name"],
            "kind": span.get("kind", "INTERNAL"),
            "trace_id": span["traceId"],
            "span_id": span["id"],
            "parent_id": span.get("parentId", ""),
            "started": span["timestamp"] * 1000,
            "ended": (span["timestamp"] + span["duration"]) * 1000,
            "events": [_event(each["value"]) for each in span.get("annotations", [])],
            "status": tags.pop("otel.status_code", "UNSET"),
            "message": tags.pop("error", ""),
            "scope": tags.pop("otel.scope.name", SERVICE),
            "scope_version": tags.pop("otel.scope.version", ""),
            "attributes": tags,
            "resource": {"service.name": span["localEndpoint"]["serviceName"], **resource},
        }


def _event(value: str) -> tuple[str, dict[str, str]]:
    if not value.startswith('"'):
        return value, {}
    ((name, attributes),) = json.loads("{" + value + "}").items()
    return name, {key: str(each) for key, each in attributes.items()}
