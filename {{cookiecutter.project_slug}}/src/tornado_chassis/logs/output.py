"""Where log lines go: standard output, whose reader may stall.

A full pipe would block the event loop, and so the whole service, until somebody reads. `poll` says
whether a pipe accepts PIPE_BUF bytes without blocking. So this needs neither a thread, which takes
longer than all the rest of a line, nor O_NONBLOCK, which would also apply to other processes that
share the pipe.
"""

import asyncio
import os
import select
import sys
import threading
from collections.abc import Callable
from typing import Any, TextIO
from weakref import WeakSet

WAITING_BYTES = 1024 * 1024
"""How much may wait for a reader that stalls; further lines are dropped."""

RETRY_SECONDS = 0.05

LAST_CHANCE_SECONDS = 1.0
"""How long a stopping service waits for a reader that stalls."""

# `poll` promises room for this many bytes; POSIX promises at least 512.
_PIECE_BYTES = getattr(select, "PIPE_BUF", 512)


class Output:
    """Writes lines to a stream. On the serving event loop, writes the lines of one turn together.

    `loss` makes the line that says how many were dropped.
    """

    def __init__(self, stream: TextIO, loss: Callable[[int], str]) -> None:
        #: How many lines have been dropped so far.
        self.dropped = 0
        self._stream = stream
        self._loss = loss
        self._descriptor, self._poll = _polled(stream)
        self._encoding = stream.encoding or "utf-8"
        self._forget()
        _outputs.add(self)

    def _forget(self) -> None:
        """Starts over: in a child process, the waiting lines are those that the parent writes."""
        # Reentrant, because garbage collection may run within, and log something.
        self._lock = threading.RLock()
        self._is_writing = False
        self._lines: list[str] = []
        self._waiting = bytearray()
        # Lines dropped since the last line was written.
        self._lost = 0
        self._is_stalled = False
        # Whether the loop is going to flush: at the end of its turn, or once more after a while.
        self._is_scheduled = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self) -> None:
        """From here on, lines may wait for the end of the running loop's turn."""
        self._is_scheduled = False
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        """Gives a reader that stalls a last chance, then writes each line immediately."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LAST_CHANCE_SECONDS
        self.flush()
        while (self._waiting or self._lost) and loop.time() < deadline:
            await asyncio.sleep(RETRY_SECONDS)
            self.flush()
        self._loop = None

    def write(self, line: str) -> None:
        """Writes a line soon; may be called from any thread."""
        self._lines.append(line)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        # Any other loop, such as one that a thread runs, may have stopped before its next turn.
        if loop is None or loop is not self._loop:
            self.flush()
        elif not self._is_scheduled:
            self._is_scheduled = True
            loop.call_soon(self._flush_as_scheduled)

    def _flush_as_scheduled(self) -> None:
        self._is_scheduled = False
        self.flush()

    def flush(self) -> None:
        """Writes what the stream accepts; blocks at most once, and only outside of `open`."""
        with self._lock:
            if self._is_writing:
                return  # Called from within: the line comes next.
            self._is_writing = True
            try:
                self._write_lines()
                while self._lines:
                    self._write_lines()
            finally:
                self._is_writing = False

    def _write_lines(self) -> None:
        # Lines may be appended meanwhile.
        lines = self._lines[:]
        del self._lines[: len(lines)]
        if self._poll is None:
            self._write_all(lines)
        elif lines or self._waiting or self._lost:
            self._write_pieces(lines)

    def _write_all(self, lines: list[str]) -> None:
        try:
            self._stream.write("".join(lines))
            self._stream.flush()
        except (OSError, ValueError):
            self.dropped += len(lines)  # The reader is gone.

    def _write_pieces(self, lines: list[str]) -> None:
        data = self._encoded("".join(lines))
        self._write_some(self._waiting)
        if not (self._waiting or self._lost):
            self._write_some(data)
        for line in data.splitlines(keepends=True):
            # Once full, only when half of it is free again, instead of a line now and then.
            limit = WAITING_BYTES // 2 if self._lost else WAITING_BYTES
            if self._waiting and len(self._waiting) + len(line) > limit:
                self._lost += 1
                self.dropped += 1
            else:
                self._report_loss()
                self._waiting += line
        if not self._waiting:
            self._report_loss()
        self._write_some(self._waiting)
        loop = self._loop
        # Possibly there is room by now, so that only the loss is left to report.
        if (self._waiting or self._lost) and loop and not self._is_scheduled:
            self._is_scheduled = True
            try:
                # Possibly from another thread.
                loop.call_soon_threadsafe(loop.call_later, RETRY_SECONDS, self._flush_as_scheduled)
            except RuntimeError:  # closed
                self._is_scheduled = False

    def _report_loss(self) -> None:
        if self._lost:
            self._waiting += self._encoded(self._loss(self._lost))
            self._lost = 0

    def _encoded(self, text: str) -> bytearray:
        return bytearray(text, self._encoding, "backslashreplace")

    def _write_some(self, data: bytearray) -> None:
        """Removes what there is room for from the data, and writes it.

        Writes whole lines in each piece, since others may write to the same pipe.
        """
        start = 0
        while start < len(data) and self._has_room():
            end = start + _PIECE_BYTES
            if end < len(data):
                end = data.rfind(b"\n", start, end) + 1 or end
            written = self._write(data[start:end])
            if not written:
                break
            start += written
        del data[:start]

    def _has_room(self) -> bool:
        # Without a serving loop there is nothing to hold up, but there is also nothing that would
        # try again: a reader that is only slow must not cost lines.
        patient = not (self._loop or self._is_stalled)
        has_room = bool(self._poll.poll(1000 * LAST_CHANCE_SECONDS if patient else 0))
        self._is_stalled = not has_room
        return has_room

    def _write(self, piece: bytearray) -> int:
        """Returns how many bytes have been written or given up."""
        try:
            self._stream.flush()  # what `print` has left there
            return os.write(self._descriptor, piece)
        except BlockingIOError:  # Another process that shares the pipe has set O_NONBLOCK.
            return 0
        except (OSError, ValueError):  # The reader is gone, or the disk is full.
            self.dropped += piece.count(b"\n")
            return len(piece)


_outputs: WeakSet[Output] = WeakSet()


def _forget_all() -> None:
    for output in _outputs:
        output._forget()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget_all)


def _polled(stream: TextIO) -> tuple[int, Any]:
    """The stream's descriptor, and what polls it, or None if it cannot be polled."""
    if sys.platform == "win32" or not hasattr(select, "poll") or stream.isatty():
        return -1, None
    try:
        descriptor = stream.fileno()
    except (AttributeError, OSError, ValueError):
        return -1, None
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return descriptor, poll
