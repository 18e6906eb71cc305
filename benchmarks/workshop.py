"""Makes what is compared, each in an environment of its own, and starts it."""

import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import uv

from tests.backends import eventually, free_port
from tests.template.project import MACHINE, Project, interpreter, render, tool

from . import machine
from .receiver import ANSWERS
from .variants import Variant

STACKS = Path(__file__).parent / "stacks"
READY_SECONDS = 60.0
ANSWER_SECONDS = 60.0

# As bare Tornado has none, a service without a log of its own shall have no access log either.
WITHOUT_ACCESS_LOG = """\
import logging
logging.getLogger("tornado.access").setLevel(100)
from {package}.__main__ import main
main()
"""


@dataclass
class Server:
    process: machine.Process
    port: int
    admin_port: int
    #: From the start of the process to its first answer.
    start_seconds: float
    #: Where the backend that answers is, if there is one.
    backend_port: int = 0

    def cpu_seconds(self) -> float:
        """What all threads of the process have had of the processor."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def resident_mib(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        [kib] = re.findall(r"^VmRSS:\s*(\d+) kB$", status, re.MULTILINE)
        return int(kib) / 1024

    def wait_until_ready(self) -> None:
        """For a service with probes: it answers before all of it is loaded."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                get(self.port, "/readyz")
                return
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.001)

    def wait_for_exports(self) -> None:
        spans = partial(get, self.backend_port, "/v1/traces")
        eventually(spans, "exported spans", enough=int)


class Workshop:
    """Projects and environments, made when they are first asked for and kept in `directory`."""

    def __init__(self, directory: Path, python: Path | None = None) -> None:
        self._directory = directory
        self._interpreter = python or interpreter()
        self._projects: dict[tuple[str, ...], Project] = {}
        self._stacks: dict[str, Path] = {}

    def with_python(self, python: Path) -> "Workshop":
        """Another one, which makes the same with another interpreter."""
        return Workshop(self._directory / python.name, python)

    def prepare(self, variant: Variant) -> None:
        """Makes what `start` needs, so that it takes no time there."""
        self._command(variant)

    @contextmanager
    def start(
        self,
        variant: Variant,
        core: int = machine.SERVER_CORE,
        values: Mapping[str, object] | None = None,
        output: int | IO[bytes] = subprocess.DEVNULL,
        wrapper: Sequence[str] = (),
    ) -> Iterator[Server]:
        """Runs a variant, and the backends that its settings name, until the end of the block.

        `values` are for further names in its settings; what it prints goes to `output`; `wrapper`
        is a command that runs it. Enters the block when it has answered.
        """
        argv = [*wrapper, *self._command(variant)]
        with ExitStack() as stack:
            named = dict(values or {})
            for manner in ANSWERS:
                if any(f"{{{manner}" in value for value in variant.settings.values()):
                    host, port = stack.enter_context(backend(manner))
                    named |= {manner: f"{host}:{port}", f"{manner}_port": port}
            settings = {name: value.format(**named) for name, value in variant.settings.items()}
            environ = {**environment(), **settings}
            port, admin_port = int(environ["PORT"]), int(environ["ADMIN_PORT"])
            started = time.perf_counter()
            running = machine.running(argv, environ, port, core, output=output)
            process = stack.enter_context(running)
            assert json.loads(get(port, "/bench/x")) == {"message": "hello"}
            server = Server(process, port, admin_port, time.perf_counter() - started)
            server.backend_port = int(str(named.get("answers_port", 0)))
            yield server

    def _command(self, variant: Variant) -> list[str | Path]:
        if isinstance(variant.source, str):
            return [self._stack(variant.source), "-P", STACKS / f"{variant.source}.py"]
        project = self._project(variant, variant.source)
        if variant.source["logging"] == "none":
            return [project.python, "-c", WITHOUT_ACCESS_LOG.format(package=project.package)]
        return [project.python, "-m", project.package]

    def _project(self, variant: Variant, answers: Mapping[str, str]) -> Project:
        key = (*answers.values(), variant.handler, variant.route)
        if key not in self._projects:
            directory = self._directory / f"project-{len(self._projects)}"
            path = render(directory, self._directory / "home", answers)
            project = Project(path, dict(answers), directory / "venv", self._interpreter)
            project.add_handler(variant.handler, variant.route)
            project.sync("--no-dev", "--compile-bytecode")
            self._projects[key] = project
        return self._projects[key]

    def _stack(self, name: str) -> Path:
        """The Python of a program in `stacks`."""
        if name not in self._stacks:
            manager, environment = uv.find_uv_bin(), self._directory / name
            tool(manager, "venv", "--quiet", f"--python={self._interpreter}", environment)
            python = environment / "bin" / "python"
            install = ("pip", "install", "--quiet", "--compile-bytecode", f"--python={python}")
            tool(manager, *install, "-r", STACKS / f"{name}.txt")
            self._stacks[name] = python
        return self._stacks[name]


def environment() -> dict[str, str]:
    inherited = {name: os.environ[name] for name in MACHINE if name in os.environ}
    ports = {"PORT": str(free_port()), "ADMIN_PORT": str(free_port())}
    return {**inherited, **ports, "LOG_FORMAT": "json", "DRAIN_DELAY_SECONDS": "0"}


@contextmanager
def backend(manner: str) -> Iterator[tuple[str, int]]:
    """Host and port of a backend that does as `manner` says, on the load's core."""
    port = free_port()
    argv = [sys.executable, "-m", "benchmarks.receiver", str(port), manner]
    with machine.running(argv, os.environ, port, machine.LOAD_CORE):
        yield "127.0.0.1", port


def get(port: int, path: str) -> bytes:
    """The answer to a request on a connection of its own; raises AssertionError if it is no 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, body
        return body
    finally:
        connection.close()
