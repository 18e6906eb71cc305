"""Alert rules: promtool's own tests of them, and what a person who is woken up gets to read."""

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from ..backends import alertmanager, eventually, prometheus
from .conftest import Generate
from .project import TEMPLATE, Project

# All that alerts depend on.
CHOICES = pytest.mark.parametrize(
    ("health", "deployment"),
    [("probes", "kubernetes"), ("none", "docker"), ("none", "kubernetes")],
)
OF_KUBERNETES = {
    "RolloutStuck",
    "AutoscalerAtMaximum",
    "AutoscalerBlind",
    "ReplicasMissing",
    "MemoryNearLimit",
}
CASES = Path(__file__).with_name("alerts_test.yml")


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def alerts(project: Path) -> list[dict[str, Any]]:
    groups = load(project / "deploy/prometheus/alerts.yml")["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


@pytest.mark.parametrize(
    ("metrics", "health", "deployment", "version"),
    [
        ("prometheus", "probes", "kubernetes", 3),
        ("otlp", "probes", "kubernetes", 3),
        pytest.param("prometheus", "none", "docker", 3, marks=pytest.mark.full),
        pytest.param("otlp", "none", "kubernetes", 3, marks=pytest.mark.full),
        pytest.param("prometheus", "probes", "kubernetes", 2, marks=pytest.mark.full),
    ],
)
def test_alerts_fire_when_they_must_and_only_then(
    generate: Generate, metrics: str, health: str, deployment: str, version: int
) -> None:
    project = generate(metrics=metrics, health=health, deployment=deployment)
    promtool = partial(prometheus.promtool, version=version)
    rules = project.path / "deploy/prometheus/alerts.yml"
    assert "SUCCESS" in promtool("check", "rules", "--lint=all", "--lint-fatal", rules)
    tests = rules.with_name("alerts_test.yml")
    tests.write_text(json.dumps({**cases(project), "rule_files": [rules.name]}), encoding="utf-8")
    assert "SUCCESS" in promtool("test", "rules", tests)


def cases(project: Project) -> dict[str, Any]:
    """`alerts_test.yml` as promtool reads it."""
    options = json.loads((TEMPLATE / "cookiecutter.json").read_text())["_jinja2_env_vars"]
    template = jinja2.Environment(**options).from_string(CASES.read_text(encoding="utf-8"))
    found: dict[str, Any] = yaml.safe_load(template.render(cookiecutter=project.answers))
    known = {alert["alert"] for alert in alerts(project.path)}
    for test in found["tests"]:
        test.setdefault("interval", "1m")
        series = [item for each in test.pop("series") for item in each.items()]
        test["input_series"] = [{"series": name, "values": values} for name, values in series]
        if project.answers["metrics"] == "otlp":
            test["input_series"] = pushed(test["input_series"])
        test["alert_rule_test"] = [
            {
                "alertname": alert,
                "eval_time": time,
                "exp_alerts": [expected(project.slug, alert, each) for each in firing],
            }
            for case in test.pop("expected", [])
            for key, firing in case.items()
            for names, *times in [key.split()]
            for alert in sorted(known)
            if alert in names.split(",")
            or (names.startswith("any") and not names.endswith(f"but-{alert}"))
            for time in times
        ]
    return found


def expected(slug: str, alert: str, firing: dict[str, Any]) -> dict[str, Any]:
    annotations = {key: firing[key] for key in ("summary", "description")}
    annotations["runbook_url"] = f"docs/runbook.md#{alert.lower()}"
    return {"exp_annotations": annotations, "exp_labels": {"job": slug, **firing["labels"]}}


def pushed(series: list[dict[str, str]]) -> list[dict[str, str]]:
    """The same as Prometheus has it of a service that pushes: there is no `up`, and no mark where a
    series ends."""
    known = {each["series"].partition(", service_version")[0] for each in series}
    found = []
    for each in series:
        name = re.sub(r"^up{(.*)}$", r"build_info{\1", each["series"])
        if name == each["series"]:
            # The time begins at zero there.
            values = re.sub(
                r"\b17\d{8}", lambda at: str(int(at[0]) - 1_700_000_000), each["values"]
            )
            values = values.replace("stale", "_")
        elif name in known:
            continue
        else:
            name, values = f"{name}}}", re.sub(r"\b0(x\d+)?\b|stale", missing, each["values"])
        found.append({"series": name, "values": values})
    return found


def missing(zeros: re.Match[str]) -> str:
    """As many samples fewer."""
    return f"_x{int(zeros[1][1:]) + 1}" if zeros[1] else "_"


@CHOICES
def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_not(
    generate: Generate, health: str, deployment: str
) -> None:
    project = generate(metrics="prometheus", health=health, deployment=deployment)
    tried = [case for test in cases(project)["tests"] for case in test["alert_rule_test"]]
    for alert in alerts(project.path):
        expected = [case["exp_alerts"] for case in tried if case["alertname"] == alert["alert"]]
        assert [] in expected, alert["alert"]
        labels = [firing["exp_labels"] for case in expected for firing in case]
        assert any(alert["labels"].items() <= each.items() for each in labels), alert


@CHOICES
def test_each_alert_leads_to_its_section_of_the_runbook(
    generate: Generate, health: str, deployment: str
) -> None:
    project = generate(metrics="prometheus", health=health, deployment=deployment).path
    names = {alert["alert"] for alert in alerts(project)}
    runbook = (project / "docs/runbook.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^## (.*)", runbook, re.MULTILINE)) == sorted(names)
    assert ("ReadinessFailing" in names) == (health == "probes")
    assert (names & OF_KUBERNETES) == (OF_KUBERNETES if deployment == "kubernetes" else set())
    for section in re.split(r"^## .*", runbook, flags=re.MULTILINE)[1:]:
        headings = ["Users see", "Look first", "Act first"]
        assert re.findall(r"^\*\*([\w ]+)", section, re.MULTILINE) == headings


