"""What is the team's and what is the template's, and where the template may speak of choices."""

from pathlib import Path

import pytest

from . import imports
from .conftest import Generate
from .test_render import PICTURE, SOURCE, files, teams

PACKAGE = Path("src", "{{cookiecutter.__package}}")
CHASSIS = PACKAGE / "chassis"
# How a block tag begins; each has a line of its own.
TAG = "{%"
MAX_SHARE_OF_TAGS = 0.025
# Their names, on which those rely who work on a service.
TEAMS = {
    Path("README.md"),
    *(PACKAGE / name for name in ("__main__.py", "app.py", "handlers.py", "settings.py")),
    Path("tests", "test_handlers.py"),
    Path("tests", "settings.env"),
}
# The modules with conditions: they put the features together.
COMPOSITION = {CHASSIS / path for path in imports.COMPOSITION}

# What a module imports in addition, and what is reported of it.
FAULTS = [
    ("chassis/errors/sdk.py", "from ..gone import any", "gone, which is not there"),
    ("chassis/server.py", "from . import gone", "chassis.gone, which is not there"),
    ("chassis/service.py", "from .errors import gone", "errors.gone, which is not there"),
    ("app.py", "import my_service.gone", "gone, which is not there"),
    ("chassis/health.py", "from ..handlers import Root", "handlers.py, which is the team's"),
    ("chassis/health.py", "from .. import app", "app.py, which is the team's"),
    ("chassis/health.py", "import my_service.settings", "settings.py, which is the team's"),
    ("chassis/errors/sdk.py", "from ...app import handlers", "app.py, which is the team's"),
    ("chassis/health.py", "from .metrics import Metrics", "metrics.py, which is for metrics"),
    ("chassis/errors/sdk.py", "from .. import tracing", "__init__.py, which is for tracing"),
    ("chassis/server.py", "from .logs import AccessLog", "logs/__init__.py, which is for logs"),
    ("chassis/health.py", "from .settings.logs import LogSettings", "logs.py, which is for logs"),
    ("chassis/health.py", "from .server import serve", "server.py, which features do not know"),
    ("chassis/settings/logs.py", "from . import errors", "errors.py, which is for errors"),
    (
        "chassis/settings/logs.py",
        "from .. import logs",
        "logs/__init__.py, which is not one of the settings",
    ),
    ("../../tests/chassis/routes.py", "from my_service import app", "app.py, which is the team's"),
    ("../../tests/chassis/routes.py", "from .. import test_handlers", "which is the team's"),
]


def test_team_s_files_have_no_tags() -> None:
    there = {path for path in teams(SOURCE) if path.suffix != ".pyc"}
    assert there >= TEAMS
    assert [path for path in there if TAG in (SOURCE / path).read_text(encoding="utf-8")] == []


def test_code_has_conditions_only_where_features_are_put_together() -> None:
    sources = {
        path.relative_to(SOURCE): path.read_text(encoding="utf-8")
        for folder in ("src", "tests")
        for path in (SOURCE / folder).rglob("*.py")
    }
    assert {path for path, text in sources.items() if TAG in text} == COMPOSITION
    # In tests, not even an expression: the hook puts the package's name in.
    assert not [path for path, text in sources.items() if path.parts[0] == "tests" and "{{" in text]


def test_tags_are_few() -> None:
    lines = [
        line
        for path in files(SOURCE)
        if path.suffix not in (".pyc", PICTURE)
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    tags = [line for line in lines if TAG in line]
    assert len(tags) <= MAX_SHARE_OF_TAGS * len(lines), f"{len(tags)} of {len(lines)} lines"


@pytest.mark.parametrize(("module", "statement", "problem"), FAULTS)
def test_import_is_refused(generate: Generate, module: str, statement: str, problem: str) -> None:
    project = generate(tracing="jaeger").path
    assert list(imports.problems(project)) == []
    path = project / "src" / "my_service" / module
    path.write_text(f"{path.read_text(encoding='utf-8')}\n{statement}\n", encoding="utf-8")
    [found] = imports.problems(project)
    assert f"{path.name}: imports " in found
    assert problem in found
