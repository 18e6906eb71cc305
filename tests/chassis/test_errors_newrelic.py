"""What is reported to New Relic, and what is not, as logged by the agent's developer mode."""

import ast
import asyncio
import contextlib
import http.client
import socket
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.websocket import websocket_connect
from tornado_chassis.errors.newrelic import MAX_WAITING

from .settings import SERVICE, VERSION
from .testing import ChassisTest, Process, listening, process, reserved_port

FEATURES = "logs stub prometheus newrelic probes console"
KEY = {"NEW_RELIC_LICENSE_KEY": "0123456789abcdef" * 2 + "FFFFNRAL"}
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
HEADERS = {
    "Authorization": "Basic s3cret",
    "Cookie": "session=s3cret",
    "Referer": "http://other.example/?token=s3cret",
    "User-Agent": "s3cret",
    "X-Request-ID": "caller.1",
    "traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01",
}

MAIN = """
import sys

from tornado_chassis.settings import newrelic
from tests.chassis import stand_in

newrelic._initialize = lambda *given: sys.exit("tornado" in sys.modules)
stand_in.main()
"""
CHILD = """
import asyncio
import atexit
import gc
import sys
import weakref

from tornado_chassis import process
from tests.chassis.settings import Settings

settings = process.configure([], Settings)

import newrelic.core.agent as core
from tornado.httpclient import AsyncHTTPClient
from tornado.web import RequestHandler

from tornado_chassis import server
from tornado_chassis.errors import newrelic
from tests.chassis.routes import Slow, make_service

# A busy machine may need longer for the last harvest than a stop would wait.
newrelic.SHUTDOWN_SECONDS = server.FLUSH_SECONDS = 50.0


class Probe(RequestHandler):
    is_probe = True

    def get(self):
        raise ValueError("in a probe")


class Mute(Exception):
    def __str__(self):
        sys.exit(1)


class Raising(RequestHandler):
    def get(self, how):
        match how:
            case "mute":
                raise Mute()
            case "callback":
                asyncio.get_running_loop().call_soon(self.get, "late")
            case "late":
                raise ValueError("in a callback")
            case "alone":
                raise ValueError("a\\ud800b")


class Outgoing(RequestHandler):
    async def get(self):
        await AsyncHTTPClient().fetch(f"http://{self.request.host}/hello/out?token=s3cret")


# With OpenTelemetry, the agent would connect at once, and perhaps before the errors below.
agent = core.Agent
activate, agent.activate_application = agent.activate_application, lambda *args, **kwargs: None
service = make_service(settings)
own = [("/probe", Probe), ("/outgoing", Outgoing), ("/raising/(.*)", Raising)]
service.app.add_handlers(".*", own)
[feature] = [each for each in service.app.runtime.features if isinstance(each, newrelic.NewRelic)]
bodies = weakref.WeakSet()


class OrderError(LookupError):
    pass


class Body:
    pass


def lose(number):
    error = OrderError(f"early {number}" + "x" * 1_000_000 * (number == 9))
    error.body = Body()
    bodies.add(error.body)
    raise error


for number in range(newrelic.MAX_WAITING + 5):
    try:
        lose(number)
    except OrderError as error:
        feature.report(error, {})
gc.collect()
print("bodies that are kept:", len(bodies))
agent.activate_application = activate


async def refresh():
    await Slow.entered.wait()
    raise ValueError("in background work")


async def announce():
    # Active comes a moment before the thread that sends, without which a stop sends nothing.
    connection = core.agent_instance().application(feature._application.name)
    while not connection._connected_event.is_set():
        await asyncio.sleep(0.01)
    print("connected", flush=True)
    await Slow.entered.wait()
    print("slow", flush=True)


service.background("refresh prices", refresh)
service.background("announce", announce)
process.run(service)
[export] = feature.exports()
print("given to the agent:", export.sent, "dropped:", export.dropped)
# Anything sent after the drain would be too late.
atexit.unregister(core.agent_instance()._atexit_shutdown)
"""
INITIALIZED = """
import logging

from tornado_chassis import process
from tests.chassis.settings import Settings

settings = process.configure([], Settings)
for warning in settings.warnings:
    print("warning:", warning.replace("\\n", " "))

import newrelic.agent

logging.basicConfig(level="INFO")
logging.getLogger("newrelic.core").info("connecting")
logging.getLogger("newrelic.core").warning("license is wrong")
utilization = newrelic.agent.global_settings().utilization
print("asks clouds:", utilization.detect_aws, utilization.detect_azure, utilization.detect_gcp)
print("proxy:", newrelic.agent.global_settings().proxy_host)
"""

