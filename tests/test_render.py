"""Combinations are rendered, and read file by file. Nothing is installed or run here."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from ruff import find_ruff_bin

from . import combinations, imports
from .conftest import Rendered
from .project import TEMPLATE, reference, render, setting_fields

SOURCE = TEMPLATE / "{{cookiecutter.project_slug}}"

PARSERS: dict[str, Callable[[str], object]] = {
    ".py": ast.parse,
    ".toml": tomllib.loads,
    ".json": json.loads,
    ".yaml": lambda text: list(yaml.safe_load_all(text)),
    ".yml": lambda text: list(yaml.safe_load_all(text)),
}

# `${{ }}` is an expression of a pipeline, `{{ $value }}` one of an alert, `{{le}}` of a dashboard.
TAG = re.compile(r"\{%|%\}|\{#|(?<!\$)\{\{(?! \$| (?:with \$\S+|\.|end) |\w+\}\})|cookiecutter\.")

# Words that stand in a project only with the choice, or with any choice but `none` of the prompt.
WORDS = {
    ("health", "probes"): r"health|livez|readyz|liveness|readiness|\bprobes\b",
    ("logging", "structured"): r"log_?level|log_?format|access_?log|structured",
    # `metrics:` is a field of an autoscaler, which asks a metrics server about the CPU.
    ("metrics", ""): r"metric(?!s:$|s server)",
    ("metrics", "prometheus"): r"prometheus|openmetrics|scrape|exposition",
    ("metrics", "statsd"): r"statsd",
    ("error_tracking", ""): r"error.tracking",
    ("error_tracking", "sentry"): r"sentry|\bdsn\b",
    ("error_tracking", "newrelic"): r"new.?relic",
    ("tracing", ""): r"tracing|tracer|traces\b|trace_?(id|parent|state)|\bspans?\b|span_id",
    ("tracing", "jaeger"): r"jaeger|exporter_otlp",
    ("tracing", "zipkin"): r"zipkin",
    # `image: python:3.13` is what GitLab runs a job in; a `WSGIContainer` is Tornado's.
    ("deployment", ""): r"deploy(?!ment\.env)|docker|(?<!wsgi)container|compose\.yaml"
    r"|\bimage\b(?!/|: py)",
    ("deployment", "kubernetes"): r"kubernetes|kubectl|kustom|\bpods?\b",
    # `pipeline:` is a key of the local stack's collector.
    ("ci", ""): r"\bci\b|pipeline(?!:$)",
    # cruft's pages are at github.io.
    ("ci", "github"): r"github(?!\.io)",
    ("ci", "gitlab"): r"gitlab",
    # A format of the logs and an entry in `[project.scripts]` are called so too.
    ("console", "page"): r"\bthe console\b(?!\.$)|console_token|console\.md|chassis[./]console"
    r"|\bConsole\(|import Console|console\.png|trace_url|\bpage\.(html|css|js)\b",
}

# Choices that are known by the words of their prompt alone.
WITHOUT_WORDS = {"none", "stub"}

# A feature's own module, tests or page, or a folder of them: it is written for one backend, in its
# own words. New Relic has metrics and traces of errors.
VARIANT = re.compile(
    rf"(src/\w+/chassis|src/\w+/chassis/settings|tests/chassis|docs)"
    rf"/(test_)?({'|'.join(combinations.features())})(\.\w+|/.*)"
)

# What has no text.
PICTURE = ".png"
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# The chassis is the template's; all else in these folders is the team's, and so is this page.
CODE = ("src", "tests")
PAGE = "README.md"

# Of distributions that have another name than their package.
PACKAGES = {
    "opentelemetry-api": "opentelemetry",
    "opentelemetry-sdk": "opentelemetry.sdk",
    "python-dotenv": "dotenv",
}

# Without `--full`, those in which any two choices meet.
SAMPLE = combinations.sample()
COMBINATIONS = [
    pytest.param(
        answers,
        id=combinations.name(answers),
        marks=() if answers in SAMPLE else pytest.mark.full,
    )
    for answers in combinations.every()
]

WINDOWS_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


@pytest.fixture(scope="session")
def by_default(rendered: Rendered) -> Path:
    """A project of the same names as any other, and of the choices of the reference."""
    return rendered(reference())


@pytest.mark.parametrize("answers", COMBINATIONS)
def test_combination(tmp_path: Path, by_default: Path, answers: combinations.Answers) -> None:
    project = render(tmp_path / "project", tmp_path / "home", reference(**answers))
    found = problems(project, answers, by_default)
    assert not found, "\n".join(found)


def problems(project: Path, answers: combinations.Answers, by_default: Path) -> list[str]:
    """All that is wrong with a project as it was rendered; `by_default` is one of the defaults."""
    found = [
        f"{path.relative_to(project)}: {problem}"
        for path in files(project)
        for check in (name, mode, syntax, tags, gap)
        for problem in check(path, project)
    ]
    found += words(project, answers)
    found += dependencies(project)
    found += imports.problems(project)
    found += settings(project)
    found += team(project, by_default)
    found += ruff(project)
    return found


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
    if path.suffix == PICTURE:
        return
    content = path.read_bytes()
    if b"\r" in content:
        yield "has a carriage return"
    if content and (not content.endswith(b"\n") or content.endswith(b"\n\n")):
        yield "should end with one newline"
    if not content.strip() and path.name != "__init__.py":
        yield "is empty"
    if re.search(rb"[ \t]\n", content):
        yield "has blanks at the end of a line"
    if problem := problem_of_syntax(path.suffix, content.decode()):
        yield problem


# This and what else is cached here: most files are the same in many combinations.
@cache
def problem_of_syntax(suffix: str, text: str) -> str:
    try:
        if suffix in PARSERS:
            PARSERS[suffix](text)
    except (SyntaxError, ValueError, yaml.YAMLError) as error:
        return f"does not parse: {error}"
    return ""


def tags(path: Path, project: Path) -> Iterator[str]:
    if path.suffix == PICTURE:
        return
    for tag in TAG.finditer(path.read_text(encoding="utf-8")):
        yield f"has {tag.group()!r} left"


def gap(path: Path, project: Path) -> Iterator[str]:
    """What a tag leaves behind on a page; in what is fenced anything may stand."""
    if path.suffix == ".md" and "\n\n\n" in without_fenced(path):
        yield "has two blank lines together"


def without_fenced(page: Path) -> str:
    return FENCED.sub("code", page.read_text(encoding="utf-8"))


def words(project: Path, answers: combinations.Answers) -> Iterator[str]:
    """Words of what was not chosen."""
    for prompt in combinations.features().values():
        choice = answers[prompt]
        # Without, what is rendered without the choice is not looked through.
        if choice not in WITHOUT_WORDS and (prompt, choice) not in WORDS:
            yield (
                f'tests/test_render.py: add a row ("{prompt}", "{choice}") to WORDS, with what '
                "must not stand in a project without it"
            )
    texts = {
        path.relative_to(project): path.read_text(encoding="utf-8")
        for path in files(project)
        if path.suffix != PICTURE
    }
    for (prompt, choice), pattern in WORDS.items():
        if answers[prompt] == choice or (not choice and answers[prompt] != "none"):
            continue
        for where, content in texts.items():
            if not choice and VARIANT.fullmatch(where.as_posix()):
                continue
            text = f"{where}\n{content}"
            for number, line in lines_with(pattern, text):
                yield (
                    f"{where}:{number}: has a word of {prompt}={choice or '...'}, and "
                    f"{prompt} is {answers[prompt]}; put it under a condition, or change the "
                    f"row of WORDS in tests/test_render.py: {line.strip()}"
                )


@cache
def lines_with(pattern: str, text: str) -> list[tuple[int, str]]:
    """The lines in which the pattern is found, and their numbers from 0."""
    wanted = re.compile(pattern, re.IGNORECASE)
    return [each for each in enumerate(text.splitlines()) if wanted.search(each[1])]


def dependencies(project: Path) -> Iterator[str]:
    """Each dependency is imported, and each import is of a dependency."""
    metadata = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[\[<>=!~; ]", each)[0] for each in metadata["dependencies"]}
    sources = [path.read_text(encoding="utf-8") for path in project.glob("src/**/*.py")]
    imported = {module for source in sources for module in distributed(source)}
    for dependency in declared:
        if not any(belongs(module, dependency) for module in imported):
            yield f"pyproject.toml: nothing imports {dependency}"
    for module in imported:
        if not (is_standard(module) or any(belongs(module, each) for each in declared)):
            yield f"pyproject.toml: {module} is imported, but no dependency"


@cache
def distributed(source: str) -> list[str]:
    """What a module imports of other distributions."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append(node.module)
    return found


