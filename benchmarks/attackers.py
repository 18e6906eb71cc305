"""Clients that mean harm, each in a loop until the service takes no more: one of them, whatever it
does, must be nothing to the others."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from math import inf

MIB = 1024 * 1024
PROBE_SECONDS = 1.0
"""A probe is answered within that time, whatever else the service has to do."""

_PAUSE_SECONDS = 0.2
_HELD_SECONDS = 5.0
_GREEDY = b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n"


def _body(method: str, path: str, length: int, sent: int) -> bytes:
    """A request that announces more of its body than it sends."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n"
    return head.encode() + bytes(sent)


ATTACKS = {
    "bodies that never come": (10, _body("PUT", "/bench/x", MIB, 0)),
    "bodies that stop": (10, _body("PUT", "/bench/x", MIB, MIB // 2)),
    "bodies to probes": (10, _body("POST", "/livez", MIB, MIB - 1)),
    "answers that nobody reads": (10, _GREEDY),
    "pipelines that nobody reads": (2, _GREEDY * 50),
    "headers by the thousand": (
        2,
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"%x:\r\n" % n for n in range(4000)) + b"\r\n",
    ),
    "arguments by the thousand": (2, b"GET /?%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a=&" * 20_000)),
}
"""How many connections do it at a time, and what each sends before it waits."""

ADMIN_ATTACK = 5, _body("PUT", "/loglevel", MIB, MIB - 1)


class Attackers:
    def __init__(self, port: int, admin_port: int, problems: Counter[str], is_timed: bool) -> None:
        self._port = port
        self._admin_port = admin_port
        self._problems = problems
        self._seconds = PROBE_SECONDS if is_timed else inf
        self.is_stopping = False

    def workers(self) -> list[Callable[[], Coroutine[None, None, None]]]:
        workers: list[Callable[[], Coroutine[None, None, None]]] = [self._probe]
        attacks = [(self._port, *each) for each in ATTACKS.values()]
        for port, count, request in [*attacks, (self._admin_port, *ADMIN_ATTACK)]:
            workers += [partial(self._attack, port, request)] * count
        return workers

    async def _attack(self, port: int, request: bytes) -> None:
        while not self.is_stopping:
            with suppress(OSError, asyncio.IncompleteReadError):
                _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
                writer.write(request)
                for _ in range(int(_HELD_SECONDS / _PAUSE_SECONDS)):
                    if not self.is_stopping:
                        await asyncio.sleep(_PAUSE_SECONDS)
                writer.transport.abort()
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _probe(self) -> None:
        """Asks as the kubelet does, on the admin port, on a connection of its own each time."""
        while not self.is_stopping:
            for path in ("/livez", "/readyz"):
                started = time.monotonic()
                try:
                    status = await asyncio.wait_for(self._status(path), 30)
                except (OSError, EOFError, TimeoutError) as error:
                    status = repr(error)
                seconds = time.monotonic() - started
                if self.is_stopping:
                    return
                if status != "200":
                    self._problems[f"{path}: {status}"] += 1
                if seconds > self._seconds:
                    self._problems[f"{path} took more than {PROBE_SECONDS:g} s"] += 1
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _status(self, path: str) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._admin_port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            line = await reader.readline()
            return line.split(b" ")[1].decode() if line else "closed"
        finally:
            writer.close()
