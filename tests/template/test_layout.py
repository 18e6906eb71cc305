"""What is the team's and what is the template's, and which module may import which."""

import ast
import json
import re
import shutil
from collections.abc import Iterator
from fnmatch import fnmatch
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from . import combinations
from .project import CHASSIS, SOURCE, TEMPLATE
from .test_render import teams

PACKAGE = Path("src", "{{cookiecutter.__package}}")
# How a block tag begins; each has a line of its own.
TAG = "{%"
# Their names, on which those rely who work on a service.
TEAMS = {
    Path("README.md"),
    *(PACKAGE / f"{each}.py" for each in ("__init__", "__main__", "app", "handlers", "settings")),
    *(Path("tests", each) for each in ("__init__.py", "settings.env", "test_handlers.py")),
}
# What stands above the features: it puts them together, and runs what comes of it.
ABOVE = {"process", "server", "service", "testing"}
# What settings say of what they belong to is a type, or is imported when it is used.
OF_SETTINGS = {
    ("settings.admin", "admin"),
    ("settings.admin", "application"),
    ("settings.admin", "feature"),
    ("settings.server", "application"),
    ("settings.server", "feature"),
}
# What a module imports in addition, and what is reported of it.
FAULTS = [
    ("exchange.py", "from .feature import Feature", "a circle of imports: "),
    ("feature.py", "if True:\n    from . import application", "a circle of imports: "),
    ("metrics/statsd.py", "from ..tracing import stub", "imports tracing.stub, another feature"),
    ("tracing/__init__.py", "from .. import logs", "imports logs, another feature"),
    ("console/views.py", "from ..server import start", "imports server, which is above features"),
    ("settings/logs.py", "from .. import exchange", "imports exchange, which is not a setting"),
    ("settings/logs.py", "import tornado.web", "imports tornado.web, which is not a setting"),
    ("health/probes.py", "import my_service.app", "mentions cookiecutter or one service"),
    ("health/probes.py", "# of cookiecutter", "mentions cookiecutter or one service"),
]


def test_team_s_files_have_no_tags() -> None:
    assert set(teams(SOURCE)) == TEAMS
    assert [path for path in TEAMS if TAG in (SOURCE / path).read_text(encoding="utf-8")] == []


def test_code_has_conditions_only_where_features_are_listed() -> None:
    sources = {
        path.relative_to(SOURCE): path.read_text(encoding="utf-8")
        for folder in ("src", "tests")
        for path in (SOURCE / folder).rglob("*.py")
    }
    assert [path for path, text in sources.items() if TAG in text] == [PACKAGE / "features.py"]
    # In tests, not even an expression: the hook puts the package's name in.
    assert not [path for path, text in sources.items() if path.parts[0] == "tests" and "{{" in text]


def test_what_is_copied_unrendered_has_no_tags() -> None:
    patterns = json.loads((TEMPLATE / "cookiecutter.json").read_text())["_copy_without_render"]
    copied = [
        path
        for path in SOURCE.rglob("*")
        for name in (path.relative_to(SOURCE), *path.relative_to(SOURCE).parents)
        # Not what tools have left here.
        if path.is_file() and not re.search(r"__pycache__|/\.\w+_cache/", str(path))
        if any(fnmatch(str(name), pattern) for pattern in patterns)
    ]
    assert SOURCE / "tests" / "settings.env" in copied
    tag = re.compile(rb"# \{%|\{\{-? *cookiecutter")
    assert not [path for path in copied if tag.search(path.read_bytes())]


def test_chassis_stands_on_its_floors() -> None:
    assert list(problems(CHASSIS)) == []


@pytest.mark.parametrize(("module", "source", "problem"), FAULTS)
def test_fault_is_reported(tmp_path: Path, module: str, source: str, problem: str) -> None:
    chassis = tmp_path / CHASSIS.name
    shutil.copytree(CHASSIS, chassis)
    with (chassis / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{source}\n")
    assert [found for found in problems(chassis) if problem in found]


def problems(chassis: Path) -> Iterator[str]:
    features = combinations.features()
    graph: dict[str, set[str]] = {}
    for path in sorted(chassis.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(chassis).with_suffix("").as_posix().replace("/", ".")
        name = name.removesuffix("__init__").rstrip(".")
        if re.search(rf"cookiecutter|my_service|{TAG}", text):
            yield f"{name}: mentions cookiecutter or one service, or has a tag"
        own, others = imports(path, chassis, text)
        top = name.partition(".")[0]
        # The modules of a feature may name, for types, the feature that they are parts of.
        graph[name] = own - ({top} if top in features else set())
        for each in own | others:
            first = each.partition(".")[0]
            # That Tornado stays out is seen at run time, too.
            is_setting = first == "settings" or (each not in own and first != "tornado")
            if top == "settings" and not is_setting and (name, each) not in OF_SETTINGS:
                yield f"{name}: imports {each}, which is not a setting"
            if top in features and each in own and first in ABOVE:
                yield f"{name}: imports {each}, which is above features"
            # Checks are registered whether or not there are probes to ask for them.
            is_health = each in ("health", "health.checks")
            if top in features and first in features and first != top and not is_health:
                yield f"{name}: imports {each}, another feature"
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield f"a circle of imports: {' -> '.join(error.args[1])}"


def imports(path: Path, chassis: Path, text: str) -> tuple[set[str], set[str]]:
    """The modules of the chassis and of others that a module imports, also for types alone."""
    own: set[str] = set()
    others: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            others |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            others.add(node.module or "")
        elif isinstance(node, ast.ImportFrom):
            base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for alias in node.names:
                is_module = (base / alias.name).is_dir() or (base / f"{alias.name}.py").exists()
                target = base / alias.name if is_module else base
                own.add(target.relative_to(chassis).as_posix().replace("/", ".").strip("."))
    return own - {""}, others
