"""The image, really built and run, and what stands around it for `docker compose`."""

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uv

from ..backends import answers, eventually, free_port, prometheus, statsd
from ..backends.containers import BASE, Container, Containers, containers
from ..load import load
from . import combinations
from .conftest import Generate
from .project import interpreter, reference, render, setting_fields, tool
from .test_alerts import load as read
from .test_pipelines import check_schema, programs, release_jobs, scripts
from .traced import of_trace, trace_id

# As compose.yaml runs it; podman would else put a file system to write to on /tmp.
CONFINED = ("--read-only", "--read-only-tmpfs=false", "--cap-drop=all")
CONFINED += ("--security-opt=no-new-privileges",)
BUILD = {"BUILD_COMMIT": "3e5c0ffee", "BUILD_TIME": "2030-01-31T12:00:00Z"}
# Docker would replace a variable, also between quotes.
DESCRIPTION = 'At $1 or ${LESS}, "cheap" \\ `tea`'
DEPENDENCIES = "uv sync --locked --no-dev --no-install-project"


def each_choice_with(deployment: str) -> pytest.MarkDecorator:
    more = {"deployment": deployment, "chassis": "copy"}
    answers = [each | more for each in combinations.each_choice()]
    return pytest.mark.parametrize("answers", answers, ids=combinations.name)


deployed = each_choice_with("docker")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Containers, Path]]:
    """The image `my-service`, of the reference's answers, and the project it was built of."""
    directory = tmp_path_factory.mktemp("image")
    with containers(directory) as found:
        answers = reference(description=DESCRIPTION)
        project = render(directory / "project", directory / "home", answers)
        lock(project)
        for where in (".env", "src/my_service/.env.local"):
            (project / where).write_text("API_KEY=of-a-developer\n")
        found.build(project, "my-service", **BUILD)
        yield found, project


def test_stop_under_load_loses_no_request(built: tuple[Containers, Path]) -> None:
    port, admin_port = free_port(), free_port()
    publish, env = {port: 8000, admin_port: 8001}, {"DRAIN_DELAY_SECONDS": "1"}
    with built[0].running("my-service", *CONFINED, publish=publish, env=env) as container:
        container.wait_for(lambda: answers(f"http://127.0.0.1:{port}/readyz"))
        assert answers(f"http://127.0.0.1:{admin_port}/metrics")
        with load(port, "/hello/world") as result:
            result.wait_for(100)
            result.stopping.set()
            assert container.stop(timeout=30) == 0
    assert result.answered > 100
    assert result.failures == []


def test_service_is_not_root_and_checked_by_its_own_interpreter(
    built: tuple[Containers, Path],
) -> None:
    command, *check = built[0].image("my-service")["Healthcheck"]["Test"]
    assert command == "CMD"
    with built[0].running("my-service", *CONFINED, env={"DRAIN_DELAY_SECONDS": "0"}) as container:
        container.wait_for(lambda: is_passed(container, check))
        with pytest.raises(RuntimeError, match="ConnectionRefused"):
            container.execute("env", "ADMIN_PORT=9", *check)
        assert container.execute("id", "--user").strip() == "10001"
        assert container.execute("cat", "/proc/1/cmdline").split("\0")[:2] == [
            "/app/bin/python",
            "/app/bin/my-service",
        ]
        with pytest.raises(RuntimeError, match="Read-only file system"):
            container.execute("touch", "/tmp/anything")
        assert container.stop() == 0


def test_image_has_nothing_of_its_making(built: tuple[Containers, Path]) -> None:
    storage = built[0]

    def found(image: str) -> set[str]:
        script = "find / -xdev -type f -perm /111; ls -d /build /root/.cache/* || true"
        return set(storage.once("--user=0", image, "sh", "-c", script).splitlines())

    added = found("my-service") - found(BASE)
    assert "/app/bin/my-service" in added
    assert all(path.startswith("/app/") for path in added), added
    assert not {"uv", "uvx", "pip", "pytest", "ruff", "mypy"} & {Path(each).name for each in added}
    assert storage.once("my-service", "find", "/app", "-name", ".env*") == ""


