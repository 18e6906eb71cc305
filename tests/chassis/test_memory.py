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
from .test_server import HANDSHAKE
from .testing import process

BASE_MIB = 96
REQUEST_KIB = 64
CONNECTION_KIB = 8 + connections.LIMITS["max_header_size"] // 1024
LONG = 30_000
HEADERS = b"".join(b"h%d: %s\r\n" % (number, b"x" * 290) for number in range(98))


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


def memory(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text(encoding="utf-8")


REQUESTS = {
    "body": (80, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\n" + b"x" * 1048575),
    "websocket": (
        80,
        HANDSHAKE + struct.pack("!BBQ", 0x82, 0xFF, 2**20) + bytes(4 + 2**20 - 1),
    ),
    "unread": (40, b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n" * 9),
    "arguments": (50, b"GET /slow?%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a&" * 990)),
    "target": (50, b"GET /slow?%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * LONG)),
    "headers": (400, b"GET /slow HTTP/1.1\r\nHost: a\r\n%s\r\n" % HEADERS),
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

    with process(STALL_TIMEOUT_SECONDS="60") as service:
        service.wait_until_listening()
        admin = re.findall(r"Listening on http://127\.0\.0\.1:(\d+)", service.output())[1]
        probe = f"http://127.0.0.1:{admin}/livez"
        for kind, (count, request) in REQUESTS.items():
            await asyncio.gather(*(send(service.port, kind, request) for _ in range(count)))
            assert (await AsyncHTTPClient().fetch(probe)).code == 200
        too_many = REQUESTS["body"][0] - limits.MAX_BODY_BYTES // 2**20
        await until(lambda: answers["body", b"503"] == too_many)
        await until(lambda: answers["arguments", b"503"] == REQUESTS["arguments"][0])
        status = memory(service.pid)
        for task in reading:
            task.cancel()
    [peak] = re.findall(r"VmHWM:\s+(\d+) kB", status)
    assert 100 < int(peak) / 1024 <= allowed()
