"""A project stays green through its team's first week.

After each edit the suite, mypy and ruff run, as they run in the team's pipeline.
"""

import json

import pytest

from .conftest import Generate
from .edits import RENAMED, SETTINGS, WEEK, Team, renamed
from .project import Project

EX_CONFIG = 78
EVERYTHING = {"tracing": "jaeger", "error_tracking": "newrelic", "metrics": "prometheus"}
NOTHING = dict.fromkeys(
    ("health", "logging", "metrics", "error_tracking", "tracing", "console"), "none"
)


@pytest.mark.full
@pytest.mark.parametrize("answers", [EVERYTHING, NOTHING], ids=["everything", "nothing"])
def test_each_edit_keeps_everything_green(generate: Generate, answers: dict[str, str]) -> None:
    project = generate(**answers)
    team = Team(project.path)
    for edit in WEEK:
        team.make(edit)
        check(project, f"{edit!r:.60}")
    check_start(project, "my-service")


def test_week_keeps_everything_green(generate: Generate) -> None:
    project = generate()
    Team(project.path).make(*WEEK, renamed)
    check(project, "the week")
    check_start(project, RENAMED)


def check(project: Project, what: str) -> None:
    # What `uv run` does before anything else.
    project.sync()
    try:
        project.run("pytest", "--quiet", "--exitfirst")
        project.run("mypy")
        project.run("ruff", "check", "--quiet")
        project.run("ruff", "format", "--quiet", "--diff")
    except AssertionError as error:
        error.add_note(f"after {what}")
        raise


def check_start(project: Project, name: str) -> None:
    """It starts under its name, and not without the setting that has no default."""
    with project.start(**SETTINGS) as service:
        assert json.loads(service.get("/")[2])["service"] == name
        assert service.get("/visits", method="POST", body="")[0] == 200
        assert service.terminate() == 0
        if project.answers["logging"] != "none":
            assert "no prices today" in service.output()
    output = project.run(name, env={"PORT": "http"}, status=EX_CONFIG)
    assert output.splitlines() == [
        "Invalid settings:",
        "  PORT: should be a whole number from 0 to 65535, not 'http'",
        "  DATABASE_URL: is required",
    ]
