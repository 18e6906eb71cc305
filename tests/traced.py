"""A service with a handler to trace, and a way to its backend that is broken at first."""

import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from .backends import free_port
from .project import Project

FAULTS = ("refuses", "hangs", "answers 500")
CALLER = "b7ad6b7169203331"


def add_orders(project: Project) -> None:
    """Adds a handler that fails within a span of its own."""
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
