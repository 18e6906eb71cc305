"""Runs the service of `routes.py` as a process: `python -m tests.chassis.stand_in`.

`STUBBORN` names what of it does not heed its cancellation: `startup`, `shutdown`, `task`, `thread`;
or `library`: a daemon thread that nobody ends.
"""

import asyncio
import atexit
import os
import threading
import time

from my_service.chassis import process
from my_service.chassis.settings import Settings


class TornDown:
    """Says when the interpreter drops this module."""

    def __del__(self, write=os.write) -> None:  # type: ignore[no-untyped-def]
        write(1, b"Interpreter torn down\n")


torn_down: TornDown | None = None


def main() -> None:
    global torn_down
    settings = process.configure(Settings)
    from .routes import ignore_cancellation, make_service

    service = make_service(settings)

    async def start_task() -> None:
        service.tasks = [asyncio.create_task(ignore_cancellation())]  # type: ignore[attr-defined]

    async def wait_for_thread() -> None:
        await asyncio.to_thread(time.sleep, 3600)

    match os.environ.get("STUBBORN"):
        case "startup":
            service.on_startup.append(ignore_cancellation)
        case "shutdown":
            service.on_shutdown.append(ignore_cancellation)
        case "task":
            service.on_startup.append(start_task)
        case "thread":
            service.on_startup.append(wait_for_thread)
        case "library":
            torn_down = TornDown()
            threading.Thread(target=time.sleep, args=[3600], daemon=True).start()
            atexit.register(print, "Library's own end")
    process.run(service)


if __name__ == "__main__":
    main()
