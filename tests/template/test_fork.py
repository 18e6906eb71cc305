"""A fork, as a company makes one: its defaults, a choice less, and a backend more."""

import json
import re
from pathlib import Path

import pytest

from . import combinations
from .project import CHASSIS, SOURCE, TEMPLATE, Project, git, interpreter, reference, render
from .test_choices import offer, steps
from .test_every_combination import check
from .test_render import files, ruff, sources, tags

HERE = SOURCE.relative_to(TEMPLATE)
IN_CHASSIS = CHASSIS.relative_to(TEMPLATE)
FEATURES = HERE / "src" / "{{cookiecutter.__package}}" / "features.py"
DEFAULTS = {
    "project_name": "Acme Service",
    "author_name": "Acme Platform",
    "author_email": "platform@acme.example",
    "__registry": "registry.acme.example",
}
REMOVED = [
    "presets/new-relic.yaml",
    IN_CHASSIS / "errors" / "newrelic.py",
    IN_CHASSIS / "settings" / "newrelic.py",
    HERE / "docs" / "errors_newrelic.md",
    HERE / "tests" / "contract" / "test_errors_newrelic.py",
]
ADDED = {
    IN_CHASSIS / "metrics" / "graphite.py": '''\
"""Metrics for Graphite, sent at the end as lines over TCP."""

import asyncio
import time

from ..settings.graphite import GraphiteSettings
from . import instruments
from .meter import Meter


class Graphite(Meter):
    """Sends what the service counts. Without `GRAPHITE_HOST` nothing is sent."""

    def __init__(self, settings: GraphiteSettings) -> None:
        super().__init__(settings)
        self._address = settings.graphite_host, settings.graphite_port

    async def shutdown(self) -> None:
        await super().shutdown()
        if self._address[0]:
            await self._send()

    async def _send(self) -> None:
        counts = [("http_requests", sum(sum(each.counts) for each in self.durations.values()))]
        counts += [(each.name, each.value) for all in instruments.values() for each in all.series()]
        _, writer = await asyncio.open_connection(*self._address)
        now = int(time.time())
        writer.writelines(f"{name} {value:g} {now}\\n".encode() for name, value in counts)
        writer.close()
        await writer.wait_closed()
''',
    IN_CHASSIS / "settings" / "graphite.py": '''\
"""Where metrics are sent."""

from . import parsing
from .server import ServerSettings
from .setting import group, setting


@group
class GraphiteSettings(ServerSettings):
    graphite_host: str | None = None
    """Where Graphite is. Without it, no metrics are sent."""

    graphite_port: int = setting(2003, parse=parsing.integer(1, 65535))
    """Graphite's TCP port for lines of plain text."""
''',
    HERE / "docs" / "metrics_graphite.md": "# Metrics\n\nTotals are sent to `GRAPHITE_HOST`.\n",
    HERE / "tests" / "contract" / "test_metrics_graphite.py": '''\
"""What the metrics promise."""

import socket

from tornado_chassis import metrics

from .service import ContractTest

sold = metrics.counter("contract_sold", "Things sold.")


class TestGraphite(ContractTest):
    def test_totals_are_sent_at_the_end(self) -> None:
        sold.inc(2)
        self.fetch("/task/tea")
        self.stop_service()
        connection, _ = self.server.accept()
        with connection, connection.makefile() as lines:
            counts = dict(line.split(" ")[:2] for line in lines)
        assert counts["contract_sold"] == "2"
        assert counts["http_requests"] == "1"

    def setUp(self) -> None:
        self.server = self.enterContext(socket.create_server(("127.0.0.1", 0)))
        self.server.settimeout(60)
        port = str(self.server.getsockname()[1])
        self.environ = {"GRAPHITE_HOST": "127.0.0.1", "GRAPHITE_PORT": port}
        super().setUp()
''',
}
IF = '# {% if cookiecutter.metrics == "graphite" %}\n'
# What is put before which line of a file.
INSERTED = [
    (
        FEATURES,
        '# {% if cookiecutter.logging != "none" %}\nfrom',
        f"{IF}from tornado_chassis.settings.graphite import GraphiteSettings\n# {{% endif %}}\n",
    ),
    (
        FEATURES,
        '    # {% if cookiecutter.console != "none" %}\n    ConsoleSettings,',
        f"    {IF}    GraphiteSettings,\n    # {{% endif %}}\n",
    ),
    (
        FEATURES,
        '        # {% if cookiecutter.metrics == "prometheus" %}\n        from',
        f"        {IF}        from tornado_chassis.metrics.graphite import Graphite\n"
        "        # {% endif %}\n",
    ),
    (
        FEATURES,
        '            # {% if cookiecutter.metrics == "prometheus" %}\n            Prometheus',
        f"            {IF}            Graphite(self),\n            # {{% endif %}}\n",
    ),
    (
        HERE / "docs" / "settings.md",
        '# {% if cookiecutter.metrics == "statsd" %}\n',
        f"{IF}| `GRAPHITE_HOST` |  | Where Graphite is. Without it, no metrics are sent. |\n"
        "| `GRAPHITE_PORT` | `2003` | Graphite's TCP port for lines of plain text. |\n"
        "# {% endif %}\n",
    ),
    (Path("README.md"), "`statsd`", "`graphite`, "),
    (Path("pyproject.toml"), "statsd = []\n", "graphite = []\n"),
]


