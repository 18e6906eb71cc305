"""Answers for `--config-file`: cookiecutter takes wrong keys and values without a word."""

from pathlib import Path

import pytest
import yaml

from . import choices
from .conftest import Generate
from .project import TEMPLATE
from .test_generated_suites import check
from .test_sameness import digest, generated

PRESETS = sorted((TEMPLATE / "presets").glob("*.yaml"))


def test_presets_answer_what_is_asked() -> None:
    found = list(choices.presets())
    assert not found, "\n".join(found)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_preset_gives_what_its_answers_give(
    generate: Generate, tmp_path: Path, preset: Path
) -> None:
    answers = yaml.safe_load(preset.read_text(encoding="utf-8"))["default_context"]
    argv = ["--no-input", "--config-file", str(preset)]
    project = generate(**answers).path
    assert generated(TEMPLATE, tmp_path, project.name, argv) == digest(project)


@pytest.mark.full
@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_suite_of_the_preset(generate: Generate, preset: Path) -> None:
    answers = yaml.safe_load(preset.read_text(encoding="utf-8"))["default_context"]
    project = generate(**answers)
    project.sync()
    check(project)
