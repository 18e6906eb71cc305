"""Listening, draining and stopping, in this process and as a process of its own."""

import asyncio
import contextlib
import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any, TypeVar

import pytest
from tornado import netutil
from tornado.httpclient import AsyncHTTPClient
from tornado.web import RequestHandler
from tornado.websocket import WebSocketClientConnection, WebSocketHandler, websocket_connect
from tornado_chassis import connections, server
from tornado_chassis.connections import RETRY_SECONDS
from tornado_chassis.server import serve
from tornado_chassis.settings import read
from tornado_chassis.testing import UNWATCHED, until

from .routes import Big, Slow, broken, make_service
from .settings import Settings
from .testing import (
    SECONDS,
    UPGRADE,
    Connections,
    Recorder,
    Work,
    does,
    http,
    inherited,
    listening,
    process,
    raises,
    reserved_port,
)

T = TypeVar("T")

ROOT, LATE, HANDSHAKE = http("GET /"), http("GET /hello/late"), http("GET /ws", *UPGRADE)


class Service(Connections):
    """The service in this process, stopped by a signal to this process."""

    def __init__(self, **environ: str) -> None:
        self.reserved = contextlib.ExitStack()
        super().__init__(self.reserved.enter_context(reserved_port()))
        address = {"PORT": str(self.port), "REUSE_PORT": "true", "ADMIN_PORT": "0"}
        # What waits for as long as it may fails the test.
        drain = {"DRAIN_DELAY_SECONDS": "0", "DRAIN_TIMEOUT_SECONDS": "600"}
        settings = read(Settings, {**UNWATCHED, **address, **drain, **environ})
        self.service = make_service(settings)
        self.app, self.runtime = self.service.app, self.service.app.runtime
        self.task = asyncio.create_task(serve(self.service))
        self.is_terminated = False

    async def idle(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection on which a request has been answered."""
        reader, writer = await self.connect(ROOT)
        await reader.readuntil(b"}")
        return reader, writer

    async def slow(self) -> asyncio.StreamReader:
        """Sends a request for `/slow`, and waits until it is in flight."""
        reader, _ = await self.connect(http("GET /slow"))
        await Slow.entered.wait()
        return reader

    async def websocket(self, path: str = "/ws") -> WebSocketClientConnection:
        return await websocket_connect(f"ws://127.0.0.1:{self.port}{path}")

    async def enters(self, state: str) -> None:
        await until(lambda: self.runtime.state == state)

    def terminate(self) -> None:
        # A second signal would end the tests.
        if not self.is_terminated:
            self.is_terminated = True
            os.kill(os.getpid(), signal.SIGTERM)

    async def stops_listening(self) -> None:
        """Begins the stop, and waits until no new connection is taken."""
        self.terminate()
        while True:
            with contextlib.suppress(ConnectionResetError):
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except ConnectionRefusedError:
                    return
                writer.close()
                await writer.wait_closed()

    async def stopped(self) -> None:
        with self.reserved:
            await within(self.task)

    async def close(self) -> None:
        """Stops the service if it still runs, without the grace for connections that are open."""
        await self.disconnect()
        if not self.task.done():
            self.terminate()
        await self.stopped()


async def within(work: Awaitable[T]) -> T:
    return await asyncio.wait_for(work, SECONDS)


async def answered(reader: asyncio.StreamReader) -> bool:
    """Whether the next answer has the status 200."""
    return b" 200 " in await within(reader.readline())


async def waits(reader: asyncio.StreamReader) -> bool:
    """Whether nothing arrives for now, not even the end."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(reader.readline(), 0.1)
        return False
    return True


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Stopping leaves the signals to the system, which would end the tests."""
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.fixture
def short_of_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle connection makes room at once."""
    monkeypatch.setattr(connections, "MIN_IDLE_SECONDS", 0.0)
    monkeypatch.setattr(connections, "RETRY_SECONDS", 0.01)


@contextlib.asynccontextmanager
async def running(**environ: str) -> AsyncIterator[Service]:
    service = Service(**environ)
    await service.enters("ready")
    try:
        yield service
    finally:
        await service.close()


async def test_request_in_flight_is_answered() -> None:
    async with running() as service:
        reader = await service.slow()
        assert not service.service.stopping.is_set()
        service.terminate()
        await within(service.service.stopping.wait())
        assert service.runtime.in_flight == 1
        await service.stops_listening()
        assert service.runtime.state == "draining"
        Slow.release.set()
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"slow")
        await service.stopped()


