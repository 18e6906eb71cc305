"""Listens, then drains and stops on SIGTERM or SIGINT, without losing a request."""

import asyncio
import gc
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import perf_counter
from types import FrameType
from typing import Any

from tornado.netutil import bind_sockets

from . import signals
from .application import Endpoint
from .connections import BACKLOG, Server, limits
from .exchange import contain, is_cancelled
from .feature import Runtime
from .service import Service
from .settings.server import ServerSettings, available_connections

EX_UNAVAILABLE = 69
"""Exit status if it cannot listen on an address, after sysexits.h."""

# Of the admin port, also before it knows who asks.
ADMIN_LIMITS: dict[str, Any] = {"max_body_size": 16 * 1024, "max_unread_bytes": 4 * 1024 * 1024}

IDLE_GRACE_SECONDS = 1.0
SHORT_GRACE_SECONDS = 0.25
CLOSE_SECONDS = 0.25
FLUSH_SECONDS = 1.5
REPORT_SECONDS = 5.0

KEEP_SECONDS = 1.0
"""How often to look whether the signals that stop the service still do."""

log = logging.getLogger(__name__)


async def serve(service: Service, stop: "asyncio.Future[str] | None" = None) -> None:
    """Serves until a signal arrives or `stop` is done, then stops.

    The first endpoint takes the load. The others are for operators, who can watch the first one
    stop.

    Raises SystemExit with status 69 if it cannot listen on an address. Raises what a startup
    callback raises, after stopping.
    """
    stop = stop or asyncio.get_running_loop().create_future()
    _stop_when_signalled(stop)
    keeping = asyncio.create_task(_keep_signals())
    main, *others = service.endpoints
    settings = service.settings
    wanted, (available, of_admin) = settings.max_connections, available_connections()
    if wanted > available:
        log.warning("MAX_CONNECTIONS=%d: file descriptors suffice for %d", wanted, available)
        wanted = available
    # The first one last: if another address is taken, the process ends, and connections to the port
    # that it shares would be reset.
    of_others = [bind(each) for each in others]
    # Only the first: a request for the metrics of one process must not reach another.
    servers = [listen(main, settings, bind(main, settings.reuse_port), max_connections=wanted)]
    limits_of_admin = {**ADMIN_LIMITS, "max_connections": of_admin}
    for each, sockets in zip(others, of_others, strict=True):
        servers.append(listen(each, settings, sockets, **limits_of_admin))
    name, version = settings.service_name, settings.service_version
    log.info("%s %s is running in %s", name, version, settings.environment)
    starting = asyncio.create_task(start(service))
    either: set[asyncio.Future[Any]] = {starting, stop}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    has_ended = starting.done()
    if has_ended and not starting.cancelled() and not starting.exception():
        # What exists now, stays. Going through it again and again would cost a busy service a tenth
        # of its time in garbage collection, and the slowest requests most of theirs.
        gc.freeze()
        await stop
    starting.cancel()
    try:
        await drain(servers[0], service, stop)
    finally:
        for server in servers[1:]:
            server.stop()
            await _bounded(server.close_all_connections, CLOSE_SECONDS)
        keeping.cancel()
        # The interpreter may crash at exit if threads are still running.
        gc.unfreeze()
    log.info("Stopped")
    if has_ended or (starting.done() and not starting.cancelled()):
        starting.result()


async def start(service: Service) -> None:
    """Starts the features and runs the service's own callbacks, then is ready."""
    for feature in service.app.runtime.features:
        await feature.startup()
    for callback in service.on_startup:
        await callback()
    service.app.runtime.state = "ready"
    service.app.runtime.background.start()


async def drain(server: Server, service: Service, stop: "asyncio.Future[str]") -> None:
    """Waits for load balancers to leave and for requests in flight to end, then closes everything.

    `stop` has the name of the signal that stopped the service, or is empty or not done.
    """
    loop = asyncio.get_running_loop()
    runtime = service.app.runtime
    delay = service.settings.drain_delay_seconds if runtime.state == "ready" else 0.0
    runtime.state = "draining"
    runtime.stopping.set()
    log.info("Draining: accepting for %g s more", delay)
    await asyncio.sleep(delay)

    server.stop()
    # Undocumented, and read for each request: a connection closes after its next response. A header
    # `Connection: close` set by a handler would not close it.
    server.conn_params.no_keep_alive = True
    deadline = loop.time() + service.settings.drain_timeout_seconds
    # If load balancers were given time to leave, give them some here, too.
    grace = min(max(delay, SHORT_GRACE_SECONDS), IDLE_GRACE_SECONDS)
    name = stop.result() if stop.done() else ""
    second_signal_hint = f". {name} again to stop now" if name else ""
    await _let_requests_end(server, runtime, deadline, grace, second_signal_hint)
    await _close(server, runtime)
    await finish(service, deadline)


