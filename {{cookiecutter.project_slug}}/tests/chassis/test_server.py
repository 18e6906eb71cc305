"""Listening, draining and stopping, in this process and as a process of its own."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import pytest
from tornado.websocket import websocket_connect

from my_service.chassis import server
from my_service.chassis.server import serve
from my_service.chassis.settings import Settings, read

from .routes import Big, Slow, make_service
from .testing import process, reserved_port

REQUEST = b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n"


class Service:
    """The service in this process, stopped by a signal to this process."""

    def __init__(self, **environ: str) -> None:
        self.reserved = contextlib.ExitStack()
        self.port = self.reserved.enter_context(reserved_port())
        address = {"PORT": str(self.port), "REUSE_PORT": "true", "ADMIN_PORT": "0"}
        settings = read(Settings, {**address, "DRAIN_DELAY_SECONDS": "0", **environ})
        self.service = make_service(settings)
        self.app = self.service.app
        self.task = asyncio.create_task(serve(self.service))
        self.writers: list[asyncio.StreamWriter] = []

    async def request(self, path: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Sends a request on a connection of its own, which stays open."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        writer.write(REQUEST % path)
        return reader, writer

    async def refuses(self) -> None:
        """Waits until no new connection is taken."""
        while True:
            with contextlib.suppress(ConnectionResetError):
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except ConnectionRefusedError:
                    return
                writer.close()
                await writer.wait_closed()

    async def enters(self, state: str) -> None:
        while self.app.state != state:  # noqa: ASYNC110 (nobody else waits for it)
            await asyncio.sleep(0)

    def terminate(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    async def stopped(self) -> None:
        with self.reserved:
            await asyncio.wait_for(self.task, 10)

    async def close(self) -> None:
        self.reserved.close()
        self.task.cancel()
        for writer in self.writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Stopping leaves the signals to the system, which would end the tests."""
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@contextlib.asynccontextmanager
async def running(**environ: str) -> AsyncIterator[Service]:
    service = Service(**environ)
    await service.enters("ready")
    try:
        yield service
    finally:
        await service.close()


def test_request_in_flight_is_answered() -> None:
    async def run() -> None:
        async with running() as service:
            reader, _ = await service.request(b"/slow")
            await Slow.entered.wait()
            service.terminate()
            await service.refuses()
            assert service.app.state == "draining"
            Slow.release.set()
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert answer.endswith(b"slow")
            await service.stopped()

    asyncio.run(run())


def test_accepts_during_the_delay() -> None:
    async def run() -> None:
        async with running(DRAIN_DELAY_SECONDS="0.1") as service:
            service.terminate()
            await service.enters("draining")
            reader, _ = await service.request(b"/")
            assert b"200 OK" in await reader.readline()
            await service.stopped()

    asyncio.run(run())


def test_open_connections_close_after_their_next_answer() -> None:
    async def run() -> None:
        async with running() as service:
            reader, writer = await service.request(b"/")
            await reader.readuntil(b"}")
            # Holds the drain at the point where it waits for requests.
            await service.request(b"/slow")
            await Slow.entered.wait()
            service.terminate()
            await service.refuses()
            writer.write(REQUEST % b"/hello/x")
            answer = await asyncio.wait_for(reader.read(), 5)
            assert b"200 OK" in answer
            assert b"\r\nConnection: close\r\n" in answer
            Slow.release.set()
            await service.stopped()

    asyncio.run(run())


def test_idle_connection_has_a_moment_to_send() -> None:
    async def run() -> None:
        async with running(DRAIN_DELAY_SECONDS="0.1") as service:
            reader, writer = await service.request(b"/")
            await reader.readuntil(b"}")
            service.terminate()
            await service.refuses()
            writer.write(REQUEST % b"/hello/x")
            assert b"200 OK" in await asyncio.wait_for(reader.read(), 5)
            await service.stopped()

    asyncio.run(run())


def test_idle_connection_does_not_hold_the_stop() -> None:
    async def run() -> None:
        async with running() as service:
            reader, _ = await service.request(b"/")
            await reader.readuntil(b"}")
            service.terminate()
            await service.stopped()
            assert await reader.read() == b""

    asyncio.run(run())


def test_answer_that_is_still_being_read_arrives_whole() -> None:
    async def run() -> None:
        async with running() as service:
            reader, _ = await service.request(b"/big")
            await reader.readuntil(b"\r\n\r\n")
            service.terminate()
            await service.refuses()
            assert len(await reader.readexactly(Big.SIZE)) == Big.SIZE
            await service.stopped()

    asyncio.run(run())


