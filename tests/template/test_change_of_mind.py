"""A project that was made by `cruft create` becomes any other by `cruft update`.

It does so after the first week of its team, of whose edits nothing is lost.
"""

import difflib
import json
import re
import shutil
import sys
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import cruft
import pytest

from . import combinations
from .edits import RENAMED, SETTINGS, WEEK, Edit, Team, renamed
from .project import SOURCE, TEMPLATE, Project, git, interpreter, reference, render
from .test_answers import run
from .test_render import teams
from .test_sameness import digest


def transitions() -> list[tuple[combinations.Answers, combinations.Answers]]:
    """Before and after, so that each answer becomes each other of its prompt."""
    pairs = {
        prompt: list(permutations(values, 2))
        for prompt, values in combinations.choices().items()
        # A source of the package is asked for once only, and has a test of its own.
        if prompt != "chassis"
    }
    found = []
    for number in range(max(map(len, pairs.values()))):
        before, after = {"chassis": "copy"}, {"chassis": "copy"}
        # Each prompt is at another place of its own, so that not the same answers always meet.
        for shift, (prompt, each) in enumerate(pairs.items()):
            before[prompt], after[prompt] = each[(number + shift) % len(each)]
        found.append((before, after))
    return found


TRANSITIONS = [
    pytest.param(
        before,
        after,
        id=f"{combinations.name(before)} to {combinations.name(after)}",
        marks=pytest.mark.full if number else (),
    )
    for number, (before, after) in enumerate(transitions())
]
# Each step changes the answers of the one before.
LIFE = [
    {"metrics": "prometheus", "tracing": "stub", "error_tracking": "sentry"},
    {"metrics": "statsd", "tracing": "jaeger", "error_tracking": "newrelic"},
    {"metrics": "none", "tracing": "none", "error_tracking": "none", "health": "none"},
    {"logging": "none", "console": "none", "deployment": "none"},
    {"health": "probes", "tracing": "zipkin", "metrics": "prometheus", "deployment": "docker"},
]
# The releases that have the chassis as a package of its own: before, updates took more than that.
RELEASES = [
    tag
    for tag in git(TEMPLATE, "tag", "--list", "--sort=-version:refname").split()[:2]
    if git(TEMPLATE, "ls-tree", "--name-only", tag, f"{SOURCE.name}/src/tornado_chassis")
]


Create = Callable[..., Path]


