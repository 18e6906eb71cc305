"""The generated pipelines: what linters say of them, and their steps, run as they stand there."""

import os
import re
import shlex
import shutil
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ..backends.kubernetes import kustomize
from .conftest import Generate
from .project import NEWEST, OLDEST, SOURCE, TEMPLATE, Project, git, interpreter, tool
from .test_alerts import load
from .test_change_of_mind import Create, commit, create
from .test_commands import with_uv

__all__ = ["create"]

DEPLOYMENTS = ["kubernetes", "docker", "none"]
PIPELINES = {
    "github": [
        ".github/workflows/ci.yml",
        ".github/workflows/dependencies.yml",
        ".github/workflows/template.yml",
    ],
    "gitlab": [".gitlab-ci.yml"],
}
#: What a tag starts; in GitLab's one file, they are the jobs with a rule about a tag.
RELEASE = ".github/workflows/release.yml"
#: Where the commands stand that a person runs by hand.
DOCUMENTS = ("README.md", "docs/operations.md", "docs/deployment.md")
#: Jobs that push a branch: what leads to it differs.
PROPOSING = ("propose", "propose-template")
#: What jobs are given by their runner.
RUNNER = {
    **dict.fromkeys(("GH_TOKEN", "TOKEN", "UPDATE_TOKEN", "CI_JOB_TOKEN"), "secret"),
    **dict.fromkeys(("GITHUB_REPOSITORY", "CI_PROJECT_PATH"), "team/service"),
    **dict.fromkeys(("CI_DEFAULT_BRANCH", "CI_COMMIT_BRANCH"), "main"),
    "GITHUB_SERVER_URL": "https://git.invalid",
    "CI_SERVER_HOST": "git.invalid",
}
#: Beside those of the documents: a report that GitLab draws in merge requests.
ONLY_IN_A_PIPELINE = {"uv run coverage xml --quiet"}


