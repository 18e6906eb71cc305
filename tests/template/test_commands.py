"""The commands of docs/operations.md and of the runbook: each is run, here or by another test."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import uv

from ..backends import alertmanager, eventually, free_port, prometheus
from .conftest import Generate
from .project import Project, Service

PAGES = ("operations.md", "runbook.md")
COMMAND = re.compile(
    r"^    ((?:[A-Z_]+=\S+ )*(?:kubectl|uvx?|docker|promtool|curl|sudo) .*)$"
    r"|`((?:kubectl|uvx?|docker|promtool|curl|sudo) [^`\n]+)`",
    re.MULTILINE,
)
# What runs the command: of this directory, or of this file.
RUN = {
    r"curl http://.*": "test_curl",
    r"REUSE_PORT=true .*": "test_processes_share_a_port",
    r"promtool check rules alerts\.yml": "test_promtool",
    r"sudo .* py-spy dump --pid PID": "test_stacks_of_a_process_are_shown",
    r"kubectl .*": "test_apiserver.py",
    r"uvx cruft update --skip-apply-ask.*": "test_change_of_mind.py",
    r"uv (export|lock).*|uvx pip-audit.*": "test_pipelines.py",
    r"uv add NAME": "test_docs.py",
    r"uv run": "test_readme.py",
}
# What nothing runs.
NOT_RUN = {
    "docker top CONTAINER": "needs Docker's daemon; podman runs containers here",
    "curl --verbose": "of the service's public name, which a test has not",
}


def commands(page: Path) -> list[str]:
    found = COMMAND.findall(page.read_text(encoding="utf-8"))
    return list(dict.fromkeys("".join(each) for each in found))


@pytest.mark.parametrize("deployment", ["kubernetes", "docker"])
@pytest.mark.parametrize("metrics", ["prometheus", "otlp", "statsd"])
def test_each_command_is_run(generate: Generate, metrics: str, deployment: str) -> None:
    docs = generate(metrics=metrics, deployment=deployment).path / "docs"
    here = Path(__file__).parent
    for command in [each for page in PAGES for each in commands(docs / page)]:
        if command not in NOT_RUN:
            [test, *_] = [test for each, test in RUN.items() if re.fullmatch(each, command)]
            assert test in globals() or (here / test).is_file(), test


def test_curl(generate: Generate, tmp_path: Path) -> None:
    """Those of all pages, in the order in which they stand there."""
    project = generate(tracing="jaeger")
    token = "0123456789abcdef"
    (tmp_path / ".curlrc").write_text("silent\nfail-with-body\nnoproxy=*\n")
    found = [each for page in sorted(project.path.glob("**/*.md")) for each in requests(page)]
    assert len(found) > 10
    with project.start() as service, project.start(CONSOLE_TOKEN=token) as guarded:
        for command in found:
            asked = guarded if "TOKEN" in command else service
            for name, value in {
                "TOKEN": token,
                "ADDRESS": "127.0.0.1",
                ":8000": f":{asked.port}",
                ":8001": f":{asked.admin_port}",
                '"seconds": 10}': '"seconds": 1}',
            }.items():
                command = command.replace(name, value)
            done = subprocess.run(
                ["bash", "-ec", command],
                cwd=tmp_path,
                env={**os.environ, "HOME": str(tmp_path)},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def requests(page: Path) -> Iterator[str]:
    text = page.read_text(encoding="utf-8")
    for lines, inline in re.findall(
        r"^    (curl (?:.*\\\n)*.*)$|`(curl [^`\n]*http://[^`\n]*)`", text, re.MULTILINE
    ):
        yield lines or inline


def test_promtool(generate: Generate) -> None:
    project = generate()
    assert "promtool check rules alerts.yml" in commands(project.path / "docs/runbook.md")
    rules = project.path / "deploy/prometheus/alerts.yml"
    assert "SUCCESS" in prometheus.promtool("check", "rules", rules)


def test_notification_has_the_address_of_a_section(generate: Generate, tmp_path: Path) -> None:
    project = generate()
    page = (project.path / "docs/runbook.md").read_text(encoding="utf-8")
    [template] = re.findall(r"^    (\{\{ range .*)", page, re.MULTILINE)
    sections = ["docs/runbook.md#norequests", "docs/runbook.md#clienterrors"]
    alerts = [{"annotations": {"runbook_url": each}, "labels": {"job": "a"}} for each in sections]
    data = tmp_path / "data.json"
    data.write_text(json.dumps({"alerts": alerts}))
    render = "template", "render", f"--template.data={data}", f"--template.text={template}"
    empty = tmp_path / "empty.tmpl"
    empty.touch()
    shown = alertmanager.amtool(*render, f"--template.glob={empty}")
    assert [
        each for each in sections if f"https://git.example.com/team/a/{each} " in shown
    ] == sections


def test_processes_share_a_port(generate: Generate, tmp_path: Path) -> None:
    project = generate()
    project.sync()
    both = [each for each in commands(project.path / "docs/operations.md") if "REUSE_PORT" in each]
    port, *admin = (free_port() for _ in range(3))
    script = "\n".join(both).replace("8001", str(admin[0])).replace("8002", str(admin[1]))
    with (tmp_path / "log").open("wb") as log:
        shell = subprocess.Popen(
            ["bash", "-ec", f"{script}\nwait"],
            cwd=project.path,
            env=with_uv(project) | {"PORT": str(port), "UV_NO_SYNC": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            services = [Service(shell, port, each, tmp_path / "log") for each in admin]

            def are_up() -> bool:
                return all(
                    each.get("/readyz", admin=True)[0] == each.get("/hello/x")[0] == 200
                    for each in services
                )

            eventually(are_up, 30, "both")
        finally:
            os.killpg(shell.pid, signal.SIGTERM)
            shell.wait(30)


@pytest.mark.full
def test_stacks_of_a_process_are_shown(generate: Generate) -> None:
    project = generate(deployment="docker")
    [command] = [each for each in commands(project.path / "docs/runbook.md") if "py-spy" in each]
    if not shutil.which("sudo"):
        assert os.geteuid() == 0
        command = command.removeprefix("sudo ")
    with project.start() as service:
        command = command.replace("PID", str(service.process.pid))
        shown = project.run("bash", "-ec", command, env=with_uv(project))
        assert "MainThread" in shown
        assert project.package in shown


def with_uv(project: Project) -> dict[str, str]:
    variables = project.variables()
    path = os.pathsep.join([variables["PATH"], str(Path(uv.find_uv_bin()).parent)])
    return variables | {"PATH": path}
