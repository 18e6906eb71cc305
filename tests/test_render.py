"""Every combination is rendered, and read file by file. Nothing is installed or run here."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from ruff import find_ruff_bin

from . import combinations
from .conftest import Generate
from .project import TEMPLATE

SOURCE = TEMPLATE / "{{cookiecutter.project_slug}}"

PARSERS: dict[str, Callable[[str], object]] = {
    ".py": ast.parse,
    ".toml": tomllib.loads,
    ".json": json.loads,
    ".yaml": lambda text: list(yaml.safe_load_all(text)),
    ".yml": lambda text: list(yaml.safe_load_all(text)),
}

# `${{ }}` is an expression of a pipeline, `{{ $value }}` one of an alert, `{{le}}` of a dashboard.
TAG = re.compile(r"\{%|%\}|\{#|(?<!\$)\{\{(?! \$|\w+\}\})|cookiecutter\.")

# Words that stand in a project only with the choice, or with any choice but `none` of the prompt.
WORDS = {
    ("health", "probes"): r"health|livez|readyz|liveness|readiness|\bprobes\b",
    ("logging", "structured"): r"log_?level|log_?format|access_?log|structured",
    # `metrics:` is a field of an autoscaler, which scales by the CPU.
    ("metrics", ""): r"metric(?!s:$)",
    ("metrics", "prometheus"): r"prometheus|openmetrics|scrape|exposition",
    ("metrics", "statsd"): r"statsd",
    ("error_tracking", ""): r"error.tracking",
    ("error_tracking", "sentry"): r"sentry|\bdsn\b",
    ("error_tracking", "newrelic"): r"new.?relic",
    ("tracing", ""): r"tracing|tracer|traces\b|trace_?(id|parent|state)|\bspans?\b|span_id",
    ("tracing", "jaeger"): r"jaeger|exporter_otlp",
    ("tracing", "zipkin"): r"zipkin",
    # `image: python:3.13` is what GitLab runs a job in.
    ("deployment", ""): r"deploy(?!ment\.env)|docker|container|compose\.yaml|\bimage\b(?!/|: py)",
    ("deployment", "kubernetes"): r"kubernetes|kubectl|kustom|\bpods?\b",
    ("ci", ""): r"\bci\b|pipeline",
    ("ci", "github"): r"github",
    ("ci", "gitlab"): r"gitlab",
}

# Written for one backend, in its own words: New Relic has metrics and traces of errors.
VARIANT = re.compile(r"(test_)?(health|logs|metrics|errors|tracing)[_.]")

# Of distributions that have another name than their package.
PACKAGES = {
    "opentelemetry-api": "opentelemetry",
    "opentelemetry-sdk": "opentelemetry.sdk",
    "python-dotenv": "dotenv",
}

WINDOWS_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


@pytest.mark.parametrize("answers", combinations.every(), ids=combinations.name)
def test_combination(generate: Generate, answers: combinations.Answers) -> None:
    project = generate(**answers).path
    problems = [
        f"{path.relative_to(project)}: {problem}"
        for path in files(project)
        for check in (name, mode, syntax, tags)
        for problem in check(path, project)
    ]
    problems += words(project, answers)
    problems += dependencies(project)
    problems += settings(project)
    problems += ruff(project)
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(SOURCE.rglob("*")) if path.suffix in PARSERS],
    ids=lambda path: str(path.relative_to(SOURCE)),
)
def test_source_parses_unrendered(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":  # which has no comments
        text = re.sub(r"^ *# \{%.*\n", "", text, flags=re.MULTILINE)
    PARSERS[path.suffix](text)


def test_each_choice_has_its_words() -> None:
    """A new choice needs a row above, or its rendering without it is not looked through."""
    told = {(prompt, choice) for prompt, choice in WORDS if choice}
    choices = combinations.choices()
    there = {(prompt, choice) for prompt in combinations.TELEMETRY for choice in choices[prompt]}
    # A stub is known by its prompt alone.
    assert {each for each in there - told if each[1] not in ("none", "stub")} == set()


def files(project: Path) -> list[Path]:
    return [path for path in sorted(project.rglob("*")) if path.is_file()]


def name(path: Path, project: Path) -> Iterator[str]:
    """Legal on Windows, and there is one such file where case does not count."""
    for part in path.relative_to(project).parts:
        if re.search(r'[<>:"|?*\\\x00-\x1f]|[. ]$', part) or WINDOWS_DEVICES.fullmatch(part):
            yield "name is not legal on Windows"
    if [each.name.lower() for each in path.parent.iterdir()].count(path.name.lower()) > 1:
        yield "name differs from another in case only"


def mode(path: Path, project: Path) -> Iterator[str]:
    executable = bool(path.stat().st_mode & 0o111)
    if executable != path.read_bytes().startswith(b"#!"):
        yield "should be executable if, and only if, it begins with #!"


def syntax(path: Path, project: Path) -> Iterator[str]:
    content = path.read_bytes()
    if b"\r" in content:
        yield "has a carriage return"
    if content and (not content.endswith(b"\n") or content.endswith(b"\n\n")):
        yield "should end with one newline"
    if not content.strip() and path.name != "__init__.py":
        yield "is empty"
    if re.search(rb"[ \t]\n", content):
        yield "has blanks at the end of a line"
    if path.suffix in PARSERS:
        try:
            PARSERS[path.suffix](content.decode())
        except (SyntaxError, ValueError, yaml.YAMLError) as error:
            yield f"does not parse: {error}"


def tags(path: Path, project: Path) -> Iterator[str]:
    for tag in TAG.finditer(path.read_text(encoding="utf-8")):
        yield f"has {tag.group()!r} left"


def words(project: Path, answers: combinations.Answers) -> Iterator[str]:
    """Words of what was not chosen."""
    for (prompt, choice), pattern in WORDS.items():
        if answers[prompt] == choice or (not choice and answers[prompt] != "none"):
            continue
        for path in files(project):
            if not choice and VARIANT.match(path.name):
                continue
            where = path.relative_to(project)
            text = f"{where}\n{path.read_text(encoding='utf-8')}"
            for line in text.splitlines():
                if re.search(pattern, line, re.IGNORECASE):
                    yield f"{where}: {prompt} is {answers[prompt]}, but: {line.strip()}"


def dependencies(project: Path) -> Iterator[str]:
    """Each dependency is imported, and each import is of a dependency."""
    metadata = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[\[<>=!~; ]", each)[0] for each in metadata["dependencies"]}
    imported = {module for path in project.glob("src/*/*.py") for module in imports(path)}
    for dependency in declared:
        if not any(belongs(module, dependency) for module in imported):
            yield f"pyproject.toml: nothing imports {dependency}"
    for module in imported:
        if not (is_standard(module) or any(belongs(module, each) for each in declared)):
            yield f"pyproject.toml: {module} is imported, but no dependency"


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def belongs(module: str, dependency: str) -> bool:
    """Whether a distribution has the module."""
    package = PACKAGES.get(dependency, dependency.replace("-", "_"))
    return f"{module}.".startswith(f"{package}.")


def is_standard(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names


def settings(project: Path) -> Iterator[str]:
    """Each setting is read by somebody."""
    [path] = project.glob("src/*/settings.py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    [model] = (
        node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Settings"
    )
    fields = [
        node.target.id
        for node in model.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    ]
    assert "port" in fields
    others = [each for each in path.parent.glob("*.py") if each != path]
    source = "".join(each.read_text(encoding="utf-8") for each in others)
    for field in fields:
        if not re.search(rf"\bsettings\.{field}\b", source):
            yield f"settings.py: nothing reads {field}"


def ruff(project: Path) -> Iterator[str]:
    for command in (["check"], ["format", "--diff"]):
        done = subprocess.run(
            [find_ruff_bin(), *command, "--no-cache", "--quiet", "."],
            cwd=project,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            yield done.stdout + done.stderr
