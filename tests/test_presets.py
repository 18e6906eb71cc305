"""Answers for `--config-file`: cookiecutter takes wrong keys and values without a word."""

from pathlib import Path

import pytest
import yaml

from . import choices
from .conftest import Generate
from .project import TEMPLATE, render
from .test_generated_suites import check_what_choices_change
from .test_sameness import digest, generated

PRESETS = sorted((TEMPLATE / "presets").glob("*.yaml"))


def test_presets_answer_what_is_asked() -> None:
    found = list(choices.presets())
    assert not found, "\n".join(found)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_preset_gives_what_its_answers_give(tmp_path: Path, preset: Path) -> None:
    answers = yaml.safe_load(preset.read_text(encoding="utf-8"))["default_context"]
    argv = ["--no-input", "--config-file", str(preset)]
    # What a preset leaves open, such as the author, is as by default.
    project = render(tmp_path / "rendered", tmp_path / "home", answers)
    assert generated(TEMPLATE, tmp_path, project.name, argv) == digest(project)


@pytest.mark.full
@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_suite_of_the_preset(generate: Generate, preset: Path) -> None:
    answers = yaml.safe_load(preset.read_text(encoding="utf-8"))["default_context"]
    project = generate(**answers)
    project.sync()
    check_what_choices_change(project)
