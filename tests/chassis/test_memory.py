"""What all limits together allow, as the arithmetic of `docs/operations.md` has it."""

import asyncio
import re
import struct
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
import tornado_chassis
from tornado.httpclient import AsyncHTTPClient
from tornado_chassis import connections, limits, websockets
from tornado_chassis.settings import read
from tornado_chassis.testing import until

from .settings import Settings
from .testing import UPGRADE, http, listening

BASE_MIB = 96
REQUEST_KIB = 64
CONNECTION_KIB = 8 + connections.LIMITS["max_header_size"] // 1024
LONG = 30_000


def allowed() -> int:
    """In MiB, with the defaults."""
    settings = read(Settings, {})
    held = limits.MAX_BODY_BYTES + websockets.MAX_WEBSOCKET_BYTES + settings.max_unread_bytes
    each = settings.max_requests_in_flight * REQUEST_KIB + settings.max_connections * CONNECTION_KIB
    return BASE_MIB + held // 2**20 + each // 2**10


def test_documented_sum() -> None:
    page = Path(tornado_chassis.__file__).parents[2] / "docs/operations.md"
    [said] = re.findall(r"With the defaults, that is\s+(\d+) MiB", page.read_text(encoding="utf-8"))
    assert int(said) == allowed()


REQUESTS = {
    "body": (80, http("POST /", body=b"x" * (2**20 - 1), size=2**20)),
    "websocket": (
        80,
        http("GET /ws", *UPGRADE) + struct.pack("!BBQ", 0x82, 0xFF, 2**20) + bytes(4 + 2**20 - 1),
    ),
    "unread": (40, http("GET /big") * 9),
    "arguments": (50, http("GET /slow?" + "a&" * 990)),
    "target": (50, http("GET /slow?" + "a" * LONG)),
    "headers": (400, http("GET /slow", *(f"h{number}: {'x' * 290}" for number in range(98)))),
    "begun": (300, b"GET /slow HTTP/1.1\r\nHost: a\r\na: %s" % (b"x" * LONG)),
}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
async def test_memory_at_all_limits() -> None:
    answers: Counter[tuple[str, bytes]] = Counter()
    reading = []

    async def send(port: int, kind: str, request: bytes) -> None:
        # It stops reading from the socket soon.
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**14)
        reading.append(asyncio.create_task(read_status(kind, reader, writer)))
        with suppress(ConnectionError):
            writer.write(request)
            await writer.drain()

    async def read_status(
        kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(ConnectionError):
            answers[kind, (await reader.readline())[9:12]] += 1
        await asyncio.Event().wait()

    with listening(STALL_TIMEOUT_SECONDS="600", RECEIVE_TIMEOUT_SECONDS="600") as service:
        probe = f"http://127.0.0.1:{service.ports[1]}/livez"
        for kind, (count, request) in REQUESTS.items():
            await asyncio.gather(*(send(service.port, kind, request) for _ in range(count)))
            assert (await AsyncHTTPClient().fetch(probe)).code == 200
        too_many = REQUESTS["body"][0] - limits.MAX_BODY_BYTES // 2**20
        await until(lambda: answers["body", b"503"] == too_many)
        await until(lambda: answers["arguments", b"503"] == REQUESTS["arguments"][0])
        status = Path(f"/proc/{service.pid}/status").read_text(encoding="utf-8")  # noqa: ASYNC240
        for task in reading:
            task.cancel()
    [peak] = re.findall(r"VmHWM:\s+(\d+) kB", status)
    assert 100 < int(peak) / 1024 <= allowed()
