"""What is said of a choice that lacks something or is no longer offered, and of mistakes."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from . import choices, combinations
from .project import TEMPLATE

SOURCE = "{{cookiecutter.project_slug}}"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The template's files, to be changed."""
    directory = tmp_path / "template"
    for path in choices.template_files():
        target = directory / path.relative_to(TEMPLATE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    subprocess.run(["git", "init", "--quiet"], cwd=directory, check=True)
    return directory


def test_nothing_is_missing_and_nothing_left() -> None:
    found = choices.problems()
    assert not found, "\n".join(found)


def test_what_speaks_of_a_choice_that_was_removed_is_found(copy: Path) -> None:
    # One that has all that a choice may have, whichever a fork offers.
    removed = next(
        each
        for each in choices.chosen()
        if (TEMPLATE / "tests" / f"test_{each.value}.py").exists()
        and each.sources(f"{choices.CHASSIS}/settings")
        and any(each.value in preset.read_text() for preset in TEMPLATE.glob("presets/*"))
    )
    offer(copy, removed.prompt, lambda values: values.remove(removed.value))
    found = problems(copy)
    named = {re.split(r"[: ]", each)[0] for each in found}
    module, test = removed.variant(choices.CHASSIS), removed.variant("tests/chassis", "test_")
    shared = {
        str(path.relative_to(TEMPLATE))
        for path in choices.template_files()
        if path.is_relative_to(TEMPLATE / SOURCE)
        and f'"{removed.value}"' in path.read_text(encoding="utf-8")
    }
    assert f"{SOURCE}/compose.yaml" in shared
    assert named >= shared | {
        "cookiecutter.json",
        "README.md",
        f".ci/backends/{removed.value}.sh",
        f"tests/backends/{removed.value}.py",
        f"tests/test_{removed.value}.py",
        *(str(path.relative_to(TEMPLATE)) for path in (module, test) if path),
    }
    # The list of backends is made of what is there.
    assert ".ci/install-backends" not in named
    preset = next(
        path
        for path in copy.glob("presets/*.yaml")
        if f" {removed.value}\n" in path.read_text(encoding="utf-8")
    )
    where = f"presets/{preset.name}:{line(preset, f'{removed.prompt}:')}"
    assert [each for each in found if each.startswith(f"{where}: {removed.prompt} does not offer")]


def test_row_of_words_is_the_last_to_go(copy: Path) -> None:
    words, gone = copy / "tests" / "test_render.py", "_".join(("no", "such"))
    replace(words, "WORDS = {\n", f'WORDS = {{\n    ("license", "{gone}"): "{gone}",\n')
    (copy / "README.md").write_text(gone, encoding="utf-8")
    row = f"tests/test_render.py:{line(words, gone)}"
    found = problems(copy)
    assert f"README.md:1: speaks of {gone}, but license does not offer {gone}" in found
    assert not [each for each in found if each.startswith(row)]
    (copy / "README.md").write_text("", encoding="utf-8")
    message = f"remove the row, as license does not offer {gone} and nothing speaks of it any more"
    assert f"{row}: {message}" in problems(copy)


def test_server_that_nobody_starts_is_found(copy: Path) -> None:
    (copy / ".ci" / "backends" / "any.sh").touch()
    assert ".ci/backends/any.sh: remove it, or start it in tests/backends/" in problems(copy)


def test_each_mistake_is_reported_with_its_file_line_and_remedy(copy: Path) -> None:
    choice = next(each for each in choices.chosen() if each.value not in choices.WITHOUT_WORDS)
    prompt = choice.prompt
    wrong = prompt[:-2] + prompt[-1]
    preset = min(copy.glob("presets/*.yaml"))
    replace(preset, f"  {prompt}:", f"  {wrong}:")
    module = copy / SOURCE / choices.CHASSIS / "service.py"
    replace(module, f"cookiecutter.{prompt} ", f"cookiecutter.{wrong} ")
    words = copy / "tests" / "test_render.py"
    replace(words, f'("{prompt}", "{choice.value}"): ', f'("{prompt}", ""): ')
    output = ran(copy, "tests.check", f"{SOURCE}/{choices.CHASSIS}/service.py", status=1)
    where = f"presets/{preset.name}:{line(preset, f'{wrong}:')}"
    assert f"{where}: there is no prompt {wrong}; write {prompt}\n" in output
    offered = ", ".join(combinations.choices()[prompt])
    assert f"presets/{preset.name}: answer {prompt} with one of {offered}\n" in output
    where = f"{SOURCE}/{choices.CHASSIS}/service.py:{line(module, f'cookiecutter.{wrong} ')}"
    assert f"{where}: there is no cookiecutter.{wrong}; write {prompt}\n" in output
    assert f'tests/test_render.py: add a row ("{prompt}", "{choice.value}") to WORDS' in output


def test_word_of_what_was_not_chosen_is_reported_with_its_line(copy: Path) -> None:
    choice = next(each for each in choices.chosen() if each.value not in choices.WITHOUT_WORDS)
    compose = copy / SOURCE / "compose.yaml"
    # What is asked for is in the first combination only.
    condition = f'# {{% if cookiecutter.{choice.prompt} == "{choice.value}" %}}\n# {{% endif %}}\n'
    replace(compose, "    build: .\n", f"    build: .  # {choice.value}\n{condition}")
    output = ran(copy, "tests.check", f"{SOURCE}/compose.yaml", status=1)
    assert re.search(
        rf"^compose.yaml:\d+: has a word of {choice.prompt}={choice.value}, and {choice.prompt} is "
        rf"\w+; put it under a condition, .*: build: \.  # {choice.value}$",
        output,
        re.MULTILINE,
    ), output


def problems(template: Path) -> list[str]:
    return ran(template, "tests.choices", status=None).splitlines()


def ran(template: Path, module: str, *paths: str, status: int | None = 0) -> str:
    """What a command of the template prints; checks its exit status if there is one to expect."""
    # What this run was asked for, such as --full, is not for that one.
    environ = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    done = subprocess.run(
        [sys.executable, "-m", module, *paths],
        cwd=template,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr, done.stderr
    assert status in (None, done.returncode), done.stdout
    return done.stdout


def offer(template: Path, prompt: str, change: Callable[[list[str]], object]) -> None:
    """Changes the choices of a prompt."""
    path = template / "cookiecutter.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content.setdefault(prompt, []))
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{path.name} has no {old!r}"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def line(path: Path, text: str) -> int:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next(number for number, each in enumerate(lines, 1) if text in each)
