"""Metrics, received by a real StatsD daemon."""

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ..backends import WAIT_SECONDS, eventually, free_port, statsd, statsd_exporter
from ..load import load
from .conftest import Generate
from .edits import Team
from .project import PROMPTLY, Project, Service

DURATION = "http_server_request_duration_seconds"
MAX_SAMPLES = 10_000
MEBIBYTE = 1024 * 1024


@pytest.fixture
def project(generate: Generate) -> Project:
    return generate(metrics="statsd")


def test_daemon_receives_what_is_measured(generate: Generate, tmp_path: Path) -> None:
    project = with_a_counter(generate(metrics="statsd"))
    with statsd.running(tmp_path) as server:
        settings = {
            "STATSD_HOST": "127.0.0.1",
            "STATSD_PORT": str(server.port),
            "STATSD_PREFIX": "shop",
        }
        with project.start(**settings) as service:
            for name in ("one", "two", "three"):
                assert service.get(f"/hello/{name}?token=in-the-query")[0] == 200
            assert service.get("/nowhere/1")[0] == service.get("/nowhere/2")[0] == 404
            # The last of it may still wait to be sent: a stop loses none.
            assert service.terminate() == 0
        server.wait_for_all()
        timers = {name: len(values) for name, values in server.timers().items()}
        assert timers == {
            f"shop.{DURATION}.GET.http.200._hello_name_.none": 3,
            f"shop.{DURATION}.GET.http.404.unmatched.none": 2,
        }
        assert all(0 < value < 10_000 for values in server.timers().values() for value in values)
        assert server.counters()["shop.greetings.en"] == 3
        gauges = server.gauges()
        assert gauges[f"shop.http_server_active_requests.GET.http.{instance(service)}"] == 0
        assert 0 <= gauges[f"shop.event_loop_lag_seconds.{instance(service)}"] < 10
        assert gauges[f"shop.process_memory_usage_bytes.{instance(service)}"] > MEBIBYTE
        assert any(name.startswith(f"shop.build_info.{project.slug}.0_1_0.") for name in gauges)
        assert server.counters()["statsd.bad_lines_seen"] == 0


def test_gauges_of_a_service_that_is_gone_end(project: Project, tmp_path: Path) -> None:
    """With the setting that the runbook names."""
    own = (project.path / "deploy/statsd/config.js").read_text(encoding="utf-8")
    setting = "deleteIdleStats: true"
    assert setting in own
    assert setting in (project.path / "docs/runbook.md").read_text(encoding="utf-8")
    with statsd.running(tmp_path, flushInterval=1000, deleteIdleStats=True) as server:
        with project.start(STATSD_HOST="127.0.0.1", STATSD_PORT=str(server.port)) as service:
            server.wait_for(lambda it: f"{project.slug}.build_info" in str(it.gauges()))
            assert service.terminate() == 0
        server.wait_for(lambda it: f"{project.slug}.build_info" not in str(it.gauges()))


def test_two_services_and_two_instances_keep_apart(generate: Generate, tmp_path: Path) -> None:
    desk = with_a_counter(generate(metrics="statsd", project_slug="order-desk"))
    shop = with_a_counter(generate(metrics="statsd", project_slug="shop"))
    with statsd.running(tmp_path) as server:
        settings = {"STATSD_HOST": "127.0.0.1", "STATSD_PORT": str(server.port)}
        with (
            desk.start(**settings) as one,
            desk.start(**settings) as other,
            shop.start(**settings) as another,
        ):
            services = (one, other, another)
            for service in services:
                assert service.get("/hello/x")[0] == 200
            for service in services:
                assert service.terminate() == 0
        server.wait_for_all()
        counters = server.counters()
        assert (counters["order-desk.greetings.en"], counters["shop.greetings.en"]) == (2, 1)
        gauges = server.gauges()
        for name in ("event_loop_lag_seconds", "process_cpu_time_seconds"):
            assert {gauge for gauge in gauges if f".{name}." in gauge} == {
                f"order-desk.{name}.{instance(one)}",
                f"order-desk.{name}.{instance(other)}",
                f"shop.{name}.{instance(another)}",
            }


