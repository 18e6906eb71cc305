import os
import shutil
from collections.abc import Callable, Generator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from .backends import NotInstalled
from .project import TEMPLATE, Project, git, interpreter, reference, render

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


@pytest.fixture
def generate(tmp_path: Path, slots: Path, rendered: Rendered) -> Generate:
    """Generates a project; answers not given are those of `project.REFERENCE`."""
    numbers = count()

    def generate(**answers: str) -> Project:
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
    ignore = shutil.ignore_patterns(".git", ".*_cache", ".venv", "__pycache__")
    shutil.copytree(TEMPLATE, copy, ignore=ignore)
    git(copy, "init", "--quiet", "--initial-branch=main")
    git(copy, "add", "--all")
    git(copy, "commit", "--quiet", "--message=A template")
    return copy


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    return (yield from skip_where_not_installed())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    return (yield from skip_where_not_installed())


def skip_where_not_installed() -> Generator[None, Any, Any]:
    """A test, or a fixture, just starts its backend: without it, the test is skipped."""
    try:
        return (yield)
    except NotInstalled as missing:
        pytest.skip(str(missing))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """CI installs everything, so that there a skipped test is a broken promise."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr[2]}"
    return report


def pytest_xdist_auto_num_workers() -> int | None:
    """More than cores: a generated suite waits for sockets and processes half of its time."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None  # xdist reads it
    return (os.cpu_count() or 1) * 3 // 2


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full",
        action="store_true",
        help="also the generated suite of every combination, and all else that takes minutes",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: runs with --full only")
    config.addinivalue_line("markers", "longest: runs before all others")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("full"):
        slow = [item for item in items if item.get_closest_marker("full")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]
    # The longest first: begun last, it would be waited for by workers with nothing to do.
    items.sort(key=lambda item: not item.get_closest_marker("longest"))
