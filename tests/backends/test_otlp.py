"""The receiver of spans is as strict as the tests that read back from it take it to be."""

import json
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from . import WAIT_SECONDS
from .otlp import Collector, running

SPAN = {
    "traceId": "0af7651916cd43dd8448eb211c80319c",
    "spanId": "b7ad6b7169203331",
    "name": "GET /hello/{name}",
    "startTimeUnixNano": "1700000000000000001",
    "attributes": [
        {"key": "http.response.status_code", "value": {"intValue": "200"}},
        {"key": "seen", "value": {"arrayValue": {"values": [{"boolValue": True}, {}]}}},
    ],
}


def post(collector: Collector, span: dict[str, Any], **headers: str) -> None:
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
    headers = {"Content-Type": "application/json", **headers}
    url = f"{collector.endpoint}/v1/traces"
    urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=WAIT_SECONDS).close()


def test_span_is_read_back_and_one_with_a_field_that_otlp_has_not_is_an_error(
    tmp_path: Path,
) -> None:
    with running(tmp_path) as collector:
        post(collector, SPAN)
        [span] = collector.spans()
        assert (span["traceId"], span["parentSpanId"]) == (SPAN["traceId"], "")
        assert span["attributes"] == {"http.response.status_code": 200, "seen": [True, None]}
        for headers in ({"Content-Type": "text/plain"}, {"Content-Encoding": "br"}):
            with pytest.raises(HTTPError, match="415"):
                post(collector, SPAN, **headers)
        post(collector, SPAN | {"start_time": 1})
        with pytest.raises(ValueError, match="start_time"):
            collector.spans()
