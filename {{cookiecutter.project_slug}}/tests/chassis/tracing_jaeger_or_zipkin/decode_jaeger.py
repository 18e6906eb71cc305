"""OTLP's JSON, read back."""

import json
from collections.abc import Iterator
from typing import Any

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
PATH = "/v1/traces"

_KINDS = ("", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_STATUSES = ("UNSET", "OK", "ERROR")


def decode(body: str) -> Iterator[dict[str, Any]]:
    """What tests expect of each span."""
    for resource in json.loads(body)["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                yield {
                    "name": span["name"],
                    "kind": _KINDS[span["kind"]],
                    "trace_id": span["traceId"],
                    "span_id": span["spanId"],
                    "parent_id": span.get("parentSpanId", ""),
                    "started": int(span["startTimeUnixNano"]),
                    "ended": int(span["endTimeUnixNano"]),
                    "attributes": _attributes(span["attributes"]),
                    "events": [
                        (event["name"], _attributes(event["attributes"]))
                        for event in span.get("events", [])
                    ],
                    "status": _STATUSES[span["status"]["code"]],
                    "message": span["status"].get("message", ""),
                    "scope": scope["scope"]["name"],
                    "scope_version": scope["scope"].get("version", ""),
                    "resource": _attributes(resource["resource"]["attributes"]),
                }


def _attributes(pairs: list[dict[str, Any]]) -> dict[str, str]:
    attributes: dict[str, str] = {}
    for pair in pairs:
        assert pair["key"] not in attributes
        (value,) = pair["value"].values()
        attributes[pair["key"]] = value if isinstance(value, str) else json.dumps(value)
    return attributes
