"""Combinations in which any two choices meet are rendered, and read file by file."""

import ast
import json
import os
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

from . import combinations
from .conftest import Rendered
from .project import CHASSIS, SOURCE, TEMPLATE, reference, render, setting_fields

PARSERS: dict[str, Callable[[str], object]] = {
    ".py": ast.parse,
    ".toml": tomllib.loads,
    ".json": json.loads,
    ".yaml": lambda text: list(yaml.safe_load_all(text)),
    ".yml": lambda text: list(yaml.safe_load_all(text)),
}
# `${{ }}` is an expression of a pipeline, `{{ $value }}` one of an alert, `{{le}}` of a dashboard.
TAG = re.compile(
    r"\{%|%\}|\{#|cookiecutter\."
    r"|(?<!\$)\{\{(?! \$| (?:with \$\S+|range \.\w+|\.[\w.]*|end) |\w+\}\})"
)
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WINDOWS_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
PICTURE = ".png"

# What tells of a choice beside its name, the names of its settings and its files.
PATHS = {
    ("health", "probes"): r"/livez|/readyz|/health\b",
    ("logging", "structured"): r"/loglevel",
    ("metrics", "prometheus"): r"/metrics\b",
    ("metrics", "otlp"): r"/v1/metrics|OtlpMetrics",
    ("chassis", "copy"): r"src/tornado_chassis",
}
# Names that mean other things as well: `page` and `copy` are words, cruft's docs are at github.io,
# and spans are sent with OTLP, too.
AMBIGUOUS = {"probes", "structured", "stub", "page", "copy", "package", "docker", "github", "none"}
AMBIGUOUS |= {"otlp"}
# What may receive what another choice sends, and is named there.
RECEIVERS = {"otlp": "prometheus"}
# The folders and files of a choice.
FILES = {
    ("deployment", "none"): [],
    ("deployment", "docker"): ["Dockerfile", ".dockerignore", "compose.yaml"],
    ("deployment", "kubernetes"): [
        "Dockerfile",
        ".dockerignore",
        "compose.yaml",
        "deploy/kubernetes",
    ],
    ("ci", "none"): [],
    ("ci", "github"): [".github/workflows"],
    ("ci", "gitlab"): [".gitlab-ci.yml"],
    ("chassis", "copy"): ["src/tornado_chassis"],
    ("chassis", "package"): [],
}
# What a team may import, whatever was chosen.
INTERFACES = {"metrics", "tracing", "testing"}
# Of distributions that have another name than their package.
PACKAGES = {"opentelemetry-api": "opentelemetry", "python-dotenv": "dotenv"}
# An image is labelled with what else the console shows, and the contract tests start any service.
OF_ANY_CHOICE = {"BUILD_COMMIT", "BUILD_TIME", "ADMIN_PORT"}
# What a dependency brings, and services need not have.
OPTIONAL = ("newrelic", "opentelemetry", "prometheus_client", "sentry_sdk")


@pytest.fixture(scope="session")
def by_default(rendered: Rendered) -> Path:
    """A project of the same names as any other, and of the choices of the reference."""
    return rendered(reference())


# The first of them have every choice, and most pairs.
QUICK = 8
COMBINED = [
    pytest.param(each, id=combinations.name(each), marks=() if n < QUICK else pytest.mark.full)
    for n, each in enumerate(combinations.sample())
]


@pytest.mark.parametrize("answers", COMBINED)
def test_combination(tmp_path: Path, by_default: Path, answers: combinations.Answers) -> None:
    project = render(tmp_path / "project", tmp_path / "home", reference(**answers))
    found = [
        f"{path.relative_to(project)}: {problem}"
        for path in files(project)
        for check in (name, mode, syntax, tags)
        for problem in check(path, project)
    ]
    for each in (feature_files, words, dependencies):
        found += each(project, answers)
    found += team(project, by_default)
    found += ruff(project)
    if answers["chassis"] == "copy":
        found += copied(project, answers)
    found += sources(project, tmp_path)
    assert not found, "\n".join(found)


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


