"""The same answers give the same project, however they are given and wherever the template is."""

import hashlib
import os
import shutil
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import uv

from ..backends import tool
from . import combinations
from .project import OLDEST_COOKIECUTTER, TEMPLATE, git, render

ANSWERS = {
    "project_name": "Same Name",
    "metrics": "none",
    "tracing": "none",
    "license": combinations.choices()["license"][-1],
}
SLUG = "same-name"


def digest(project: Path) -> dict[str, tuple[int, str]]:
    """Mode and content of each file."""
    return {
        str(path.relative_to(project)): (
            path.stat().st_mode,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in sorted(project.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    directory = tmp_path_factory.mktemp("expected")
    return digest(render(directory / "project", directory / "home", ANSWERS))


def test_twice(tmp_path: Path, expected: dict[str, tuple[int, str]]) -> None:
    assert digest(render(tmp_path / "again", tmp_path / "other home", ANSWERS)) == expected


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("{}", id="another checkout"),
        pytest.param("git+file://{}", id="git URL", marks=pytest.mark.full),
    ],
)
def test_from_elsewhere(
    tmp_path: Path, repository: Path, expected: dict[str, tuple[int, str]], source: str
) -> None:
    assert generated(source.format(repository), tmp_path) == expected


@pytest.mark.full
def test_from_a_zip(tmp_path: Path, repository: Path, expected: dict[str, tuple[int, str]]) -> None:
    archive = tmp_path / "template.zip"
    git(repository, "archive", "--prefix=template-main/", f"--output={archive}", "HEAD")
    with zipfile.ZipFile(archive) as content:
        assert "template-main/cookiecutter.json" in content.namelist()
    # zipfile keeps no modes.
    contents = {path: content for path, (_, content) in generated(archive, tmp_path).items()}
    assert contents == {path: content for path, (_, content) in expected.items()}


@pytest.mark.full
def test_replayed(tmp_path: Path, expected: dict[str, tuple[int, str]]) -> None:
    assert generated(TEMPLATE, tmp_path) == expected
    assert generated(TEMPLATE, tmp_path, options=["--replay"]) == expected


@pytest.mark.full
def test_by_the_oldest_cookiecutter(tmp_path: Path, expected: dict[str, tuple[int, str]]) -> None:
    environment = tmp_path / "oldest"
    oldest = f"cookiecutter=={OLDEST_COOKIECUTTER}"
    python = environment / "bin" / "python"
    for argv in (
        ["venv", "--quiet", f"--python={sys.executable}", str(environment)],
        ["pip", "install", "--quiet", f"--python={python}", oldest],
    ):
        tool(uv.find_uv_bin(), *argv)
    assert generated(TEMPLATE, tmp_path, python=python) == expected


def generated(
    template: Path | str,
    tmp_path: Path,
    slug: str = SLUG,
    options: Sequence[str] = (),
    python: Path | str = sys.executable,
) -> dict[str, tuple[int, str]]:
    """What the command makes of a template with `ANSWERS`, or with other options instead."""
    output = tmp_path / "output"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    answers = [] if options else [f"{key}={value}" for key, value in ANSWERS.items()]
    options = options or ["--no-input"]
    env = {**os.environ, "HOME": str(tmp_path / "home"), "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [python, "-m", "cookiecutter", "--output-dir", output, *options, template, *answers]
    tool(*argv, env=env)
    return digest(output / slug)
