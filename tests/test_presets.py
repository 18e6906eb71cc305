"""Answers for `--config-file`: cookiecutter takes wrong keys and values without a word."""

from pathlib import Path

import pytest
import yaml

from . import combinations
from .conftest import Generate
from .project import TEMPLATE
from .test_generated_suites import check
from .test_sameness import digest, generated

PRESETS = sorted((TEMPLATE / "presets").glob("*.yaml"))


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_preset_answers_what_is_asked(preset: Path) -> None:
    content = yaml.safe_load(preset.read_text(encoding="utf-8"))
    assert content.keys() == {"default_context"}
    choices = combinations.choices()
    for prompt, choice in content["default_context"].items():
        assert choice in choices[prompt], prompt
    # Said in full, so that a preset stays what it is when a default changes; but the license is
    # no matter of what a service runs on.
    assert content["default_context"].keys() == choices.keys() - {"license"}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_readme_describes_the_preset(preset: Path) -> None:
    assert f"presets/{preset.name}" in (TEMPLATE / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_preset_gives_what_its_answers_give(
    generate: Generate, tmp_path: Path, preset: Path
) -> None:
    answers = yaml.safe_load(preset.read_text(encoding="utf-8"))["default_context"]
    argv = ["--no-input", "--config-file", str(preset)]
    assert generated(TEMPLATE, tmp_path, "my-service", argv) == digest(generate(**answers).path)


@pytest.mark.full
@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_suite_of_the_preset(generate: Generate, preset: Path) -> None:
    answers = yaml.safe_load(preset.read_text(encoding="utf-8"))["default_context"]
    project = generate(**answers)
    project.sync()
    check(project)
