"""Instructions for each request, counted by valgrind: alike on every machine and under any load."""

import argparse
import http.client
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from tests.template.project import interpreters

from . import report
from .report import Column, Results, Sample, shares
from .variants import ALL_LIVE, BARE, VARIANTS, Variant, add_only
from .workshop import ANSWER_SECONDS, Server, Workshop

DEFAULTS = {"rounds": 2}

CONNECTIONS = 8
WARM_UP_REQUESTS = 200
# That are counted in each round.
REQUESTS = 384
# What OpenTelemetry's own exporter waits for.
WHOLE_BATCH = 512
SETTLED_SECONDS = 1.0
COMMAND_SECONDS = 60.0

SETTINGS = {
    # So that sets and dictionaries have the same order in each run.
    "PYTHONHASHSEED": "0",
    "PYTHONPATH": str(Path(__file__).parent / "slow_clock"),
    # With valgrind a turn of the event loop takes fifty times as long, and would count as blocked.
    "LOOP_BLOCKED_SECONDS": "0",
}

VERSIONS = {f"{major}.{minor}": path for (major, minor), path in interpreters().items()}
WITHOUT_EAGER_TASKS = "3.11"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_only(parser)
    parser.add_argument(
        "--python",
        nargs="+",
        choices=VERSIONS,
        default=list(VERSIONS),
        help="these versions (default: all that are installed)",
    )
    parser.add_argument(
        "--bound",
        type=float,
        help=f'fail where "{ALL_LIVE.name}" takes more than so many times what bare Tornado takes, '
        f"in a version after {WITHOUT_EAGER_TASKS}",
    )


def main(options: argparse.Namespace, workshop: Workshop) -> None:
    if not shutil.which("valgrind") or not shutil.which("vgdb"):
        raise SystemExit("valgrind counts: run .ci/install-backends valgrind, or install it")
    requests = CONNECTIONS if options.quick else REQUESTS
    wanted = {BARE.name, *options.only, *([ALL_LIVE.name] if options.bound else [])}
    variants = [variant for variant in VARIANTS if variant.name in wanted]
    results: Results = {each.name: [{} for _ in range(options.rounds)] for each in variants}
    for version in options.python:
        made = workshop.with_python(VERSIONS[version])
        for variant in variants:
            print(f"Python {version}: {variant.name}", file=sys.stderr)
            counted = measure(made, variant, options.rounds, requests)
            for sample, counts in zip(results[variant.name], counted, strict=True):
                sample |= {f"{version}{suffix}": count for suffix, count in counts.items()}
    report.save(options.output, "instructions", results, as_table(results, options.python))
    if options.bound:
        check(results, options.python, options.bound)


def check(results: Results, versions: Sequence[str], bound: float) -> None:
    """Raises SystemExit where all features take more than `bound` times what bare Tornado takes."""
    for version in versions:
        ratio = max(shares(results, ALL_LIVE.name, BARE.name, version))
        if version != WITHOUT_EAGER_TASKS and ratio > bound:
            raise SystemExit(f"{ALL_LIVE.name}: {ratio:.3f} of bare's with Python {version}")


def as_table(results: Results, versions: Sequence[str]) -> str:
    columns = []
    for version in versions:
        columns += [
            Column(f"thousands with Python {version}", version, ".0f", 1e-3),
            Column("of bare's", version, is_share=True),
            Column("without memset", f"{version} without memset", is_share=True),
        ]
    return report.compared(results, *columns)


def measure(workshop: Workshop, variant: Variant, rounds: int, requests: int) -> list[Sample]:
    variant = replace(variant, settings={**variant.settings, **SETTINGS})
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="callgrind-")))
        # The start is not counted: counting takes ten times as long as running within valgrind.
        wrapper = ["valgrind", "--tool=callgrind", "--instr-atstart=no"]
        wrapper += [f"--callgrind-out-file={directory}/out", f"--vgdb-prefix={directory}/vgdb"]
        server = stack.enter_context(workshop.start(variant, wrapper=wrapper))
        send = stack.enter_context(load(server.port, variant.every))
        counter = Counter(directory, server.process.pid)
        send(WARM_UP_REQUESTS)
        wait_until_settled(server)
        counter.control("instrumentation", "on")
        send(CONNECTIONS)
        samples: list[Sample] = []
        for _ in range(rounds):
            counter.control("zero")
            send(requests)
            samples.append({key: count / requests for key, count in counter.counts().items()})
        if variant.exports:
            counter.control("instrumentation", "off")
            send(WHOLE_BATCH)
            server.wait_for_exports()
    return samples


class Counter:
    """What callgrind counts in a process that was started with counting off."""

    def __init__(self, directory: Path, pid: int) -> None:
        self._directory = directory
        self._vgdb = ["vgdb", f"--vgdb-prefix={directory}/vgdb", f"--pid={pid}"]

    def control(self, *command: str) -> None:
        argv = [*self._vgdb, *command]
        subprocess.run(argv, check=True, capture_output=True, timeout=COMMAND_SECONDS)

    def counts(self) -> dict[str, int]:
        """Instructions since the last `zero`: all, and those that did more than to clear memory.

        Each by what follows the version in the name of its figure.
        """
        self.control("dump")
        [path] = self._directory.glob("out.*")
        dump = path.read_text()
        path.unlink()
        [total] = re.findall(r"^summary: (\d+)$", dump, re.MULTILINE)
        # A function has its name where it first occurs, and a number everywhere.
        memset = re.findall(r"^c?fn=(\(\d+\)) \w*memset", dump, re.MULTILINE)
        cleared = 0
        for function in re.split(r"^fn=", dump, flags=re.MULTILINE)[1:]:
            number, _, lines = function.partition("\n")
            if number.split()[0] in memset:  # which calls nothing
                costs = re.findall(r"^[-+*\d]+ (\d+)$", lines, re.MULTILINE)
                cleared += sum(map(int, costs))
        return {"": int(total), " without memset": int(total) - cleared}


@contextmanager
def load(port: int, every: int) -> Iterator[Callable[[int], None]]:
    """What sends so many requests on connections that are kept, each as fast as it is answered.

    Of `every` requests one shall fail; 0 for none.
    """
    connections = [
        http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
        for _ in range(CONNECTIONS)
    ]

    def work(first: int, count: int) -> None:
        for number in range(first, count, CONNECTIONS):
            fails = bool(every) and number % every == 0
            connections[first].request("GET", "/bench/fail" if fails else "/bench/x")
            response = connections[first].getresponse()
            assert response.status == (500 if fails else 200), response.status
            response.read()

    def send(count: int) -> None:
        list(pool.map(work, range(CONNECTIONS), [count] * CONNECTIONS))

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        yield send
    for connection in connections:
        connection.close()


def wait_until_settled(server: Server) -> None:
    """Until the service has nothing to do: what it loads after its start is not a request's."""
    while True:
        before = server.cpu_seconds()
        time.sleep(SETTLED_SECONDS)
        if server.cpu_seconds() - before < SETTLED_SECONDS / 2:
            return