def test_request_is_closed_when_time_is_up(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with running(DRAIN_TIMEOUT_SECONDS="0.05") as service:
            reader, _ = await service.request(b"/slow")
            await Slow.entered.wait()
            service.terminate()
            await service.stopped()
            assert await reader.read() == b""

    asyncio.run(run())
    assert "Closing 1 requests still in flight" in caplog.messages


def test_websocket_is_told_that_the_service_goes_away() -> None:
    async def run() -> None:
        async with running() as service:
            websocket = await websocket_connect(f"ws://127.0.0.1:{service.port}/ws")
            assert service.app.in_flight == 0
            service.terminate()
            assert await websocket.read_message() is None
            assert websocket.close_code == 1001
            websocket.close()
            await service.stopped()

    asyncio.run(run())


def test_callbacks_run_in_order_and_in_reverse(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "CLOSE_SECONDS", 0.05)
    calls = []

    async def run() -> None:
        async def start_first() -> None:
            calls.append("start first")

        async def start_second() -> None:
            calls.append("start second")

        async def stop_first() -> None:
            calls.append("stop first")

        async def hang() -> None:
            await asyncio.sleep(3600)

        async def fail() -> None:
            raise ValueError("fails")

        def not_async() -> None:
            calls.append("not async")

        service = Service(DRAIN_TIMEOUT_SECONDS="0")
        service.service.on_startup += [start_first, start_second]
        service.service.on_shutdown += [stop_first, hang, fail, not_async]  # type: ignore[list-item]
        await service.enters("ready")
        service.terminate()
        await service.stopped()

    asyncio.run(run())
    assert calls == ["start first", "start second", "not async", "stop first"]
    told = "\n".join(caplog.messages)
    assert re.search(r"Gave up on .*\bhang\b.* after 0.05 s", told)
    assert re.search(r"\bfail\b.* failed while stopping", told)
    assert re.search(r"\bnot_async\b.* failed while stopping", told)


def test_failure_to_start_ends_the_service() -> None:
    async def run() -> None:
        async def fail() -> None:
            raise ValueError("no database")

        service = Service(DRAIN_DELAY_SECONDS="60")
        service.service.on_startup.append(fail)
        with pytest.raises(ValueError, match="no database"):
            await service.stopped()

    asyncio.run(run())


def test_signal_during_the_start_stops() -> None:
    async def run() -> None:
        starting = asyncio.Event()

        async def hang() -> None:
            starting.set()
            await asyncio.sleep(3600)

        service = Service(DRAIN_DELAY_SECONDS="60")
        service.service.on_startup.append(hang)
        await starting.wait()
        service.terminate()
        await service.stopped()

    asyncio.run(run())


def test_body_over_the_limit_is_refused_before_it_is_sent() -> None:
    async def run() -> None:
        async with running() as service:
            reader, _ = await service.request(b"/ HTTP/1.1\r\nContent-Length: 1048577\r\nA:")
            assert b" 400 " in await asyncio.wait_for(reader.readline(), 5)
            service.terminate()
            await service.stopped()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("limit", "sent"),
    [
        ("idle_connection_timeout", b""),
        ("body_timeout", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf"),
    ],
)
def test_connection_that_says_nothing_more_is_closed(
    monkeypatch: pytest.MonkeyPatch, limit: str, sent: bytes
) -> None:
    monkeypatch.setitem(server.LIMITS, limit, 0.05)

    async def run() -> None:
        async with running() as service:
            reader, writer = await service.request(b"/")
            await reader.readuntil(b"}")
            writer.write(sent)
            assert await asyncio.wait_for(reader.read(), 5) == b""
            service.terminate()
            await service.stopped()

    asyncio.run(run())


def test_forwarded_headers_are_believed_only_of_a_trusted_proxy() -> None:
    async def ask(**environ: str) -> str:
        addresses: list[str] = []
        async with running(**environ) as service:
            service.app._on_end.append(
                lambda exchange: addresses.append(exchange.request.remote_ip)
            )
            reader, _ = await service.request(b"/ HTTP/1.1\r\nX-Forwarded-For: 192.0.2.7\r\nA:")
            await reader.readuntil(b"}")
            service.terminate()
            await service.stopped()
        return addresses[0]

    assert asyncio.run(ask()) == "127.0.0.1"
    assert asyncio.run(ask(TRUSTED_PROXIES="127.0.0.1")) == "192.0.2.7"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_process_ends_with_status_0(number: signal.Signals) -> None:
    with process() as service:
        service.wait_until_listening()
        service.process.send_signal(number)
        assert service.wait() == 0, service.output()


def test_second_signal_ends_the_process_at_once() -> None:
    with process(DRAIN_DELAY_SECONDS="60") as service:
        service.wait_until_listening()
        service.process.terminate()
        service.wait_for_output("Draining")
        service.process.terminate()
        assert service.wait() == 128 + signal.SIGTERM


def test_signal_before_there_is_anything_to_drain() -> None:
    code = (
        "import os, signal\n"
        "from my_service.chassis import process, settings\n"
        "settings.load = lambda kind: os.kill(os.getpid(), signal.SIGTERM)\n"
        "process.configure(settings.Settings)"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=30, check=False)  # noqa: S603
    assert done.returncode == 128 + signal.SIGTERM


def test_port_in_use_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        with process(PORT=port) as service:
            assert service.wait() == 69
            assert f"Cannot listen on 127.0.0.1 port {port}: " in service.output()
            assert "Traceback" not in service.output()


def test_processes_can_share_a_port() -> None:
    with process(REUSE_PORT="true") as first:
        first.wait_for_output("is running")
        with process(REUSE_PORT="true", PORT=str(first.port)) as second:
            second.wait_for_output("is running")
            first.process.terminate()
            assert first.wait() == 0
            with socket.create_connection(("127.0.0.1", first.port)) as connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                assert connection.recv(1024).startswith(b"HTTP/1.1 200 ")
