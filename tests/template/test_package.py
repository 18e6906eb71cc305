"""The distribution `tornado-chassis`: what is in it, and that it works on each Python, with the
newest and the oldest versions of what it depends on."""

import os
import re
import shlex
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import uv

from ..backends import pythons
from .project import CHASSIS, TEMPLATE, interpreters, tool

EXTRAS = ("jaeger", "newrelic", "otlp", "prometheus", "sentry", "statsd", "zipkin")
SUITE = ("--quiet", "--numprocesses=2", "-pno:cacheprovider", "tests/chassis")
PYTHONS = interpreters()


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution."""
    directory = tmp_path_factory.mktemp("dist")
    python = str(next(iter(PYTHONS.values())))
    build = (uv.find_uv_bin(), "build", "--quiet", f"--python={python}")
    tool(*build, f"--out-dir={directory}", TEMPLATE)
    return directory


def test_wheel_holds_the_package_with_its_types_page_and_license(distributions: Path) -> None:
    [wheel] = distributions.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {
            name.removeprefix("tornado_chassis/"): archive.read(name)
            for name in archive.namelist()
            if name.startswith("tornado_chassis/")
        }
    sources = {
        path.relative_to(CHASSIS).as_posix(): path.read_bytes()
        for path in CHASSIS.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == sources
    assert {"py.typed", "LICENSE", "console/page.html"} <= packed.keys()
    assert packed["LICENSE"] == (TEMPLATE / "LICENSE").read_bytes()


def test_source_distribution_builds_the_same_wheel_and_has_its_tests(
    distributions: Path, tmp_path: Path
) -> None:
    [sdist], [wheel] = distributions.glob("*.tar.gz"), distributions.glob("*.whl")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    [unpacked] = tmp_path.iterdir()
    assert (unpacked / "tests" / "chassis" / "testing.py").exists()
    python = str(next(iter(PYTHONS.values())))
    again = tmp_path / "again"
    build = (uv.find_uv_bin(), "build", "--quiet", "--wheel", f"--python={python}")
    tool(*build, f"--out-dir={again}", unpacked)
    [rebuilt] = again.glob("*.whl")
    assert contents(rebuilt) == contents(wheel)


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if "RECORD" not in name}


def dependencies(*extras: str) -> list[str]:
    """What `tornado-chassis` with these extras and its tests need."""
    project = tomllib.loads((TEMPLATE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    needed = "hypothesis|mypy|openapi-spec-validator|opentelemetry-proto|pytest"
    tests = [each for each in optional["test"] if re.match(needed, each)]
    return [
        *project["dependencies"],
        *(each for extra in extras for each in optional[extra]),
        *tests,
    ]


@pytest.mark.full
@pytest.mark.longest
@pytest.mark.parametrize(
    ("version", "resolution"),
    [*((each, "highest") for each in PYTHONS), (next(iter(PYTHONS)), "lowest-direct")],
    ids=lambda each: each if isinstance(each, str) else ".".join(map(str, each)),
)
def test_chassis_on_each_python(version: tuple[int, int], resolution: str, tmp_path: Path) -> None:
    """Its tests and its types."""
    environment = tmp_path / "venv"
    python = environment / "bin" / "python"
    manager = uv.find_uv_bin()
    tool(manager, "venv", "--quiet", f"--python={PYTHONS[version]}", environment)
    install = [manager, "pip", "install", "--quiet", f"--python={python}"]
    # Those of the tests may be any.
    tool(*install, *dependencies())
    tool(*install, f"--resolution={resolution}", *dependencies(*EXTRAS))
    tool(python, "-m", "pytest", *SUITE, cwd=TEMPLATE)
    if resolution == "highest":
        cache = f"--cache-dir={tmp_path / 'mypy'}"
        tool(python, "-m", "mypy", cache, cwd=TEMPLATE)
        tool(python, "-m", "mypy", cache, "--platform=win32", cwd=TEMPLATE)


@pytest.mark.full
@pytest.mark.longest
@pytest.mark.parametrize("version", pythons.NEWER, ids=lambda each: ".".join(map(str, each)))
def test_chassis_on_newer_pythons(version: tuple[int, int]) -> None:
    # New Relic's agent has no wheel for 3.15.
    extras = [each for each in EXTRAS if each != "newrelic" or version < (3, 15)]
    without = [] if "newrelic" in extras else ["--ignore=tests/chassis/test_errors_newrelic.py"]
    name = f"python{version[0]}.{version[1]}"
    python = f"/tmp/{name}/bin/python"
    lines = [
        [name, "-m", "venv", "--clear", f"/tmp/{name}"],
        [python, "-m", "pip", "install", "--quiet", *dependencies(*extras)],
        ["cd", "/srv"],
        [python, "-m", "pytest", *SUITE, *without],
        [python, "-m", "mypy", f"--cache-dir=/tmp/{name}/mypy"],
    ]
    pythons.run_in(TEMPLATE, "\n".join(map(shlex.join, lines)))


def test_interpreters_are_those_that_are_promised() -> None:
    if os.environ.get("CI") == "true":
        assert {(3, 11), (3, 12), (3, 13)} <= PYTHONS.keys()
