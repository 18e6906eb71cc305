"""The generated suite and mypy, in an environment made from the project's own `pyproject.toml`.

Alone: what a project uses and does not ask for is not there.
"""

from pathlib import Path

import pytest

from . import combinations
from .conftest import Generate
from .project import Project, interpreters

DEFAULTS, *_ = SAMPLE = combinations.sample()
# What runs without `--full` has each choice once.
QUICK = [combinations.telemetry(each) for each in combinations.each_choice()]


def marks(answers: combinations.Answers) -> list[pytest.MarkDecorator]:
    if answers == DEFAULTS:
        return [pytest.mark.longest]
    return [] if combinations.telemetry(answers) in QUICK else [pytest.mark.full]


COMBINATIONS = [
    pytest.param(answers, id=combinations.name(answers), marks=marks(answers))
    for answers in combinations.every()
]
# These take more than half of the time, and test what no choice can change: what stands below the
# features, and modules that know nothing of any other. They run in each combination of the sample,
# with the oldest dependencies and on each Python, and not in all of the others.
OF_ANY_CHOICE = [
    f"--ignore=tests/chassis/{each}.py"
    for each in (
        "console/test_recorder",
        "test_admission",
        "test_application",
        "test_background",
        "test_process",
        "test_server",
        "test_watch",
        "tracing/test_export",
        "tracing/test_propagation",
        "tracing/test_spans",
    )
]
# The sample has them already, by the newest.
OLDER = [
    pytest.param(path, id=f"{major}.{minor}")
    for (major, minor), path in list(interpreters().items())[:-1]
]
STUCK = 60
"""Seconds after which a test shows where it hangs."""
# Each backend's dependencies, in as few projects as there are backends of one prompt.
BOUNDS = combinations.each_choice()


@pytest.mark.parametrize("answers", COMBINATIONS)
def test_suite(generate: Generate, answers: combinations.Answers) -> None:
    project = generate(**answers)
    project.sync()
    if answers in SAMPLE:
        check(project)
    else:
        check_what_choices_change(project)


@pytest.mark.full
@pytest.mark.parametrize("interpreter", OLDER)
def test_suite_on_an_older_python(generate: Generate, interpreter: Path) -> None:
    project = generate()
    project.interpreter = interpreter
    project.sync()
    check(project)


@pytest.mark.full
@pytest.mark.parametrize("answers", BOUNDS, ids=combinations.name)
def test_suite_with_the_oldest_dependencies(
    generate: Generate, answers: combinations.Answers
) -> None:
    project = generate(**answers)
    project.sync("--resolution=lowest-direct")
    check(project)
    # Here because these have each module once.
    for system in ("win32", "darwin"):
        project.run("mypy", f"--platform={system}")


def check(project: Project) -> None:
    project.run("coverage", "run", "-m", "pytest", "--quiet", f"-ofaulthandler_timeout={STUCK}")
    project.run("coverage", "combine", "--quiet")
    project.run("coverage", "report")
    project.run("mypy")


def check_what_choices_change(project: Project) -> None:
    project.run("pytest", "--quiet", f"-ofaulthandler_timeout={STUCK}", *OF_ANY_CHOICE)
    project.run("mypy")