Event = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]


class Reports:
    """What the agent would have sent."""

    def __init__(self, log: Path) -> None:
        self.log = log
        #: Everything that the service printed.
        self.output = ""

    def payloads(self, method: str) -> list[Any]:
        found = []
        text = self.log.read_text() if self.log.exists() else ""
        for entry in text.split("=" * 78 + "\n"):
            head, _, data = entry.partition("\nDATA: ")
            if data and f"'method': '{method}'" in head:
                found.append(ast.literal_eval(data.strip()))
        return found

    def events(self, method: str) -> list[Event]:
        """Intrinsic, own and the agent's attributes of each."""
        return [event for payload in self.payloads(f"{method}_event_data") for event in payload[2]]

    def transactions(self) -> list[Event]:
        return self.events("analytic")

    def errors(self) -> list[Event]:
        return self.events("error")

    def traces(self) -> list[Any]:
        return [trace for payload in self.payloads("error_data") for trace in payload[1]]

    def error(self, message: str) -> Event:
        (found,) = [event for event in self.errors() if event[0]["error.message"] == message]
        return found

    def metrics(self) -> dict[str, list[float]]:
        """Count, total and so on of each metric that belongs to no transaction."""
        # More than one, if more than a minute has passed.
        found = [each for payload in self.payloads("metric_data") for each in payload[3]]
        return {metric["name"]: data for metric, data in found if not metric["scope"]}


def request(port: int, method: str, path: str, body: str | None = None) -> None:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(client):
        client.request(method, path, body, HEADERS)
        with contextlib.suppress(http.client.IncompleteRead, ConnectionError):
            client.getresponse().read()


async def talk(port: int) -> None:
    websocket = await websocket_connect(f"ws://127.0.0.1:{port}/ws")
    await websocket.write_message("boom")
    assert await websocket.read_message() is None


def run(code: str, **environ: str) -> tuple[int, str]:
    """Exit status and output of a program, in a process and so with an agent of its own."""
    with process(code, FEATURES=FEATURES, **KEY, **environ) as child:
        return child.wait(), child.output()


@contextlib.contextmanager
def running() -> Iterator[tuple[Process, Reports]]:
    """A connected service."""
    with tempfile.TemporaryDirectory() as directory:
        reports = Reports(Path(directory, "audit.log"))
        environ = {
            **KEY,
            "NEW_RELIC_DEVELOPER_MODE": "true",
            "NEW_RELIC_AUDIT_LOG": str(reports.log),
            "ENVIRONMENT": "test",
        }
        with process(CHILD, FEATURES=FEATURES, **environ) as service:
            service.wait_for_output("connected\n")
            yield service, reports


@pytest.fixture(scope="module")
def reports() -> Iterator[Reports]:
    """From a service that served one request of each kind, and was then stopped."""
    with running() as (service, reports):
        port = service.port
        paths = "hello/one hello/two nowhere else/where status/403 raising/mute raising/alone boom "
        paths += "status/503 flushed finished probe raising/callback"
        for path in paths.split():
            request(port, "GET", f"/{path}?token=s3cret")
        request(port, "POST", "/", "s3cret")
        request(port, "GET", "/outgoing")
        asyncio.run(talk(port))
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            service.wait_for_output("slow\n")
        assert service.stop() == 0, service.output()
        reports.output = service.output()
        yield reports


def test_transactions_are_named_after_routes_and_have_their_status(reports: Reports) -> None:
    names = Counter(intrinsics["name"] for intrinsics, _, _ in reports.transactions())
    assert {name.removeprefix("WebTransaction/Tornado/"): names[name] for name in names} == {
        "GET /hello/{name}": 3,
        "GET unmatched": 2,
        "GET /status/{1}": 2,
        "GET /raising/{1}": 3,
        **dict.fromkeys(("GET /boom", "GET /flushed", "GET /finished", "POST /"), 1),
        **dict.fromkeys(("GET /outgoing", "GET /ws", "GET /slow"), 1),
    }
    statuses = {
        (attributes["request.uri"], attributes["http.statusCode"])
        for _, _, attributes in reports.transactions()
    }
    assert {("/hello/one", 200), ("/nowhere", 404), ("/boom", 500), ("/ws", 101)} <= statuses
    assert ("/slow", 499) in statuses