async def test_what_still_arrives_or_leaves_is_waited_for() -> None:
    async with running() as service:
        upload, writer = await service.connect(http("GET /", body=b"half-", size=9))
        await until(lambda: service.runtime.in_flight == 1)
        download, _ = await service.connect(http("GET /big"))
        await download.readuntil(b"\r\n\r\n")
        await service.stops_listening()
        # Longer than silence is allowed to be.
        await asyncio.sleep(2 * server.SHORT_GRACE_SECONDS)
        assert len(await download.readexactly(Big.SIZE)) == Big.SIZE
        writer.write(b"rest")
        assert await answered(upload)
        await service.stopped()


async def test_connections_that_wait_in_the_kernel_are_answered() -> None:
    settings = read(Settings, {**UNWATCHED, "PORT": "0"})
    (main, *_) = make_service(settings).endpoints
    listening = server.listen(main, settings, server.bind(main))
    (address,) = [each.getsockname() for each in listening._listening]
    with contextlib.ExitStack() as stack:
        # More than it accepts at once.
        waiting = [stack.enter_context(socket.create_connection(address)) for _ in range(300)]
        for each in waiting:
            each.sendall(ROOT)
        # Without giving way to the loop, which therefore has not accepted them.
        listening.stop()
        loop = asyncio.get_running_loop()
        for each in waiting:
            each.setblocking(False)
            assert b" 200 OK" in await within(loop.sock_recv(each, 65536))
    await listening.close_all_connections()


async def test_websocket_that_does_not_read_does_not_hold_the_stop() -> None:
    async with running() as service:
        with socket.create_connection(("127.0.0.1", service.port)) as client:
            client.sendall(HANDSHAKE)
            await until(lambda: service.runtime.open_websockets == 1)
            (websocket,) = service.runtime.websockets
            while not websocket.ws_connection.stream.writing():  # type: ignore[union-attr]
                websocket.write_message("x" * 65536)
                await asyncio.sleep(0)
            service.terminate()
            await service.stopped()


