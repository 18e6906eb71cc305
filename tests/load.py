"""Load on keep-alive connections, as from a proxy that reuses them."""

import asyncio
import re
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from .backends import RUN_SECONDS, eventually

ANSWER_SECONDS = 60.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


@dataclass
class Load:
    """What came back: a request that was sent and not answered as it should be is a failure."""

    answered: int = 0
    failures: list[str] = field(default_factory=list)
    #: Set once connections may be refused, since the service was asked to stop.
    stopping: threading.Event = field(default_factory=threading.Event)

    def wait_for(self, answered: int) -> None:
        """Returns when that many more requests have been answered."""
        enough = self.answered + answered
        eventually(lambda: self.answered >= enough or self.failures, "answers")


@contextmanager
def load(
    port: int,
    path: str,
    connections: int = 16,
    *,
    body: bytes = b"",
    status: int = 200,
    pause: float = 0,
) -> Iterator[Load]:
    """Sends requests on so many connections until the service takes no more of them.

    The end of the block waits for that. Each connection sends its next request when it
    has the answer to the last and so many seconds have passed, and is made anew when the service
    closes it. Where it is then refused, after `stopping` is set, that is the end. With a `body` the
    requests are uploads. Each shall be answered with `status`.
    """
    result = Load()
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    head = f"{'PUT' if body else 'GET'} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{length}\r\n"
    request = head.encode() + body

    def worker() -> Coroutine[None, None, None]:
        return _worker(port, request, status, pause, result)

    with visits([worker] * connections):
        yield result
        result.stopping.set()


@contextmanager
def visits(
    workers: Sequence[Callable[[], Coroutine[None, None, None]]], timeout: float = RUN_SECONDS
) -> Iterator[None]:
    """Runs coroutines in a thread; the end of the block waits for them, and raises what they do."""

    async def run() -> None:
        await asyncio.wait_for(asyncio.gather(*(worker() for worker in workers)), timeout)

    errors: list[BaseException] = []

    def target() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    yield
    thread.join()
    for error in errors:
        raise error


async def _worker(port: int, request: bytes, status: int, pause: float, result: Load) -> None:
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError as error:
            if not result.stopping.is_set():
                result.failures.append(f"connect: {error!r}")
            return
        try:
            while True:
                writer.write(request)
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), ANSWER_SECONDS)
                length = _LENGTH.search(head)
                await reader.readexactly(int(length.group(1)) if length else 0)
                if not head.startswith(b"HTTP/1.1 %d " % status):
                    result.failures.append(head.decode(errors="replace"))
                result.answered += 1
                if _CLOSE.search(head):
                    break
                await asyncio.sleep(pause)
        except (OSError, EOFError, TimeoutError) as error:
            result.failures.append(f"request: {error!r}")
            return
        finally:
            writer.close()
