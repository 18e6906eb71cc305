"""What each offered choice needs, and what is left of one that is not offered.

Each sentence of `steps` begins with the file to change: this is the list that CONTRIBUTING shows.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import jinja2
from cookiecutter.generate import generate_context
from cookiecutter.prompt import prompt_for_config

from . import combinations
from .project import SOURCE, TEMPLATE

Prompts = dict[str, list[str]]
FEATURES = "src/{{cookiecutter.__package}}/features.py"
CONDITION = re.compile(r'cookiecutter\.(\w+) (?:[!=]= ("[\w.-]+")|in \(([^)]+)\))')


def steps(template: Path) -> list[str]:
    """What is to be done until each choice has what it needs and nothing more is there."""
    prompts = json.loads((template / "cookiecutter.json").read_text(encoding="utf-8"))
    offered = {prompt: prompts[prompt] for prompt in combinations.choices() if prompt in prompts}
    found = [*labels(template, offered, prompts["__prompts__"]), *left(template, offered)]
    for feature, prompt in combinations.features().items():
        for value in offered[prompt]:
            if value != "none":
                found += missing(template, feature, prompt, value)
    return list(dict.fromkeys(found))


def labels(template: Path, offered: Prompts, questions: dict[str, dict[str, str]]) -> Iterator[str]:
    readme = (template / "README.md").read_text(encoding="utf-8")
    for prompt, values in offered.items():
        row = re.search(rf"^\| `{prompt}` \|(.*)", readme, re.MULTILINE)
        listed = re.findall("`([A-Za-z].*?)`", row[1]) if row else []
        for value in values:
            if value not in questions[prompt]:
                yield f'cookiecutter.json: give "{value}" a label under "{prompt}" in "__prompts__"'
            if value not in listed:
                yield f"README.md: add `{value}` to the row of `{prompt}`"
        for value in {*listed, *questions[prompt]} - {*values, "__prompt__"}:
            yield f"README.md and cookiecutter.json: {prompt} does not offer {value}"


def missing(template: Path, feature: str, prompt: str, value: str) -> Iterator[str]:
    choice = {prompt: value, "chassis": "copy"}
    source = rendered(template, FEATURES, choice)
    module = re.search(rf"from tornado_chassis\.({feature}(?:\.\w+)?) import", source)
    path = module[1].replace(".", "/") if module else f"{feature}/{value}"
    chassis = template / SOURCE.name / "src" / "tornado_chassis"
    if not any((chassis / f"{path}{suffix}").exists() for suffix in (".py", "/__init__.py")):
        yield f"src/tornado_chassis/{path}.py: write the feature of {prompt}={value}"
    if not module:
        yield f"{FEATURES}: import it if {prompt} is {value}, and add it to the list"
    for name in re.findall(r"from tornado_chassis\.settings\.(\w+) import", source):
        if not (chassis / "settings" / f"{name}.py").exists():
            yield f"src/tornado_chassis/settings/{name}.py: write the settings that it imports"
    for folder, name, suffix, what in (
        ("docs", "", "md", "write the page"),
        ("tests/contract", "test_", "py", "test what is promised"),
    ):
        variants = (template / SOURCE.name / folder).glob(f"{name}{feature}_*.{suffix}")
        if not any(f"_or_{value}_or_" in f"_or_{chosen(each, feature)}_or_" for each in variants):
            yield f"{folder}/{name}{feature}_{value}.{suffix}: {what} of {prompt}={value}"
    root = tomllib.loads((template / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = str(context(template, choice)["__extras"]).split(",")
    project = rendered(template, "pyproject.toml", choice)
    if value in extras and value not in root["optional-dependencies"]:
        yield f"pyproject.toml: add the extra {value}, with what it imports"
    for requirement in root["optional-dependencies"].get(value, ()):
        if f'"{requirement}"' not in project:
            yield f'pyproject.toml of the service: add "{requirement}" if {prompt} is {value}'


def left(template: Path, offered: Prompts) -> Iterator[str]:
    """Files and conditions of what is not offered."""
    for feature, prompt in combinations.features().items():
        for folder in ("docs", "tests/contract"):
            for path in sorted((template / SOURCE.name / folder).glob(f"*{feature}_*.*")):
                unknown = {*chosen(path, feature).split("_or_")} - {*offered[prompt]}
                if unknown:
                    yield f"{folder}/{path.name}: remove it, as {prompt} does not offer {unknown}"
    for path in sorted((template / SOURCE.name).rglob("*")):
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            for prompt, one, several in CONDITION.findall(text):
                for value in re.findall(r'"([\w.-]+)"', one or several):
                    if value not in offered.get(prompt, [value]):
                        where = path.relative_to(template / SOURCE.name)
                        yield f"{where}: has a condition on {prompt}={value}, which is not offered"


def chosen(path: Path, feature: str) -> str:
    return path.stem.removeprefix("test_").removeprefix(f"{feature}_")


def context(template: Path, answers: dict[str, str]) -> dict[str, object]:
    found = generate_context(str(template / "cookiecutter.json"))
    found["cookiecutter"].update(answers)
    return prompt_for_config(found, no_input=True)


def rendered(template: Path, path: str, answers: dict[str, str]) -> str:
    options = json.loads((template / "cookiecutter.json").read_text())["_jinja2_env_vars"]
    source = (template / SOURCE.name / path).read_text(encoding="utf-8")
    text = jinja2.Environment(**options).from_string(source)
    return text.render(cookiecutter=context(template, answers))


def offer(template: Path, prompt: str, change: Callable[[list[str]], object]) -> None:
    path = template / "cookiecutter.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content[prompt])
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def test_each_choice_has_what_it_needs() -> None:
    found = steps(TEMPLATE)
    assert not found, "\n".join(found)


def test_contributing_shows_the_steps_of_a_new_choice(template: Path) -> None:
    offer(template, "metrics", lambda values: values.append("graphite"))
    contributing = (TEMPLATE / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = contributing.partition("\n## Add a backend")[2].partition("\n## ")[0]
    assert steps(template) == re.findall(r"^    (\S+: .*)$", section, re.MULTILINE)


def test_what_is_left_of_a_choice_is_reported(template: Path) -> None:
    offer(template, "error_tracking", lambda values: values.remove("newrelic"))
    found = steps(template)
    for path in ("docs/errors_newrelic.md", "tests/contract/test_errors_newrelic.py", FEATURES):
        assert [each for each in found if each.startswith(f"{path}: ")], path
    assert "README.md and cookiecutter.json: error_tracking does not offer newrelic" in found


def test_extras_of_the_package_have_the_bounds_of_a_service() -> None:
    """With a copy of the chassis, the service names what the package would ask for."""
    root = tomllib.loads((TEMPLATE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = root["optional-dependencies"]
    offered = {value for values in combinations.choices().values() for value in values}
    package = {*root["dependencies"]}.union(*(extras[each] for each in extras if each in offered))
    source = (SOURCE / "pyproject.toml").read_text(encoding="utf-8")
    [block] = re.findall(r"^dependencies = \[\n(.*?)^\]", source, re.MULTILINE | re.DOTALL)
    service = set(re.findall(r'^ +"([^"{]+)",$', block, re.MULTILINE))
    assert service == package
