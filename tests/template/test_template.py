"""The template's own sources."""

import json
import re
import subprocess

import pytest
from ruff import find_ruff_bin

from . import combinations
from .project import TEMPLATE


@pytest.mark.parametrize("command", ["check", "format --check"])
def test_ruff_finds_nothing(command: str) -> None:
    argv = [find_ruff_bin(), *command.split(), "--quiet", "--config=pyproject.toml", "."]
    done = subprocess.run(argv, cwd=TEMPLATE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_prompt_is_a_question_with_a_label_for_each_choice() -> None:
    prompts = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
    questions = prompts["__prompts__"]
    assert list(questions) == [key for key in prompts if not key.startswith("_")]
    for prompt, choices in combinations.choices().items():
        assert questions[prompt].keys() == {"__prompt__", *choices}
    texts = [each for each in questions.values() if isinstance(each, str)]
    texts += [
        each
        for labels in questions.values()
        if isinstance(labels, dict)
        for each in labels.values()
    ]
    for text in texts:
        # A bracket begins Rich's markup, and what is in it would not be shown.
        assert re.fullmatch(r"([^\[]|\\\[)+", text), text
