"""Has timers and threads wait longer, in a process that valgrind slows down as much.

Otherwise they would run fifty times as often between two requests as they do without it.
"""

import asyncio
import threading
from typing import Any

SLOWDOWN = 50

_call_at = asyncio.BaseEventLoop.call_at
_wait = threading.Event.wait


def call_at(
    loop: asyncio.BaseEventLoop, when: float, *args: Any, **kwargs: Any
) -> asyncio.TimerHandle:
    now = loop.time()
    return _call_at(loop, now + (when - now) * SLOWDOWN, *args, **kwargs)


def wait(event: threading.Event, timeout: float | None = None) -> bool:
    return _wait(event, timeout and timeout * SLOWDOWN)


asyncio.BaseEventLoop.call_at = call_at  # type: ignore[method-assign]
threading.Event.wait = wait  # type: ignore[method-assign]
