"""A service that calls another, which fails: one trace, in the logs and error reports of both."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..backends import jaeger, sentry, zipkin
from ..backends.sentry import Sentry
from .conftest import Generate
from .project import Project
from .traced import CALLER, of_trace, trace_id

TRACE = trace_id(1)


@pytest.fixture
def reports(tmp_path: Path) -> Iterator[Sentry]:
    with sentry.running(tmp_path) as server:
        yield server


def test_stub(generate: Generate, reports: Sentry) -> None:
    shop, stock = call(with_a_call(generate(tracing="stub")), reports)
    # The call has a span of its own, as it has where spans are exported.
    version, trace, called, flags = stock["traceparent"].split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert len({CALLER, called, shop["span_id"], stock["span_id"]}) == 4


def test_jaeger(generate: Generate, reports: Sentry, tmp_path: Path) -> None:
    project = with_a_call(generate(tracing="jaeger"))
    with jaeger.running(tmp_path) as server:
        shop, stock = call(project, reports, OTEL_EXPORTER_OTLP_ENDPOINT=server.otlp_http)
        trace = server.wait_for_trace(TRACE, spans=3)
    spans = {
        (trace["processes"][span["processID"]]["serviceName"], span["operationName"]): span
        for span in trace["spans"]
    }
    parents = {key: span["references"][0]["spanID"] for key, span in spans.items()}
    ids = {key: span["spanID"] for key, span in spans.items()}
    check(ids, parents, shop, stock)


def test_zipkin(generate: Generate, reports: Sentry, tmp_path: Path) -> None:
    project = with_a_call(generate(tracing="zipkin"))
    with zipkin.running(tmp_path) as server:
        shop, stock = call(project, reports, ZIPKIN_ENDPOINT=server.endpoint)
        trace = server.wait_for_trace(TRACE, spans=3)
    spans = {
        (span["localEndpoint"]["serviceName"], span["name"].replace("get", "GET")): span
        for span in trace
    }
    parents = {key: span["parentId"] for key, span in spans.items()}
    check({key: span["id"] for key, span in spans.items()}, parents, shop, stock)


def with_a_call(project: Project) -> Project:
    project.add_handler(
        """\
class Order(JsonHandler):
    async def get(self) -> None:
        from tornado.httpclient import AsyncHTTPClient

        await AsyncHTTPClient().fetch(self.get_query_argument("stock"))
""",
        '(r"/order", handlers.Order)',
    )
    project.add_handler(
        """\
class Stock(JsonHandler):
    def get(self) -> None:
        raise ValueError(self.request.headers["traceparent"])
""",
        '(r"/stock", handlers.Stock)',
    )
    return project


def call(project: Project, reports: Sentry, **settings: str) -> list[dict[str, str]]:
    """What the two services log of their request, with the `traceparent` that `stock` was sent."""
    settings["SENTRY_DSN"] = reports.dsn
    with (
        project.start(OTEL_SERVICE_NAME="stock", **settings) as stock,
        project.start(OTEL_SERVICE_NAME="shop", **settings) as shop,
    ):
        assert shop.get(f"/order?stock={stock.url}/stock", of_trace(1))[0] == 500
        ids = []
        for service in (shop, stock):
            assert service.terminate() == 0, service.output()
            lines = [json.loads(line) for line in service.output().splitlines()]
            error, access = (line for line in lines if "trace_id" in line)
            assert error["exception.type"] in ("HTTPClientError", "ValueError")
            assert error["trace_id"] == access["trace_id"] == TRACE
            assert error["span_id"] == access["span_id"]
            ids.append({"span_id": access["span_id"], "traceparent": error["exception.message"]})
    for event in reports.wait_for_events(2):
        assert event["contexts"]["trace"]["trace_id"] == TRACE
    return ids


Key = tuple[str, str]


def check(
    ids: dict[Key, str], parents: dict[Key, str], shop: dict[str, str], stock: dict[str, str]
) -> None:
    order, called, answered = ("shop", "GET /order"), ("shop", "GET"), ("stock", "GET /stock")
    assert ids.keys() == {order, called, answered}
    assert parents == {order: CALLER, called: ids[order], answered: ids[called]}
    assert (ids[order], ids[answered]) == (shop["span_id"], stock["span_id"])
    assert stock["traceparent"] == f"00-{TRACE}-{ids[called]}-01"
