"""Answers for `--config-file`: cookiecutter takes wrong keys and values without a word."""

import json
from pathlib import Path

import pytest
import yaml

from . import combinations
from .conftest import Generate
from .project import TEMPLATE, render
from .test_every_combination import check
from .test_sameness import digest, generated

PRESETS = sorted((TEMPLATE / "presets").glob("*.yaml"))


def answers_of(preset: Path) -> dict[str, str]:
    content = yaml.safe_load(preset.read_text(encoding="utf-8"))
    assert content.keys() == {"default_context"}
    answers: dict[str, str] = content["default_context"]
    return answers


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_preset_answers_what_is_asked(preset: Path) -> None:
    answers = answers_of(preset)
    prompts = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
    assert answers.keys() <= prompts.keys()
    choices = combinations.choices()
    wrong = {key: value for key, value in answers.items() if value not in choices.get(key, [value])}
    assert not wrong
    # So that a preset stays what it is when a default changes.
    assert choices.keys() - {"license", "chassis"} <= answers.keys()


@pytest.mark.full
@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_preset_gives_what_its_answers_give(tmp_path: Path, preset: Path) -> None:
    argv = ["--no-input", "--config-file", str(preset)]
    # What a preset leaves open, such as the author, is as by default.
    project = render(tmp_path / "rendered", tmp_path / "home", answers_of(preset))
    assert generated(TEMPLATE, tmp_path, project.name, argv) == digest(project)


@pytest.mark.full
@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_suite_of_the_preset(generate: Generate, preset: Path) -> None:
    project = generate(**answers_of(preset))
    project.sync()
    check(project)
