"""Runs the service of `routes.py` as a process: `python -m tests.chassis.stand_in`.

`STUBBORN` names what of it ignores its cancellation: `startup`, `shutdown`, `task`, `thread`;
or `library`: a daemon thread that nobody ends. `DESCRIPTORS` is how many it may have open.
"""

import asyncio
import atexit
import os
import sys
import threading
import time
from typing import TYPE_CHECKING

from tornado_chassis import process

from .settings import Settings, SettingsOfZipkin

if TYPE_CHECKING:
    from tornado_chassis.service import Service


class TornDown:
    """Says when the interpreter drops this module."""

    def __del__(self, write=os.write) -> None:  # type: ignore[no-untyped-def]
        write(1, b"Interpreter torn down\n")


torn_down: TornDown | None = None


def main() -> None:
    if "DESCRIPTORS" in os.environ:
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(os.environ["DESCRIPTORS"]), hard))
    zipkin = "zipkin" in os.environ.get("FEATURES", "")
    process.main(sys.argv[1:], SettingsOfZipkin if zipkin else Settings, __name__)


def make_service(settings: Settings) -> "Service":
    global torn_down
    # Imported here, because this module is there before the settings are valid.
    from . import routes

    service = routes.make_service(settings)

    async def start_task() -> None:
        service.tasks = [asyncio.create_task(routes.ignore_cancellation())]  # type: ignore[attr-defined]

    async def wait_for_thread() -> None:
        await asyncio.to_thread(time.sleep, 3600)

    match os.environ.get("STUBBORN"):
        case "startup":
            service.on_startup.append(routes.ignore_cancellation)
        case "shutdown":
            service.on_shutdown.append(routes.ignore_cancellation)
        case "task":
            service.on_startup.append(start_task)
        case "thread":
            service.on_startup.append(wait_for_thread)
        case "library":
            torn_down = TornDown()
            threading.Thread(target=time.sleep, args=[3600], daemon=True).start()
            atexit.register(print, "Library's own end")
    return service


if __name__ == "__main__":
    main()
