"""Generating over a project: it is refused, nothing is touched, and the way that works is shown."""

import json
import sys
from pathlib import Path

import pytest

from . import combinations
from .project import TEMPLATE, git, reference, render
from .test_answers import as_shown, command_of, cookiecutter, run
from .test_change_of_mind import TRANSITIONS, Create, create, digest_of_updated
from .test_sameness import digest

__all__ = ["create"]

OPTIONS = (["--overwrite-if-exists"], ["--overwrite-if-exists", "--skip-if-file-exists"])


@pytest.mark.parametrize(("before", "after"), TRANSITIONS)
def test_nothing_is_touched(
    tmp_path: Path, before: combinations.Answers, after: combinations.Answers
) -> None:
    project = render(tmp_path / "out", tmp_path / "home", before)
    # What hooks would take for a variant, or for empty, were they to look.
    for name in ("docs/metrics_of_ours.md", "tests/chassis/test_errors_ours.py", "empty"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).touch()
    (project / "README.md").write_text("Ours.\n", encoding="utf-8")
    kept = digest(project)
    answers = [f"{key}={value}" for key, value in after.items()]
    for options in OPTIONS:
        message = cookiecutter("--no-input", *options, *answers, home=tmp_path, status=1)
        assert f"Nothing was generated: {project} is not empty" in message
        assert digest(project) == kept


@pytest.mark.full
def test_command_that_is_shown_generates_beside_it(tmp_path: Path) -> None:
    render(tmp_path / "out", tmp_path / "home", reference())
    answers = reference(metrics="none", tracing="none")
    given = [f"{key}={value}" for key, value in answers.items()]
    as_shown(cookiecutter("--no-input", "-f", *given, home=tmp_path, status=1), home=tmp_path)
    [made] = (tmp_path / "out" / "generated").iterdir()
    assert digest(made) == digest(render(tmp_path / "fresh", tmp_path / "home", answers))


def test_command_that_is_shown_updates_what_cruft_has_made(
    tmp_path: Path, repository: Path, create: Create
) -> None:
    project = create({"metrics": "statsd"})
    answers = {"metrics": "none", "tracing": "none"}
    kept = digest_of_updated(project)
    wanted = json.dumps(answers)
    argv = [sys.executable, "-m", "cruft", "create", "--no-input", "--overwrite-if-exists"]
    argv += ["--output-dir", str(tmp_path), "--extra-context", wanted, str(repository)]
    message = run(argv, tmp_path, status=1)
    assert digest_of_updated(project) == kept
    assert wanted in command_of(message)
    updated = as_shown(message, home=tmp_path)
    # What cruft generates to compare is gone before a person could run it.
    assert "Run it:" not in updated
    expected = digest(render(tmp_path / "fresh", tmp_path / "home", answers, repository))
    assert digest_of_updated(project) == expected


def test_repository_that_was_just_made_takes_a_project(tmp_path: Path) -> None:
    fresh = render(tmp_path / "fresh", tmp_path / "home", {}, TEMPLATE)
    directory = tmp_path / "out" / fresh.name
    directory.mkdir(parents=True)
    git(directory, "init", "--quiet")
    cookiecutter("--no-input", "--overwrite-if-exists", home=tmp_path)
    assert digest_of_updated(directory) == digest(fresh)