def test_steps_of_a_fork_are_taken_one_after_another(template: Path) -> None:
    """The tests say what is to be done before it is done, and nothing afterwards."""
    fork(template)
    found = [each for each in steps(template) if "has a condition on" not in each]
    assert not found, "\n".join(found)


@pytest.mark.full
def test_service_of_a_fork_passes_its_tests(template: Path, tmp_path: Path) -> None:
    fork(template)
    default = render(tmp_path / "default", tmp_path / "home", {}, template)
    assert default.name == "acme-service"
    assert "Acme Platform" in (default / "pyproject.toml").read_text(encoding="utf-8")
    answers = reference(metrics="graphite", tracing="jaeger", error_tracking="none")
    path = render(tmp_path / "projects", tmp_path / "home", answers, template)
    assert not [found for each in files(path) for found in tags(each, path)]
    assert not [*ruff(path), *sources(path, tmp_path)]
    project = Project(path, answers, tmp_path / "venv", interpreter())
    project.sync()
    check(project)


def fork(template: Path) -> None:
    """Makes the changes, of which there are steps to take."""
    path = template / "cookiecutter.json"
    content = json.loads(path.read_text(encoding="utf-8")) | DEFAULTS
    for prompt in combinations.choices().keys() - {"chassis"}:
        # Another default wherever there is a choice; a package would need an address.
        content[prompt].append(content[prompt].pop(0))
    content["error_tracking"].remove("newrelic")
    del content["__prompts__"]["error_tracking"]["newrelic"]
    content["__prompts__"]["metrics"]["graphite"] = "Graphite: sent to Carbon over TCP"
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
    offer(template, "metrics", lambda values: values.append("graphite"))
    assert len(steps(template)) > len(ADDED)
    for each in REMOVED:
        (template / each).unlink()
    for where, text in ADDED.items():
        (template / where).write_text(text, encoding="utf-8")
    for where, line, text in INSERTED:
        source = (template / where).read_text(encoding="utf-8")
        assert line in source, f"{where} has no {line!r}"
        (template / where).write_text(source.replace(line, text + line, 1), encoding="utf-8")
    readme = (template / "README.md").read_text(encoding="utf-8")
    (template / "README.md").write_text(re.sub(r", `newrelic`|`newrelic`, ", "", readme))
    git(template, "commit", "--quiet", "--all", "--message=Our house standard")
