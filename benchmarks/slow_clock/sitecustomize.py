"""Has timers and threads wait longer, in a process that valgrind slows down as much.

Otherwise they would run fifty times as often between two requests as they do without it.
"""

import asyncio
import threading
from time import monotonic

SLOWDOWN = 50

_wait = threading.Event.wait


def time(loop: asyncio.BaseEventLoop) -> float:
    return monotonic() / SLOWDOWN


def wait(event: threading.Event, timeout: float | None = None) -> bool:
    return _wait(event, timeout and timeout * SLOWDOWN)


asyncio.BaseEventLoop.time = time  # type: ignore[method-assign]
threading.Event.wait = wait  # type: ignore[method-assign]
