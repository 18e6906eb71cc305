"""The commands of the README, as typed on a machine that has git and Python, and nothing else."""

import http.client
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tornado_chassis import __version__

from ..backends import RUN_SECONDS, eventually, free_port
from ..load import load
from . import combinations
from .conftest import Generate
from .project import TEMPLATE, Service, copy_checkout
from .test_layout import TEAMS


def commands() -> list[str]:
    """The README's shell blocks. `.ci/run` reads the second one there, too."""
    readme = (TEMPLATE / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^```sh\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)


def test_tree_is_that_of_a_generated_project(generate: Generate) -> None:
    """Each entry is there, each directory that is opened is complete, and owners are right."""
    project = generate().path
    readme = (TEMPLATE / "README.md").read_text(encoding="utf-8")
    [tree] = re.findall(r"^```text\n.*?\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    entries: dict[Path, str] = {}
    above: list[Path] = [Path()]
    for line in tree.splitlines():
        [indent, name, owner] = re.findall(r"(\W*)── (\S+) +([^:]+)", f"{line} x")[0]
        depth = len(indent) // 4
        del above[depth + 1 :]
        above.append(above[depth] / name)
        entries[above[-1]] = owner
    rest = entries.pop(Path("…"))
    assert "tools" in rest
    for path in entries:
        assert (project / path).exists(), path
    opened = {path.parent for path in entries} - {Path("src"), Path()}
    listed = {path for directory in opened for path in (project / directory).iterdir()}
    there = {path.relative_to(project) for path in listed if path.name != "__init__.py"}
    assert there <= set(entries)
    yours = {path for path, owner in entries.items() if owner.startswith("yours")}
    teams = {Path(str(path).replace("{{cookiecutter.__package}}", "my_service")) for path in TEAMS}
    teams = {path for path in teams if path.name != "__init__.py"}
    assert yours == teams | {Path("LICENSE"), Path("pyproject.toml")}


def test_version_is_the_changelog_s_latest() -> None:
    changes = (TEMPLATE / "CHANGELOG.md").read_text(encoding="utf-8")
    [latest, *_] = re.findall(r"^## \[(\d.*)\] - \d{4}-\d\d-\d\d$", changes, re.MULTILINE)
    version, _, is_dev = __version__.partition(".dev")
    assert (version == latest) != bool(is_dev)
    # The next release is announced by its number.
    assert not is_dev or f"Will be {version}." in changes


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a person who clones the repository has, by a name of their own choice."""
    copy = tmp_path / "my checkout"
    copy_checkout(copy)
    return copy


@pytest.mark.full
def test_first_command_generates_a_service_and_starts_it(checkout: Path, tmp_path: Path) -> None:
    command = commands()[0]
    default = {prompt: values[0] for prompt, values in combinations.choices().items()}
    with typed(command, checkout, tmp_path) as service:
        try:
            eventually(lambda: answers(service), command, timeout=RUN_SECONDS)
        except TimeoutError as error:
            raise AssertionError(service.output()) from error
        probes = ("/livez", "/readyz", "/health") if default["health"] == "probes" else ()
        for path in (*probes, "/hello/x"):
            assert (path, service.get(path)[0]) == (path, 200)
        assert service.get("/metrics")[0] == 404
        if default["metrics"] == "prometheus":
            assert service.get("/metrics", admin=True)[0] == 200

        with load(service.port, "/hello/x") as traffic:
            traffic.wait_for(1000)
            os.kill(child(service.process.pid), signal.SIGTERM)
            traffic.stopping.set()
            assert service.wait() == 0, service.output()
        assert traffic.failures == []


@contextmanager
def typed(command: str, directory: Path, tmp_path: Path) -> Iterator[Service]:
    """Runs a command line in a shell; the service it starts listens on free ports."""
    home = tmp_path / "home"
    home.mkdir()
    inherited = {name: os.environ[name] for name in os.environ if re.match("LANG|PIP_|SSL_", name)}
    ports = free_port(), free_port()
    environ = {
        **inherited,
        "HOME": str(home),
        "PATH": f"{sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/bin",
        "PIP_REQUIRE_VIRTUALENV": "1",
        "PORT": str(ports[0]),
        "ADMIN_PORT": str(ports[1]),
    }
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-c", f"{command}exit $?"],
            cwd=directory,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Service(process, *ports, log)
    finally:
        # Nothing is left when all went well.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(service: Service) -> bool:
    assert service.process.poll() is None, service.output()
    try:
        return service.get("/")[0] == 200
    except http.client.HTTPException:
        return False


def child(pid: int) -> int:
    """The command that a shell runs just now."""
    [number] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(number)