def test_each_error_is_reported_and_counted_once(reports: Reports) -> None:
    messages = [intrinsics["error.message"] for intrinsics, _, _ in reports.errors()]
    assert sorted(message for message in messages if not message.startswith("early")) == [
        "<Mute whose text fails: SystemExit>",
        "HTTP 503: Service Unavailable",
        "a?b",
        "after finish",
        "after flush",
        "boom",
        "boom in a message",
        "in a callback",
        "in a probe",
        "in background work",
    ]
    # And the early ones, of which five found no room.
    assert f"given to the agent: {10 + MAX_WAITING} dropped: 5\n" in reports.output


def test_background_work_is_reported_by_name(reports: Reports) -> None:
    intrinsics, own, _ = reports.error("in background work")
    assert intrinsics["error.class"] == "builtins:ValueError"
    assert own["background.work"] == "refresh prices"


def test_error_has_its_transaction_and_ids_and_those_too_after_the_end(reports: Reports) -> None:
    intrinsics, own, _ = reports.error("boom")
    assert intrinsics["error.class"] == "builtins:ValueError"
    assert intrinsics["transactionName"] == "WebTransaction/Tornado/GET /boom"
    assert intrinsics["traceId"] == TRACE_ID
    assert own["request_id"] == "caller.1"
    assert own["http.route"] == "/boom"
    intrinsics, own, _ = reports.error("after finish")
    assert intrinsics["transactionName"] is None
    assert (own["request_id"], own["http.route"]) == ("caller.1", "/finished")


def test_stack_traces_are_sent(reports: Reports) -> None:
    assert reports.traces()
    assert all("in <module>" in str(trace[4]["stack_trace"]) for trace in reports.traces())


def test_calls_to_other_services_are_measured(reports: Reports) -> None:
    (name,) = [name for name in reports.metrics() if name.endswith("/tornado/GET")]
    assert name.startswith("External/127.0.0.1:")


def test_neither_secrets_nor_logs_are_sent(reports: Reports) -> None:
    assert "s3cret" not in reports.log.read_text()
    assert reports.payloads("log_event_data") == []


def test_errors_wait_until_the_agent_is_connected(reports: Reports) -> None:
    early = [event for event in reports.errors() if event[0]["error.message"].startswith("early")]
    messages = [intrinsics["error.message"].rstrip("x") for intrinsics, _, _ in early]
    numbers = sorted(int(message.split()[1]) for message in messages)
    assert numbers == list(range(5, MAX_WAITING + 5))
    assert {intrinsics["error.class"] for intrinsics, _, _ in early} == {"__main__:OrderError"}
    assert all(own["occurred"].endswith("+00:00") for _, own, _ in early)
    assert reports.output.count("Not connected to New Relic") == 1


def test_waiting_errors_keep_nothing_else_alive(reports: Reports) -> None:
    assert "bodies that are kept: 0\n" in reports.output
    early = [trace[4]["stack_trace"] for trace in reports.traces() if "early" in trace[2]]
    assert "in lose" in str(early)


def test_waiting_errors_are_sent_by_a_stop() -> None:
    with running() as (service, reports):
        assert service.stop() == 0, service.output()
        assert len(reports.errors()) == MAX_WAITING


def test_session_describes_the_service_and_is_ended_by_a_stop(reports: Reports) -> None:
    (((connect,),),) = [reports.payloads("connect")]
    assert connect["app_name"] == [SERVICE]
    assert connect["labels"] == [{"label_type": "Environment", "label_value": "test"}]
    assert connect["metadata"]["NEW_RELIC_METADATA_SERVICE_VERSION"] == VERSION
    assert len(reports.payloads("shutdown")) == 1


def test_agent_is_initialised_before_tornado_is_imported() -> None:
    assert run(MAIN) == (0, "")


