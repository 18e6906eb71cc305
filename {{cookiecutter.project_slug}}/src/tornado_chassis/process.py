"""The process around the service: its settings, its signals, its event loop and its end."""

import asyncio
import atexit
import gc
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout, suppress
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, NoReturn

from . import reload, settings, signals
from .settings import AnySettings

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from .service import Service

EX_USAGE = 64
"""Exit status for an unknown argument, after sysexits.h."""

END_SECONDS = 0.5
"""How long tasks, threads and children have to end after the stop."""

EXIT_SECONDS = 3.0
"""How long the interpreter then has to exit."""

RELOAD_DRAIN_SECONDS = 1.0

OBJECTS_BEFORE_COLLECTION = 100_000
"""How many objects, such as classes and dictionaries, the start makes before the garbage collector
looks at them. A service with everything makes half as many."""

USAGE = """Usage: {name} [--help | --version | --reload | openapi]

Runs the service until SIGTERM or Ctrl-C, or prints its OpenAPI document. With --reload, in
development, it starts again when its source changes. It takes no other arguments: settings are read
from the environment and, in development, from a file .env. docs/settings.md lists them."""

log = logging.getLogger(__name__)

_status: int | None = None
"""What the process exits with, once the service has ended."""


def main(arguments: list[str], kind: type[AnySettings], app: str) -> None:
    """Runs a service until SIGTERM or SIGINT.

    `app` names the module whose `make_service` takes the settings. It is imported once they are
    valid: a mistake in them is reported without waiting for Tornado to load.

    Raises SystemExit with status 78 for settings that are invalid or missing, with 69 if it cannot
    listen on an address, with 64 for an unknown argument, and with 1 after any other exception.
    """
    with _few_collections():
        service = _load(arguments, kind, app)
    if service:
        run(service, _folder_of(app) if arguments == ["--reload"] else None)


@contextmanager
def _few_collections() -> Iterator[None]:
    """Lets the garbage collector wait: almost all that loading code makes stays, and to go through
    it again and again takes more than a tenth of the start."""
    usual = gc.get_threshold()
    if usual[0]:  # else it is off on purpose
        gc.set_threshold(max(usual[0], OBJECTS_BEFORE_COLLECTION), *usual[1:])
    ours = gc.get_threshold()
    try:
        yield
        gc.freeze()  # until the service has stopped
    finally:
        if gc.get_threshold() == ours:  # else the team has set its own
            gc.set_threshold(*usual)


def _load(arguments: list[str], kind: type[AnySettings], app: str) -> "Service | None":
    """Makes the service; none if the arguments only ask for its document."""
    reloads = arguments == ["--reload"]
    try:
        loaded = configure(arguments, kind)
    except SystemExit as error:
        if reloads and error.code == settings.EX_CONFIG and Path(".env").exists():
            print("Waiting for a change of .env or the source", file=sys.stderr)
            _wait_for_change(app)
        raise
    if arguments == ["openapi"]:
        # What is logged meanwhile must not get into the document.
        with redirect_stdout(sys.stderr):
            loaded.start_logging()
            routes = import_module(app).make_service(loaded).app.runtime.routes()
        from .openapi import document

        described = document(loaded.service_name, loaded.service_version, routes)
        print(json.dumps(described, indent=2, default=str))
        return None
    loaded.start_logging()
    if reloads:
        drain = min(loaded.drain_timeout_seconds, RELOAD_DRAIN_SECONDS)
        # In place: a copy would lack what is beside the fields.
        vars(loaded).update(drain_delay_seconds=0.0, drain_timeout_seconds=drain)
    try:
        service: Service = import_module(app).make_service(loaded)
    except Exception:
        if not reloads:
            raise
        sys.excepthook(*sys.exc_info())
        _wait_for_change(app)
    return service


def _folder_of(app: str) -> Path:
    spec = find_spec(app)
    return Path(spec.origin if spec and spec.origin else ".").parent


def _wait_for_change(app: str) -> NoReturn:
    loop = asyncio.new_event_loop()
    loop.call_soon(reload.watch, _folder_of(app))
    _restart_after_change(loop)


def _restart_after_change(loop: asyncio.AbstractEventLoop) -> NoReturn:
    if _status != reload.CHANGED:
        log.info("Waiting for a change of the source")
        signals.exit_at_once()
        with suppress(SystemExit):
            loop.run_forever()
    _leave()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def configure(arguments: list[str], kind: type[AnySettings]) -> AnySettings:
    """Loads the settings and prepares the process for them, before anything imports Tornado.

    Raises SystemExit as `main` does, and with status 0 for `--help` and `--version`.
    """
    signals.exit_at_once()  # until the service can drain
    # Registered before anything that libraries register, so it is called after all of that.
    atexit.register(_exit_despite_daemon_threads)
    usage = USAGE.format(name=kind.service_name)
    if arguments in (["-h"], ["--help"]):
        print(usage)
        raise SystemExit
    if arguments == ["--version"]:
        print(kind.service_name, kind.service_version)
        raise SystemExit
    if arguments not in ([], ["--reload"], ["openapi"]):
        print(usage, file=sys.stderr)
        raise SystemExit(EX_USAGE)
    loaded = settings.load(kind)
    if arguments == ["--reload"] and loaded.environment != "development":
        print(f"--reload is for development: ENVIRONMENT is {loaded.environment}", file=sys.stderr)
        raise SystemExit(EX_USAGE)
    loaded.prepare()
    return loaded


