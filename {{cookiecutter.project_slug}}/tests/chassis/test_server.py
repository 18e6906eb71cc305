"""Listening, draining and stopping, in this process and as a process of its own."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from tornado.web import RequestHandler
from tornado.websocket import websocket_connect

from my_service.chassis import connections, server
from my_service.chassis.connections import RETRY_SECONDS
from my_service.chassis.server import serve
from my_service.chassis.settings import Settings, read

from .routes import Big, Slow, make_service
from .testing import UNWATCHED, process, reserved_port, until

REQUEST = b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n"
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Service:
    """The service in this process, stopped by a signal to this process."""

    def __init__(self, **environ: str) -> None:
        self.reserved = contextlib.ExitStack()
        self.port = self.reserved.enter_context(reserved_port())
        address = {"PORT": str(self.port), "REUSE_PORT": "true", "ADMIN_PORT": "0"}
        settings = read(Settings, {**UNWATCHED, **address, "DRAIN_DELAY_SECONDS": "0", **environ})
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
        await until(lambda: self.app.state == state)

    def terminate(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    async def stopped(self) -> None:
        with self.reserved:
            await asyncio.wait_for(self.task, 10)

    async def close(self) -> None:
        """Stops the service if it still runs, without the grace for connections that are open."""
        for writer in self.writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        if not self.task.done():
            self.terminate()
        await self.stopped()


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


def test_body_that_still_arrives_is_waited_for() -> None:
    async def run() -> None:
        async with running() as service:
            reader, writer = await service.request(b"/ HTTP/1.1\r\nContent-Length: 9\r\nA:")
            writer.write(b"half-")
            await until(lambda: service.app.in_flight == 1)
            service.terminate()
            await service.refuses()
            # Longer than silence is allowed to be.
            await asyncio.sleep(2 * server.SHORT_GRACE_SECONDS)
            writer.write(b"rest")
            assert b" 200 " in await asyncio.wait_for(reader.readline(), 5)
            await service.stopped()

    asyncio.run(run())


def test_connection_that_waits_in_the_kernel_is_answered() -> None:
    async def run() -> None:
        settings = read(Settings, {**UNWATCHED, "PORT": "0"})
        listening = server.listen(make_service(settings).endpoints[0], settings)
        (address,) = [each.getsockname() for each in listening._listening]
        with socket.create_connection(address) as connection:
            connection.sendall(REQUEST % b"/")
            # Without giving way to the loop, which therefore has not accepted it.
            listening.stop()
            connection.setblocking(False)
            loop = asyncio.get_running_loop()
            answer = await asyncio.wait_for(loop.sock_recv(connection, 65536), 5)
        assert b" 200 OK" in answer
        await listening.close_all_connections()

    asyncio.run(run())


def test_websocket_that_does_not_read_does_not_hold_the_stop() -> None:
    async def run() -> None:
        async with running() as service:
            with socket.create_connection(("127.0.0.1", service.port)) as client:
                client.sendall(HANDSHAKE)
                await until(lambda: service.app.open_websockets == 1)
                (websocket,) = service.app.websockets
                while not websocket.ws_connection.stream.writing():  # type: ignore[union-attr]
                    websocket.write_message("x" * 65536)
                    await asyncio.sleep(0)
                service.terminate()
                await service.stopped()

    asyncio.run(run())


def test_connections_over_the_limit_wait(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with running(MAX_CONNECTIONS="2") as service:
            idle = [await service.request(b"/") for _ in range(2)]
            for reader, _ in idle:
                await reader.readuntil(b"}")
            assert "paused" not in caplog.text, "nobody waits yet"
            late = [await service.request(b"/hello/late") for _ in range(2)]
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(late[0][0].readline(), 0.1)
            for _, writer in idle:
                writer.close()
            for reader, _ in late:
                assert b" 200 " in await asyncio.wait_for(reader.readline(), 5)

    asyncio.run(run())
    reasons = [line for line in caplog.messages if "paused" in line]
    assert reasons == ["Accepting connections paused: MAX_CONNECTIONS=2 reached"]


def test_longest_idle_connection_makes_room(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connections, "SPARED_SECONDS", 0.0)
    monkeypatch.setattr(connections, "RETRY_SECONDS", 0.01)

    async def run() -> None:
        async with running(MAX_CONNECTIONS="2") as service:
            idle = [await service.request(b"/") for _ in range(2)]
            for reader, _ in idle:
                await reader.readuntil(b"}")
            (first, _), (second, to_second) = idle
            late, _ = await service.request(b"/hello/late")
            assert b" 200 " in await asyncio.wait_for(late.readline(), 5)
            assert await asyncio.wait_for(first.read(), 5) == b""
            to_second.write(REQUEST % b"/")
            assert b" 200 " in await asyncio.wait_for(second.readline(), 5)

    asyncio.run(run())
    reasons = [line for line in caplog.messages if line.startswith("Closing")]
    assert reasons == ["Closing idle connections: MAX_CONNECTIONS=2 reached"]


def test_connection_in_use_makes_room_once_it_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SPARED_SECONDS", 0.0)
    monkeypatch.setattr(connections, "RETRY_SECONDS", 0.01)

    async def run() -> None:
        async with running(MAX_CONNECTIONS="1") as service:
            slow, _ = await service.request(b"/slow")
            await Slow.entered.wait()
            late, _ = await service.request(b"/")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(late.readline(), 0.1)
            Slow.release.set()
            assert (await asyncio.wait_for(slow.read(), 5)).endswith(b"slow")
            assert b" 200 " in await asyncio.wait_for(late.readline(), 5)

    asyncio.run(run())


class Lines(RequestHandler):
    """Goes on with a protocol of its own."""

    async def get(self) -> None:
        stream = self.detach()
        await stream.write(b"ready\n")
        line = await stream.read_until_regex(rb"\n")
        await stream.write(line)


def test_detached_connection_is_not_closed_as_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SPARED_SECONDS", 0.0)
    monkeypatch.setattr(connections, "RETRY_SECONDS", 0.01)

    async def run() -> None:
        async with running(MAX_CONNECTIONS="1") as service:
            service.app.add_handlers(".*", [(r"/lines", Lines)])
            reader, writer = await service.request(b"/lines")
            assert await asyncio.wait_for(reader.readline(), 5) == b"ready\n"
            late, _ = await service.request(b"/")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(late.readline(), 0.1)
            writer.write(b"still here\n")
            assert await asyncio.wait_for(reader.readline(), 5) == b"still here\n"

    asyncio.run(run())


def test_websocket_is_a_connection() -> None:
    async def run() -> None:
        async with running(MAX_CONNECTIONS="1") as service:
            client = await websocket_connect(f"ws://127.0.0.1:{service.port}/ws")
            reader, _ = await service.request(b"/")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.readline(), 0.1)
            client.close()
            assert b" 200 " in await asyncio.wait_for(reader.readline(), 5)

    asyncio.run(run())


def test_kernel_does_not_hold_back_what_is_small() -> None:
    async def run() -> None:
        async with running() as service:
            client = await websocket_connect(f"ws://127.0.0.1:{service.port}/ws")
            (websocket,) = service.app.websockets
            connection = websocket.ws_connection.stream.socket  # type: ignore[union-attr]
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            client.close()

    asyncio.run(run())


def test_process_out_of_descriptors_accepts_again_later() -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux has prlimit")
    import resource

    with process(MAX_CONNECTIONS="1000") as service, contextlib.ExitStack() as stack:
        service.wait_until_listening()
        _, hard = resource.prlimit(service.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (48, hard))
        connections = [stack.enter_context(service.connect()) for _ in range(80)]
        service.wait_for_output("Too many open files")
        lines = len(service.output().splitlines())
        # It tries again meanwhile.
        time.sleep(1.5 * RETRY_SECONDS)
        assert len(service.output().splitlines()) == lines
        for connection in connections[:60]:
            connection.close()
        connections[-1].sendall(REQUEST % b"/")
        assert b" 200 " in connections[-1].recv(1024)
        service.process.terminate()
        assert service.wait() == 0


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


@pytest.mark.parametrize("delay", ["0", "0.1"])
def test_idle_connection_has_a_moment_to_send(delay: str) -> None:
    async def run() -> None:
        async with running(DRAIN_DELAY_SECONDS=delay) as service:
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
            # Longer than silence is allowed to be.
            await asyncio.sleep(2 * server.SHORT_GRACE_SECONDS)
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
    assert "Closing 1 request: GET /slow, 0 s old" in caplog.messages


def test_websocket_is_closed_with_1001_in_a_stop() -> None:
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


def test_websocket_that_opens_during_the_stop_is_closed_too() -> None:
    async def run() -> None:
        async with running() as service:
            reader, writer = await service.request(b"/")
            await reader.readuntil(b"}")
            await service.request(b"/slow")
            await Slow.entered.wait()
            service.terminate()
            await service.refuses()
            writer.write(HANDSHAKE)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            assert head.startswith(b"HTTP/1.1 101 ")
            assert b"\r\nConnection: Upgrade\r\n" in head
            Slow.release.set()
            assert await asyncio.wait_for(reader.read(), 5) == b"\x88\x0c\x03\xe9Going away"
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
    output = "\n".join(caplog.messages)
    assert re.search(r"Gave up on .*\bhang\b.* after 0.05 s", output)
    assert re.search(r"\bfail\b.* failed while stopping", output)
    assert re.search(r"\bnot_async\b.* failed while stopping", output)


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

    asyncio.run(run())


def test_headers_over_the_limit_are_refused() -> None:
    async def run() -> None:
        async with running() as service:
            reader, _ = await service.request(b"/ HTTP/1.1\r\nA: %s\r\nB:" % (b"x" * 33 * 1024))
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(reader.read(), 5) == b""

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
    assert 0 < connections.LIMITS[limit] <= 75
    monkeypatch.setitem(connections.LIMITS, limit, 0.05)

    async def run() -> None:
        async with running() as service:
            reader, writer = await service.request(b"/")
            await reader.readuntil(b"}")
            writer.write(sent)
            assert await asyncio.wait_for(reader.read(), 5) == b""

    asyncio.run(run())


def test_connection_is_not_closed_before_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "IDLE_CHECKS", 1e6)

    async def run() -> None:
        async with running() as service:
            reader, writer = await service.request(b"/")
            await reader.readuntil(b"}")
            await asyncio.sleep(0.01)  # It is looked at many times meanwhile.
            writer.write(REQUEST % b"/")
            assert b" 200 " in await asyncio.wait_for(reader.readline(), 5)

    asyncio.run(run())


def test_connection_that_is_in_use_is_not_closed_as_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections.LIMITS, "idle_connection_timeout", 0.05)

    async def run() -> None:
        async with running() as service:
            client = await websocket_connect(f"ws://127.0.0.1:{service.port}/ws")
            slow, _ = await service.request(b"/slow")
            await Slow.entered.wait()
            idle, _ = await service.request(b"/")
            # This one is closed, though the others have said nothing for longer.
            assert await asyncio.wait_for(idle.read(), 5)
            Slow.release.set()
            assert b" 200 " in await asyncio.wait_for(slow.readline(), 5)
            await client.write_message("still here")
            assert await client.read_message() == "still here"
            client.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("trusted", "forwarded", "client"),
    [
        ("", "192.0.2.7", "http 127.0.0.1"),
        ("127.0.0.1", "192.0.2.7", "https 192.0.2.7"),
        # What is to the left of the client's address, the client has made up.
        ("127.0.0.0/8", "203.0.113.9, 192.0.2.7", "https 192.0.2.7"),
        ("127.0.0.1,10.0.0.0/8", "192.0.2.7,10.1.1.1 , 10.2.2.2", "https 192.0.2.7"),
        ("127.0.0.1,10.0.0.0/8", "192.0.2.7\r\nX-Forwarded-For: 10.1.1.1", "https 192.0.2.7"),
        ("127.0.0.1,10.0.0.0/8", "nobody, 10.1.1.1", "https 10.1.1.1"),
        ("127.0.0.1", "", "https 127.0.0.1"),
        # The peer is none of these.
        ("10.0.0.0/8,::1", "10.0.0.1", "http 127.0.0.1"),
    ],
)
def test_forwarded_headers_are_believed_only_of_a_trusted_proxy(
    trusted: str, forwarded: str, client: str
) -> None:
    async def ask() -> list[str]:
        clients: list[str] = []
        async with running(TRUSTED_PROXIES=trusted) as service:
            service.app._on_end.append(
                lambda exchange: clients.append(
                    f"{exchange.request.protocol} {exchange.request.remote_ip}"
                )
            )
            head = f"/ HTTP/1.1\r\nX-Forwarded-For: {forwarded}\r\nX-Forwarded-Proto: https\r\nA:"
            reader, writer = await service.request(head.encode())
            await reader.readuntil(b"}")
            # On the same connection, of another client.
            writer.write(REQUEST % b"/")
            await reader.readuntil(b"}")
        return clients

    assert asyncio.run(ask()) == [client, "http 127.0.0.1"]


@pytest.mark.parametrize(
    ("forwarded", "scheme"), [("https, http", "http"), ("http,https", "https"), ("gopher", "http")]
)
def test_scheme_is_the_one_that_the_nearest_proxy_received(forwarded: str, scheme: str) -> None:
    async def run() -> None:
        schemes = []
        async with running(TRUSTED_PROXIES="127.0.0.1") as service:
            service.app._on_end.append(lambda exchange: schemes.append(exchange.request.protocol))
            head = f"/ HTTP/1.1\r\nX-Forwarded-Proto: {forwarded}\r\nA:"
            reader, _ = await service.request(head.encode())
            await reader.readuntil(b"}")
        assert schemes == [scheme]

    asyncio.run(run())


def test_body_and_departure_of_a_client_behind_a_trusted_proxy() -> None:
    async def run() -> None:
        async with running(TRUSTED_PROXIES="127.0.0.1") as service:
            reader, writer = await service.request(b"/ HTTP/1.1\r\nContent-Length: 4\r\nA:")
            writer.write(b"body")
            assert b" 200 " in await asyncio.wait_for(reader.readline(), 5)
            _, writer = await service.request(b"/ HTTP/1.1\r\nContent-Length: 4\r\nA:")
            writer.write(b"bo")
            await until(lambda: service.app.in_flight == 1)
            writer.close()
            await until(lambda: service.app.in_flight == 0)

    asyncio.run(run())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_process_ends_with_status_0(number: signal.Signals) -> None:
    with process() as service:
        service.wait_until_listening()
        service.process.send_signal(number)
        assert service.wait() == 0, service.output()


def test_stop_says_what_it_waits_for() -> None:
    with process() as service:
        service.wait_until_listening()
        with service.get("/slow"):
            service.process.send_signal(signal.SIGINT)
            service.wait_for_output("Waiting up to 20 s for 1 request: GET /slow, 0 s old. Ctrl-C")
            service.process.send_signal(signal.SIGINT)
            assert service.wait() == 128 + signal.SIGINT


def test_stop_says_which_requests_are_the_oldest() -> None:
    with process() as service, contextlib.ExitStack() as stack:
        service.wait_until_listening()
        for path in ("/slow", "/stubborn", "/thread", "/slow"):
            stack.enter_context(service.get(path))
            service.fetch("/")  # once it is answered, the one before has been received
        service.process.terminate()
        service.wait_for_output("; and 1 more")
        ages = "GET /slow, N s old; GET /stubborn, N s old; GET /thread, N s old; and 1 more"
        assert f"for 4 requests: {ages}" in re.sub(r"\d+ s old", "N s old", service.output())


def test_second_signal_ends_a_process_whose_loop_is_stuck() -> None:
    with process() as service:
        service.wait_until_listening()
        with service.get("/stuck"):
            service.wait_for_output("Stuck")
            service.process.terminate()
            while service.process.poll() is None:  # a signal may overtake another
                service.process.terminate()
                time.sleep(0.1)
            assert service.wait() == 128 + signal.SIGTERM


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


@pytest.mark.parametrize("host", ["a..b", "a" * 64, "no.such.host.invalid"])
def test_impossible_host_is_reported(host: str) -> None:
    with process(HOST=host) as service:
        assert service.wait() == 69
        assert f"Cannot listen on {host} port 0: " in service.output()
        assert "Traceback" not in service.output()


def test_port_in_use_is_reported() -> None:
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