def own_files(project: Path) -> dict[str, str]:
    """What the service has besides the chassis, as text."""
    chassis = project / "src" / CHASSIS.name
    return {
        path.relative_to(project).as_posix(): path.read_text(encoding="utf-8")
        for path in files(project)
        if path.suffix != PICTURE and not path.is_relative_to(chassis)
    }


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
    if not content.strip() and path.name not in ("__init__.py", "py.typed"):
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
    # The chassis is no template.
    if path.suffix == PICTURE or path.is_relative_to(project / "src" / CHASSIS.name):
        return
    text = path.read_text(encoding="utf-8")
    # Tornado's own templates have the same braces.
    for tag in TAG.finditer(re.sub(r"^```html\n.*?^```$", "", text, flags=re.M | re.S)):
        yield f"has {tag.group()!r} left"
    if path.suffix == ".md" and "\n\n\n" in without_fenced(path):
        yield "has two blank lines together"


def without_fenced(page: Path) -> str:
    return FENCED.sub("code", page.read_text(encoding="utf-8"))


def feature_files(project: Path, answers: combinations.Answers) -> Iterator[str]:
    """Pages, and contract tests, of what was chosen and of nothing else."""
    for feature, prompt in combinations.features().items():
        for path in (f"docs/{feature}.md", f"tests/contract/test_{feature}.py"):
            if (project / path).exists() != (answers[prompt] != "none"):
                yield f"{path}: is there, or is not, with {prompt}={answers[prompt]}"
    for (prompt, value), paths in FILES.items():
        if answers[prompt] == value:
            others = {
                each for (other, _), many in FILES.items() if other == prompt for each in many
            }
            for path in others | set(paths):
                if (project / path).exists() != (path in paths):
                    yield f"{path}: is there, or is not, with {prompt}={value}"


def words(project: Path, answers: combinations.Answers) -> Iterator[str]:
    """Names, settings and paths of what was not chosen."""
    unchosen = {
        f"{prompt}={value}": pattern(prompt, value)
        for prompt, values in combinations.choices().items()
        for value in values
        if value not in (answers[prompt], RECEIVERS.get(answers[prompt]))
        and pattern(prompt, value)
        and prompt != "license"
    }
    if answers["chassis"] == "copy":
        known = {each.upper() for each in setting_fields(project)}
        for each in {each.upper() for each in every_setting()} - known - OF_ANY_CHOICE:
            unchosen[each] = rf"\b{each}\b"
    for where, text in own_files(project).items():
        for what, wanted in unchosen.items():
            for match in re.finditer(wanted, text, re.IGNORECASE):
                number = text.count("\n", 0, match.start()) + 1
                line = text.splitlines()[number - 1].strip()
                yield f"{where}:{number}: mentions {what}, which was not chosen: {line}"


@cache
def pattern(prompt: str, value: str) -> str:
    # What `.gitattributes` says goes for any forge.
    named = value.replace("newrelic", "new.?relic").replace("gitlab", "gitlab(?!-generated)")
    named = "" if value in AMBIGUOUS else named
    return "|".join(filter(None, [named, PATHS.get((prompt, value), "")]))


@cache
def every_setting() -> set[str]:
    return setting_fields(SOURCE)


def dependencies(project: Path, answers: combinations.Answers) -> Iterator[str]:
    """Each dependency is imported, and each import is of a dependency."""
    declared = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    names = {re.split(r"[\[<>=!~; ]", each)[0] for each in declared["project"]["dependencies"]}
    if answers["chassis"] == "package":
        root = tomllib.loads((TEMPLATE / "pyproject.toml").read_text(encoding="utf-8"))
        offered = root["project"]["optional-dependencies"].keys()
        [dependency, _] = declared["project"]["dependencies"]
        extras = set(re.findall(r"\w+", "".join(re.findall(r"\[(.*)\]", dependency))))
        if extras != offered & set(answers.values()):
            yield f"pyproject.toml: has the extras {extras} of the chassis"
        return
    texts = [path.read_text(encoding="utf-8") for path in project.glob("src/**/*.py")]
    imported = {module for text in texts for module in distributed(text)}
    for each in names:
        if not any(belongs(module, each) for module in imported):
            yield f"pyproject.toml: nothing imports {each}"
    for module in imported - {"my_service", CHASSIS.name}:
        own = module.partition(".")[0]
        if own in ("my_service", CHASSIS.name) or own in sys.stdlib_module_names:
            continue
        if not any(belongs(module, each) for each in names):
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