def run(service: "Service", watched: Path | None = None) -> None:
    """Serves until SIGTERM or SIGINT, or until something calls `sys.exit`; starts the process again
    if the source below `watched` changes.

    Raises SystemExit with the status of `sys.exit`, with 69 if it cannot listen on an address, and
    with 1 after any other exception, which is logged.
    """
    from .server import serve

    # Not asyncio.run, which would wait for threads, and for tasks that ignore their cancellation.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    executor = ThreadPoolExecutor(thread_name_prefix="asyncio")
    loop.set_default_executor(executor)
    if watched:
        loop.call_soon(reload.watch, watched)
    global _status
    stop: asyncio.Future[str] = loop.create_future()
    if sys.platform != "win32":
        os.register_at_fork(after_in_child=partial(_end_if_it_comes_back, loop))
    _status = _run_until_done(loop, loop.create_task(serve(service, stop)), stop)
    executor.shutdown(wait=False, cancel_futures=True)
    has_ended = _end(loop)
    if watched and _status:
        _restart_after_change(loop)
    if not has_ended:
        _exit(_status)
    # What libraries do at exit, and children that multiprocessing waits for, may never end.
    _watchdog.start()
    if _status:
        raise SystemExit(_status)


def _end_if_it_comes_back(loop: asyncio.AbstractEventLoop) -> None:
    """Ends a child that goes on with its parent's event loop, which has none of its sockets."""

    def end() -> None:
        log.critical("Ending a forked child, which must not come back to the event loop")
        os._exit(1)

    with suppress(RuntimeError):  # closed, or forked by another thread
        loop.call_soon(end)


def _run_until_done(
    loop: asyncio.AbstractEventLoop, serving: "asyncio.Task[None]", stop: "asyncio.Future[str]"
) -> int:
    """Returns the exit status."""
    process, status = os.getpid(), 0
    while not serving.done():
        try:
            loop.run_until_complete(serving)
        except BaseException as error:
            if os.getpid() != process:
                raise  # A child that was forked while the loop ran.
            status = status or _status_of(error)
            if not serving.done():
                # Whatever raised it, or stopped the loop: the loop can go on.
                if not stop.done():
                    if status != reload.CHANGED:
                        log.exception("Stopping because of %r", error)
                    stop.set_result("")
            elif not isinstance(error, SystemExit):
                sys.excepthook(*sys.exc_info())
    return status


def _status_of(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        code = error.code or 0
        return code if isinstance(code, int) else 1
    return 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1


def _end(loop: asyncio.AbstractEventLoop) -> bool:
    """Cancels what is still running and waits for it, for at most half a second.

    Returns whether there is nothing left that the interpreter would wait for.
    """
    deadline = monotonic() + END_SECONDS
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        with suppress(SystemExit, KeyboardInterrupt):
            loop.run_until_complete(asyncio.wait(tasks, timeout=END_SECONDS))
    # First, as the threads of a pool wait for its processes. Others, multiprocessing ends itself.
    children = [each for each in _children() if not each.daemon]
    for child in children:
        child.terminate()
    threads = [each for each in threading.enumerate() if not each.daemon]
    threads.remove(threading.current_thread())
    remaining: list[BaseProcess | threading.Thread] = [*children, *threads]
    for each in remaining:
        each.join(max(deadline - monotonic(), 0.01))
        if each.is_alive():
            return False
    return all(task.done() for task in tasks)


def _children() -> "list[BaseProcess]":
    """The processes that multiprocessing has started, those of pools included."""
    multiprocessing = sys.modules.get("multiprocessing.process")
    return multiprocessing.active_children() if multiprocessing else []


def _exit_despite_daemon_threads() -> None:
    """Ends the process here if a library's daemon thread is still running.

    Before Python 3.14, a daemon thread that returns from C code, such as a TLS handshake, while the
    interpreter is torn down can crash the process.
    """
    if _status is not None and threading.active_count() > 1 + _watchdog.is_alive():
        _exit(_status)


def _exit(status: int) -> NoReturn:
    try:
        _leave()
    finally:
        os._exit(status)


def _leave() -> None:
    for child in _children():
        child.kill()
    logging.shutdown()
    if sys.stdout:  # None if it was closed before the start
        sys.stdout.flush()


_watchdog = threading.Timer(EXIT_SECONDS, lambda: _exit(_status or 0))
_watchdog.daemon = True
