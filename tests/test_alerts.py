"""Alert rules: promtool's own tests of them, and what a person who is woken up gets to read."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from .backends import prometheus
from .conftest import Generate

# All that alerts depend on.
HEALTH = pytest.mark.parametrize("health", ["probes", "none"])
SEVERITIES = {"critical", "warning"}


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def alerts(project: Path) -> list[dict[str, Any]]:
    groups = load(project / "deploy/prometheus/alerts.yml")["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


@HEALTH
def test_promtool_finds_nothing(generate: Generate, health: str) -> None:
    rules = generate(metrics="prometheus", health=health).path / "deploy/prometheus/alerts.yml"
    output = prometheus.promtool("check", "rules", "--lint=all", "--lint-fatal", rules)
    assert "SUCCESS" in output


@HEALTH
def test_alerts_fire_when_they_must_and_only_then(generate: Generate, health: str) -> None:
    tests = generate(metrics="prometheus", health=health).path / "deploy/prometheus/alerts_test.yml"
    assert "SUCCESS" in prometheus.promtool("test", "rules", tests)


@HEALTH
def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_not(
    generate: Generate, health: str
) -> None:
    project = generate(metrics="prometheus", health=health).path
    cases = [
        case
        for test in load(project / "deploy/prometheus/alerts_test.yml")["tests"]
        for case in test["alert_rule_test"]
    ]
    for alert in alerts(project):
        expected = [case["exp_alerts"] for case in cases if case["alertname"] == alert["alert"]]
        assert [] in expected, alert["alert"]
        labels = [firing["exp_labels"] for case in expected for firing in case]
        assert any(alert["labels"].items() <= each.items() for each in labels), alert


@HEALTH
def test_each_alert_says_what_it_is_and_leads_to_its_section_of_the_runbook(
    generate: Generate, health: str
) -> None:
    project = generate(metrics="prometheus", health=health).path
    for alert in alerts(project):
        assert alert["labels"]["severity"] in SEVERITIES
        annotations = alert["annotations"]
        assert {"summary", "description", "runbook_url"} == annotations.keys()
        assert annotations["runbook_url"] == f"docs/runbook.md#{alert['alert'].lower()}"
    names = {alert["alert"] for alert in alerts(project)}
    runbook = (project / "docs/runbook.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^## (.*)", runbook, re.MULTILINE)) == sorted(names)
    assert ("ReadinessFailing" in names) == (health == "probes")