def test_image_starts_from_bytecode(built: tuple[Containers, Path]) -> None:
    script = (
        "import dotenv.main, my_service.app, tornado.web, tornado_chassis.server\n"
        "for module in (dotenv.main, my_service.app, tornado.web, tornado_chassis.server):\n"
        "    print(module.__file__, __import__('os').path.exists(module.__cached__))\n"
    )
    lines = built[0].once(*CONFINED, "my-service", "python", "-c", script).splitlines()
    assert len(lines) == 4
    assert all(line.startswith("/app/lib/") and line.endswith(" True") for line in lines), lines


def test_image_knows_what_it_was_built_of(built: tuple[Containers, Path]) -> None:
    storage, _ = built
    labels = storage.image("my-service")["Labels"]
    labels = {name.rpartition(".")[2]: value for name, value in labels.items()}
    assert (labels["revision"], labels["created"]) == tuple(BUILD.values())
    assert labels["description"] == DESCRIPTION
    url = "http://127.0.0.1:8001/console/now.json"
    script = f"import urllib.request; print(urllib.request.urlopen('{url}').read().decode())"
    # Or the console would be closed.
    env = {"ENVIRONMENT": "development"}
    with storage.running("my-service", *CONFINED, env=env) as container:
        container.wait_for(lambda: is_passed(container, ["python", "-c", script]))
        now = json.loads(container.execute("python", "-c", script))
        assert (now["commit"], now["built"]) == (BUILD["BUILD_COMMIT"], 1896091200)


def test_dependencies_are_built_again_only_when_they_change(
    built: tuple[Containers, Path], tmp_path: Path
) -> None:
    storage, project = built
    copy = shutil.copytree(project, tmp_path / "project")
    with (copy / "src/my_service/handlers.py").open("a") as handlers:
        handlers.write("\n# Changed.\n")
    (copy / "tests/test_handlers.py").unlink()

    def is_cached() -> bool:
        return "Using cache" in steps(storage.build(copy, "changed"))[f"RUN {DEPENDENCIES}"]

    assert is_cached()
    pyproject = copy / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace("tornado>=6.6", "tornado>=6.6.1"))
    lock(copy)
    assert not is_cached()


@pytest.mark.full
def test_lock_is_kept_to(built: tuple[Containers, Path], generate: Generate) -> None:
    project = generate()
    lock(project.path)
    # An older one than would be taken without the lock.
    project.uv("lock", "--quiet", f"--python={project.interpreter}", "-P", "certifi==2025.8.3")
    built[0].build(project.path, "locked")
    version = "import importlib.metadata; print(importlib.metadata.version('certifi'))"
    assert built[0].once("locked", "python", "-c", version).strip() == "2025.8.3"

    pyproject = project.path / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace("tornado>=6.6", "tornado>=6.6.1"))
    with pytest.raises(RuntimeError, match="needs to be updated"):
        built[0].build(project.path, "locked")


def test_image_is_not_built_of_versions_that_nobody_has_recorded(
    built: tuple[Containers, Path], generate: Generate
) -> None:
    with pytest.raises(RuntimeError, match=r"There is no uv\.lock: run 'uv lock', and commit it"):
        built[0].build(generate().path, "unlocked")


def test_one_line_names_the_base_image_and_bots_can_read_it(generate: Generate) -> None:
    dockerfile = (generate(deployment="docker").path / "Dockerfile").read_text()
    first, *others = re.findall(r"^FROM (\S+)(?: AS (\w+))?$", dockerfile, re.MULTILINE)
    # Dependabot leaves out what has a variable.
    assert re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", first[0])
    assert [name for name, _ in others] == [first[1]] * 2


@pytest.mark.full
def test_every_choice_starts_and_stops(built: tuple[Containers, Path], generate: Generate) -> None:
    """The choices that the default image has not."""
    project = generate(
        health="none", logging="none", metrics="statsd", error_tracking="newrelic", tracing="zipkin"
    )
    compose = read(project.path / "compose.yaml")
    environment = compose["services"]["service"]["environment"]
    env = {key: "" if value.startswith("$") else value for key, value in environment.items()}
    port = free_port()
    lock(project.path)
    built[0].build(project.path, "other")
    assert "Healthcheck" not in built[0].image("other")
    with built[0].running("other", *CONFINED, publish={port: 8000}, env=env) as container:
        container.wait_for(lambda: answers(f"http://127.0.0.1:{port}/"))
        assert container.stop() == 0


