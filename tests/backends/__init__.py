"""Real counterpart servers for the tests: each module starts one on free loopback ports.

`.ci/install-backends` installs them into `BACKENDS`.
"""

import json
import os
import random
import socket
import subprocess
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
BACKENDS = Path(
    os.environ.get("BACKENDS_DIR") or CACHE / "tornado-service-template" / "backends"
).absolute()
PORTS = 20_000, 32_000
RESERVED_PORTS = 100
POLL_SECONDS = 0.05
STOP_SECONDS = 10.0
# What has not come or ended by then never will, however busy the machine is.
WAIT_SECONDS = 120.0
RUN_SECONDS = 1200.0
LOG_TAIL_CHARACTERS = 4000

T = TypeVar("T")

# A proxy named in the environment must not see loopback traffic.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class NotInstalled(Exception):
    """The backend is not on this machine; the message says how to install it."""

    def __init__(self, backend: str) -> None:
        super().__init__(f"{backend} is not installed: run .ci/install-backends {backend}")


def home(backend: str) -> Path:
    """Return where `backend` is installed, or raise NotInstalled."""
    directory = BACKENDS / backend
    if not (directory / ".installed").exists():
        raise NotInstalled(backend)
    return directory


_reserved: "deque[socket.socket]" = deque()


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Return a free loopback port (UDP: `socket.SOCK_DGRAM`).

    It lies below the ports that systems give to whoever asks for any. A TCP port stays reserved
    until some more have been asked for: it refuses connections, and no other test is given it, but
    a server that sets SO_REUSEADDR, as all of them do, can listen on it.
    """
    while True:
        port = random.randint(*PORTS)
        reserved = socket.socket(socket.AF_INET, kind)
        try:
            reserved.bind(("127.0.0.1", port))
        except OSError:
            reserved.close()
            continue
        if kind == socket.SOCK_DGRAM:
            reserved.close()
            return port
        # Not before: it would be given what others have reserved.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _reserved.append(reserved)
        if len(_reserved) > RESERVED_PORTS:
            _reserved.popleft().close()
        return port


def get_json(url: str) -> Any:
    """Return the JSON at `url`; raises OSError (unreachable, HTTP error) or ValueError."""
    with _opener.open(url, timeout=WAIT_SECONDS) as response:
        return json.load(response)


def answers(url: str) -> bool:
    """Return true once `url` answers with a success; raises OSError until then."""
    with _opener.open(url, timeout=10):
        return True


def eventually(
    probe: Callable[[], T],
    what: str,
    enough: Callable[[T], object] = bool,
    timeout: float = WAIT_SECONDS,
) -> T:
    """Return the first result of `probe` that is `enough`: by default, the first truthy one.

    An OSError from `probe` counts as "not yet". Raises TimeoutError, with the last result, after
    `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    last: object = None
    while True:
        try:
            result = probe()
        except OSError as error:
            last = error
        else:
            if enough(result):
                return result
            last = result
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout} s; last result: {last!r}")
        time.sleep(POLL_SECONDS)


@contextmanager
def process(
    argv: Sequence[str | Path],
    cwd: Path,
    env: Mapping[str, str],
    log_path: Path,
    ready: Callable[[], bool],
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `argv` until the block ends; enter the block once `ready` returns true.

    `env` is added to this process's environment; stdout and stderr go to `log_path`. `ready`
    may raise OSError for "not yet". Raises RuntimeError, with the end of the log, if the
    process exits first or does not become ready.
    """
    with log_path.open("wb") as log:
        child = subprocess.Popen(
            argv,
            cwd=cwd,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )

    def started() -> bool:
        if child.poll() is not None:
            raise RuntimeError(f"{argv[0]} exited with {child.returncode}:\n{_tail(log_path)}")
        return ready()

    try:
        try:
            eventually(started, f"{argv[0]} ready")
        except TimeoutError as error:
            raise RuntimeError(f"{error}\n{_tail(log_path)}") from error
        yield child
    finally:
        child.terminate()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def tool(
    *argv: str | Path,
    input: str = "",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Return what a command prints; raises RuntimeError with all of it when it fails."""
    done = subprocess.run(
        argv,
        input=input,
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=RUN_SECONDS,
        check=False,
    )
    if done.returncode:
        command = " ".join(map(str, argv))
        raise RuntimeError(f"{command} exited with {done.returncode}:\n{done.stdout}")
    return done.stdout


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    """Serve from a thread until the block ends."""
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    with server:
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def _tail(log_path: Path) -> str:
    return log_path.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:]
