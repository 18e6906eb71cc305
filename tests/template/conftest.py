import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
import uv

from .project import TEMPLATE, Project, copy_checkout, git, interpreter, reference, render, tool

Generate = Callable[..., Project]
Rendered = Callable[[dict[str, str]], Path]


@pytest.fixture(scope="session")
def slots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this worker's environments stand.

    The first project of each test has the first slot, and so on: `uv sync` makes an environment
    exactly what the project asks for, while bytecode and mypy's cache, which hold for a path,
    are used again.
    """
    return tmp_path_factory.getbasetemp() / "environments"


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """Renders a project once for each set of answers, for tests to copy."""
    directory = tmp_path_factory.mktemp("rendered")
    found: dict[tuple[tuple[str, str], ...], Path] = {}

    def rendered(answers: dict[str, str]) -> Path:
        key = tuple(sorted(answers.items()))
        if key not in found:
            found[key] = render(directory / str(len(found)), directory / "home", answers)
        return found[key]

    return rendered


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """Builds the wheel of the chassis when it is first called for, and returns its address."""
    directory = tmp_path_factory.mktemp("wheel")

    def wheel() -> str:
        if not list(directory.glob("*.whl")):
            build = [uv.find_uv_bin(), "build", "--quiet", "--wheel", f"--out-dir={directory}"]
            tool(*build, TEMPLATE)
        [path] = directory.glob("*.whl")
        return path.as_uri()

    return wheel


@pytest.fixture
def generate(tmp_path: Path, slots: Path, rendered: Rendered, wheel: Callable[[], str]) -> Generate:
    """Generates a project; answers not given are those of `project.REFERENCE`."""
    numbers = count()

    def generate(**answers: str) -> Project:
        if answers.get("chassis") == "package":
            answers.setdefault("__chassis_source", wheel())
        answers = reference(**answers)
        number = next(numbers)
        original = rendered(answers)
        path = tmp_path / f"project-{number}" / original.name
        shutil.copytree(original, path)
        return Project(path, answers, slots / str(number) / "venv", interpreter())

    return generate


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository of what is here now."""
    copy = tmp_path_factory.mktemp("template") / "template"
    copy_checkout(copy)
    git(copy, "init", "--quiet", "--initial-branch=main")
    git(copy, "add", "--all")
    git(copy, "commit", "--quiet", "--message=A template")
    return copy


@pytest.fixture
def template(tmp_path: Path, repository: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(repository, tmp_path / "template"))
