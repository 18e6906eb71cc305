"""The process around the service: its settings, its signals, its event loop and its end."""

import asyncio
import atexit
import logging
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from . import settings
from .settings.server import ServerSettings

if TYPE_CHECKING:
    from .service import Service

EX_USAGE = 64
"""Exit status for an unknown argument, after sysexits.h."""

END_SECONDS = 0.5

USAGE = """Usage: {name} [--help | --version]

Runs the service until SIGTERM or Ctrl-C. It takes no other arguments: settings are read from the
environment and, in development, from a file .env. docs/settings.md lists them."""

AnySettings = TypeVar("AnySettings", bound=ServerSettings)

_status: int | None = None
"""What the process exits with, once the service has ended."""


def main(arguments: list[str], kind: type[AnySettings], app: str) -> None:
    """Runs a service until SIGTERM or SIGINT.

    `app` names the module whose `make_service` takes the settings. It is imported once they are
    valid: a mistake in them is reported without waiting for Tornado to load.

    Raises SystemExit with status 78 for settings that are invalid or missing, with 69 if it cannot
    listen on an address, with 64 for an unknown argument, and with 1 after any other exception.
    """
    loaded = configure(arguments, kind)
    run(import_module(app).make_service(loaded))


def configure(arguments: list[str], kind: type[AnySettings]) -> AnySettings:
    """Loads the settings and prepares the process for them, before anything imports Tornado.

    Raises SystemExit with status 78 for settings that are invalid or missing; with 0 for `--help`
    and `--version`, and 64 for any other argument.
    """
    # Until the service can drain, a signal ends it immediately. Without a handler, a process with
    # id 1 would ignore the signal.
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda number, frame: os._exit(128 + number))
    # Registered before anything that libraries register, so it is called after all of that.
    atexit.register(_exit_despite_daemon_threads)
    _read_arguments(arguments, kind)
    loaded = settings.load(kind)
    loaded.prepare()
    return loaded


def run(service: "Service") -> None:
    """Serves until SIGTERM or SIGINT.

    Raises SystemExit with status 69 if it cannot listen on an address, and with 1 after any other
    exception, which is logged.
    """
    from .server import serve

    # Not asyncio.run, which would wait for threads, and for tasks that ignore their cancellation.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    executor = ThreadPoolExecutor(thread_name_prefix="asyncio")
    loop.set_default_executor(executor)
    global _status
    status: object = 0
    try:
        loop.run_until_complete(serve(service))
    except SystemExit as error:
        status = error.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    executor.shutdown(wait=False, cancel_futures=True)
    _status = status if isinstance(status, int) else 1
    if not _end(loop):
        _exit(_status)
    if status:
        raise SystemExit(status)


def _end(loop: asyncio.AbstractEventLoop) -> bool:
    """Cancels what is still running and waits for it, for at most half a second.

    Returns whether there is nothing left that the interpreter would wait for.
    """
    deadline = monotonic() + END_SECONDS
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=END_SECONDS))
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.current_thread():
            thread.join(max(deadline - monotonic(), 0.01))
            if thread.is_alive():
                return False
    return all(task.done() for task in tasks)


def _exit_despite_daemon_threads() -> None:
    """Ends the process here if a library's daemon thread is still running.

    Before Python 3.14, a daemon thread that returns from C code, such as a TLS handshake, while the
    interpreter is torn down can crash the process.
    """
    if _status is not None and threading.active_count() > 1:
        _exit(_status)


def _exit(status: int) -> None:
    logging.shutdown()
    sys.stdout.flush()
    os._exit(status)


def _read_arguments(arguments: list[str], kind: type[ServerSettings]) -> None:
    usage = USAGE.format(name=kind.service_name)
    match arguments:
        case []:
            return
        case ["-h" | "--help"]:
            print(usage)
        case ["--version"]:
            print(kind.service_name, kind.service_version)
        case _:
            print(usage, file=sys.stderr)
            raise SystemExit(EX_USAGE)
    raise SystemExit