def test_candidate_of_a_release_is_tried_with_the_settings_of_the_tests(
    built: tuple[Containers, Path], generate: Generate, tmp_path: Path
) -> None:
    """By the steps of both pipelines, as they stand there; podman is called docker."""
    project = generate(ci="github")
    settings = project.path / "src" / project.package / "settings.py"
    settings.write_text(f"{settings.read_text()}    shop_name: str\n")
    (project.path / "tests/settings.env").write_text('SHOP_NAME="Ye olde shop"  # quoted\n')
    lock(project.path)
    storage, image = built[0], "localhost/candidate"
    storage.build(project.path, "candidate")

    port = free_port()
    [script] = [each for each in scripts(release_jobs(project)["candidate"]) if "curl" in each]
    docker = '[ "$1" != run ] || { shift; set -- run --no-healthcheck "$@"; }\nexec podman "$@"'
    storage.run(
        *("env", f"--chdir={project.path}", f"PATH={programs(tmp_path / 'bin', docker=docker)}"),
        *(f"CANDIDATE={image}", "PROBE=/livez", "bash", "-ec"),
        script.replace("127.0.0.1:8000", f"127.0.0.1:{port}"),
    )

    on_gitlab = scripts(release_jobs(generate(ci="gitlab"))["try"])
    job = "\n".join(on_gitlab)
    options = (f"--volume={project.path}:/builds:ro", "--env=CI_PROJECT_DIR=/builds", image)
    storage.once(*options, "sh", "-ec", job)
    # Without them it does not start, and the job says so at once.
    with pytest.raises(RuntimeError, match="SHOP_NAME: is required"):
        storage.once(*options, "sh", "-ec", job.replace("settings.env", "__init__.py"))


@deployed
def test_hadolint_finds_nothing(generate: Generate, answers: combinations.Answers) -> None:
    project = generate(**answers)
    assert tool(Path(sys.executable).with_name("hadolint"), project.path / "Dockerfile") == ""


@deployed
def test_compose_fits_its_schema_and_the_project(
    generate: Generate, answers: combinations.Answers
) -> None:
    project = generate(**answers)
    path = project.path / "compose.yaml"
    check_schema("compose-spec", path)
    services = read(path)["services"]
    for service in services.values():
        for volume in service.get("volumes", []):
            assert (project.path / volume.split(":")[0]).exists(), volume
    environment = services["service"]["environment"]
    assert {each.lower() for each in environment} <= setting_fields(project.path)
    seconds = [float(environment[f"DRAIN_{each}_SECONDS"]) for each in ("DELAY", "TIMEOUT")]
    assert services["service"]["stop_grace_period"] == f"{sum(seconds) + 10:g}s"
    published = [port for each in services.values() for port in each.get("ports", ())]
    assert all(port.startswith("127.0.0.1:") for port in published)
    if url := environment.get("TRACE_URL"):
        assert urlsplit(url).netloc in [port.rpartition(":")[0] for port in published]

    # Whoever is named anywhere is there, and whoever is there was chosen.
    named = [value for key, value in environment.items() if key.endswith(("_HOST", "ENDPOINT"))]
    for source in (project.path / "deploy").rglob("*.y*ml"):
        if {"prometheus.yml", "provisioning", "fluent-bit"} & {*source.parts}:
            text = source.read_text()
            named += re.findall(r'https?://\S+|(?<=")\w+:\d+(?=")|(?<=host: ).*', text)
    hosts = {re.split(r"[:/]", each.rpartition("//")[2])[0] for each in named}
    metrics = project.answers["metrics"].replace("otlp", "prometheus")
    backends = {metrics, project.answers["tracing"]} - {"none", "stub"}
    local = {"grafana", "loki", "collector"} if "prometheus" in backends else set()
    assert services.keys() == {"service", "load", *backends, *local}
    assert backends <= hosts <= services.keys()
    # Only where a person asks for it.
    assert {name for name, each in services.items() if "profiles" in each} == {"load"}


