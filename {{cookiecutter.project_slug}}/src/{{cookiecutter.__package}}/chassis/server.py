"""Listen, then on SIGTERM or SIGINT drain and stop, without losing a request."""

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakSet

from tornado.http1connection import HTTP1ServerConnection
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.netutil import bind_sockets

from . import SERVICE, __version__
from .application import Application
from .refusals import connection_closed
from .service import Endpoint, Service
from .settings import Settings

EX_UNAVAILABLE = 69
"""Exit status where an address can't be listened on, after sysexits.h."""

# Tornado would take 100 MiB, keep an idle connection for an hour and wait for a body for ever.
LIMITS = {
    "max_body_size": 1024 * 1024,
    "max_buffer_size": 2 * 1024 * 1024,
    "idle_connection_timeout": 75.0,
    "body_timeout": 30.0,
}

IDLE_GRACE_SECONDS = 1.0
CLOSE_SECONDS = 0.5
FLUSH_SECONDS = 1.5

log = logging.getLogger(__name__)


class Server(HTTPServer):
    """An `HTTPServer` that knows whether its connections still have something to send."""

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        super().initialize(*args, **kwargs)
        self.streams: WeakSet[IOStream] = WeakSet()

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        self.streams.add(stream)
        super().handle_stream(stream, address)

    def on_close(self, server_conn: object) -> None:
        super().on_close(server_conn)
        application = self.request_callback
        if isinstance(server_conn, HTTP1ServerConnection) and isinstance(application, Application):
            connection_closed(server_conn, application)

    def is_open(self) -> bool:
        return any(not stream.closed() for stream in self.streams)

    def is_writing(self) -> bool:
        return any(stream.writing() for stream in self.streams)

    async def close(self) -> None:
        for stream in list(self.streams):
            stream.close()
        await _bounded(self.close_all_connections, CLOSE_SECONDS)


async def serve(service: Service) -> None:
    """Serves until a signal comes, then stops.

    The first endpoint takes the load. The others are for operators, who can watch through them
    how the first one stops.

    Raises SystemExit with status 69 where an address can't be listened on, and whatever a startup
    callback raises, having stopped.
    """
    stopping = asyncio.Event()
    _on_signal(stopping.set)
    servers = [listen(endpoint, service.settings) for endpoint in service.endpoints]
    log.info("%s %s is running in %s", SERVICE, __version__, service.settings.environment)
    starting = asyncio.create_task(start(service))
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait({starting, stop}, return_when=asyncio.FIRST_COMPLETED)
    if starting.done() and not starting.exception():
        # What is here now, stays. To go through it over and over would cost the collector a tenth
        # of a busy service's time, and the slowest requests most of theirs.
        gc.freeze()
        await stop
    starting.cancel()
    try:
        await drain(servers[0], service)
    finally:
        for server in servers[1:]:
            server.stop()
            await server.close()
        # The interpreter may crash on its way out with threads that still run.
        gc.unfreeze()
    log.info("Stopped")
    if starting.done() and not starting.cancelled():
        starting.result()


async def start(service: Service) -> None:
    """Starts the features and what the service itself has to start, then is ready."""
    for observer in service.app.observers:
        await observer.startup()
    for callback in service.on_startup:
        await callback()
    service.app.state = "ready"
    service.background_work.start()


async def drain(server: Server, service: Service) -> None:
    """Lets load balancers leave and the requests in flight end, then closes and finishes."""
    loop = asyncio.get_running_loop()
    app = service.app
    delay = service.settings.drain_delay_seconds if app.state == "ready" else 0.0
    app.state = "draining"
    log.info("Draining: accepting for %g s more", delay)
    await asyncio.sleep(delay)

    deadline = loop.time() + service.settings.drain_timeout_seconds
    await _let_requests_end(server, app, deadline, grace=min(delay, IDLE_GRACE_SECONDS))
    await _close(server, app)
    await finish(service, deadline)


async def _let_requests_end(
    server: Server, app: Application, deadline: float, grace: float
) -> None:
    loop = asyncio.get_running_loop()
    server.stop()
    # Undocumented, read for each request: a connection closes after its next answer. A header
    # `Connection: close` set by a handler would not close it.
    server.conn_params.no_keep_alive = True
    # A client may be sending on a connection that looks idle. Where load balancers were given time
    # to leave, give these some too.
    silence = loop.time() + grace

    def is_done() -> bool:
        # A connection may be closed a moment before its request is known to have ended.
        if app.in_flight or server.is_writing():
            return False
        return loop.time() >= silence or not server.is_open()

    await _until(is_done, deadline)
    if app.in_flight:
        log.warning("Closing %d requests still in flight", app.in_flight)


async def _close(server: Server, app: Application) -> None:
    for websocket in list(app.websockets):
        websocket.close(1001, "Going away")
    await _until(
        lambda: all(each.ws_connection is None for each in app.websockets),
        asyncio.get_running_loop().time() + CLOSE_SECONDS,
    )
    await server.close()


async def finish(service: Service, deadline: float) -> None:
    """Ends background work, runs the shutdown callbacks and sends what telemetry is left.

    Each callback has until `deadline`, a time of the loop's, or half a second after it.
    """
    loop = asyncio.get_running_loop()

    def seconds() -> float:
        return max(deadline - loop.time(), CLOSE_SECONDS)

    await service.background_work.stop(seconds())
    for callback in reversed(service.on_shutdown):
        await _bounded(callback, seconds())
    flushes = (_bounded(each.shutdown, FLUSH_SECONDS) for each in service.app.observers)
    await asyncio.gather(*flushes)


def listen(endpoint: Endpoint, settings: Settings) -> Server:
    """Starts to serve an endpoint."""
    proxies = [str(proxy) for proxy in settings.trusted_proxies]
    server = Server(endpoint.app, xheaders=bool(proxies), trusted_downstream=proxies, **LIMITS)
    try:
        sockets = bind_sockets(
            endpoint.port, endpoint.host, backlog=1024, reuse_port=settings.reuse_port
        )
    except OSError as error:
        log.critical("Cannot listen on %s port %d: %s", endpoint.host, endpoint.port, error)
        raise SystemExit(EX_UNAVAILABLE) from None
    server.add_sockets(sockets)
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    log.info("Listening on http://%s:%d", host, sockets[0].getsockname()[1])
    return server


def _on_signal(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)

    def first() -> None:
        for each in signals:
            loop.remove_signal_handler(each)
            # So that a second signal ends the process at once, even where the loop is stuck. Not
            # SIG_DFL, which a process with the id 1 would ignore.
            signal.signal(each, lambda number, frame: os._exit(128 + number))
        stop()

    for each in signals:
        loop.add_signal_handler(each, first)


async def _until(condition: Callable[[], bool], deadline: float) -> None:
    loop = asyncio.get_running_loop()
    while not condition() and loop.time() < deadline:  # noqa: ASYNC110 (no one event)
        await asyncio.sleep(0.01)


async def _bounded(work: Callable[[], Awaitable[Any]], seconds: float) -> None:
    """Waits for `work` at most so long, even where it does not heed its cancellation, and logs
    what it raises: a stop goes on."""

    async def run() -> None:
        try:
            await work()
        except Exception:
            log.exception("%r failed while stopping", work)

    task = asyncio.create_task(run())
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        task.cancel()
        log.error("Gave up on %r after %g s", work, seconds)
