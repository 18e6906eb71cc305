import gzip
import json
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from . import home
from .otlp import JSON, PROTOBUF, Collector, running

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN = {
    "traceId": TRACE_ID,
    "spanId": "b7ad6b7169203331",
    "name": "GET /hello/{name}",
    "kind": 2,
    "startTimeUnixNano": "1700000000000000001",
    "endTimeUnixNano": "1700000000005000002",
    "attributes": [
        {"key": "http.route", "value": {"stringValue": "/hello/{name}"}},
        {"key": "http.response.status_code", "value": {"intValue": "200"}},
        {"key": "seen", "value": {"arrayValue": {"values": [{"boolValue": True}, {}]}}},
    ],
    "events": [{"name": "greeted", "timeUnixNano": "1700000000000000003"}],
}
# Encodes in the way of OpenTelemetry's SDK, with which it shares the classes.
ENCODE = """
import sys
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

request = ExportTraceServiceRequest()
span = request.resource_spans.add().scope_spans.add().spans.add()
span.trace_id = bytes.fromhex(sys.argv[1])
span.span_id = b"12345678"
span.name = "in protobuf"
span.status.code = 2
sys.stdout.buffer.write(request.SerializeToString())
"""


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    with running(tmp_path) as server:
        yield server


def message(span: dict[str, Any]) -> bytes:
    name = {"key": "service.name", "value": {"stringValue": "greeter"}}
    scopes = [{"scope": {"name": "test"}, "spans": [span]}]
    part = {"resource": {"attributes": [name]}, "scopeSpans": scopes}
    return json.dumps({"resourceSpans": [part]}).encode()


def post(
    collector: Collector,
    body: bytes,
    content_type: str = JSON,
    path: str = "/v1/traces",
    **more: str,
) -> bytes:
    headers = {"Content-Type": content_type} | {k.replace("_", "-"): v for k, v in more.items()}
    request = urllib.request.Request(collector.endpoint + path, body, headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        answer: bytes = response.read()
        return answer


def test_json_span_is_read_back(collector: Collector) -> None:
    assert collector.spans() == []
    assert post(collector, message(SPAN)) == b"{}"
    (span,) = collector.spans()
    assert span["traceId"] == TRACE_ID
    assert span["spanId"] == "b7ad6b7169203331"
    assert span["parentSpanId"] == ""
    assert span["kind"] == 2
    assert span["endTimeUnixNano"] - span["startTimeUnixNano"] == 5_000_001
    assert span["attributes"] == {
        "http.route": "/hello/{name}",
        "http.response.status_code": 200,
        "seen": [True, None],
    }
    assert span["status"] == {"code": 0, "message": ""}
    assert span["events"][0]["name"] == "greeted"
    assert span["resource"] == {"service.name": "greeter"}
    assert span["scope"] == "test"


def test_compressed_protobuf_span_is_read_back(collector: Collector) -> None:
    encoded = subprocess.run(
        [home("otlp") / "bin/python", "-c", ENCODE, TRACE_ID], capture_output=True, check=True
    ).stdout
    post(collector, message(SPAN))
    assert post(collector, gzip.compress(encoded), PROTOBUF, Content_Encoding="gzip") == b""
    _, span = collector.wait_for(lambda spans: len(spans) == 2)
    assert (span["traceId"], span["name"]) == (TRACE_ID, "in protobuf")
    assert span["spanId"] == b"12345678".hex()
    assert span["status"]["code"] == 2
    assert [request.content_encoding for request in collector.requests] == ["identity", "gzip"]


def test_span_with_a_field_that_otlp_has_not_is_an_error(collector: Collector) -> None:
    post(collector, message(SPAN | {"start_time": 1}))
    with pytest.raises(ValueError, match="start_time"):
        collector.spans()


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (404, {"path": "/"}),
        (415, {"content_type": "text/plain"}),
        (415, {"Content_Encoding": "br"}),
        (400, {"Content_Encoding": "gzip"}),
    ],
)
def test_other_requests_are_refused(
    collector: Collector, status: int, headers: dict[str, str]
) -> None:
    with pytest.raises(HTTPError) as refused:
        post(collector, message(SPAN), **headers)
    assert refused.value.code == status
    assert collector.requests == []


def test_wait_reports_what_came(collector: Collector) -> None:
    post(collector, message(SPAN))
    with pytest.raises(TimeoutError, match="GET /hello/"):
        collector.wait_for(lambda spans: len(spans) == 2, timeout=1)