async def _let_requests_end(
    server: Server, runtime: Runtime, deadline: float, grace: float, second_signal_hint: str
) -> None:
    """Waits until nothing was received or sent for `grace` seconds, or no connection is left.

    A client may be sending on a connection that looks idle; it gets one more response.
    """
    loop = asyncio.get_running_loop()
    silent_since = loop.time()
    report_at = silent_since + SHORT_GRACE_SECONDS
    while (now := loop.time()) < deadline:
        # A connection may close a moment before its request is known to have ended.
        websockets = [each.ws_connection for each in runtime.websockets]
        if runtime.in_flight or server.is_writing([each.stream for each in websockets if each]):
            silent_since = now
        elif not server.is_open() or now - silent_since >= grace:
            return
        if runtime.in_flight and now >= report_at:
            remaining, requests = deadline - now, _in_flight(runtime)
            log.info("Waiting up to %.0f s for %s%s", remaining, requests, second_signal_hint)
            report_at = now + REPORT_SECONDS
        await asyncio.sleep(0.01)
    if runtime.in_flight:
        log.warning("Closing %s", _in_flight(runtime))


def _in_flight(runtime: Runtime) -> str:
    """`2 requests: GET /never, 34 s old; GET /slow, 1 s old`, oldest first."""
    now = perf_counter()
    oldest = sorted(runtime.exchanges, key=lambda each: each.started)
    shown = "; ".join(f"{each}, {now - each.started:.0f} s old" for each in oldest[:3])
    more = f"; and {len(oldest) - 3} more" if len(oldest) > 3 else ""
    return f"{len(oldest)} request{'s' if len(oldest) > 1 else ''}: {shown}{more}"


async def _close(server: Server, runtime: Runtime) -> None:
    for websocket in list(runtime.websockets):
        try:
            websocket.close(1001, "Going away")
        except BaseException as error:  # from the team's own method
            contain(error)
            log.exception("%s.close failed while stopping", type(websocket).__qualname__)
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            while any(each.ws_connection for each in runtime.websockets):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    await _bounded(server.close_all_connections, CLOSE_SECONDS)


async def finish(service: Service, deadline: float) -> None:
    """Ends background work, runs the shutdown callbacks and sends the remaining telemetry.

    Each callback has until `deadline`, in the loop's time, or a quarter of a second longer.
    """
    loop, runtime = asyncio.get_running_loop(), service.app.runtime
    await runtime.background.stop(max(deadline - loop.time(), CLOSE_SECONDS))
    for callback in reversed(service.on_shutdown):
        await _bounded(callback, max(deadline - loop.time(), CLOSE_SECONDS))
    await asyncio.gather(*(_bounded(each.shutdown, FLUSH_SECONDS) for each in runtime.features))


def bind(endpoint: Endpoint, reuse_port: bool = False) -> list[socket.socket]:
    """Opens the addresses of an endpoint: the kernel takes connections from now on.

    Raises SystemExit with status 69 if it cannot.
    """
    port = endpoint.port
    hosts = endpoint.host.split(",")
    sockets: list[socket.socket] = []
    for host in hosts:
        # `::` alone would be IPv6 only. Not one socket for both: to that, an IPv4 client would have
        # an IPv6 address.
        address = None if host == "::" and "0.0.0.0" not in hosts else host
        try:
            sockets += bind_sockets(port, address, backlog=BACKLOG, reuse_port=reuse_port)
        except (OSError, ValueError) as error:  # an impossible host name, or no SO_REUSEPORT
            log.critical("Cannot listen on %s port %d: %s", host, port, error)
            raise SystemExit(EX_UNAVAILABLE) from None
        # Any free port, but the same one for all.
        port = sockets[0].getsockname()[1]
    return sockets


def listen(
    endpoint: Endpoint, settings: ServerSettings, sockets: list[socket.socket], **own: Any
) -> Server:
    """Starts serving an endpoint, within limits of its own where they are given."""
    server = Server(endpoint.app, **limits(settings) | own)
    port = sockets[0].getsockname()[1]
    for host in endpoint.host.split(","):
        log.info("Listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
    server.add_sockets(sockets)
    return server


def _stop_when_signalled(stop: "asyncio.Future[str]") -> None:
    """Resolves to the first signal; a second one ends the process immediately."""
    loop = asyncio.get_running_loop()

    def resolve(name: str) -> None:
        if not stop.done():
            stop.set_result(name)

    def first(number: int, frame: FrameType | None) -> None:
        signals.exit_at_once()
        loop.call_soon_threadsafe(resolve, signals.NAMES[number])
        signals.call_found(number, frame)

    signals.handle(first)


async def _keep_signals() -> None:
    while True:
        await asyncio.sleep(KEEP_SECONDS)
        signals.keep()


async def _bounded(work: Callable[[], Awaitable[Any]], seconds: float) -> None:
    """Waits for `work`, but no longer than this, even if it ignores its cancellation. Logs what it
    raises, so that the stop goes on."""

    async def run() -> None:
        try:
            await work()
        except (Exception, asyncio.CancelledError):
            if is_cancelled():
                raise
            log.exception("%r failed while stopping", work)

    task = asyncio.create_task(run())
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        task.cancel()
        log.error("Gave up on %r after %g s", work, seconds)
