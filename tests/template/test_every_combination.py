"""Each combination of telemetry starts, serves and stops; a sample passes its own tests.

Each combination starts with the packages that the tests have. The sample is tested as a team would,
in an environment made from the project's own `pyproject.toml` alone.
"""

import sys
from pathlib import Path

import pytest

from ..backends import pythons
from . import combinations
from .conftest import Generate
from .project import CHASSIS, Project, interpreters, reference, render

# With the license no code changes, and pipelines and manifests have their own tests.
SAMPLE = combinations.sample(*combinations.TELEMETRY, "console", "chassis")
# The oldest dependencies of each backend, in as few projects as there are of one prompt.
BOUNDS = combinations.each_choice()
# The sample has the newest already.
OLDER = [
    pytest.param(path, id=f"{major}.{minor}")
    for (major, minor), path in list(interpreters().items())[:-1]
]
STUCK = 60
"""Seconds after which a test shows where it hangs."""


@pytest.mark.full
@pytest.mark.parametrize("answers", combinations.every(), ids=combinations.name)
def test_it_starts_serves_and_stops(tmp_path: Path, answers: combinations.Answers) -> None:
    path = render(tmp_path / "project", tmp_path / "home", reference(**answers))
    metadata = tmp_path / "site" / f"{path.name.replace('-', '_')}-0.1.0.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(f"Metadata-Version: 2.1\nName: {path.name}\nVersion: 0.1.0\n")
    sources = [path / "src", metadata.parent.parent]
    if answers["chassis"] == "package":
        sources.append(CHASSIS.parent)
    # Its own packages are on the path, so that nothing has to be installed.
    project = Project(path, answers, Path(sys.prefix), Path(sys.executable), _is_synced=True)
    with project.start(PYTHONPATH=":".join(map(str, sources))) as service:
        status, _, body = service.get("/")
        assert (status, body) == (200, '{"service":"my-service","version":"0.1.0"}')
        for prompt, choice, route, is_admin in (
            ("health", "probes", "/livez", False),
            ("health", "probes", "/readyz", False),
            ("health", "probes", "/livez", True),
            ("health", "probes", "/health", True),
            ("logging", "structured", "/loglevel", True),
            ("metrics", "prometheus", "/metrics", True),
            ("console", "page", "/", True),
        ):
            if not is_admin or has_admin(answers):
                expected = 200 if answers[prompt] == choice else 404
                found = service.get(route, admin=is_admin)[0]
                assert (route, is_admin, found) == (route, is_admin, expected)
        for each in ("metrics", "loglevel"):
            assert service.get(f"/{each}")[0] == 404
        assert service.terminate() == 0, service.output()
    assert "Traceback" not in service.output()


def has_admin(answers: combinations.Answers) -> bool:
    return answers["metrics"] == "prometheus" or any(
        answers[prompt] != "none" for prompt in ("health", "logging", "console")
    )


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param(answers, marks=[pytest.mark.full] if number else [pytest.mark.longest])
        for number, answers in enumerate(SAMPLE)
    ],
    ids=map(combinations.name, SAMPLE),
)
def test_suite(generate: Generate, answers: combinations.Answers) -> None:
    project = generate(**answers)
    project.sync()
    check(project)


@pytest.mark.full
@pytest.mark.parametrize("interpreter", OLDER)
def test_suite_on_an_older_python(generate: Generate, interpreter: Path) -> None:
    project = generate(tracing="jaeger")
    project.interpreter = interpreter
    project.sync()
    check(project)


@pytest.mark.full
@pytest.mark.parametrize("version", pythons.NEWER, ids=lambda each: ".".join(map(str, each)))
def test_suite_on_a_newer_python(generate: Generate, version: tuple[int, int]) -> None:
    name = "python{}.{}".format(*version)
    python = f"/tmp/service-{name}/bin/python"
    lines = [
        f"{name} -m venv --clear /tmp/service-{name}",
        "cd /srv",
        f"{python} -m pip install --quiet --group dev --editable .",
        f"{python} -m pytest --quiet -pno:cacheprovider -ofaulthandler_timeout={STUCK}",
        f"{python} -m mypy --cache-dir=/tmp/service-{name}/mypy",
    ]
    pythons.run_in(generate(tracing="jaeger").path, "\n".join(lines))


@pytest.mark.full
@pytest.mark.parametrize("answers", BOUNDS, ids=combinations.name)
def test_suite_with_the_oldest_dependencies(
    generate: Generate, answers: combinations.Answers
) -> None:
    project = generate(**answers)
    project.sync("--resolution=lowest-direct")
    check(project)
    # Here because these have each module once.
    for system in ("win32", "darwin"):
        project.run("mypy", f"--platform={system}")


def check(project: Project) -> None:
    """Runs the suite, with its limit of coverage, and mypy."""
    project.run("coverage", "run", "-m", "pytest", "--quiet", f"-ofaulthandler_timeout={STUCK}")
    project.run("coverage", "combine", "--quiet")
    project.run("coverage", "report")
    project.run("mypy")
