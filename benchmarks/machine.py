"""Processes on a core of their own, each ended with its block, and what they have used."""

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parent.parent
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[-1], CORES[0]
START_SECONDS = 60.0
# Beyond what was asked of a generator of load.
GRACE_SECONDS = 60.0
ANSWER_SECONDS = 30
CONNECTIONS = 32

Process = subprocess.Popen[bytes]


@contextmanager
def running(
    argv: Sequence[str | Path],
    env: Mapping[str, str],
    port: int,
    core: int = SERVER_CORE,
    output: int | IO[bytes] = subprocess.DEVNULL,
) -> Iterator[Process]:
    """Runs a server until the end of the block; enters it when `port` takes connections.

    What it prints goes to `output`, but for standard error, which is shown where it ends too early.
    """
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            argv,
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
        )
        try:
            os.sched_setaffinity(process.pid, {core})
            deadline = time.monotonic() + START_SECONDS
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    errors.seek(0)
                    command = " ".join(map(str, argv))
                    raise RuntimeError(f"{command}: not up\n{errors.read().decode()}")
                time.sleep(0.001)
            yield process
        finally:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def wrk(port: int, seconds: int, every: int = 0) -> dict[str, Any]:
    """What wrk reports of the load that it made on the load's core; latencies in seconds.

    Of `every` requests one shall fail, 0 for none. Raises AssertionError where others have failed.
    """
    url = f"http://127.0.0.1:{port}/bench/x"
    script = Path(__file__).with_name("load.lua")
    argv = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", f"--timeout={ANSWER_SECONDS}s"]
    argv += ["-s", str(script), url, str(every)]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            os.sched_setaffinity(process.pid, {LOAD_CORE})
            output = process.communicate(timeout=seconds + GRACE_SECONDS)[0]
        finally:
            process.kill()
    if process.returncode:
        raise RuntimeError(f"{' '.join(argv)}: status {process.returncode}")
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    expected = result["requests"] / every if every else 0
    # Those on their way at the end are not counted.
    assert abs(result["failed"] - expected) <= (CONNECTIONS if every else 0), result
    assert not result["lost"], result
    result["throughput"] = result["requests"] / result["seconds"]
    return result


def require_wrk() -> None:
    if not shutil.which("wrk"):
        raise SystemExit("wrk makes the load: run .ci/install-backends wrk, or install it yourself")
    if SERVER_CORE == LOAD_CORE:
        print("There is one core only: the load takes from what it measures.", file=sys.stderr)


def pin() -> None:
    """Has this process on the load's core from now on, and whatever it starts."""
    os.sched_setaffinity(0, {LOAD_CORE})


def description() -> dict[str, str]:
    """What the figures hold for."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    models = [line for line in cpuinfo.splitlines() if line.startswith("model name")]
    return {
        "processor": models[0].partition(":")[2].strip() if models else platform.machine(),
        "cores": str(len(CORES)),
        "kernel": platform.release(),
    }