@pytest.mark.full
def test_no_counter_falls_when_a_scrape_ends_between_two_rules(
    generate: Generate, tmp_path: Path
) -> None:
    """As it does now and then; here it does so often, since the scrapes and a rule take long.

    Beside our counters is the difference to what was recorded a moment before, which does fall.
    """
    project = generate(metrics="prometheus", project_slug="order-desk").path
    rules = load(project / "deploy/prometheus/alerts.yml")
    requests, *others = rules["groups"][0]["rules"]
    [slow] = [rule for rule in others if rule["record"] == "instance:http_server_slow:sum"]
    _, fast_requests = slow["expr"].split("\n- ")
    rules["groups"][0]["rules"] = [
        requests,
        {"record": "takes_long", "expr": "count_over_time(vector(1)[400d:1m])"},
        {"record": "late", "expr": f"{requests['record']}\n- {fast_requests}"},
        *others,
    ]
    file = tmp_path / "alerts.yml"
    file.write_text(yaml.safe_dump(rules), encoding="utf-8")
    with (
        two_of_a_hundred_are_slow() as target,
        prometheus.running(
            tmp_path, [target], "500ms", [file], "order-desk", evaluation_interval="700ms"
        ) as server,
    ):
        falls = "resets(late[1m] offset 1s) > 0"
        eventually(lambda: server.query(falls), "a difference that falls")
        for counter in ("requests", "errors", "slow"):
            resets = server.query(f"resets(instance:http_server_{counter}:sum[1m])")
            assert [each["value"][1] for each in resets] == ["0"], counter


SCRAPE_SECONDS = 0.3


@contextmanager
def two_of_a_hundred_are_slow() -> Iterator[str]:
    """Serve the metrics of a service that has a thousand requests a second."""
    name = "http_server_request_duration_seconds"
    labels = 'http_request_method="GET",http_route="/",http_response_status_code="200"'
    start = time.monotonic()

    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(SCRAPE_SECONDS)
            requests = int(1000 * (time.monotonic() - start))
            fast = requests - requests // 50
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            count = f"{name}_count{{{labels}}} {requests}\n"
            bucket = f'{name}_bucket{{{labels},le="0.5"}} {fast}\n'
            with suppress(BrokenPipeError):
                self.wfile.write(f"{count}{bucket}".encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Metrics)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# What fires at once, in one environment: names, and further labels. Of these, the first is