def belongs(module: str, dependency: str) -> bool:
    """Whether a distribution has the module."""
    package = PACKAGES.get(dependency, dependency.replace("-", "_"))
    return f"{module}.".startswith(f"{package}.")


def is_standard(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names


def settings(project: Path) -> Iterator[str]:
    """Each setting is read by somebody, or prepares the process."""
    fields = setting_fields(project)
    assert "port" in fields
    sources, preparing = [], []
    for path in project.glob("src/**/*.py"):
        text = path.read_text(encoding="utf-8")
        if "settings" not in path.relative_to(project).parts:
            sources.append(text)
            continue
        preparing += [
            ast.unparse(node)
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef) and node.name == "prepare"
        ]
    for field in sorted(fields):
        is_read = re.search(rf"\bsettings\.{field}\b", "".join(sources))
        if not is_read and not re.search(rf"\bself\.{field}\b", "".join(preparing)):
            yield f"chassis/settings: nothing reads {field}"


def team(project: Path, by_default: Path) -> Iterator[str]:
    """The team's files are the same whatever is chosen, so that no update touches them."""
    kept, expected = teams_files(project), teams_files(by_default)
    for path in sorted(kept.keys() | expected.keys()):
        if kept.get(path) != expected.get(path):
            yield f"{path}: is the team's, and depends on what is chosen"


def teams_files(project: Path) -> dict[Path, bytes]:
    return {path: (project / path).read_bytes() for path in teams(project)}


def teams(project: Path) -> list[Path]:
    """The team's files, of a project or of the template's source of one."""
    return [
        where
        for path in files(project)
        if (where := path.relative_to(project)).as_posix() == PAGE
        or (where.parts[0] in CODE and "chassis" not in where.parts)
    ]


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
