"""Errors, received by a real server for Sentry's protocol."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sentry_sdk

from ..backends import WAIT_SECONDS, sentry
from .conftest import Generate
from .project import PROMPTLY, Project

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def project(generate: Generate) -> Project:
    """A service with a handler that fails, added as a person would."""
    project = generate(error_tracking="sentry")
    project.add_failing_orders()
    return project


def test_exception_arrives_without_what_is_nobody_s_business(
    project: Project, tmp_path: Path
) -> None:
    with sentry.running(tmp_path) as server:
        with project.start(SENTRY_DSN=server.dsn, ENVIRONMENT="staging") as service:
            status, headers, _ = service.get(
                "/orders/7?card=in-the-query",
                {
                    "Cookie": "session=in-a-cookie",
                    "Authorization": "Bearer in-a-header",
                    "X-Request-ID": "request-7",
                    "traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01",
                },
                method="POST",
                body="in-the-body",
            )
            assert (status, headers["X-Request-ID"]) == (500, "request-7")
            # The event may still wait to be sent: a stop loses none.
            assert service.terminate() == 0
        [event] = server.wait_for_events(1)

        [exception] = event["exception"]["values"]
        assert (exception["type"], exception["value"]) == ("ValueError", "order 7 is not there")
        assert event["transaction"] == "POST /orders/{number}"
        assert event["tags"]["request_id"] == "request-7"
        assert event["contexts"]["trace"]["trace_id"] == TRACE_ID
        assert event["request"]["method"] == "POST"
        assert event["request"]["url"] == f"{service.url}/orders/7"
        assert event["release"] == f"{project.slug}@0.1.0"
        assert event["environment"] == "staging"
        sent = json.dumps(event) + "".join(map(repr, server.envelopes()))
        for secret in ("in-the-query", "in-a-cookie", "in-a-header", "in-the-body"):
            assert secret not in sent
        assert server.schema_findings() == []


def test_event_that_breaks_the_schema_would_be_found(tmp_path: Path) -> None:
    with sentry.running(tmp_path) as server:
        client = sentry_sdk.Client(dsn=server.dsn, default_integrations=False)
        client.capture_event({"level": "no such level"})  # type: ignore[typeddict-item]
        client.close(timeout=WAIT_SECONDS)
        server.wait_for_events()
        [finding] = server.schema_findings()
        assert "no such level" in finding


@pytest.mark.parametrize("backend", ["refuses", "hangs", "does not resolve"])
def test_service_does_not_depend_on_sentry(project: Project, backend: str) -> None:
    with address(backend) as host:
        settings = {
            "SENTRY_DSN": f"http://{'0' * 32}@{host}/1",
            "DRAIN_TIMEOUT_SECONDS": "3",
        }
        with project.start(**settings) as service:
            for number in range(20):
                assert service.get(f"/orders/{number}", method="POST")[0] == 500
            assert service.get("/hello/x")[0] == 200
            assert service.terminate(PROMPTLY) == 0, service.output()


@contextmanager
def address(backend: str) -> Iterator[str]:
    """Host and port of a server in trouble."""
    with socket.socket() as listener:
        if backend == "does not resolve":
            yield "sentry.invalid:80"
        else:
            listener.bind(("127.0.0.1", 0))
            if backend == "hangs":
                listener.listen()  # connections are taken, and never answered
            yield f"127.0.0.1:{listener.getsockname()[1]}"