@pytest.fixture(params=PIPELINES)
def ci(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def project(generate: Generate, ci: str) -> Project:
    return generate(ci=ci)


@pytest.fixture
def followed(create: Create, tmp_path: Path, ci: str) -> Project:
    """A project that cruft has made, with a lock file, committed."""
    answers = {"ci": ci}
    path = create(answers)
    (path / "uv.lock").write_text("version = 1\n", encoding="utf-8")
    commit(path, "Lock")
    return Project(path, answers, tmp_path / "venv", interpreter())


@pytest.mark.parametrize("deployment", [*DEPLOYMENTS, "of the template itself"])
def test_linters_find_nothing_in_the_github_files(generate: Generate, deployment: str) -> None:
    is_ours = deployment not in DEPLOYMENTS
    path = TEMPLATE if is_ours else generate(ci="github", deployment=deployment).path
    files = path / ".github"
    zizmor = Path(sysconfig.get_path("scripts"), "zizmor")
    tool(zizmor, "--offline", "--no-progress", "--strict-collection", "--persona=pedantic", files)
    check_schema("github-workflows", *sorted(files.glob("workflows/*")))
    check_schema("dependabot", files / "dependabot.yml")


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_gitlab_file_follows_its_schema(generate: Generate, deployment: str) -> None:
    check_schema("gitlab-ci", generate(ci="gitlab", deployment=deployment).path / ".gitlab-ci.yml")


def check_schema(name: str, *paths: Path) -> None:
    assert paths
    tool(sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{name}", *paths)


def test_each_supported_python_is_tested(project: Project, ci: str) -> None:
    supported = [f"3.{minor}" for minor in range(OLDEST[1], NEWEST[1] + 1)]
    test = jobs(project)["test"]
    if ci == "github":
        assert test["strategy"]["matrix"]["python"] == supported
    else:
        assert test["parallel"]["matrix"] == [{"PYTHON": supported}]
    metadata = tomllib.loads((project.path / "pyproject.toml").read_text(encoding="utf-8"))
    assert metadata["project"]["requires-python"] == f">={supported[0]}"


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_commands_are_those_of_the_documents(generate: Generate, ci: str, deployment: str) -> None:
    project = generate(ci=ci, deployment=deployment)
    documented = set(documented_commands(project))
    for job in jobs(project):
        for command in commands(project, job):
            if re.match(r"(uv|uvx|docker|buildah|kubectl) ", command):
                assert command in documented | ONLY_IN_A_PIPELINE, job


@pytest.mark.full
def test_steps_pass_in_a_fresh_project(generate: Generate) -> None:
    """GitLab's, which GitHub's are a part of; what several jobs run is run once."""
    project = generate(ci="gitlab")
    project.sync()
    # test_container.py builds the image, and what proposes a change has tests below.
    ran = {
        command: None
        for job in jobs(project)
        # Those have tests of their own, with the tools that are here.
        if job not in ("build", "template", "alerts", "manifests", "schemas", *PROPOSING)
        for command in commands(project, job)
    }
    for command in ran:
        # What is known of a version today is no matter of the template, and no reason for a test
        # to fail: pip-audit reads what there is to look up, and asks nobody.
        dry = " --dry-run" if command.startswith("uvx pip-audit") else ""
        project.run("bash", "-ec", command + dry, env=with_uv(project))
    assert {"uv run mypy", "uv run coverage report", "uv lock --upgrade"} <= ran.keys()


def test_jobs_say_what_to_do_where_there_is_no_lock(project: Project, ci: str) -> None:
    content = load(project.path / PIPELINES[ci][0])
    locked = content["env" if ci == "github" else "variables"]["UV_LOCKED"]
    environ = {**with_uv(project), "UV_LOCKED": locked, "UV_PYTHON": str(project.interpreter)}
    for job in ("lint", "lint and types", "test", "audit"):
        if job not in jobs(project):
            continue
        first = next(commands(project, job))
        output = project.run("bash", "-ec", first, env=environ, status=1)
        assert "create a lockfile, run `uv lock`" in " ".join(output.split()), job


def test_newer_versions_are_proposed_on_a_branch(project: Project, tmp_path: Path, ci: str) -> None:
    remote = committed(project, tmp_path)
    lock = project.path / "uv.lock"

    for versions in ("version = 1\n", "version = 2\n"):
        lock.write_text(versions, encoding="utf-8")
        propose(project, remote)
        assert git(remote, "show", "update-dependencies:uv.lock") == versions.strip()
        changed = git(remote, "diff", "--name-only", "main", "update-dependencies")
        assert changed.split() == ["uv.lock"]
        assert not (tmp_path / "ran").exists(), "a command of the artifact ran with the token"
        # The next week finds a checkout of main.
        git(project.path, "checkout", "--quiet", "--detach", "main")
    if ci == "github":
        assert (tmp_path / "opened").read_text() == "opened\n", "the second one is a renewal"


def test_lock_that_is_a_link_is_not_proposed(project: Project, tmp_path: Path) -> None:
    """It could lead to the environment of the job, and so to its token."""
    remote = committed(project, tmp_path)
    (tmp_path / "environ").write_text("secret")
    (project.path / "uv.lock").symlink_to(tmp_path / "environ")
    with pytest.raises(AssertionError, match="status 1"):
        propose(project, remote)
    assert git(remote, "branch", "--format=%(refname:short)") == "main"


def test_nothing_newer_proposes_nothing(project: Project, tmp_path: Path) -> None:
    (project.path / "uv.lock").write_text("version = 1\n", encoding="utf-8")
    remote = committed(project, tmp_path)
    propose(project, remote)
    assert git(remote, "branch", "--format=%(refname:short)") == "main"


@pytest.mark.parametrize("path", [RELEASE, ".gitlab-ci.yml"])
def test_images_that_a_release_runs_are_pinned_by_digest(path: str) -> None:
    text = (SOURCE / path).read_text(encoding="utf-8")
    release = text.partition("# For a tag such as")[2]
    images = re.findall(
        r"(?:moby|aquasec|docker)[/:][\w./-]*:?v?\d[\w.-]*\S*|docker/\S+:\S+", release
    )
    assert len(images) >= 3
    for image in images:
        assert re.search(r":[\w.-]+@sha256:[0-9a-f]{64}$", image), image


def test_release_with_another_version_than_the_tag_ends_at_once(project: Project) -> None:
    [check] = (each for each in scripts(release_jobs(project)["candidate"]) if "grep" in each)
    for tag, status in (("v0.1.0", 0), ("v0.1.1", 1), ("v0.1", 1)):
        environ = {"GITHUB_REF_NAME": tag, "CI_COMMIT_TAG": tag}
        output = project.run("bash", "-ec", check, env=environ, status=status)
        assert ("another one than the tag's" in output) == bool(status)


def test_release_proposes_its_digest_in_the_overlay(
    project: Project, tmp_path: Path, ci: str
) -> None:
    pipeline = RELEASE if ci == "github" else PIPELINES[ci][0]
    name = load(project.path / pipeline).get("env", {})
    overlay = "deploy/kubernetes/overlays/production/kustomization.yaml"
    # Images of the team's own, which no release of the service is about.
    text = (project.path / overlay).read_text(encoding="utf-8")
    others = [f"\n  - name: {each}\n    newTag: v1\n    digest: sha256:{'c' * 64}" for each in "ab"]
    text = text.replace("\nimages:", f"\nimages:{others[0]}")
    text = text.replace("newTag: 0.1.0", f"newTag: 0.1.0{others[1]}")
    (project.path / overlay).write_text(text, encoding="utf-8")
    remote = committed(project, tmp_path)
    for version, digit in (("1.0.0", "a"), ("1.10", "b")):
        digest = f"sha256:{digit * 64}"
        checkout = tmp_path / version
        git(tmp_path, "clone", "--quiet", "--branch=main", str(remote), str(checkout))
        (checkout / "digest").write_text(f"{digest}\n")
        image = "registry.invalid/team/service"
        given = dict.fromkeys(("GITHUB_REF_NAME", "CI_COMMIT_TAG"), f"v{version}")
        given |= {"IMAGE": image, "DIGEST": digest, "CI_REGISTRY_IMAGE": image, **name}
        run_job(project, release_jobs(project)["propose-release"], checkout, remote, **given)
        branch = f"release-{version}"
        changed = git(remote, "diff", "--numstat", "main", branch).splitlines()
        [(added, removed, path)] = (line.split() for line in changed)
        assert path == overlay
        assert int(added) <= 3
        assert int(removed) <= 3
        # It is merged, and the next one is made on top of it.
        git(checkout, "push", "--quiet", str(remote), "HEAD:main")
        [deployment] = (
            each for each in kustomize((checkout / overlay).parent) if each["kind"] == "Deployment"
        )
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        assert container["image"] == f"{image}:{version}@{digest}"
    # Where the overlay does not name the image, nothing would be released.
    given["DIGEST"] = f"sha256:{'d' * 64}"
    (checkout / "digest").write_text(f"{given['DIGEST']}\n")
    text = (checkout / overlay).read_text(encoding="utf-8")
    (checkout / overlay).write_text(text.replace(f'name: "{project.slug}"', "name: another"))
    with pytest.raises(AssertionError, match="status 1"):
        run_job(project, release_jobs(project)["propose-release"], checkout, remote, **given)


def test_what_is_new_in_the_template_is_proposed_on_a_branch(
    tmp_path: Path, repository: Path, followed: Project
) -> None:
    with released(repository, "docs/background.md", "# Background work\n", "# New\n"):
        follow(followed)
    remote = checked_out_again(followed, tmp_path)
    propose(followed, remote, "propose-template")
    changed = git(remote, "diff", "--name-only", "main", "update-template").split()
    assert changed == [".cruft.json", "docs/background.md", "uv.lock"]
    assert git(remote, "show", "update-template:docs/background.md").startswith("# New")


@pytest.mark.full
def test_nothing_new_in_the_template_proposes_nothing(tmp_path: Path, followed: Project) -> None:
    follow(followed)
    assert (followed.path / "template.patch").read_bytes() == b""
    remote = checked_out_again(followed, tmp_path)
    propose(followed, remote, "propose-template")
    assert git(remote, "branch", "--format=%(refname:short)") == "main"


@pytest.mark.full
def test_update_that_conflicts_fails_and_lists_the_files(
    repository: Path, followed: Project
) -> None:
    page = followed.path / "docs" / "background.md"
    page.write_text(f"# Ours\n{page.read_text().partition(chr(10))[2]}")
    git(followed.path, "commit", "--quiet", "--all", "--message=Our title")
    with released(repository, "docs/background.md", "# Background work\n", "# New\n"):
        output = follow(followed, status=1)
    listed = output.partition("Conflicts; run the update by hand, and resolve these:\n")[2]
    assert listed.split() in (["docs/background.md"], ["docs/background.md.rej"])
    assert not (followed.path / "template.patch").exists()


def test_service_that_cruft_has_not_made_follows_nothing(
    generate: Generate, tmp_path: Path
) -> None:
    project = generate(ci="github")
    committed(project, tmp_path)
    follow(project)
    assert (project.path / "template.patch").read_bytes() == b""
    job = jobs(generate(ci="gitlab"))["template"]
    assert [rule["exists"] for rule in job["rules"]] == [[".cruft.json"]]


def checked_out_again(project: Project, tmp_path: Path) -> Path:
    """What another job finds, with the artifact of the one before; returns the remote."""
    git(project.path, "reset", "--quiet", "--hard")
    git(project.path, "branch", "--move", "main")
    return pushed(project, tmp_path)


@contextmanager
def released(repository: Path, path: str, old: str, new: str) -> Iterator[None]:
    """Until the end of the block, the template has a commit more."""
    source = repository / SOURCE.name / path
    text = source.read_text(encoding="utf-8")
    assert old in text
    source.write_text(text.replace(old, new), encoding="utf-8")
    git(repository, "commit", "--quiet", "--all", "--message=Something new")
    try:
        yield
    finally:
        git(repository, "reset", "--quiet", "--hard", "HEAD~1")


def follow(project: Project, status: int = 0) -> str:
    """Runs the job's script, with the cruft that is installed here."""
    uvx, its_uv = f'exec {sys.executable} -m "$@"', "echo 'version = 2' >uv.lock"
    path = {"PATH": programs(project.path.parent / "programs", uvx=uvx, uv=its_uv)}
    script = "\n".join(scripts(jobs(project)["template"]))
    return project.run("bash", "-ec", script, env=RUNNER | path, status=status)


def programs(directory: Path, **scripts: str) -> str:
    """A PATH that begins with shell scripts of these names."""
    directory.mkdir(exist_ok=True)
    for name, script in scripts.items():
        (directory / name).write_text(f"#!/bin/sh\n{script}\n")
        (directory / name).chmod(0o755)
    return f"{directory}{os.pathsep}{os.environ['PATH']}"


def committed(project: Project, tmp_path: Path) -> Path:
    """Commits the project; returns what it was cloned from."""
    git(project.path, "init", "--quiet", "--initial-branch=main")
    commit(project.path, "A service")
    return pushed(project, tmp_path)


def pushed(project: Project, tmp_path: Path) -> Path:
    remote = tmp_path / "remote"
    remote.mkdir()
    git(remote, "init", "--quiet", "--bare", "--initial-branch=main")
    git(remote, "config", "receive.advertisePushOptions", "true")
    git(project.path, "push", "--quiet", str(remote), "main")
    git(project.path, "checkout", "--quiet", "--detach")
    return remote


def propose(project: Project, remote: Path, name: str = "propose") -> None:
    """Runs the job that proposes a change, in a directory as a runner would leave it."""
    job = jobs(project)[name]
    run_job(project, job, unpacked(project, job, remote), remote)


def run_job(
    project: Project, job: dict[str, Any], directory: Path, remote: Path, **settings: str
) -> None:
    """Runs a job's script with what a runner sets, and a remote that is a directory."""
    # What the pull request is opened by; it counts those that it has opened.
    tmp_path = remote.parent
    opened = tmp_path / "opened"
    gh = f"""touch {opened}
        case "$1 $2" in
            "pr list") wc -l <{opened} ;; "pr create") echo opened >>{opened} ;; *) exit 2 ;;
        esac"""
    config = tmp_path / "gitconfig"
    hosts = ("https://x-access-token:secret@git.invalid/team/service",)
    hosts += ("https://oauth2:secret@git.invalid/team/service.git",)
    config.write_text(f'[url "{remote}"]\n' + "".join(f"\tinsteadOf = {each}\n" for each in hosts))
    variables = {
        **next((step["env"] for step in job.get("steps", []) if "env" in step), {}),
        **RUNNER,
        "RUNNER_TEMP": str(tmp_path / "runner"),
        "CI_REPOSITORY_URL": str(remote),
        "GIT_CONFIG_GLOBAL": str(config),
        "PATH": programs(tmp_path / "bin", gh=gh),
        **settings,
    }
    script = "\n".join(["cd " + shlex.quote(str(directory)), *scripts(job)])
    project.run("bash", "-ec", script, env=variables)


def unpacked(project: Project, job: dict[str, Any], remote: Path) -> Path:
    """Unpacks an artifact as the platform does, and returns where the job begins.

    It was made by a job that ran a new version of somebody's package: beside uv.lock it has what
    takes the place of the checkout's own git configuration.
    """
    tmp_path = remote.parent
    checkout = tmp_path / "builds"
    shutil.rmtree(checkout, ignore_errors=True)
    checkout.mkdir()
    if job.get("variables", {}).get("GIT_STRATEGY") != "none":
        git(checkout, "clone", "--quiet", "--branch=main", str(remote), ".")
    artifact = checkout
    for step in job.get("steps", []):
        if step.get("uses", "").startswith("actions/download-artifact@"):
            path = step["with"].get("path", ".")
            artifact = checkout / path.replace("${{ runner.temp }}", str(tmp_path / "runner"))
    shutil.copytree(project.path / ".git", artifact / ".git", dirs_exist_ok=True)
    # Each `git add` runs what it names.
    configuration = f"[core]\n\tfsmonitor = touch {tmp_path / 'ran'} #\n"
    (artifact / ".git" / "config").write_text(configuration)
    (artifact / "pyproject.toml").write_text("# Not the team's.\n")
    for name in ("uv.lock", "template.patch"):
        if (project.path / name).exists():
            shutil.copy(project.path / name, artifact / name, follow_symlinks=False)
    return checkout


@pytest.mark.full
def test_pre_commit_hooks_pass_in_a_fresh_project(generate: Generate, tmp_path: Path) -> None:
    project = generate()
    project.sync()
    committed(project, tmp_path)
    hooks = [sys.executable, "-m", "pre_commit", "run", "--all-files"]
    environ = {**with_uv(project), "PRE_COMMIT_HOME": str(tmp_path / "pre-commit")}
    output = project.run(*hooks, env=environ)
    assert output.count("Passed") == 3, output

    handlers = project.path / "src" / project.package / "handlers.py"
    with handlers.open("a", encoding="utf-8") as source:
        source.write('unused: int = "no number"\n')
    output = project.run(*hooks, env=environ, status=1)
    assert "handlers.py" in output


def jobs(project: Project) -> dict[str, Any]:
    """The jobs of the project's pipelines by name, without those of a release."""
    return jobs_of(project, PIPELINES[project.answers["ci"]], for_a_tag=False)


def release_jobs(project: Project) -> dict[str, Any]:
    """The jobs that a tag starts beside the others."""
    if project.answers["ci"] == "github":
        return jobs_of(project, [RELEASE], for_a_tag=False)
    return jobs_of(project, PIPELINES["gitlab"], for_a_tag=True)


def jobs_of(project: Project, paths: list[str], for_a_tag: bool) -> dict[str, Any]:
    """Those whose rule is about a tag, or the others."""
    found: dict[str, Any] = {}
    for path in paths:
        content = load(project.path / path)
        found |= content.get("jobs", content)
    rules = [{"if": "$CI_COMMIT_TAG =~ /^v/"}]
    return {
        name: job
        for name, job in found.items()
        if {"steps", "script"} & {*job} and (job.get("rules") == rules) == for_a_tag
    }


def scripts(job: dict[str, Any]) -> list[str]:
    steps = [step["run"] for step in job.get("steps", []) if "run" in step]
    return [*steps, *job.get("script", [])]


def commands(project: Project, job: str) -> Iterator[str]:
    for script in scripts(jobs(project)[job]):
        yield from filter(None, script.splitlines())


def documented_commands(project: Project) -> Iterator[str]:
    """What stands in the documents as code: in lines of its own, or in a text."""
    for path in filter(Path.exists, (project.path / name for name in DOCUMENTS)):
        document = path.read_text(encoding="utf-8")
        for code in re.findall(r"^    (\S.*)$|`([^`\n]+)`", document, re.MULTILINE):
            yield from (command.strip() for command in "".join(code).split("&&"))
