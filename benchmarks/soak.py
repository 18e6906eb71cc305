"""Is anything lost or doubled, and is memory flat? Everything at once: load, failures, uploads,
WebSockets, clients that leave, clients that attack, restarts, and a backend that comes and goes."""

import argparse
import asyncio
import random
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import ceil
from typing import IO

from tests.backends import free_port, serving
from tests.load import load, visits

from . import machine, report
from .attackers import Attackers
from .ledger import ANSWERED, FAILED, LEFT, MESSAGES, OPENED, UPLOADED, Ledger
from .variants import EVERYTHING, Variant
from .workshop import Server, Workshop, get

DEFAULTS = {"seconds": 300}

HANDLERS = """\
import asyncio

from tornado.websocket import WebSocketHandler


class Bench(JsonHandler):
    async def get(self, name: str) -> None:
        if name == "fail":
            raise RuntimeError("as it happens")
        if name == "slow":
            self.write("It takes a while")
            await self.flush()
            await asyncio.sleep(1)
        self.finish({"message": "hello"})

    def put(self, name: str) -> None:
        self.finish({"bytes": len(self.request.body)})


class Big(JsonHandler):
    def get(self) -> None:
        self.finish(b"x" * 8_000_000)


class Echo(WebSocketHandler):
    def on_message(self, message: str | bytes) -> None:
        self.write_message(message, binary=isinstance(message, bytes))
"""
ROUTES = """(r"/bench/(?P<name>[^/]+)", handlers.Bench),
        (r"/echo", handlers.Echo),
        (r"/big", handlers.Big)"""
SETTINGS = {
    "SENTRY_DSN": "http://key@{address}/1",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://{address}",
}
VARIANT = Variant("soak", EVERYTHING, SETTINGS, handler=HANDLERS, route=ROUTES)

LIFE_SECONDS = 50
"""How long a process runs, at most.

Every 30 seconds Sentry's SDK reports what it has dropped, and forgets it where that can't be sent
either. So the backend is away for a while before then, and back again.
"""