def copied(project: Path, answers: combinations.Answers) -> Iterator[str]:
    """The copy of the chassis has the bytes that are here, and no module that nothing imports."""
    chassis = project / "src" / CHASSIS.name
    there = {path.relative_to(chassis): path for path in files(chassis)}
    for where, path in there.items():
        if path.read_bytes() != (CHASSIS / where).read_bytes():
            yield f"{CHASSIS.name}/{where}: has other bytes than in the template"
    for feature, prompt in combinations.features().items():
        for value in combinations.choices()[prompt]:
            for module in (Path(feature, f"{value}.py"), Path("settings", f"{value}.py")):
                if module == Path("settings", "otlp.py"):  # of spans and metrics
                    continue
                if (CHASSIS / module).exists() and (module in there) != (answers[prompt] == value):
                    yield f"{CHASSIS.name}/{module}: is there, or is not, with {answers[prompt]}"
    text = "\n".join(path.read_text(encoding="utf-8") for path in project.rglob("*.py"))
    for where in there:
        name = where.parent.name if where.name == "__init__.py" else where.stem
        is_imported = re.search(
            rf"import .*\b{name}\b|\b{name}(\.\w+)* import|^ +{name},", text, re.M
        )
        if where.suffix == ".py" and name not in {"", *INTERFACES} and not is_imported:
            yield f"{CHASSIS.name}/{where}: nothing imports it"


def sources(project: Path, directory: Path) -> Iterator[str]:
    """All modules can be imported with what the project depends on, and the docs have a row for
    each of its settings and of the variables that it ignores."""
    metadata = directory / "site" / "my_service-0.1.0.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: my-service\nVersion: 0.1.0\n")
    pyproject = (project / "pyproject.toml").read_text(encoding="utf-8")
    missing = [each for each in OPTIONAL if each.partition("_")[0] not in pyproject]
    path = [project / "src", metadata.parent.parent]
    if not (project / "src" / CHASSIS.name).exists():
        # In the wheel everything is there, for whoever has installed what it needs.
        path, missing = [*path, CHASSIS.parent], []
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("probe.py"), *missing],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        yield done.stderr
        return
    page = (project / "docs" / "settings.md").read_text(encoding="utf-8")
    settings, ignored = json.loads(done.stdout)
    text = "\n".join(each.read_text() for root in path for each in root.rglob("*.py"))
    for field in re.findall(r"^\| `(\w+)`", "\n".join(settings), re.MULTILINE):
        if not re.search(rf"[.\"]{field.lower()}\b", text):
            yield f"settings: nothing reads {field}"
    for head, rows in ("Setting", settings), ("Ignored", ignored):
        table = page.partition(f"| {head} |")[2].partition("\n\n")[0].splitlines()[2:]
        yield from (f"docs/settings.md: has {row}" for row in table if row not in rows)
        yield from (f"docs/settings.md: should have {row}" for row in rows if row not in table)
        if sorted(table) == sorted(rows) and table != rows:
            yield "\n".join(["docs/settings.md: the order should be that of the fields:", *rows])


def team(project: Path, by_default: Path) -> Iterator[str]:
    """The team's files are the same whatever is chosen, so that no update touches them."""
    for path in teams(by_default):
        if (project / path).read_bytes() != (by_default / path).read_bytes():
            yield f"{path}: is the team's, and depends on what is chosen"
    if teams(project) != teams(by_default):
        yield f"the team's files should be {teams(by_default)}"


def teams(project: Path) -> list[Path]:
    """The team's files, of a project or of the template's source of one."""
    found = [path.relative_to(project) for path in files(project) if path.suffix != ".pyc"]
    tests = [Path("tests", each) for each in ("__init__.py", "settings.env", "test_handlers.py")]
    return [
        path
        for path in found
        if path in (Path("README.md"), *tests)
        or (path.parts[0] == "src" and path.parts[1] != CHASSIS.name and path.name != "features.py")
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
