import json
import os
import ssl
import subprocess
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from . import home
from .newrelic import (
    LICENSE_KEY,
    RUN_ID,
    Collector,
    agent_env,
    audited_payloads,
    developer_env,
    running,
)

SCRIPT = """
import logging
import sys
import newrelic.agent

newrelic.agent.initialize()
application = newrelic.agent.register_application(timeout=10)

@newrelic.agent.background_task(application, name="greet", group="Test")
def greet():
    logging.warning("greeting")
    raise ValueError("told so")

try:
    greet()
except ValueError:
    pass
print("recorded", flush=True)
sys.stdin.read()
newrelic.agent.shutdown_agent(timeout=10)
"""


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    with running(tmp_path) as server:
        yield server


def agent(env: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start a program that records an error and shuts its agent down when stdin is closed."""
    return subprocess.Popen(
        [home("newrelic") / "bin/python", "-c", SCRIPT],
        env={**os.environ, **env, "NEW_RELIC_APP_NAME": "greeter"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def post(collector: Collector, method: str, body: bytes, encoding: str) -> object:
    url = f"https://{collector.host}:{collector.port}/agent_listener/invoke_raw_method"
    request = urllib.request.Request(f"{url}?method={method}", body, {"Content-Encoding": encoding})
    # The default context is strict about the certificate, from Python 3.13 on.
    context = ssl.create_default_context(cafile=collector.ca_bundle)
    with urllib.request.urlopen(request, timeout=10, context=context) as response:
        return json.load(response)["return_value"]


def test_agent_reports_events_at_work_and_the_rest_at_shutdown(
    collector: Collector, tmp_path: Path
) -> None:
    with agent(agent_env(collector, tmp_path)) as process:
        (connect,) = collector.wait_for("connect")
        assert connect["app_name"] == ["greeter"]
        assert "vendors" not in connect["utilization"]

        run_id, _, [[event, _, _]] = collector.wait_for("error_event_data")
        assert run_id == RUN_ID
        assert event["error.class"] == "builtins:ValueError"
        assert event["error.message"] == "told so"
        assert event["transactionName"] == "OtherTransaction/Test/greet"
        (logs,) = collector.wait_for("log_event_data")
        assert [line["message"] for line in logs["logs"]] == ["greeting"]
        assert collector.wait_for("span_event_data")[2][0][0]["traceId"] == event["traceId"]
        assert collector.payloads("metric_data") == []
        assert collector.payloads("error_data") == []

        process.communicate()
    assert process.returncode == 0
    assert collector.payloads("shutdown") == [[RUN_ID]]
    ((_, _, _, metrics),) = collector.payloads("metric_data")
    assert "OtherTransaction/Test/greet" in [metric["name"] for metric, _ in metrics]
    ((_, [[_, name, message, kind, *_]]),) = collector.payloads("error_data")
    assert (name, message, kind) == (
        "OtherTransaction/Test/greet",
        "told so",
        "builtins:ValueError",
    )
    assert {call.parameters["license_key"] for call in collector.calls} == {LICENSE_KEY}
    assert collector.errors == []


def test_agent_in_developer_mode_logs_its_calls(tmp_path: Path) -> None:
    audit_log = tmp_path / "audit.log"
    with agent(developer_env(tmp_path, audit_log)) as process:
        process.communicate()
    assert process.returncode == 0
    (([connect]),) = audited_payloads(audit_log, "connect")
    assert connect["app_name"] == ["greeter"]
    assert "vendors" not in connect["utilization"]
    ((_, _, [[event, _, _]]),) = audited_payloads(audit_log, "error_event_data")
    assert event["error.message"] == "told so"
    assert len(audited_payloads(audit_log, "shutdown")) == 1
    assert audited_payloads(audit_log, "custom_event_data") == []


@pytest.mark.parametrize(("encoding", "wbits"), [("gzip", 31), ("deflate", 15)])
def test_compressed_payloads_are_read(collector: Collector, encoding: str, wbits: int) -> None:
    body = zlib.compress(b'["1234567"]', wbits=wbits)
    assert post(collector, "get_agent_commands", body, encoding) == []
    assert collector.payloads("get_agent_commands") == [["1234567"]]


def test_wait_reports_what_came_and_what_failed(collector: Collector) -> None:
    post(collector, "metric_data", b'["1234567"]', "identity")
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"https://{collector.host}:{collector.port}", timeout=10)
    with pytest.raises(TimeoutError, match=r"(?s)metric_data.*TLS|metric_data.*SSL"):
        collector.wait_for("connect", timeout=1)