def test_no_name_is_one_of_the_exporters_own(project: Project, tmp_path: Path) -> None:
    """Or none of its metrics could be read: it has some about its own process."""
    with statsd_exporter.running(tmp_path) as exporter:
        own = exporter.names()
        with project.start(STATSD_HOST="127.0.0.1", STATSD_PORT=str(exporter.port)) as service:
            assert service.get("/hello/x")[0] == 200
            assert service.terminate() == 0
        names = {DURATION, "process_cpu_time_seconds", "process_memory_usage_bytes"}
        eventually(lambda: names <= exporter.names() - own, "metrics")


@pytest.mark.full
def test_a_hundred_thousand_paths_add_no_name(project: Project, tmp_path: Path) -> None:
    with (
        statsd.running(tmp_path) as server,
        project.start(STATSD_HOST="127.0.0.1", STATSD_PORT=str(server.port)) as service,
        socket.create_connection(("127.0.0.1", service.port)) as connection,
        connection.makefile("rb") as answers,
    ):
        for start in range(0, 100_000, 250):
            paths = range(start, start + 250)
            connection.sendall(b"".join(b"HEAD /%x HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in paths))
            ends = 0
            while ends < len(paths):
                ends += answers.readline() == b"\r\n"
        assert service.terminate() == 0
        server.wait_for_all()
        assert list(server.timers()) == [f"{project.slug}.{DURATION}.HEAD.http.404.unmatched.none"]


@pytest.mark.parametrize(
    ("fault", "warnings"),
    [
        ("refuses", 1),
        pytest.param("hangs", 0, marks=pytest.mark.full),
        pytest.param("unknown", 1, marks=pytest.mark.full),
    ],
)
def test_service_does_not_depend_on_statsd(project: Project, fault: str, warnings: int) -> None:
    with address(fault) as (host, port):
        settings = {
            "STATSD_HOST": host,
            "STATSD_PORT": str(port),
            "DRAIN_TIMEOUT_SECONDS": "3",
        }
        with project.start(**settings) as service:
            with load(service.port, "/hello/x", connections=4) as traffic:
                traffic.wait_for(500)
                before = service.resident_bytes()
                traffic.wait_for(int(1.5 * MAX_SAMPLES))
                assert service.resident_bytes() - before < 20 * MEBIBYTE
                assert traffic.failures == []
                traffic.stopping.set()
                assert service.terminate(PROMPTLY) == 0, service.output()
            assert service.output().count(f"Sending metrics to {host}:{port} failed") == warnings


def test_what_was_measured_before_the_daemon_came_arrives(project: Project) -> None:
    with address("refuses") as (host, port):
        pass
    with project.start(STATSD_HOST=host, STATSD_PORT=str(port)) as service:
        for _ in range(3):
            service.get("/hello/x")
        destination = f"Sending metrics to {host}:{port}"
        eventually(lambda: f"{destination} failed" in service.output(), "warning")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
            daemon.bind((host, port))
            daemon.settimeout(WAIT_SECONDS)
            line = f"{project.slug}.{DURATION}.GET.http.200._hello_name_.none:".encode()
            received = b""
            for _ in range(100):
                received += daemon.recv(65536)
                if received.count(line) == 3:
                    break
            assert received.count(line) == 3
        assert service.terminate() == 0
        assert service.output().count(f"{destination} works again") == 1


def instance(service: Service) -> str:
    """What gauges of this process have at the end of their names."""
    return re.sub("[^A-Za-z0-9_-]+", "_", f"{socket.gethostname()}_{service.port}")


def with_a_counter(project: Project) -> Project:
    """A metric of the service's own, added as a person would."""
    team = Team(project.path)
    handlers = team.source / "handlers.py"
    greeting, imports = '        log.debug("Greeting")\n', "from tornado_chassis.handlers import"
    team.replace(handlers, greeting, f'{greeting}        greetings.labels("en").inc()\n')
    team.replace(handlers, imports, f"from tornado_chassis import metrics\n{imports}")
    log = "log = logging.getLogger(__name__)\n"
    counter = 'greetings = metrics.counter("greetings", "Greetings given.", ["language"])\n'
    team.replace(handlers, log, f"{log}{counter}")
    return project


@contextmanager
def address(fault: str) -> Iterator[tuple[str, int]]:
    """Where a daemon in trouble is."""
    if fault == "unknown":
        yield "statsd.invalid", 8125
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        port = free_port(socket.SOCK_DGRAM)
        daemon.bind(("127.0.0.1", port))
        if fault == "refuses":
            daemon.close()
        # Else what comes is never read.
        yield "127.0.0.1", port
