"""Transactions and errors, received by a collector that speaks the agent's protocol over TLS."""

import json
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ..backends import WAIT_SECONDS, newrelic
from .conftest import Generate
from .project import PROMPTLY, Project, Service

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
HEADERS = {
    "Authorization": "Bearer in-a-header",
    "Cookie": "session=in-a-cookie",
    "X-Request-ID": "request-7",
    "traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01",
}
SECRETS = ("in-the-query", "in-a-cookie", "in-a-header", "in-the-body")
MEBIBYTE = 1024 * 1024
FAULTS = ("refuses", "does not resolve", "answers 500")
# Prints every address that the process turns to.
WATCH = """\
import sys


def hook(event, arguments):
    if event == "socket.connect":
        print("connects to", list(arguments[1]), flush=True)
    elif event == "socket.getaddrinfo":
        print("looks up", arguments[0], flush=True)


sys.addaudithook(hook)
"""


@pytest.fixture
def project(generate: Generate) -> Project:
    """A service with a handler that fails, added as a person would."""
    project = generate(error_tracking="newrelic")
    project.add_failing_orders()
    return project


def test_transactions_and_errors_arrive_without_what_is_nobody_s_business(
    project: Project, tmp_path: Path
) -> None:
    with newrelic.running(tmp_path) as collector:
        with project.start(**collector.settings, ENVIRONMENT="staging") as service:
            # The first report after the connection.
            collector.wait_for("update_loaded_modules")
            assert service.get("/hello/one?token=in-the-query", HEADERS)[0] == 200
            assert service.get("/hello/two")[0] == 200
            assert service.get("/nowhere")[0] == service.get("/else/where")[0] == 404
            assert service.get("/livez")[0] == 200
            order(service, 7)
            # What is sent once a minute still waits: a stop loses none of it.
            assert service.terminate() == 0, service.output()

        assert collector.errors == []
        [[connect]] = collector.payloads("connect")
        assert connect["app_name"] == [project.slug]
        assert connect["labels"] == [{"label_type": "Environment", "label_value": "staging"}]
        assert connect["metadata"] == {"NEW_RELIC_METADATA_SERVICE_VERSION": "0.1.0"}
        assert "vendors" not in connect["utilization"]
        transactions = events(collector.payloads("analytic_event_data"))
        assert Counter(intrinsics["name"] for intrinsics, _, _ in transactions) == {
            "WebTransaction/Tornado/GET /hello/{name}": 2,
            "WebTransaction/Tornado/GET unmatched": 2,
            "WebTransaction/Tornado/POST /orders/{number}": 1,
        }
        check_error(collector.payloads("error_event_data"))
        [[_, [[_, name, message, kind, trace, *_]]]] = collector.payloads("error_data")
        assert name == "WebTransaction/Tornado/POST /orders/{number}"
        assert (message, kind) == ("order 7 is not there", "builtins:ValueError")
        assert "in post" in str(trace["stack_trace"])
        [[_, _, _, metrics]] = collector.payloads("metric_data")
        counts = {metric["name"]: data[0] for metric, data in metrics if not metric["scope"]}
        assert (counts["HttpDispatcher"], counts["Errors/all"]) == (5, 1)
        assert len(collector.payloads("shutdown")) == 1
        assert collector.payloads("log_event_data") == []
        sent = json.dumps([call.payload for call in collector.calls])
        assert not [secret for secret in (*SECRETS, newrelic.LICENSE_KEY) if secret in sent]


def test_nobody_else_is_called(project: Project, tmp_path: Path) -> None:
    """Least of all a cloud's metadata service."""
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    with newrelic.running(tmp_path) as collector:
        settings = {**collector.settings, "PYTHONPATH": str(tmp_path)}
        with project.start(**settings) as service:
            collector.wait_for("update_loaded_modules")
            assert service.terminate() == 0, service.output()
        lines = service.output().splitlines()
    assert f"connects to ['127.0.0.1', {collector.port}]" in lines
    assert {line for line in lines if line.startswith("connects to")} == {
        f"connects to ['127.0.0.1', {collector.port}]",
        # How the agent learns the machine's own address; nothing is sent.
        "connects to ['1.1.1.1', 1]",
    }
    assert {line for line in lines if line.startswith("looks up")} == {"looks up 127.0.0.1"}