def test_no_cloud_is_asked_and_only_warnings_of_the_agent_are_logged() -> None:
    _, output = run(INITIALIZED)
    assert "asks clouds: False False False\n" in output
    assert "license is wrong" in output
    assert "connecting" not in output


def test_agent_has_a_file_and_a_log_of_its_own(tmp_path: Path) -> None:
    config = tmp_path / "newrelic.ini"
    config.write_text("[newrelic]\nutilization.detect_aws = true\n")
    _, output = run(INITIALIZED, NEW_RELIC_CONFIG_FILE=str(config), NEW_RELIC_LOG="/dev/null")
    assert "asks clouds: True False False\n" in output
    assert "license is wrong" not in output


@pytest.mark.parametrize(
    "environ",
    [
        {"NEW_RELIC_PORT": "https"},
        {"NEW_RELIC_SHUTDOWN_TIMEOUT": "soon"},
        {"NEW_RELIC_CONFIG_FILE": "/nowhere/newrelic.ini"},
        {"NEW_RELIC_CONFIG_FILE": __file__},
    ],
    ids=lambda environ: next(iter(environ)),
)
def test_variable_that_the_agent_rejects_is_logged_and_ignored(environ: dict[str, str]) -> None:
    status, output = run(INITIALIZED, **environ)
    assert status == 0
    [warning] = [line for line in output.splitlines() if "It is ignored" in line]
    assert warning.startswith(f"warning: {next(iter(environ))}: ")
    assert "asks clouds: False False False\n" in output


@pytest.mark.parametrize("seconds", ["60", "9" * 30])
def test_start_does_not_wait_for_the_collector(seconds: str) -> None:
    with reserved_port() as port:
        where = {"NEW_RELIC_HOST": "127.0.0.1", "NEW_RELIC_PORT": str(port)}
        environ = {**KEY, **where, "NEW_RELIC_STARTUP_TIMEOUT": seconds}
        # The agent connects as soon as there is a provider of OpenTelemetry's tracers.
        with listening(FEATURES="logs jaeger newrelic", **environ) as service:
            assert "NEW_RELIC_STARTUP_TIMEOUT: ignored, because" in service.output()
            assert service.stop() == 0


@pytest.mark.parametrize(
    ("key", "mode", "line"),
    [
        ("", "true", "NEW_RELIC_LICENSE_KEY is not set"),
        ("s3cret", "true", "NEW_RELIC_LICENSE_KEY: should be 40 letters"),
        (KEY["NEW_RELIC_LICENSE_KEY"], "false", "NEW_RELIC_MONITOR_MODE is off"),
    ],
)
def test_agent_that_is_off_keeps_nothing_and_says_why(key: str, mode: str, line: str) -> None:
    environ = {"NEW_RELIC_LICENSE_KEY": key, "NEW_RELIC_MONITOR_MODE": mode}
    with process(FEATURES=FEATURES, **environ) as service:
        service.wait_for_output("is running")
        request(service.port, "GET", "/boom")
        assert service.output().count(line) == 1
        assert not [each for each in ("Not connected", "s3cret") if each in service.output()]


def test_proxy_of_the_environment_is_the_agent_s() -> None:
    def proxy(**environ: str) -> str:
        _, output = run(INITIALIZED, HTTPS_PROXY="http://proxy:3128", **environ)
        return output.partition("proxy: ")[2].strip()

    assert proxy() == "http://proxy:3128"
    assert proxy(NEW_RELIC_PROXY_HOST="other") == "other"
    assert proxy(NO_PROXY=".newrelic.com") == "None"


def test_stop_does_not_wait_for_a_silent_collector() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        where = {"NEW_RELIC_HOST": "127.0.0.1", "NEW_RELIC_PORT": port}
        with listening(FEATURES=FEATURES, **KEY, **where) as service:
            request(service.port, "GET", "/")
            assert service.stop() == 0, service.output()


class TestIdle(ChassisTest):
    features = FEATURES

    def test_without_a_license_key_nothing_happens(self) -> None:
        assert self.fetch("/boom").code == 500
        assert not any(thread.name.startswith("NR-") for thread in threading.enumerate())
        assert "newrelic.agent" not in sys.modules
        assert None in [each.sent for each in self.app.runtime.exports()]
