"""What SIGTERM and SIGINT do to the process. Its children get none of it."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

NAMES: dict[int, str] = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}

log = logging.getLogger(__name__)

_ours: dict[int, Any] = {}
_found: dict[int, Any] = {}


def handle(handler: Callable[[int, FrameType | None], None]) -> None:
    """Handles both signals from here on.

    Not with the handlers of an event loop, which don't run while it is stuck, and exist only on
    Unix.
    """
    _take(dict.fromkeys(NAMES, handler))


def keep() -> None:
    """Handles them again where somebody else has begun to, who is called, too."""
    _take(_ours)


def _take(handlers: Mapping[int, Any]) -> None:
    for number, handler in [*handlers.items()]:
        if (found := signal.getsignal(number)) is not _ours.get(number):
            _found[number] = found
        if found is not handler:
            _ours[number] = handler
            signal.signal(number, handler)


def exit_at_once() -> None:
    """Lets both end the process immediately."""
    # Not SIG_DFL, which a process with id 1 would ignore.
    handle(lambda number, frame: os._exit(128 + number))


def call_found(number: int, frame: FrameType | None) -> None:
    """Calls what others handled this signal with, except for Python's own handler."""
    # Not twice: what has replaced this service's handler may call that.
    found, _found[number] = _found.get(number), None
    if callable(found) and found is not signal.default_int_handler:
        try:
            found(number, frame)
        except (SystemExit, KeyboardInterrupt):
            pass  # The service is about to stop anyway.
        except Exception:
            log.exception("%r failed", found)
    _found[number] = found


if sys.platform != "win32":
    _before = threading.local()

    def _hold() -> None:
        # A signal to a child that has not yet dropped these handlers would be lost.
        _before.mask = signal.pthread_sigmask(signal.SIG_BLOCK, NAMES)

    def _release() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _before.mask)

    def _leave_to_parent() -> None:
        for number, ours in _ours.items():
            if signal.getsignal(number) is ours:
                # None stands for a handler that is not Python's, and cannot be set again.
                signal.signal(number, _found[number] or signal.SIG_DFL)
        _ours.clear()
        _release()

    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_leave_to_parent)