# notified, and each that names a culprit.
CULPRITS = {"InstanceFailing", "EventLoopLag", "RolloutStuck", "MemoryNearLimit"}
INCIDENTS = {
    "down": [
        ("ServiceDown", {"severity": "critical"}),
        ("RolloutStuck", {"severity": "warning"}),
        ("MemoryNearLimit", {"severity": "warning", "pod": "a"}),
        ("ClientErrors", {"severity": "critical"}),
        ("InstanceDown", {"severity": "warning", "instance": "a"}),
        ("AvailabilityBudgetBurn", {"severity": "critical", "window": "1h"}),
    ],
    "burning": [
        ("AvailabilityBudgetBurn", {"severity": "critical", "window": "1h"}),
        ("AvailabilityBudgetBurn", {"severity": "critical", "window": "6h"}),
        ("AvailabilityBudgetBurn", {"severity": "warning", "window": "3d"}),
        ("LatencyBudgetBurn", {"severity": "critical", "window": "1h"}),
        ("InstanceFailing", {"severity": "warning", "instance": "a"}),
    ],
    "slow": [
        ("LatencyBudgetBurn", {"severity": "critical", "window": "6h"}),
        ("LatencyBudgetBurn", {"severity": "warning", "window": "3d"}),
        ("EventLoopLag", {"severity": "warning", "instance": "a"}),
    ],
    "restarting": [
        ("RestartLoop", {"severity": "critical"}),
        ("RestartLoop", {"severity": "warning", "instance": "a"}),
        ("InstanceDown", {"severity": "warning", "instance": "a"}),
        ("AvailabilityBudgetBurn", {"severity": "critical", "window": "1h"}),
    ],
    "not ready": [
        ("ReadinessFailing", {"severity": "critical"}),
        ("ReadinessFailing", {"severity": "warning", "instance": "a"}),
        ("NoRequests", {"severity": "critical"}),
    ],
}


def test_one_incident_is_one_alert_beside_what_names_the_culprit(
    generate: Generate, tmp_path: Path
) -> None:
    """Each in a namespace of its own, and beside it another where only what is minor fires."""
    project = generate(metrics="prometheus", health="probes", project_slug="order-desk").path
    config = project / "deploy/prometheus/alertmanager.yml"
    known = {alert["alert"] for alert in alerts(project)}
    with alertmanager.running(tmp_path, config) as server:
        expected = []
        for namespace, incident in INCIDENTS.items():
            firing = [
                {"alertname": name, "namespace": namespace, "job": "order-desk", **labels}
                for name, labels in incident
            ]
            assert {alert["alertname"] for alert in firing} <= known
            elsewhere = firing[-1] | {"namespace": f"{namespace} elsewhere"}
            server.fire(*reversed(firing), elsewhere)
            culprits = [alert for alert in firing if alert["alertname"] in CULPRITS]
            expected += [firing[0], *culprits, elsewhere]

        def only_one_each() -> bool:
            return by_name(server.active()) == by_name(expected)

        eventually(only_one_each, "one alert for each incident")


def by_name(alerts: list[dict[str, str]]) -> list[list[tuple[str, str]]]:
    return sorted(sorted(alert.items()) for alert in alerts)


def test_only_production_wakes_somebody_up(generate: Generate) -> None:
    project = generate(metrics="prometheus")
    config = project.path / "deploy/prometheus/alertmanager.yml"
    assert "SUCCESS" in alertmanager.amtool("check-config", config)
    for severity, namespace, receiver in [
        ("critical", project.slug, "on-call"),
        ("warning", project.slug, "team"),
        ("critical", "staging", "team"),
    ]:
        alertmanager.amtool(
            "config",
            "routes",
            "test",
            f"--config.file={config}",
            f"--verify.receivers={receiver}",
            f"severity={severity}",
            f"namespace={namespace}",
        )