@pytest.fixture
def create(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Create:
    """Has cruft make a project, by default of the template that is here, and commits it."""

    def create(
        answers: combinations.Answers, template: Path = repository, checkout: str | None = None
    ) -> Path:
        # What cookiecutter and git would read of the person's own configuration.
        home = tmp_path / "home"
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
        home.mkdir()
        (home / ".gitconfig").write_text(
            "[user]\n\tname = Somebody\n\temail = somebody@example.com\n"
        )
        options = {"output_dir": tmp_path, "no_input": True, "checkout": checkout}
        project: Path = cruft.create(str(template), extra_context=dict(answers), **options)
        git(project, "init", "--quiet")
        commit(project, "As generated")
        return project

    return create


@pytest.mark.parametrize(("before", "after"), TRANSITIONS)
def test_project_becomes_what_a_fresh_one_is(
    repository: Path, create: Create, before: combinations.Answers, after: combinations.Answers
) -> None:
    project = create(before)
    edit(project, *WEEK)
    update(project, after)
    check_same(project, after, repository, *WEEK)


@pytest.mark.full
def test_suite_passes_after_each_change_of_mind(tmp_path: Path, create: Create) -> None:
    path = create(reference(**LIFE[0]))
    edit(path, *WEEK)
    project = Project(path, {}, tmp_path / "venv", interpreter())
    for answers in LIFE:
        update(path, answers)
        check(project)


@pytest.mark.full
def test_dependency_of_the_team_outlives_a_change_without_a_commit_of_what_was_generated(
    create: Create,
) -> None:
    """Without that commit, git has nothing to merge with: each change has to apply as it is."""
    answers = {"metrics": "prometheus", "tracing": "jaeger", "error_tracking": "sentry"}
    project = create(reference(**answers))
    shutil.rmtree(project / ".git")
    path = project / "pyproject.toml"
    text = path.read_text(encoding="utf-8")
    # Where `uv add` puts it.
    path.write_text(
        text.replace("]\n\n[project.scripts]", '    "pyyaml>=6",\n]\n\n[project.scripts]')
    )
    git(project, "init", "--quiet")
    commit(project, "Our first week")
    for change in ({"metrics": "none"}, {"error_tracking": "newrelic"}, {"tracing": "stub"}):
        update(project, change)
        commit(project, "Updated")
    assert '"pyyaml>=6",' in path.read_text(encoding="utf-8")


@pytest.mark.full
def test_chassis_becomes_a_package_and_a_copy_again(
    tmp_path: Path, template: Path, create: Create, wheel: Callable[[], str]
) -> None:
    # cruft leaves private values to the template: it is a house standard that sets this one.
    prompts = json.loads((template / "cookiecutter.json").read_text(encoding="utf-8"))
    prompts["__chassis_source"] = wheel()
    (template / "cookiecutter.json").write_text(json.dumps(prompts), encoding="utf-8")
    commit(template, "Our wheels")
    answers = reference(tracing="jaeger")
    path = create(answers, template)
    edit(path, *WEEK)
    kept = {each: (path / each).read_bytes() for each in teams(path)}
    project = Project(path, answers, tmp_path / "venv", interpreter())
    for chassis in ("package", "copy"):
        update(path, {"chassis": chassis})
        assert (path / "src" / "tornado_chassis").exists() == (chassis == "copy")
        assert {each: (path / each).read_bytes() for each in teams(path)} == kept
        check(project)
        with project.start(**SETTINGS) as service:
            assert service.get("/")[0] == 200
            assert service.terminate() == 0


def test_package_needs_the_address_of_a_wheel(tmp_path: Path) -> None:
    answers = {"chassis": "package", "project_slug": "my-service"}
    source = "https://packages.example.com/tornado_chassis-{version}-py3-none-any.whl"
    for more, expected in (
        ({}, '  chassis: "package" needs the address of a wheel of tornado-chassis'),
        # Between releases there is no wheel of this version.
        ({"__chassis_source": source}, "let __chassis_source name one wheel,\nwithout {version}."),
    ):
        config = tmp_path / "answers.yaml"
        config.write_text(json.dumps({"default_context": answers | more}))
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        program = Path(sys.executable).with_name("cookiecutter")
        options = ["--no-input", "--config-file", str(config), "--output-dir", str(out)]
        message = run([str(program), *options, str(TEMPLATE)], tmp_path, status=1)
        assert "Nothing was generated" in message
        assert expected in message
        assert list(out.iterdir()) == []


def test_released_package_is_asked_for_by_its_version(tmp_path: Path, template: Path) -> None:
    path = template / SOURCE.name / "src" / "tornado_chassis" / "__init__.py"
    text = re.sub(r'__version__ = ".*"', '__version__ = "7.8.9"', path.read_text())
    path.write_text(text)
    source = "https://packages.example.com/tornado_chassis-{version}-py3-none-any.whl"
    answers = reference(chassis="package", __chassis_source=source)
    project = render(tmp_path / "projects", tmp_path / "home", answers, template)
    assert source.format(version="7.8.9") in (project / "pyproject.toml").read_text()
    features = (project / "src" / "my_service" / "features.py").read_text()
    assert 'compatibility.require("7.8.9")' in features


@pytest.mark.full
def test_project_renamed_by_hand_becomes_what_a_fresh_one_of_that_name_is(
    repository: Path, create: Create
) -> None:
    (before, after), *_ = transitions()
    project = create(before)
    edit(project, renamed)
    update(project, after)
    check_same(project, {**after, "project_slug": RENAMED}, repository)


@pytest.mark.parametrize("page", ["README.md", f"{SOURCE.name}/docs/README.md"])
def test_commands_of_a_page_change_answers_and_ask_nothing(
    tmp_path: Path, repository: Path, create: Create, page: str
) -> None:
    """With some versions of Typer, cruft's question whether to apply an update is a traceback."""
    answers = reference()
    project = create(answers)
    text = (TEMPLATE / page).read_text(encoding="utf-8")
    for options in re.findall(r"^    uvx cruft update(.*)", text, re.MULTILINE):
        program = Path(sys.executable).with_name("cruft")
        command = ["/bin/sh", "-ec", f"{program} update{options}"]
        run(command, project, {"HOME": str(tmp_path / "home")})
        commit(project, "Updated")
        answers |= json.loads("".join(re.findall(r"'(.*)'", options)) or "{}")
    assert answers != reference()
    check_same(project, answers, repository)


@pytest.mark.full
@pytest.mark.parametrize("release", RELEASES)
def test_project_of_a_release_follows_the_template(
    tmp_path: Path, create: Create, release: str
) -> None:
    """After its team's first week, of which nothing is lost."""
    template = tmp_path / "template"
    git(tmp_path, "clone", "--quiet", str(TEMPLATE), str(template))
    project = create(reference(), template, release)
    edit(project, *WEEK)
    assert cruft.update(project, skip_apply_ask=True, checkout=git(template, "rev-parse", "HEAD"))
    check_same(project, reference(), template, *WEEK)


def commit(project: Path, message: str) -> None:
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--allow-empty", f"--message={message}")


def update(project: Path, answers: combinations.Answers) -> None:
    """Gives these answers, which leaves no conflict and touches no file of the team's."""
    assert cruft.update(project, skip_apply_ask=True, extra_context=dict(answers))
    changed = git(project, "status", "--porcelain", "--untracked-files=all", "--no-renames")
    lines = changed.splitlines()
    assert not [line for line in lines if line.startswith("U") or line.endswith((".rej", ".orig"))]
    assert not {Path(line[2:].strip()) for line in lines} & set(teams(project))


def edit(project: Path, *edits: Edit) -> None:
    Team(project).make(*edits)
    commit(project, "Ours")


def check(project: Project) -> None:
    """Its tests and types pass; commits it."""
    project.uv("lock", "--quiet")
    project.sync()
    project.run("pytest", "--quiet", "--exitfirst")
    project.run("mypy")
    commit(project.path, "Updated")


def check_same(project: Path, answers: combinations.Answers, template: Path, *edits: Edit) -> None:
    """A project of these answers, with the same edits, has the same files."""
    fresh = render(project.parent / "fresh", project.parent / "home", answers, template)
    Team(fresh).make(*edits)
    actual, expected = digest_of_updated(project), digest(fresh)
    report: list[str] = []
    for path in sorted({path for path, _ in actual.items() ^ expected.items()}):
        texts = [
            (root / path).read_text(encoding="utf-8", errors="replace").splitlines()
            if path in files
            else []
            for root, files in ((fresh, expected), (project, actual))
        ]
        report += [path, *difflib.unified_diff(*texts, "as it should be", "as it is", lineterm="")]
    assert not report, "\n".join(report)


def digest_of_updated(project: Path) -> dict[str, tuple[int, str]]:
    """All but what version control and cruft keep for themselves."""
    return {
        path: content
        for path, content in digest(project).items()
        if path != ".cruft.json" and not path.startswith(".git/")
    }
