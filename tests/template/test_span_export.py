"""Spans, on a way to their backend that is broken: for good, or at first."""

import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

import pytest

from ..backends import WAIT_SECONDS, eventually, free_port
from . import combinations
from .conftest import Generate
from .project import PROMPTLY, TEMPLATE, Project
from .traced import add_handlers, of_trace, trace_id

BACKENDS = [
    choice
    for choice in combinations.choices()["tracing"]
    if (TEMPLATE / "tests" / "backends" / f"{choice}.py").exists()
]
FAULTS = ("refuses", "hangs", "answers 500")


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def server(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    running = import_module(f"..backends.{backend}", __package__).running
    with running(tmp_path_factory.mktemp(backend)) as server:
        yield server


@pytest.fixture
def project(generate: Generate, backend: str) -> Project:
    project = generate(tracing=backend)
    add_handlers(project)
    return project


@pytest.mark.parametrize("fault", FAULTS)
def test_spans_arrive_when_the_backend_is_there_again(
    project: Project, server: Any, fault: str
) -> None:
    """What was queued is kept, and counted."""
    first = 100 * (FAULTS.index(fault) + 1)
    numbers = range(first, first + 20)
    with (
        broken(server.endpoint, fault) as way,
        project.start(**{server.setting: way.url}) as service,
    ):
        for number in numbers:
            assert service.get("/welcome/x", of_trace(number))[0] == 200
        eventually(lambda: way.met.is_set() or "Span export to" in service.output(), "the trouble")
        way.heal()
        for number in numbers:
            server.wait_for_trace(trace_id(number), spans=2)

        def totals() -> str:
            return service.get("/metrics", admin=True)[2]

        eventually(lambda: "\notel_spans_exported_total 40.0\n" in totals(), "the count")
        assert "\notel_spans_dropped_total 0.0\n" in totals()
        assert "\notel_spans_failed_total 0.0\n" in totals()
        assert service.terminate() == 0, service.output()


@pytest.mark.parametrize("fault", [*FAULTS, "does not resolve"])
def test_service_does_not_depend_on_the_backend(project: Project, server: Any, fault: str) -> None:
    """It starts, answers and stops in time."""
    with broken(server.endpoint, fault) as way:
        url = way.url
        if fault == "does not resolve":
            url = urlsplit(url)._replace(netloc="backend.invalid").geturl()
        settings = {server.setting: url, "DRAIN_TIMEOUT_SECONDS": "3"}
        for protocol in ("OTLP", "ZIPKIN"):
            settings[f"OTEL_EXPORTER_{protocol}_TIMEOUT"] = "60000"  # milliseconds
        with project.start(**settings) as service:
            for _ in range(20):
                assert service.get("/welcome/x")[0] == 200
            assert service.terminate(PROMPTLY) == 0, service.output()


class Way:
    """The way to `target`, which is broken until it is healed."""

    def __init__(self, target: str, fault: str) -> None:
        self.target = target
        self.fault = fault
        self.met = threading.Event()
        self.healed = threading.Event()
        self._port = free_port()
        self._server: ThreadingHTTPServer | None = None
        if fault != "refuses":
            self._open()

    @property
    def url(self) -> str:
        return urlsplit(self.target)._replace(netloc=f"127.0.0.1:{self._port}").geturl()

    def heal(self) -> None:
        self.healed.set()
        if self._server is None:
            self._open()

    def close(self) -> None:
        if self._server:
            self.healed.set()
            self._server.shutdown()
            self._server.server_close()

    def _open(self) -> None:
        way = self

        class Relay(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                way.relay(self)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Relay)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def relay(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        if not self.healed.is_set():
            self.met.set()
            if self.fault == "hangs":
                self.healed.wait()
                return  # without a word
            status = 500
        else:
            url = urlsplit(self.target)._replace(path=request.path).geturl()
            passed_on = urllib.request.Request(url, body, dict(request.headers))
            with urllib.request.urlopen(passed_on, timeout=WAIT_SECONDS) as response:
                status = response.status
        request.send_response(status)
        request.end_headers()


@contextmanager
def broken(target: str, fault: str) -> Iterator[Way]:
    way = Way(target, fault)
    try:
        yield way
    finally:
        way.close()
