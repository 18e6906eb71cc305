"""A project that was made by `cruft create` becomes any other by `cruft update`."""

import sys
from pathlib import Path

import cruft
import pytest

from . import combinations
from .project import TEMPLATE, Project, git, render
from .test_sameness import digest

SAMPLE = combinations.sample()
# From each to the next, and back to the first.
TRANSITIONS = [
    pytest.param(
        before,
        after,
        id=f"{combinations.name(before)} to {combinations.name(after)}",
        marks=pytest.mark.full if number > 1 else (),
    )
    for number, (before, after) in enumerate(zip(SAMPLE, SAMPLE[1:] + SAMPLE[:1], strict=True))
]
# The present one and the one before.
RELEASES = git(TEMPLATE, "tag", "--list", "--sort=-version:refname").split()[:2]
OWN_HANDLER = """

class Order(JsonHandler):
    def get(self, number: str) -> None:
        self.finish({"number": number})
"""


@pytest.mark.parametrize(("before", "after"), TRANSITIONS)
def test_project_becomes_what_a_fresh_one_is(
    tmp_path: Path,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: combinations.Answers,
    after: combinations.Answers,
) -> None:
    project = created(repository, tmp_path, monkeypatch, before)
    assert cruft.update(project, skip_apply_ask=True, extra_context=dict(after))
    expected = digest(render(tmp_path / "fresh", tmp_path / "home", after))
    assert digest_of_updated(project) == expected


@pytest.mark.parametrize(("before", "after"), TRANSITIONS)
def test_edits_are_kept(
    tmp_path: Path,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: combinations.Answers,
    after: combinations.Answers,
) -> None:
    project = created(repository, tmp_path, monkeypatch, before)
    edit(project)
    git(project, "commit", "--quiet", "--all", "--message=A handler of my own")
    assert cruft.update(project, skip_apply_ask=True, extra_context=dict(after))
    fresh = render(tmp_path / "fresh", tmp_path / "home", after)
    edit(fresh)
    assert digest_of_updated(project) == digest(fresh)


@pytest.mark.full
@pytest.mark.parametrize("release", RELEASES)
def test_project_of_a_release_follows_the_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    template = tmp_path / "template"
    git(tmp_path, "clone", "--quiet", str(TEMPLATE), str(template))
    project = created(template, tmp_path, monkeypatch, {}, checkout=release)
    assert cruft.update(project, skip_apply_ask=True, checkout=git(template, "rev-parse", "HEAD"))
    expected = digest(render(tmp_path / "fresh", tmp_path / "home", {}, template))
    assert digest_of_updated(project) == expected


def created(
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answers: combinations.Answers,
    checkout: str | None = None,
) -> Path:
    """A project under version control, as cruft asks for."""
    # What cookiecutter and git would read of the person's own configuration.
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".gitconfig").write_text(
        "[user]\n\tname = Somebody\n\temail = somebody@example.com\n"
    )
    project = cruft.create(
        str(repository),
        output_dir=tmp_path,
        extra_context=dict(answers),
        no_input=True,
        checkout=checkout,
    )
    git(project, "init", "--quiet")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message=As generated")
    return project


def edit(path: Path) -> None:
    """What a person adds on the first day."""
    project = Project(path, {}, path / ".venv", Path(sys.executable))
    project.add_handler(OWN_HANDLER, '(r"/orders/(?P<number>[0-9]+)", handlers.Order)')


def digest_of_updated(project: Path) -> dict[str, tuple[int, str]]:
    """All but what version control and cruft keep for themselves."""
    return {
        path: content
        for path, content in digest(project).items()
        if path != ".cruft.json" and not path.startswith(".git/")
    }