@pytest.mark.parametrize(
    "fault",
    ["hangs", *(pytest.param(each, marks=pytest.mark.full) for each in FAULTS)],
)
def test_service_does_not_depend_on_new_relic(project: Project, tmp_path: Path, fault: str) -> None:
    with collector_in_trouble(fault, tmp_path) as settings:
        settings["DRAIN_TIMEOUT_SECONDS"] = "3"
        with project.start(**settings) as service:
            for number in range(60):
                order(service, number)
            before = service.resident_bytes()
            for number in range(60, 300):
                order(service, number)
            assert service.resident_bytes() - before < 10 * MEBIBYTE
            assert service.get("/hello/x")[0] == 200
            assert service.terminate(PROMPTLY) == 0, service.output()
        assert service.output().count("Not connected to New Relic") == 1


def test_collector_that_hangs_later_does_not_hold_the_stop(
    project: Project, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        with newrelic.running(tmp_path) as collector:
            settings = {**collector.settings, "DRAIN_TIMEOUT_SECONDS": "3"}
            service = stack.enter_context(project.start(**settings))
            collector.wait_for("update_loaded_modules")
        silent = stack.enter_context(socket.create_server((collector.host, collector.port)))
        order(service, 7)
        # The agent reports, and waits for an answer.
        silent.settimeout(WAIT_SECONDS)
        stack.enter_context(silent.accept()[0])
        assert service.terminate(PROMPTLY) == 0, service.output()


def test_errors_arrive_at_a_collector_that_comes_back(project: Project, tmp_path: Path) -> None:
    with ExitStack() as stack:
        with newrelic.running(tmp_path) as collector:
            service = stack.enter_context(project.start(**collector.settings))
            collector.wait_for("update_loaded_modules")
        order(service, 7)
        with newrelic.running(tmp_path, port=collector.port) as collector:
            collector.wait_for("error_event_data")
            check_error(collector.payloads("error_event_data"))
            assert service.terminate() == 0


@pytest.mark.full  # The agent tries again after 15 seconds.
def test_errors_arrive_at_a_collector_that_comes_late(project: Project, tmp_path: Path) -> None:
    with newrelic.running(tmp_path) as collector:
        pass
    with project.start(**collector.settings) as service:
        order(service, 7)
        with newrelic.running(tmp_path, port=collector.port) as collector:
            collector.wait_for("update_loaded_modules")
            assert service.get("/hello/x")[0] == 200
            [[_, own, _]] = events([collector.wait_for("error_event_data")])
            assert own["request_id"] == "request-7"
            assert own["http.route"] == "/orders/{number}"
            assert "occurred" in own


def order(service: Service, number: int) -> None:
    path = f"/orders/{number}?card=in-the-query"
    status, headers, _ = service.get(path, HEADERS, method="POST", body="in-the-body")
    assert (status, headers["X-Request-ID"]) == (500, "request-7")


def events(payloads: list[Any]) -> list[list[dict[str, Any]]]:
    """Intrinsic, own and the agent's attributes of each event."""
    return [event for payload in payloads for event in payload[2]]


def check_error(payloads: list[Any]) -> None:
    [[intrinsics, own, agent]] = events(payloads)
    assert intrinsics["error.class"] == "builtins:ValueError"
    assert intrinsics["error.message"] == "order 7 is not there"
    assert intrinsics["transactionName"] == "WebTransaction/Tornado/POST /orders/{number}"
    assert intrinsics["traceId"] == TRACE_ID
    assert (own["trace_id"], own["request_id"]) == (TRACE_ID, "request-7")
    assert agent == {
        "http.statusCode": 500,
        "request.method": "POST",
        "request.uri": "/orders/7",
        "response.status": "500",
    }


@contextmanager
def collector_in_trouble(fault: str, directory: Path) -> Iterator[dict[str, str]]:
    """The settings of an agent whose collector does not work."""
    status = 500 if fault == "answers 500" else 200
    with newrelic.running(directory, status=status) as collector:
        settings = collector.settings
        if status == 500:
            yield settings
    if fault == "does not resolve":
        yield settings | {"NEW_RELIC_HOST": "collector.invalid"}
    elif fault == "refuses":
        yield settings
    elif fault == "hangs":
        with socket.create_server((collector.host, collector.port)):
            yield settings