UPLOAD = b"x" * 200_000
MESSAGE_SIZES = (0, 125, 126, 5_000, 65_535, 65_536, 200_000)
OPENING = (
    b"GET /echo HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SLOW_UPLOAD = b"PUT /bench/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"
GOING_AWAY = b"\x03\xe9"  # 1001
AWAY = 0.25, 0.5
"""When the backend goes away and when it comes back, as parts of a life."""

QUICK_SECONDS = 60
SAMPLE_SECONDS = 0.25
SETTLE_SECONDS = 3.0
STOP_SECONDS = 30.0
HELD_MIB = 64
"""How much more memory a process may take in the end than at its start, attacks included."""
GROWTH = 1.05
"""How many times as much memory a process may take in the last quarter of its life as in the third,
when what waited for the backend has been sent."""


def main(options: argparse.Namespace, workshop: Workshop) -> None:
    seconds = QUICK_SECONDS if options.quick else options.seconds
    lives = max(2, ceil(seconds / LIFE_SECONDS))
    workshop.prepare(VARIANT)
    machine.pin()
    ledger = Ledger()
    memory = []
    with tempfile.TemporaryFile() as log:
        for number in range(1, lives + 1):
            print(f"life {number} of {lives}", file=sys.stderr)
            memory.append(live(workshop, ledger, seconds / lives, log, not options.quick))
        log.seek(0)
        ledger.read_log(log)
    findings = list(ledger.findings())
    grown = max(map(growth, memory))
    held = max(each[-1] - each[0] for each in memory)
    if (grown > GROWTH or held > HELD_MIB) and not options.quick:
        findings.append("memory is not flat")
    summary = [
        f"{lives} processes of {seconds / lives:g} s each, and their stops.",
        f"Memory is up to {grown:.2f} times what it was a quarter earlier, and in the end, without "
        f"attackers, {held:.0f} MiB more than at the start.",
        *(findings or ["It balances."]),
    ]
    if ledger.warnings:
        summary.append("Besides, the log says:\n")
        summary += [f"- {text} ({count})" for text, count in ledger.warnings.most_common()]
    results = {**ledger.results(), "memory": memory, "findings": findings}
    markdown = "\n".join([ledger.table(), *summary, ""])
    report.save(options.output, "soak", results, markdown)
    if findings:
        raise SystemExit(1)


def live(
    workshop: Workshop, ledger: Ledger, seconds: float, log: IO[bytes], is_timed: bool
) -> list[float]:
    """Runs a process for so long under load and stops it; returns the MiB that it had meanwhile.

    If it is timed, probes that are not answered within a second are problems.
    """
    backend = Backend(ledger)
    address = {"address": f"127.0.0.1:{backend.port}"}
    with ExitStack() as there, ExitStack() as stack:
        there.enter_context(backend.serving())
        server = stack.enter_context(workshop.start(VARIANT, values=address, output=log))
        server.wait_until_ready()
        port = server.port
        guests = Guests(port, ledger)
        attackers = Attackers(port, server.admin_port, ledger.problems, is_timed)
        with (
            load(port, "/bench/x", connections=4, pause=0.005) as requests,
            load(port, "/bench/fail", connections=2, pause=0.05, status=500) as failing,
            load(port, "/bench/x", connections=2, pause=0.05, body=UPLOAD) as uploads,
            visits([guests.leave, guests.cut_off, guests.talk, guests.talk]),
            visits(attackers.workers()),
        ):
            memory = watch(server, seconds * AWAY[0])
            there.close()
            memory += watch(server, seconds * (AWAY[1] - AWAY[0]))
            there.enter_context(backend.serving())
            memory += watch(server, seconds * (1 - AWAY[1]))
            attackers.is_stopping = True
            time.sleep(SETTLE_SECONDS)
            memory.append(server.resident_mib())
            silent = stack.enter_context(opened(port, OPENING))
            assert silent.recv(4096).startswith(b"HTTP/1.1 101 ")
            slow = stack.enter_context(opened(port, SLOW_UPLOAD))
            for each in (requests, failing, uploads, guests):
                each.stopping.set()
            server.process.terminate()
        # One upload keeps the process from its end, and is not counted yet.
        ledger.lacking["counted"] += 1
        ledger.read_metrics(get(server.admin_port, "/metrics").decode())
        slow.sendall(b"x")
        assert slow.recv(4096).startswith(b"HTTP/1.1 200 ")
        assert GOING_AWAY in silent.recv(4096)
        assert server.process.wait(STOP_SECONDS) == 0
    ledger.sent[ANSWERED] += requests.answered + 1  # the first one is the Workshop's
    ledger.sent[FAILED] += failing.answered
    ledger.sent[UPLOADED] += uploads.answered + 1
    ledger.sent[OPENED] += 1
    ledger.problems.update([*requests.failures, *failing.failures, *uploads.failures])
    return memory


def watch(server: Server, seconds: float) -> list[float]:
    """The MiB that a process has meanwhile."""
    memory = []
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        memory.append(server.resident_mib())
        time.sleep(SAMPLE_SECONDS)
    return memory


def growth(memory: list[float]) -> float:
    """How many times as much a process has in the last quarter of its life as in the third."""
    quarter = len(memory) // 4
    return max(memory[-quarter:]) / max(memory[2 * quarter : 3 * quarter])


def opened(port: int, request: bytes) -> socket.socket:
    """A connection that has asked for something."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=STOP_SECONDS)
    connection.sendall(request)
    return connection


class Guests:
    """Clients other than those of `load`, each of which comes until the service takes no more."""

    def __init__(self, port: int, ledger: Ledger) -> None:
        self.stopping = threading.Event()
        self._port = port
        self._sent = ledger.sent
        self._problems = ledger.problems

    async def leave(self) -> None:
        """Asks for what takes a while, and leaves when it begins to come."""
        async for reader, writer in self._connections():
            writer.write(b"GET /bench/slow HTTP/1.1\r\nHost: a\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            writer.close()
            self._sent[LEFT] += 1

    async def cut_off(self) -> None:
        """Leaves in the middle of its upload, which no handler ever sees."""
        async for _, writer in self._connections():
            writer.write(b"PUT /bench/x HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\nhalf")
            await writer.drain()
            writer.close()

    async def talk(self) -> None:
        """Sends messages through a WebSocket and reads them back."""
        async for reader, writer in self._connections():
            writer.write(OPENING)
            await reader.readuntil(b"\r\n\r\n")
            self._sent[OPENED] += 1
            for size in MESSAGE_SIZES:
                message = random.randbytes(size)
                writer.write(_frame(message, masked=True))
                self._sent[MESSAGES] += 1
                echo = _frame(message, masked=False)
                if await reader.readexactly(len(echo)) != echo:
                    self._problems["another message came back"] += 1
            writer.close()

    async def _connections(
        self,
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        while True:
            await asyncio.sleep(random.uniform(0, 0.1))
            try:
                connection = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                if not self.stopping.is_set():
                    self._problems["a connection was refused"] += 1
                return
            yield connection


def _frame(message: bytes, masked: bool) -> bytes:
    """A binary message of RFC 6455; a client has to mask it, which zeros do as well as others."""
    bit = 0x80 if masked else 0
    length, mask = len(message), bytes(4) if masked else b""
    if length < 126:
        return struct.pack("!BB", 0x82, bit | length) + mask + message
    if length < 65536:
        return struct.pack("!BBH", 0x82, bit | 126, length) + mask + message
    return struct.pack("!BBQ", 0x82, bit | 127, length) + mask + message


class Backend:
    """Stands for an OTLP collector and Sentry, at one port of loopback."""

    def __init__(self, ledger: Ledger) -> None:
        self.port = free_port()
        self._lock = threading.Lock()
        self._ledger = ledger

    def serving(self) -> AbstractContextManager[None]:
        """Accepts connections until the end of the block. What it has begun to read, it takes."""
        return serving(_Listening(("127.0.0.1", self.port), self._handler()))

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        backend = self

        class Handler(BaseHTTPRequestHandler):
            # By its default, HTTP/1.0, no connection outlives its request.
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                encoding = self.headers.get("Content-Encoding", "")
                with backend._lock:
                    if self.path == "/v1/traces":
                        backend._ledger.read_spans(body, encoding)
                    else:
                        backend._ledger.read_envelope(body, encoding)
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *args: object) -> None:
                pass

        return Handler


class _Listening(ThreadingHTTPServer):
    daemon_threads = False  # so that those are waited for which have begun to read
