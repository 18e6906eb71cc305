"""Each command of `benchmarks`, with the smallest numbers: that it works, not what it measures."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from ..backends import NotInstalled, tool
from .project import TEMPLATE, interpreters

NEWEST_HERE = "{}.{}".format(*max(interpreters()))
# What must stand in the first column of the table.
ROWS = {
    "run": ["bare", "none", "all live, 1 % errors"],
    "instructions": ["bare", "all live"],
    "start": ["bare", "none", "all live", "by hand", "fastapi"],
    "processes": ["one", "two"],
    "generation": [
        "cookiecutter, empty template",
        "cookiecutter, our files without content, hooks that do nothing",
        "cookiecutter, ours",
        "from nothing to green tests",
    ],
    "soak": [
        "requests",
        "requests that fail",
        "clients that leave before the answer",
        "uploads",
        "WebSockets",
        "their messages",
        "dropped, or still in flight",
    ],
}
OPTIONS = {
    "run": ["--only", "none", "all live, 1 % errors"],
    "instructions": ["--only", "all live", f"--python={NEWEST_HERE}"],
}


@pytest.fixture(autouse=True)
def installed() -> None:
    if not shutil.which("wrk"):
        raise NotInstalled("wrk")
    if not shutil.which("valgrind"):
        raise NotInstalled("valgrind")


@pytest.mark.full
@pytest.mark.parametrize("command", ROWS)
def test_command_makes_a_table(command: str, tmp_path: Path) -> None:
    assert measure(tmp_path, command, *OPTIONS.get(command, [])) == ROWS[command]
    results = json.loads((tmp_path / f"{command}.json").read_text(encoding="utf-8"))
    assert results.keys() == {"machine", "results"}
    assert (tmp_path / "run.svg").exists() == (command == "run")


def test_too_many_instructions_are_an_error() -> None:
    from benchmarks import instructions

    def check(version: str, live: int) -> None:
        results = {"bare": [{version: 1000}], "all live": [{version: live}]}
        instructions.check(results, [version], bound=1.02)

    check("3.12", 1020)
    check("3.11", 1030)
    with pytest.raises(SystemExit, match=r"1\.030 of bare's with Python 3\.12"):
        check("3.12", 1030)


def measure(directory: Path, command: str, *options: str) -> list[str]:
    """The first column of the table that a command makes."""
    argv = [sys.executable, "-m", "benchmarks", command, "--quick", f"--output={directory}"]
    printed = tool(*argv, *options, cwd=TEMPLATE)
    table = (directory / f"{command}.md").read_text(encoding="utf-8")
    assert table in printed
    return [line.split("|")[1].strip() for line in table.splitlines()[2:] if "|" in line]
