"""Traces, received by a real Zipkin and read back over its API."""

import json
from collections.abc import Iterator

import pytest

from ..backends import zipkin
from ..backends.zipkin import Zipkin
from .conftest import Generate
from .project import Project
from .traced import CALLER, add_handlers, trace_id, visit


@pytest.fixture
def project(generate: Generate) -> Project:
    project = generate(tracing="zipkin")
    add_handlers(project)
    return project


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zipkin]:
    with zipkin.running(tmp_path_factory.mktemp("zipkin")) as server:
        yield server


def test_traces_arrive_without_what_is_nobody_s_business(project: Project, server: Zipkin) -> None:
    single = {"b3": f"{trace_id(1)}-{CALLER}-1"}
    several = {"X-B3-TraceId": trace_id(3), "X-B3-SpanId": CALLER, "X-B3-Sampled": "1"}
    access = visit(project, single, several, ZIPKIN_ENDPOINT=server.endpoint)

    trace = server.wait_for_trace(trace_id(1), spans=2)
    spans = {span["name"]: span for span in trace}
    assert spans.keys() == {"get /welcome/{name}", "greet"}
    welcome, greet = spans["get /welcome/{name}"], spans["greet"]
    assert (welcome["kind"], welcome["parentId"]) == ("SERVER", CALLER)
    assert greet["parentId"] == welcome["id"]
    assert welcome["localEndpoint"]["serviceName"] == "shop"
    assert welcome["remoteEndpoint"]["ipv4"] == "127.0.0.1"
    assert welcome["tags"]["http.request.method"] == "GET"
    assert welcome["tags"]["http.response.status_code"] == "200"
    assert welcome["tags"]["http.route"] == "/welcome/{name}"
    assert welcome["tags"]["url.path"] == "/welcome/x"
    assert welcome["tags"]["service.version"] == "0.1.0"
    assert welcome["tags"]["deployment.environment.name"] == "staging"
    assert welcome["tags"]["team"] == "orders"
    assert "error" not in welcome["tags"]
    assert 0 < greet["duration"] <= welcome["duration"] < 10e6

    failed = server.wait_for_trace(trace_id(2), spans=2)
    spans = {span["name"]: span for span in failed}
    assert spans["load order"]["tags"]["order.number"] == "7"
    assert spans["load order"]["tags"]["error"] == "ValueError: order 7 is not there"
    assert spans["post /orders/{number}"]["tags"]["error"] == "ValueError"
    for span in failed:
        [annotation] = span["annotations"]
        event = json.loads("{" + annotation["value"] + "}")["exception"]
        assert event["exception.type"] == "ValueError"
        assert event["exception.message"] == "order 7 is not there"

    [unmatched] = server.wait_for_trace(trace_id(3))
    assert (unmatched["name"], unmatched["parentId"]) == ("get", CALLER)
    assert "error" not in unmatched["tags"]
    assert server.trace(trace_id(4)) == []
    assert "hidden" not in json.dumps([trace, failed])

    assert (access["trace_id"], access["span_id"]) == (trace_id(1), welcome["id"])
