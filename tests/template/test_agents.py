"""What AGENTS.md says, here and in a service, is true: its commands pass, and its files exist."""

import re
import shlex
from pathlib import Path

import pytest
from ruff import find_ruff_bin

from ..backends import tool
from .conftest import Generate
from .project import TEMPLATE
from .test_layout import TEAMS


def commands(page: Path) -> list[list[str]]:
    found = re.findall(r"^    (\S.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    return [shlex.split(each) for each in found]


def named(page: Path) -> set[str]:
    """The paths that it names, of which each has a slash or a suffix."""
    text = page.read_text(encoding="utf-8")
    words = {*re.findall(r"`([^`\s]+)`", text), *re.findall(r"\]\(([^)#]+)\)", text)}
    return {each for each in words if re.fullmatch(r"[\w{}./-]*(/|\.(py|md|toml|env))", each)}


@pytest.mark.full
def test_commands_of_a_service_pass(generate: Generate) -> None:
    project = generate()
    page = project.path / "AGENTS.md"
    project.sync()
    for command in commands(page):
        assert command[:2] == ["uv", "run"]
        project.uv(*command[1:])


@pytest.mark.parametrize("chassis", ["copy", "package"])
def test_files_of_a_service_are_there_and_belong_to_whom_it_says(
    generate: Generate, chassis: str
) -> None:
    project = generate(chassis=chassis)
    page = project.path / "AGENTS.md"
    text = page.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    package = project.path / "src" / project.package
    for name in named(page):
        assert (project.path / name).exists() or (package / name).exists(), name
    yours, _, others = text.partition("Everything else")
    teams = {path.name for path in TEAMS} - {"__init__.py", "__main__.py"}
    assert {each for each in teams if each not in yours} == set()
    assert {each for each in teams if f"{each}`" in others.partition("## Check")[0]} == set()
    assert ("tornado_chassis/" in others) == (chassis == "copy")


def test_page_of_this_repository() -> None:
    page = TEMPLATE / "AGENTS.md"
    assert len(page.read_text(encoding="utf-8").splitlines()) < 60
    for name in named(page):
        here = [TEMPLATE, TEMPLATE / "{{cookiecutter.project_slug}}/src/{{cookiecutter.__package}}"]
        assert any((each / name).exists() for each in here), name
    for program, *arguments in commands(page):
        if program == "pytest":
            assert [TEMPLATE / each for each in arguments if (TEMPLATE / each).is_dir()]
        elif program == "ruff":
            tool(find_ruff_bin(), *arguments, cwd=TEMPLATE)
        else:
            assert (program, arguments) == ("mypy", [])
