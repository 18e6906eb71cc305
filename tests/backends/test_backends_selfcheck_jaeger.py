import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import NotInstalled
from .jaeger import Jaeger, running, tags

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SERVER, ERROR = 2, 2


@pytest.fixture
def jaeger(tmp_path: Path) -> Iterator[Jaeger]:
    try:
        with running(tmp_path) as server:
            yield server
    except NotInstalled as missing:
        pytest.skip(str(missing))


def attribute(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "value": {"stringValue": value}}


def send(jaeger: Jaeger, start: float) -> None:
    nanoseconds = int(start * 1e9)
    span = {
        "traceId": TRACE_ID,
        "spanId": "b7ad6b7169203331",
        "name": "GET /hello/{name}",
        "kind": SERVER,
        "startTimeUnixNano": str(nanoseconds),
        "endTimeUnixNano": str(nanoseconds + 5_000_000),
        "attributes": [attribute("http.route", "/hello/{name}")],
        "status": {"code": ERROR},
        "events": [
            {
                "name": "exception",
                "timeUnixNano": str(nanoseconds),
                "attributes": [attribute("exception.type", "ValueError")],
            }
        ],
    }
    resource = {"attributes": [attribute("service.name", "greeter")]}
    scopes = [{"scope": {"name": "test"}, "spans": [span]}]
    body = {"resourceSpans": [{"resource": resource, "scopeSpans": scopes}]}
    request = urllib.request.Request(
        f"{jaeger.otlp_http}/v1/traces",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        assert response.status == 200


def test_span_sent_as_otlp_json_is_read_back(jaeger: Jaeger) -> None:
    assert jaeger.services() == []
    assert jaeger.trace(TRACE_ID) is None
    send(jaeger, time.time())

    trace = jaeger.wait_for_trace(TRACE_ID)
    (span,) = trace["spans"]
    assert span["operationName"] == "GET /hello/{name}"
    assert span["duration"] == 5_000  # microseconds
    assert tags(span)["http.route"] == "/hello/{name}"
    assert tags(span)["span.kind"] == "server"
    assert tags(span)["otel.status_code"] == "ERROR"
    assert tags(span["logs"][0])["exception.type"] == "ValueError"
    assert trace["processes"][span["processID"]]["serviceName"] == "greeter"
    assert jaeger.services() == ["greeter"]
    assert [found["traceID"] for found in jaeger.traces("greeter")] == [TRACE_ID]


def test_traces_finds_a_span_of_last_year(jaeger: Jaeger) -> None:
    send(jaeger, time.time() - 365 * 86400)
    jaeger.wait_for_trace(TRACE_ID)
    assert [found["traceID"] for found in jaeger.traces("greeter")] == [TRACE_ID]


def test_wait_reports_what_came(jaeger: Jaeger) -> None:
    send(jaeger, time.time())
    with pytest.raises(TimeoutError, match="GET /hello/"):
        jaeger.wait_for_trace(TRACE_ID, spans=2, timeout=1)