def test_grafana_is_configured_for_what_there_is(generate: Generate) -> None:
    for tracing in ("jaeger", "zipkin", "stub"):
        project = generate(tracing=tracing, deployment="docker").path
        grafana = read(project / "compose.yaml")["services"]["grafana"]
        mounts = dict(reversed(each.split(":")[:2]) for each in grafana["volumes"])

        def inside(path: str, project: Path = project, mounts: dict[str, str] = mounts) -> Path:
            [target] = (each for each in mounts if path.startswith(f"{each}/") or path == each)
            return project / f"{mounts[target]}{path.removeprefix(target)}"

        home_dashboard = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
        assert json.loads(inside(home_dashboard).read_text())["panels"]
        provisioning = inside("/etc/grafana/provisioning")
        [provider] = read(provisioning / "dashboards/dashboards.yaml")["providers"]
        assert list(inside(provider["options"]["path"]).glob("*.json"))
        sources = read(provisioning / "datasources/datasources.yaml")["datasources"]
        assert {each["uid"] for each in sources} == {"prometheus", "loki", tracing} - {"stub"}
        destinations = sources[0]["jsonData"].get("exemplarTraceIdDestinations", [])
        assert {each["datasourceUid"] for each in destinations} == {tracing} - {"stub"}


@pytest.mark.parametrize("tracing", ["jaeger", "zipkin"])
def test_a_line_of_the_log_leads_to_its_trace(generate: Generate, tracing: str) -> None:
    project = generate(tracing=tracing)
    path = project.path / "deploy/grafana/provisioning/datasources/datasources.yaml"
    sources = {each["uid"]: each for each in read(path)["datasources"]}
    [field] = sources["loki"]["jsonData"]["derivedFields"]
    assert field["datasourceUid"] == tracing
    back = sources[tracing]["jsonData"]["tracesToLogsV2"]
    assert back["datasourceUid"] == "loki"
    collector = read(project.path / "deploy/fluent-bit/fluent-bit.yaml")
    [output] = collector["pipeline"]["outputs"]
    name, _, value = output["labels"].partition("=")
    assert f'{{{name}="{value}"}}' in back["query"]
    trace = trace_id(1)
    with project.start() as service:
        service.get("/", of_trace(1))
        assert service.terminate() == 0
        lines = [line for line in service.output().splitlines() if trace in line]
    assert [re.search(field["matcherRegex"], line)[1] for line in lines] == [trace]


def test_load_asks_for_what_is_there(generate: Generate) -> None:
    project = generate()
    compose = read(project.path / "compose.yaml")["services"]
    python, option, script = compose["load"]["command"]
    assert (python, option) == ("python", "-c")
    assert compose["load"]["image"] == compose["service"]["image"]
    with project.start() as service:
        script = script.replace("http://service:8000", service.url)
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as load:
            eventually(lambda: service.output().count('"GET"') >= 6, "six requests")
            load.kill()
            assert load.stdout is not None
            assert load.stdout.read() == b""
        assert service.terminate() == 0
        answered = [json.loads(line) for line in service.output().splitlines() if '"GET"' in line]
    assert {line["http.response.status_code"] for line in answered} == {200}


def test_prometheus_takes_its_configuration(generate: Generate) -> None:
    project = generate(metrics="prometheus")
    directory = project.path / "deploy/prometheus"
    output = prometheus.promtool("check", "config", directory / "prometheus.yml")
    assert "1 rule files found" in output
    [job] = read(directory / "prometheus.yml")["scrape_configs"]
    assert job["job_name"] == project.slug
    assert f'job="{project.slug}"' in (directory / "alerts.yml").read_text()


def test_statsd_takes_its_configuration(generate: Generate, tmp_path: Path) -> None:
    text = (generate(metrics="statsd").path / "deploy/statsd/config.js").read_text()
    log = tmp_path / "statsd.log"
    with (
        statsd.running(tmp_path, text, flushInterval=100) as daemon,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        sender.sendto(b"app.latency:7|ms", ("127.0.0.1", daemon.port))
        eventually(lambda: re.search(r"mean_95\W+7\b", log.read_text()), "printed values")


def lock(project: Path) -> None:
    """Does with a project what the first `uv run` does."""
    command = [uv.find_uv_bin(), "lock", "--quiet", f"--python={interpreter()}"]
    tool(*command, cwd=project)


def is_passed(container: Container, check: list[str]) -> bool:
    try:
        container.execute(*check)
    except RuntimeError:
        return False
    return True


def steps(output: str) -> dict[str, str]:
    """What a build has printed at each of its steps."""
    parts = re.split(r"^\[\d+/\d+\] STEP \d+/\d+: ", output, flags=re.MULTILINE)
    return {re.sub(r"--mount=\S+\s+|\{.*\} &&\s+", "", part.split("\n")[0]): part for part in parts}
