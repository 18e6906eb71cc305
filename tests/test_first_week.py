"""A project stays green through its team's first week.

In each sampled combination all edits are made, one after another. After each of them the team's own
tests, mypy and ruff run, which takes a second. The tests of the chassis take ten, and may know
nothing of what the team has written: they run once, after the last edit. With the first combination
they run after each edit made alone, too.
"""

import pytest

from . import combinations, test_generated_suites
from .conftest import Generate
from .edits import RENAMED, RENAMING, WEEK, Answers, Edit, Team
from .project import Project

EX_CONFIG = 78
EDITS = [*WEEK, RENAMING]
DEFAULTS, *_ = SAMPLE = combinations.sample()


@pytest.mark.full
@pytest.mark.parametrize("answers", SAMPLE, ids=combinations.name)
def test_week(generate: Generate, answers: Answers) -> None:
    project = generate(**answers)
    team = Team(project.path)
    edits = [each for each in EDITS if each.fits(answers)]
    for each in edits:
        make(each, team, project)
        check_the_team_s(project, each)
    test_generated_suites.check(project)
    check_its_start(project)


@pytest.mark.full
@pytest.mark.parametrize("edit", [each for each in EDITS if each.fits(DEFAULTS)], ids=str)
def test_edit_alone(generate: Generate, edit: Edit) -> None:
    project = generate(**DEFAULTS)
    make(edit, Team(project.path), project)
    check_the_team_s(project, edit)
    project.run("pytest", "--quiet", "--exitfirst", "tests/chassis")


def make(edit: Edit, team: Team, project: Project) -> None:
    edit.apply(team)
    # What `uv run` does before anything else.
    project.sync()


def check_the_team_s(project: Project, edit: Edit) -> None:
    try:
        project.run("pytest", "--quiet", "--exitfirst", "--ignore=tests/chassis")
        project.run("mypy")
        project.run("ruff", "check", "--quiet")
        project.run("ruff", "format", "--quiet", "--diff")
    except AssertionError as error:
        error.add_note(f"after the edit {edit}")
        raise


def check_its_start(project: Project) -> None:
    """It starts under its new name, and not without the setting that has no default."""
    with project.start(DATABASE_URL="postgres://127.0.0.1/orders") as service:
        assert f'"service": "{RENAMED}"' in service.get("/")[2]
        assert service.terminate() == 0
    output = project.run(RENAMED, env={"PORT": "http"}, status=EX_CONFIG)
    assert output.splitlines() == [
        "Invalid settings:",
        "  PORT: should be a whole number from 0 to 65535, not 'http'",
        "  DATABASE_URL: is required",
    ]
