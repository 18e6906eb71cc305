"""Traces, received by a real Jaeger and read back over its query API."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..backends import jaeger, otlp
from ..backends.jaeger import Jaeger, tags
from .conftest import Generate
from .project import Project
from .traced import CALLER, add_handlers, of_trace, trace_id, visit


@pytest.fixture
def project(generate: Generate) -> Project:
    project = generate(tracing="jaeger")
    add_handlers(project)
    return project


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger]:
    with jaeger.running(tmp_path_factory.mktemp("jaeger")) as server:
        yield server


def test_traces_arrive_without_what_is_nobody_s_business(project: Project, server: Jaeger) -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": server.otlp_http}
    access = visit(project, of_trace(1), of_trace(3), **endpoint)

    trace = server.wait_for_trace(trace_id(1), spans=2)
    spans = {span["operationName"]: span for span in trace["spans"]}
    assert spans.keys() == {"GET /welcome/{name}", "greet"}
    welcome, greet = spans["GET /welcome/{name}"], spans["greet"]
    assert parents(welcome) == [CALLER]
    assert parents(greet) == [welcome["spanID"]]
    attributes = tags(welcome)
    assert attributes["span.kind"] == "server"
    assert attributes["http.request.method"] == "GET"
    assert attributes["http.response.status_code"] == 200
    assert attributes["http.route"] == "/welcome/{name}"
    assert attributes["url.path"] == "/welcome/x"
    assert "otel.status_code" not in attributes
    assert 0 <= greet["duration"] <= welcome["duration"] < 10e6
    process = trace["processes"][welcome["processID"]]
    assert process["serviceName"] == "shop"
    assert tags(process)["service.version"] == "0.1.0"
    assert tags(process)["deployment.environment.name"] == "staging"
    assert tags(process)["team"] == "orders"

    failed = server.wait_for_trace(trace_id(2), spans=2)
    spans = {span["operationName"]: span for span in failed["spans"]}
    assert tags(spans["load order"])["order.number"] == 7
    for span in spans.values():
        assert tags(span)["otel.status_code"] == "ERROR"
        [event] = span["logs"]
        assert tags(event)["exception.type"] == "ValueError"
        assert tags(event)["exception.message"] == "order 7 is not there"
        assert "Traceback" in tags(event)["exception.stacktrace"]
    assert tags(spans["POST /orders/{number}"])["error.type"] == "ValueError"

    [unmatched] = server.wait_for_trace(trace_id(3))["spans"]
    assert unmatched["operationName"] == "GET"
    assert "otel.status_code" not in tags(unmatched)
    assert server.trace(trace_id(4)) is None
    assert "hidden" not in json.dumps([trace, failed])

    assert (access["trace_id"], access["span_id"]) == (trace_id(1), welcome["spanID"])


def test_requests_are_what_otlp_prescribes(project: Project, tmp_path: Path) -> None:
    """By the official schema, and strictly: unknown fields are refused."""
    with otlp.running(tmp_path) as collector:
        settings = {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.endpoint}/v1/traces",
            "OTEL_EXPORTER_OTLP_HEADERS": "x-key=a%20secret",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        }
        with project.start(**settings) as service:
            headers = of_trace(1) | {"tracestate": "vendor=kept"}
            service.get("/orders/7", headers, method="POST", body="")
            assert service.terminate() == 0, service.output()
        server, order = sorted(collector.spans(), key=lambda span: span["startTimeUnixNano"])

    for request in collector.requests:  # two, if a second ends between the ends of the spans
        assert request.headers["content-encoding"] == "gzip"
        assert request.headers["x-key"] == "a secret"
    assert (server["kind"], order["kind"]) == (2, 1)
    assert (server["traceId"], server["parentSpanId"]) == (trace_id(1), CALLER)
    assert order["parentSpanId"] == server["spanId"]
    assert server["traceState"] == order["traceState"] == "vendor=kept"
    assert order["attributes"] == {"order.number": 7}
    assert order["status"]["code"] == 2
    assert order["scope"] == project.slug
    assert server["startTimeUnixNano"] <= order["startTimeUnixNano"]
    assert order["endTimeUnixNano"] <= server["endTimeUnixNano"]


def parents(span: dict[str, object]) -> list[object]:
    references = span["references"]
    assert isinstance(references, list)
    return [each["spanID"] for each in references if each["refType"] == "CHILD_OF"]
