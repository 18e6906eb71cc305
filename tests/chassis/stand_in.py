"""Runs the service of `routes.py` as a process: `python -m tests.chassis.stand_in`.

`STUBBORN` names what of it ignores its cancellation: `startup`, `shutdown`, `task`, `thread`;
`library`: a daemon thread that nobody ends; `atexit`. Or what ends the process. `FORK` names the
children that it starts, `DESCRIPTORS` how many descriptors it may have open. With `SILENT`, it has
no standard output, as after `>&-`.
"""

import asyncio
import atexit
import multiprocessing
import os
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

from tornado_chassis import process

from .settings import Settings, SettingsOfZipkin

if TYPE_CHECKING:
    from tornado_chassis.service import Service


class TornDown:
    """Says when the interpreter drops this module."""

    def __del__(self, write=os.write) -> None:  # type: ignore[no-untyped-def]
        write(1, b"Interpreter torn down\n")


torn_down: TornDown | None = None
kept: list[Any] = []


def main() -> None:
    if "DESCRIPTORS" in os.environ:
        import resource

        if sys.platform == "win32":
            raise NotImplementedError
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(os.environ["DESCRIPTORS"]), hard))
    if "SILENT" in os.environ:
        sys.stdout = None
    zipkin = "zipkin" in os.environ.get("FEATURES", "")
    process.main(sys.argv[1:], SettingsOfZipkin if zipkin else Settings, __name__)


def make_service(settings: Settings) -> "Service":
    global torn_down
    # Imported here, because this module is there before the settings are valid.
    from . import routes

    service = routes.make_service(settings)

    async def start_task() -> None:
        service.tasks = [asyncio.create_task(routes.ignore_cancellation())]  # type: ignore[attr-defined]

    async def block() -> None:
        routes.block(0.4)

    stubborn = os.environ.get("STUBBORN", "")
    on_startup: dict[str, Any] = {
        "startup": routes.ignore_cancellation,
        "task": start_task,
        "thread": lambda: asyncio.to_thread(time.sleep, 3600),
        "exit": routes.exit_process,
        "blocking": block,
    }
    on_shutdown = {"shutdown": routes.ignore_cancellation, "exit in shutdown": routes.exit_process}
    service.on_startup += [each for name, each in on_startup.items() if name == stubborn]
    service.on_shutdown += [each for name, each in on_shutdown.items() if name == stubborn]
    if stubborn == "atexit":
        atexit.register(time.sleep, 3600)
    if stubborn == "library":
        torn_down = TornDown()
        threading.Thread(target=time.sleep, args=[3600], daemon=True).start()
        atexit.register(print, "Library's own end")
    if sys.stdout is None:
        service.on_startup.append(say_that_it_runs)
    if kind := os.environ.get("FORK"):
        service.on_startup.append(lambda: fork(kind))
    return service


async def say_that_it_runs() -> None:
    print("The stand-in is running in silence", file=sys.stderr, flush=True)


async def fork(kind: str) -> None:
    from . import routes

    if sys.platform == "win32":
        raise NotImplementedError
    context = multiprocessing.get_context("fork")
    match kind:
        case "process":
            context.Process(target=time.sleep, args=[3600]).start()
        case "told":
            told = context.Process(target=time.sleep, args=[3600])
            told.start()
            told.terminate()
            told.join()
            print("Ended with", told.exitcode)
        case "deaf" | "daemon":
            context.Process(target=routes.ignore_signals, daemon=kind == "daemon").start()
        case "executor":
            pool = ProcessPoolExecutor(2, context)
            kept.append(pool)
            pool.submit(abs, 1).result()
            pool.submit(time.sleep, 3600)
        case "pool":
            kept.append(context.Pool(2))
        case "exits":
            if (child := os.fork()) == 0:
                sys.exit(5)
            print("Ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))  # noqa: ASYNC222
    print("Children", *(child.pid for child in multiprocessing.active_children()), flush=True)


if __name__ == "__main__":
    main()
