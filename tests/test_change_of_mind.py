"""A project that was made by `cruft create` becomes any other by `cruft update`.

It does so as generated, and after the first week of its team, of whose edits nothing is lost.
"""

import difflib
import json
import re
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import cruft
import pytest

from . import combinations
from .edits import RENAMED, RENAMING, WEEK, Edit, Team
from .project import TEMPLATE, git, reference, render
from .test_answers import run
from .test_render import SOURCE
from .test_sameness import digest

Change = tuple[str, str, str]


def transitions() -> list[tuple[combinations.Answers, combinations.Answers]]:
    """From one of the sample to another, so that each answer becomes each other of its prompt."""
    missing = {
        (prompt, old, new)
        for prompt, values in combinations.choices().items()
        for old, new in permutations(values, 2)
    }
    candidates = list(permutations(combinations.sample(), 2))
    chosen = []
    while missing:
        best = max(candidates, key=lambda each: len(missing & changes(*each)))
        if not missing & changes(*best):  # nor do any two of the sample
            candidates = list(permutations(combinations.every(), 2))
            continue
        missing -= changes(*best)
        chosen.append(best)
    return chosen


def changes(before: combinations.Answers, after: combinations.Answers) -> set[Change]:
    return {(prompt, before[prompt], after[prompt]) for prompt in before}


TRANSITIONS = [
    pytest.param(
        before,
        after,
        id=f"{combinations.name(before)} to {combinations.name(after)}",
        marks=pytest.mark.full if number > 1 else (),
    )
    for number, (before, after) in enumerate(transitions())
]
# The first commit that asks all that this template asks; it had no console to give yet.
FIRST = "c58bd55d278ebf52ab0aa3cfa06dc6299a27eed8"
# What a service may have been made by: that one, the present release and the one before.
RELEASES = [FIRST, *git(TEMPLATE, "tag", "--list", "--sort=-version:refname").split()[:2]]
# Whoever has added to a line that was changed since has to say what it should be.
CONFLICT = "dependency_added"


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
    expected = digest(render(tmp_path / "fresh", tmp_path / "home", after, repository))
    assert digest_of_updated(project) == expected


@pytest.mark.parametrize(("before", "after"), TRANSITIONS)
def test_edits_are_kept(
    tmp_path: Path,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: combinations.Answers,
    after: combinations.Answers,
) -> None:
    # Who uses a feature, and then does without it, has to say what becomes of that use.
    edits = [each for each in WEEK if each.fits(before) and each.fits(after)]
    project = created(repository, tmp_path, monkeypatch, before)
    edited = make(edits, project)
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message=Our first week")
    assert cruft.update(project, skip_apply_ask=True, extra_context=dict(after))
    fresh = render(tmp_path / "fresh", tmp_path / "home", after, repository)
    make(edits, fresh)
    report = lost(project, fresh, edited)
    assert not report, report


def test_project_renamed_by_hand_becomes_what_a_fresh_one_of_that_name_is(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (before, after), *_ = transitions()
    project = created(repository, tmp_path, monkeypatch, before)
    make([RENAMING], project)
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message=A better name")
    assert cruft.update(project, skip_apply_ask=True, extra_context=dict(after))
    named = {**after, "project_slug": RENAMED}
    expected = digest(render(tmp_path / "fresh", tmp_path / "home", named, repository))
    assert digest_of_updated(project) == expected


@pytest.mark.parametrize("page", ["README.md", f"{SOURCE.name}/docs/README.md"])
def test_commands_of_a_page_change_answers_and_ask_nothing(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    """With some versions of Typer, cruft's question whether to apply an update is a traceback."""
    project = created(repository, tmp_path, monkeypatch, reference())
    answers = reference()
    text = (TEMPLATE / page).read_text(encoding="utf-8")
    for options in re.findall(r"^    uvx cruft update(.*)", text, re.MULTILINE):
        program = Path(sys.executable).with_name("cruft")
        command = ["/bin/sh", "-ec", f"{program} update{options}"]
        done = run(command, project, {"HOME": str(tmp_path / "home")})
        assert done.returncode == 0, done.stdout
        git(project, "commit", "--quiet", "--all", "--allow-empty", "--message=Updated")
        answers |= json.loads("".join(re.findall(r"'(.*)'", options)) or "{}")
    assert answers != reference()
    expected = digest(render(tmp_path / "fresh", tmp_path / "home", answers, repository))
    assert digest_of_updated(project) == expected


@pytest.mark.full
@pytest.mark.parametrize("release", RELEASES)
def test_project_of_a_release_follows_the_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    """After its team's first week, of which nothing is lost."""
    template = tmp_path / "template"
    git(tmp_path, "clone", "--quiet", str(TEMPLATE), str(template))
    try:
        prompts = json.loads(git(template, "show", f"{release}:cookiecutter.json"))
    except subprocess.CalledProcessError:
        pytest.skip(f"{release} is not in this clone: git fetch --unshallow")
    # What a fork has added, was not offered then.
    answers = {
        key: value
        for key, value in reference().items()
        if key in prompts and (isinstance(prompts[key], str) or value in prompts[key])
    }
    project = created(template, tmp_path, monkeypatch, answers, checkout=release)
    edits = [each for each in WEEK if each.fits(answers) and str(each) != CONFLICT]
    edited = make(edits, project)
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message=Our first week")
    assert cruft.update(project, skip_apply_ask=True, checkout=git(template, "rev-parse", "HEAD"))
    fresh = render(tmp_path / "fresh", tmp_path / "home", answers, template)
    make(edits, fresh)
    report = lost(project, fresh, edited)
    assert not report, report


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


def make(edits: list[Edit], project: Path) -> dict[str, list[str]]:
    """Makes the edits; returns the names of those that have touched each file."""
    team = Team(project)
    touched: dict[str, list[str]] = {}
    before = digest_of_updated(project)
    for each in edits:
        each.make(team)
        after = digest_of_updated(project)
        for path, _ in before.items() ^ after.items():
            names = touched.setdefault(path, [])
            if str(each) not in names:
                names.append(str(each))
        before = after
    team.tidy()
    return touched


def lost(project: Path, fresh: Path, edited: dict[str, list[str]]) -> str:
    """How each file differs from what it should be, and which edits were made there."""
    actual, expected = digest_of_updated(project), digest(fresh)
    report = []
    for path in sorted({path for path, _ in actual.items() ^ expected.items()}):
        texts = [
            (root / path).read_text(encoding="utf-8", errors="replace").splitlines()
            if path in files
            else []
            for root, files in ((fresh, expected), (project, actual))
        ]
        report += [f"{path}, edited by: {', '.join(edited.get(path, ['nobody']))}"]
        report += difflib.unified_diff(*texts, "as it should be", "as it is", lineterm="")
    return "\n".join(report)


def digest_of_updated(project: Path) -> dict[str, tuple[int, str]]:
    """All but what version control and cruft keep for themselves."""
    return {
        path: content
        for path, content in digest(project).items()
        if path != ".cruft.json" and not path.startswith(".git/")
    }