async def test_connections_over_the_limit_wait(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MIN_IDLE_SECONDS", SECONDS)
    async with running(MAX_CONNECTIONS="2") as service:
        idle = [await service.idle() for _ in range(2)]
        assert "paused" not in caplog.text, "nobody waits yet"
        late = [(await service.connect(LATE))[0] for _ in range(2)]
        assert await waits(late[0])
        for _, writer in idle:
            writer.close()
        for reader in late:
            assert await answered(reader)
    reasons = [line for line in caplog.messages if "paused" in line]
    assert reasons == ["Accepting connections paused: MAX_CONNECTIONS=2 reached"]


@pytest.mark.usefixtures("short_of_patience")
async def test_longest_idle_connection_makes_room(caplog: pytest.LogCaptureFixture) -> None:
    async with running(MAX_CONNECTIONS="2") as service:
        (first, _), (second, to_second) = [await service.idle() for _ in range(2)]
        late, _ = await service.connect(LATE)
        assert await answered(late)
        assert await within(first.read()) == b""
        to_second.write(ROOT)
        assert await answered(second)
    reasons = [line for line in caplog.messages if line.startswith("Closing")]
    assert reasons == ["Closing idle connections: MAX_CONNECTIONS=2 reached"]


class Lines(RequestHandler):
    """Goes on with a protocol of its own."""

    async def get(self) -> None:
        stream = self.detach()
        await stream.write(b"ready\n")
        line = await stream.read_until_regex(rb"\n")
        await stream.write(line)
        stream.close()


@pytest.mark.parametrize(
    ("request_", "begun", "sent", "end"),
    [
        (http("GET /slow"), b"", b"", b"slow"),
        (http("GET /lines"), b"ready\n", b"still here\n", b"still here\n"),
        (HANDSHAKE, b"\r\n\r\n", b"\x88\x82\0\0\0\0\x03\xe8", b"\x88\x02\x03\xe8"),
    ],
    ids=["request", "detached", "websocket"],
)
@pytest.mark.usefixtures("short_of_patience")
async def test_connection_in_use_makes_room_once_that_ends(
    request_: bytes, begun: bytes, sent: bytes, end: bytes
) -> None:
    async with running(MAX_CONNECTIONS="1") as service:
        service.app.add_handlers(".*", [(r"/lines", Lines)])
        reader, writer = await service.connect(request_)
        if begun:
            await within(reader.readuntil(begun))
        late, _ = await service.connect(ROOT)
        assert await waits(late)
        writer.write(sent)
        Slow.release.set()
        await within(reader.readuntil(end))
        assert await answered(late)


async def test_admin_port_takes_no_large_body_and_answers_while_the_main_port_is_full() -> None:
    with listening(FEATURES="probes prometheus", MAX_CONNECTIONS="2") as service:

        async def fetch(path: str) -> tuple[int, str]:
            url = f"http://127.0.0.1:{service.ports[1]}{path}"
            answer = await AsyncHTTPClient().fetch(
                url, raise_error=False, connect_timeout=SECONDS, request_timeout=SECONDS
            )
            return answer.code, answer.body.decode()

        assert (await fetch("/readyz"))[0] == 200
        large = http("PUT /livez", body=b"x" * 2**20).replace(b" a", b" 127.0.0.1")
        with service.connect(large, service.ports[1]) as connection:
            assert b" 413 " in connection.recv(1024)
        url = f"ws://127.0.0.1:{service.port}/ws"
        clients = [await websocket_connect(url) for _ in range(2)]
        assert await fetch("/livez") == (200, '{"status": "pass"}')
        status, body = await fetch("/readyz")
        assert (status, "MAX_CONNECTIONS=2 reached" in body) == (503, True)
        _, metrics = await fetch("/metrics")
        assert "\nhttp_server_open_connections 2.0\n" in metrics
        assert "\nhttp_server_max_connections 2.0\n" in metrics
        for client in clients:
            client.close()
            await client.read_message()
        async with asyncio.timeout(SECONDS):
            while (await fetch("/readyz"))[0] != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


def test_connections_of_one_port_leave_room_on_the_other() -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux has prlimit")
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        few = stack.enter_context(listening(MAX_CONNECTIONS="1000", DESCRIPTORS="120"))
        assert resource.prlimit(few.pid, resource.RLIMIT_NOFILE) == (120, hard)
        assert "MAX_CONNECTIONS=1000: file descriptors suffice for 60" in few.output()
        for port in few.ports:
            for _ in range(115):
                stack.enter_context(few.connect(port=port))
        for port in few.ports:
            livez = http("GET /livez").replace(b" a", b" localhost")
            with few.connect(livez, port) as connection:
                assert b" 200 " in connection.recv(1024)
        assert "Too many open files" not in few.output()


async def test_kernel_does_not_hold_back_what_is_small() -> None:
    async with running() as service:
        client = await service.websocket()
        (websocket,) = service.runtime.websockets
        connection = websocket.ws_connection.stream.socket  # type: ignore[union-attr]
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        client.close()


def test_process_out_of_descriptors_accepts_again_later() -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux has prlimit")
    import resource

    with listening(MAX_CONNECTIONS="1000") as service, contextlib.ExitStack() as stack:
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
        connections[-1].sendall(ROOT)
        assert b" 200 " in connections[-1].recv(1024)
        assert service.stop() == 0


@pytest.mark.parametrize(
    ("delay", "others", "sent", "end"),
    [
        ("0", 0, LATE, b'{"hello":"late"}'),
        ("0.1", 0, LATE, b'{"hello":"late"}'),
        ("0", 1, LATE, b'{"hello":"late"}'),
        ("0", 1, HANDSHAKE, b"\x88\x0c\x03\xe9Going away"),
    ],
    ids=["request", "after the delay", "while others are answered", "websocket"],
)
async def test_idle_connection_has_a_moment_to_send_and_closes(
    delay: str, others: int, sent: bytes, end: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SHORT_GRACE_SECONDS", "IDLE_GRACE_SECONDS"):
        assert 0.1 < getattr(server, name) < 2
        if not others:
            monkeypatch.setattr(server, name, SECONDS)
    async with running(DRAIN_DELAY_SECONDS=delay) as service:
        reader, writer = await service.idle()
        if others:  # which hold the drain at the point where it waits for requests
            await service.slow()
        await service.stops_listening()
        writer.write(sent)
        head = await within(reader.readuntil(b"\r\n\r\n"))
        status, connection = (b"101 ", b"Upgrade") if sent == HANDSHAKE else (b"200 OK", b"close")
        assert head.startswith(b"HTTP/1.1 " + status)
        assert b"\r\nConnection: %b\r\n" % connection in head
        if sent == HANDSHAKE:
            Slow.release.set()
        assert await within(reader.read()) == end
        Slow.release.set()
        await service.stopped()


async def test_idle_connection_does_not_hold_the_stop() -> None:
    async with running() as service:
        reader, _ = await service.idle()
        service.terminate()
        await service.stopped()
        assert await reader.read() == b""


async def test_request_is_closed_when_time_is_up(caplog: pytest.LogCaptureFixture) -> None:
    async with running(DRAIN_TIMEOUT_SECONDS="0.05") as service:
        reader = await service.slow()
        service.terminate()
        await service.stopped()
        assert await reader.read() == b""
    assert re.search(r"^Closing 1 request: GET /slow, \d+ s old$", "\n".join(caplog.messages), re.M)


@pytest.mark.parametrize("error", [ValueError("fails"), asyncio.CancelledError()], ids=repr)
async def test_websockets_are_closed_with_1001_in_a_stop_though_one_raises(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    monkeypatch.setattr(server, "CLOSE_SECONDS", 0.05)
    calls: list[str] = []
    async with running() as service:
        service.app.add_handlers(".*", [(r"/unclosable", broken(WebSocketHandler, "close", error))])
        service.service.on_shutdown.append(does(lambda: calls.append("stop")))
        bad, good = [await service.websocket(path) for path in ("/unclosable", "/ws")]
        assert service.runtime.in_flight == 0
        service.terminate()
        async with asyncio.timeout(SECONDS):
            assert await good.read_message() is None
            assert await bad.read_message() is None
        assert (good.close_code, bad.close_code) == (1001, None)
        for websocket in (good, bad):
            websocket.close()
        await service.stopped()
    assert calls == ["stop"]
    assert "BrokenWebSocketHandler.close failed while stopping" in caplog.text


hanging = asyncio.Event()


async def hang() -> None:
    hanging.set()
    await asyncio.sleep(3600)


async def test_callbacks_run_in_order_and_in_reverse(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "CLOSE_SECONDS", 0.05)
    calls: list[str] = []

    def call(name: str) -> Work:
        return does(lambda: calls.append(name))

    def not_async() -> None:
        calls.append("not async")

    service = Service(DRAIN_TIMEOUT_SECONDS="0")
    service.service.on_startup += [call("start first"), call("start second")]
    failing = [raises(ValueError("fails")), raises(asyncio.CancelledError())]
    stops = [call("stop first"), hang, *failing, not_async]
    service.service.on_shutdown += stops  # type: ignore[arg-type]
    await service.enters("ready")
    service.terminate()
    await service.stopped()
    assert calls == ["start first", "start second", "not async", "stop first"]
    output = "\n".join(caplog.messages)
    assert re.search(r"Gave up on .*\bhang\b.* after 0.05 s", output)
    assert len(re.findall(r"\braises\b.* failed while stopping", output)) == 2
    assert re.search(r"\bnot_async\b.* failed while stopping", output)


@pytest.mark.parametrize("kind", [ValueError, asyncio.CancelledError])
async def test_failure_to_start_ends_the_service(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(DRAIN_DELAY_SECONDS="600")
    service.service.on_startup.append(raises(kind("no database")))
    with pytest.raises(kind, match="no database"):
        await service.stopped()
    assert caplog.messages[-1] == "Stopped"


async def test_signal_during_the_start_stops() -> None:
    hanging.clear()
    service = Service(DRAIN_DELAY_SECONDS="600")
    service.service.on_startup.append(hang)
    await until(hanging.is_set)
    service.terminate()
    await service.stopped()


@pytest.mark.parametrize(
    ("environ", "size"), [({}, 2**20), ({"MAX_BODY_BYTES": "9"}, 9), ({"MAX_BODY_BYTES": "0"}, 0)]
)
async def test_body_over_the_limit_is_rejected_before_it_is_sent(
    environ: dict[str, str], size: int
) -> None:
    async with running(**environ) as service:
        reader, _ = await service.connect(http("GET /", size=size + 1))
        assert b" 413 " in await within(reader.readline())


@pytest.mark.parametrize(
    ("limit", "sent", "answer"),
    [
        ("IDLE", b"", b""),
        ("RECEIVE", b"GET / HTTP/1.1\r\nHost:", b"408"),
        ("RECEIVE", http("POST /", body=b"half", size=9), b"408"),
        ("STALL", http("POST /", body=b"half", size=9), b"408"),
        ("STALL", http("PUT /upload", size=9), b"408"),
    ],
    ids=["nothing", "half a head", "half a body", "no more of a body", "no body of an upload"],
)
async def test_connection_that_says_nothing_more_is_closed(
    limit: str, sent: bytes, answer: bytes
) -> None:
    defaults = read(Settings, {})
    name = f"{limit}_TIMEOUT_SECONDS"
    assert 0 < getattr(defaults, name.lower()) <= 75
    async with running(**{name: "0.5"}) as service:
        reader, writer = await service.idle()
        writer.write(sent)
        assert (await within(reader.read()))[9:12] == answer
        await until(lambda: not service.runtime.in_flight)


async def test_connection_is_not_closed_before_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "IDLE_CHECKS", 1e6)
    async with running() as service:
        reader, writer = await service.idle()
        await asyncio.sleep(0.01)  # It is looked at many times meanwhile.
        writer.write(ROOT)
        assert await answered(reader)


async def test_connection_that_is_in_use_is_not_closed_as_idle() -> None:
    async with running(IDLE_TIMEOUT_SECONDS="0.5", STALL_TIMEOUT_SECONDS="0.5") as service:
        client = await service.websocket()
        slow = await service.slow()
        idle, _ = await service.connect(ROOT)
        # This one is closed, though the others have said nothing for longer.
        assert await within(idle.read())
        Slow.release.set()
        assert await answered(slow)
        await client.write_message("still here")
        assert await client.read_message() == "still here"
        client.close()


BOTH = "127.0.0.1,10.0.0.0/8"


@pytest.mark.parametrize(
    ("trusted", "forwarded", "scheme", "client"),
    [
        ("", "192.0.2.7", "https", "http 127.0.0.1"),
        ("127.0.0.1", "192.0.2.7", "https", "https 192.0.2.7"),
        # What is to the left of the client's address, the client has made up.
        ("127.0.0.0/8", "203.0.113.9, 192.0.2.7", "https", "https 192.0.2.7"),
        (BOTH, "192.0.2.7,10.1.1.1 , 10.2.2.2", "https", "https 192.0.2.7"),
        (BOTH, "192.0.2.7\r\nX-Forwarded-For: 10.1.1.1", "https", "https 192.0.2.7"),
        (BOTH, "nobody, 10.1.1.1", "https", "https 10.1.1.1"),
        # Azure adds the port.
        (BOTH, "192.0.2.7:4711, 10.1.1.1:80", "https", "https 192.0.2.7"),
        ("127.0.0.1,::1", "[2001:db8::7]:4711, [::1]", "https", "https 2001:db8::7"),
        ("127.0.0.1,::1", "2001:db8::7, ::1", "https", "https 2001:db8::7"),
        *(
            ("127.0.0.1", f"192.0.2.7, {no_address}", "https", "https 127.0.0.1")
            for no_address in (
                "fe80::1%eth0 192.0.2.9:http 192.0.2.9:123456 2001:db8::7:47111 [192.0.2.9]:80 "
                f"[::1]80 [::1 []:80 :80 fe80::1%{'x' * 20_000} [fe80::1%{'x' * 20_000}]:80"
            ).split()
        ),
        # The peer is none of these.
        ("10.0.0.0/8,::1", "10.0.0.1", "https", "http 127.0.0.1"),
        # The scheme is the one that the nearest proxy received.
        ("127.0.0.1", "", "https", "https 127.0.0.1"),
        ("127.0.0.1", "", "https, http", "http 127.0.0.1"),
        ("127.0.0.1", "", "http,https", "https 127.0.0.1"),
        ("127.0.0.1", "", "gopher", "http 127.0.0.1"),
    ],
)
async def test_forwarded_headers_are_believed_only_of_a_trusted_proxy(
    trusted: str, forwarded: str, scheme: str, client: str
) -> None:
    recorder = Recorder()
    async with running(TRUSTED_PROXIES=trusted) as service:
        recorder.record(service.app)
        headers = f"X-Forwarded-For: {forwarded}", f"X-Forwarded-Proto: {scheme}"
        reader, writer = await service.connect(http("GET /", *headers))
        await reader.readuntil(b"}")
        writer.write(ROOT)
        await reader.readuntil(b"}")
    requests = [each.request for each in recorder.ended]
    # On the same connection, the second request is of another client.
    found = [f"{each.protocol} {each.remote_ip}" for each in requests]
    assert found == [client, "http 127.0.0.1"]


async def test_body_and_departure_of_a_client_behind_a_trusted_proxy() -> None:
    async with running(TRUSTED_PROXIES="127.0.0.1") as service:
        reader, _ = await service.connect(http("GET /", body=b"body"))
        assert await answered(reader)
        _, writer = await service.connect(http("GET /", body=b"bo", size=4))
        await until(lambda: service.runtime.in_flight == 1)
        writer.close()
        await until(lambda: service.runtime.in_flight == 0)


def test_process_ends_with_status_0_after_an_interrupt_too() -> None:
    with listening() as service:
        service.process.send_signal(signal.SIGINT)
        assert service.wait() == 0, service.output()


def test_stop_says_what_it_waits_for_and_which_requests_are_the_oldest() -> None:
    with listening(DRAIN_TIMEOUT_SECONDS="600") as service, contextlib.ExitStack() as stack:
        for path in ("/slow", "/stubborn", "/thread", "/slow"):
            stack.enter_context(service.get(path))
            service.fetch("/")  # once it is answered, the one before has been received
        service.process.send_signal(signal.SIGINT)
        service.wait_for_output("; and 1 more")
        ages = r"GET /slow, \d+ s old; GET /stubborn, \d+ s old; GET /thread, \d+ s old; and 1 more"
        assert re.search(f"up to (5..|600) s for 4 requests: {ages}. Ctrl-C", service.output())
        service.process.send_signal(signal.SIGINT)
        assert service.wait() == 128 + signal.SIGINT


def test_second_signal_ends_a_process_whose_loop_is_stuck() -> None:
    with listening() as service, service.get("/stuck"):
        service.wait_for_output("Stuck")
        service.process.terminate()
        while service.process.poll() is None:  # a signal may overtake another
            service.process.terminate()
            time.sleep(0.1)
        assert service.wait() == 128 + signal.SIGTERM


def test_drain_accepts_during_its_delay_and_a_second_signal_ends_the_process_at_once() -> None:
    with listening(DRAIN_DELAY_SECONDS="60") as service:
        service.process.terminate()
        service.wait_for_output("Draining")
        assert service.fetch("/hello/x")
        with service.get("/readyz") as connection:
            answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["output"] == "draining"
        assert service.stop() == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    "when", ["before", "afterwards", "afterwards, and calls ours", "with asyncio"]
)
async def test_handler_that_others_set_for_a_signal_is_called_too(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []

    def others(number: int, frame: Any = None) -> None:
        called.append(number)
        if when == "afterwards, and calls ours":
            assert callable(ours)
            ours(number, frame)
        sys.exit(1)  # as many do

    monkeypatch.setattr(server, "KEEP_SECONDS", 0.01)
    if when == "before":
        signal.signal(signal.SIGTERM, others)
    async with running() as service:
        ours = signal.getsignal(signal.SIGTERM)
        if when.startswith("afterwards"):
            signal.signal(signal.SIGTERM, others)
        elif when == "with asyncio":
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGTERM, called.append, signal.SIGTERM)
        theirs = signal.getsignal(signal.SIGTERM)
        if when != "before":
            await until(lambda: signal.getsignal(signal.SIGTERM) is not theirs)
        service.terminate()
        await service.stopped()
    assert called == [signal.SIGTERM]


async def test_long_poll_that_waits_for_the_stop_ends_at_once() -> None:
    class Poll(RequestHandler):
        async def get(self) -> None:
            Slow.entered.set()
            await self.settings["stopping"].wait()
            self.finish("bye")

    async with running() as service:
        service.app.settings["stopping"] = service.service.stopping
        service.app.add_handlers(".*", [("/poll", Poll)])
        reader, _ = await service.connect(http("GET /poll"))
        await Slow.entered.wait()
        service.terminate()
        await service.stopped()
        assert (await reader.read()).endswith(b"bye")


def test_signal_before_there_is_anything_to_drain() -> None:
    code = (
        "import os, signal\n"
        "from tornado_chassis import process, settings\n"
        "from tornado_chassis.settings.server import ServerSettings\n"
        "settings.load = lambda kind: os.kill(os.getpid(), signal.SIGTERM)\n"
        "process.configure([], ServerSettings)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=inherited(), check=False)
    assert done.returncode == 128 + signal.SIGTERM


def cannot_listen(address: str, **environ: str) -> None:
    with process(**environ) as service:
        assert service.wait() == 69
        assert f"Cannot listen on {address}: " in service.output()
        assert "Traceback" not in service.output()


@pytest.mark.parametrize("host", ["a..b", "a" * 64, "no.such.host.invalid"])
def test_impossible_host_is_reported(host: str) -> None:
    cannot_listen(f"{host} port 0", HOST=host)


def test_port_in_use_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        cannot_listen(f"127.0.0.1 port {port}", PORT=port)


async def test_main_port_is_closed_until_all_ports_are_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a shared port, a process that then ends would reset its part of the connections."""
    refused: list[bool] = []

    def bind_sockets(port: int, *args: Any, **options: Any) -> list[socket.socket]:
        if port == taken:
            with socket.socket() as client:
                refused.append(client.connect_ex(("127.0.0.1", main)) == errno.ECONNREFUSED)
        return netutil.bind_sockets(port, *args, **options)

    monkeypatch.setattr(server, "bind_sockets", bind_sockets)
    with reserved_port() as main, socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        address = {"PORT": str(main), "REUSE_PORT": "true", "ADMIN_PORT": str(taken)}
        with pytest.raises(SystemExit):
            await serve(make_service(read(Settings, {**UNWATCHED, **address})))
    assert refused == [True]


def test_processes_can_share_a_port_but_not_the_admin_port() -> None:
    with listening(REUSE_PORT="true") as first:
        shared = {"PORT": str(first.port), "REUSE_PORT": "true"}
        admin = str(first.ports[1])
        cannot_listen(f"127.0.0.1 port {admin}", ADMIN_PORT=admin, **shared)
        with listening(**shared) as second:
            assert first.stop() == 0
            assert second.fetch("/hello/x") == b'{"hello":"x"}'


def answers(host: str, port: int, path: str) -> bool:
    try:
        with socket.create_connection((host.strip("[]"), port), timeout=SECONDS) as connection:
            connection.sendall(http(f"GET {path}").replace(b" a", f" {host}".encode()))
            return connection.recv(1024).startswith(b"HTTP/1.1 200 ")
    except ConnectionRefusedError:
        return False


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


@pytest.mark.skipif(not has_ipv6(), reason="IPv6 is turned off on this machine")
@pytest.mark.parametrize(
    ("host", "ipv4", "ipv6"),
    [
        ("127.0.0.1", True, False),
        ("::1", False, True),
        ("127.0.0.1, ::1", True, True),
        ("::", True, True),
        ("0.0.0.0", True, False),
        ("0.0.0.0,::", True, True),
    ],
)
def test_every_address_that_is_asked_for_is_served(host: str, ipv4: bool, ipv6: bool) -> None:
    with listening(HOST=host, ADMIN_HOST=host) as service:
        for port, path in ((service.ports[0], "/"), (service.ports[-1], "/metrics")):
            answered = [answers(each, port, path) for each in ("127.0.0.1", "[::1]")]
            assert answered == [ipv4, ipv6]


async def test_client_of_every_address_has_its_own() -> None:
    recorder = Recorder()
    async with running(HOST="::") as service:
        recorder.record(service.app)
        await service.idle()
    assert [each.request.remote_ip for each in recorder.ended] == ["127.0.0.1"]
