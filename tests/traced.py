"""A service with a handler to trace, and a way to its backend that is broken at first."""

import json
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from .backends import eventually, free_port
from .project import Project

FAULTS = ("refuses", "hangs", "answers 500")
DRAIN_TIMEOUT = 3
# What the last flushes may take beyond the requests' time.
GRACE = 2
CALLER = "b7ad6b7169203331"


def add_handlers(project: Project) -> None:
    """Adds handlers with a span of their own: in one all goes well, the other fails within it."""
    project.add_handler(
        """\
from .chassis.tracing import span


class Welcome(JsonHandler):
    def get(self, name: str) -> None:
        with span("greet"):
            message = f"Welcome, {name}!"
        self.finish({"message": message})
""",
        '(r"/welcome/(?P<name>[^/]+)", handlers.Welcome)',
    )
    project.add_handler(
        """\
class Order(JsonHandler):
    def post(self, number: str) -> None:
        with span("load order") as loading:
            loading.set_attribute("order.number", int(number))
            raise ValueError(f"order {number} is not there")
""",
        r'(r"/orders/(?P<number>\d+)", handlers.Order)',
    )


def trace_id(number: int) -> str:
    return f"{number:032x}"


def of_trace(number: int) -> dict[str, str]:
    """The headers of a caller who has begun a trace and samples it."""
    return {"traceparent": f"00-{trace_id(number)}-{CALLER}-01"}


def visit(
    project: Project, first: Mapping[str, str], third: Mapping[str, str], **settings: str
) -> dict[str, str]:
    """Makes requests of four traces: one that goes well, one that fails, one that finds nothing,
    and probes. Takes headers for the first and the third, returns the first one's access line."""
    settings["OTEL_SERVICE_NAME"] = "shop"
    settings["OTEL_RESOURCE_ATTRIBUTES"] = "team=orders"
    settings["ENVIRONMENT"] = "staging"
    secrets = {"Cookie": "session=hidden", "Authorization": "Bearer hidden"}
    order = "/orders/7?card=hidden"
    with project.start(**settings) as service:
        assert service.get("/welcome/x?token=hidden", {**first, **secrets})[0] == 200
        assert service.get(order, of_trace(2), method="POST", body="hidden")[0] == 500
        assert service.get("/nowhere", third)[0] == 404
        assert service.get("/livez", of_trace(4))[0] == 200
        assert service.get("/metrics", of_trace(4), admin=True)[0] == 200
        # The last of it may still wait to be sent: a stop loses none.
        assert service.terminate() == 0, service.output()
        lines = [json.loads(line) for line in service.output().splitlines()]
    [access] = [line for line in lines if line.get("url.path") == "/welcome/x"]
    return dict(access)


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
            with urllib.request.urlopen(passed_on, timeout=10) as response:
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


def spans_arrive_when_it_is_there_again(
    project: Project, setting: str, target: str, fault: str, wait_for_trace: Callable[..., Any]
) -> None:
    """Checks that what was queued is kept, and counted, while the way to `target` is broken."""
    first = 100 * (FAULTS.index(fault) + 1)
    numbers = range(first, first + 20)
    with broken(target, fault) as way, project.start(**{setting: way.url}) as service:
        for number in numbers:
            assert service.get("/welcome/x", of_trace(number))[0] == 200
        eventually(
            lambda: way.met.is_set() or "Span export to" in service.output(), 30, "the trouble"
        )
        way.heal()
        for number in numbers:
            wait_for_trace(trace_id(number), spans=2)

        def totals() -> str:
            return service.get("/metrics", admin=True)[2]

        eventually(lambda: "\notel_spans_exported_total 40.0\n" in totals(), 30, "the count")
        assert "\notel_spans_dropped_total 0.0\n" in totals()
        assert "\notel_spans_failed_total 0.0\n" in totals()
        assert service.terminate() == 0, service.output()


def service_does_not_depend_on_it(project: Project, setting: str, path: str, fault: str) -> None:
    """Checks that a service starts, answers and stops in time while its backend is in trouble."""
    with broken(f"http://127.0.0.1{path}", fault) as way:
        settings = {
            setting: f"http://backend.invalid{path}" if fault == "does not resolve" else way.url,
            "DRAIN_TIMEOUT_SECONDS": str(DRAIN_TIMEOUT),
        }
        with project.start(**settings) as service:
            for _ in range(20):
                assert service.get("/welcome/x")[0] == 200
            assert service.terminate(DRAIN_TIMEOUT + GRACE) == 0, service.output()
