"""A backend on loopback, which takes what is exported and can fail in the ways that backends do."""

import gzip
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .decode import Received, decode

# For `export`: its tests need not wait, but a busy machine may need long to stop.
IMPATIENT: dict[str, Any] = {
    "BATCH_SECONDS": 0.001,
    "FIRST_DELAY_SECONDS": 0.001,
    "MAX_DELAY_SECONDS": 0.01,
    "STOP_SECONDS": 60.0,
}


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    #: Without its compression.
    body: bytes

    @cached_property
    def spans(self) -> list[Received]:
        return list(decode(self.body))


class Receiver(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_port = True  # for one that is reserved

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.requests: list[Request] = []
        #: What to answer with, in turn; after that, 200.
        self.statuses: deque[int] = deque()
        #: Headers of other answers than 200.
        self.headers: dict[str, str] = {}
        self.answer = b"{}"
        self.refused = 0
        self.connections = 0
        #: Whether to close connections without a word.
        self.hangs_up = False
        self.changed = threading.Condition()

    @property
    def spans(self) -> list[Received]:
        return [span for request in self.requests for span in request.spans]

    def wait_for(self, spans: int = 1, refused: int = 0) -> None:
        with self.changed:
            assert self.changed.wait_for(
                lambda: len(self.spans) >= spans and self.refused >= refused, timeout=60
            )


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        with self.server.changed:
            status = self.server.statuses.popleft() if self.server.statuses else 200
            if status == 200:
                self.server.requests.append(Request(self.path, {**self.headers}, body))
            else:
                self.server.refused += 1
            self.server.changed.notify_all()
        self.send_response(status)
        for name, value in self.server.headers.items() if status != 200 else ():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.server.answer)))
        self.end_headers()
        self.wfile.write(self.server.answer)
        self.close_connection = self.server.hangs_up

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    with Receiver(port) as receiver:
        thread = threading.Thread(
            target=receiver.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        thread.start()
        try:
            yield receiver
        finally:
            receiver.shutdown()
            thread.join()


@contextmanager
def hanging(port: int = 0) -> Iterator[str]:
    """The URL of a backend that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", port), reuse_port=True) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def unanswering() -> Iterator[tuple[str, int]]:
    """The address of a host that does not answer to those who want to connect."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as stack:
        address = listener.getsockname()
        # Once its queue is full, the kernel drops what else comes.
        while True:
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0.2)
            try:
                waiting.connect(address)
            except TimeoutError:
                break
        yield address


@contextmanager
def serving(serve: Callable[[socket.socket], object]) -> Iterator[str]:
    """The URL of a backend that does this with its only connection."""

    def accept() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            serve(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def sip(connection: socket.socket) -> None:
    """Reads a little at a time."""
    while connection.recv(32 * 1024):
        time.sleep(0.2)


def drip(connection: socket.socket) -> None:
    """Sends an answer a byte at a time, without end."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while True:
        connection.sendall(b"x")
        time.sleep(0.01)
