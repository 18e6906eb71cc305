import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import NotInstalled
from .zipkin import Zipkin, running

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def zipkin(tmp_path: Path) -> Iterator[Zipkin]:
    try:
        with running(tmp_path) as server:
            yield server
    except NotInstalled as missing:
        pytest.skip(str(missing))


def test_span_is_read_back_and_wait_reports_what_came(zipkin: Zipkin) -> None:
    assert zipkin.services() == []
    assert zipkin.trace(TRACE_ID) == []
    span = {
        "traceId": TRACE_ID,
        "id": "b7ad6b7169203331",
        "name": "get /hello/{name}",
        "kind": "SERVER",
        "timestamp": int(time.time() * 1e6),
        "duration": 5_000,
        "localEndpoint": {"serviceName": "greeter"},
        "tags": {"http.route": "/hello/{name}"},
    }
    request = urllib.request.Request(
        zipkin.endpoint, json.dumps([span]).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        assert response.status == 202

    assert zipkin.wait_for_trace(TRACE_ID) == [span]
    assert zipkin.services() == ["greeter"]
    with pytest.raises(TimeoutError, match="get /hello/"):
        zipkin.wait_for_trace(TRACE_ID, spans=2, timeout=1)
