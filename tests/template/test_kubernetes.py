"""Whether the manifests agree with the service they deploy; test_apiserver.py applies them."""

import copy
import json
import math
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_validate import SchemaNotFoundError
from tornado_chassis import connections, limits, server, websockets

from ..backends import answers as is_answered
from ..backends import free_port
from ..backends.containers import containers
from ..backends.kubernetes import Manifest, kustomize, problem
from . import combinations
from .conftest import Generate
from .project import Project, setting_fields
from .test_container import each_choice_with, lock

BASE = Path("deploy", "kubernetes", "base")
OVERLAYS = Path("deploy", "kubernetes", "overlays")
PRODUCTION, MONITORING = OVERLAYS / "production", OVERLAYS / "monitoring"
# The oldest that docs/deployment.md names. A real API server of a new one takes them all.
OLDEST_KUBERNETES = "1.26"
# The phases of a stop after the delay and the timeout, by the name of their bound in server.py and
# how often it is waited for: waiting for idle connections is part of the timeout, and for looking
# after the signals nothing waits.
PHASES = {
    "CLOSE_SECONDS": 4,
    "FLUSH_SECONDS": 1,
    "IDLE_GRACE_SECONDS": 0,
    "SHORT_GRACE_SECONDS": 0,
    "REPORT_SECONDS": 0,
    "KEEP_SECONDS": 0,
}
# For the service's own shutdown callbacks, and for the interpreter.
SPARE_SECONDS = 5
# What a process takes with every feature on, and what it takes more for each request in flight and
# each connection, beside bodies and headers. Rounded up from what was measured.
BASE_MIB = 96
REQUEST_KIB = 64
CONNECTION_KIB = 8


@dataclass
class Deployed:
    """A base or an overlay of a project, as it would be applied."""

    manifests: list[Manifest]

    def all(self, kind: str) -> list[Manifest]:
        return [each for each in self.manifests if each["kind"] == kind]

    def one(self, kind: str) -> Manifest:
        """The only one of its kind, or the first: the dashboard is a ConfigMap, too."""
        return self.all(kind)[0]

    @property
    def pod(self) -> Any:
        return self.one("Deployment")["spec"]["template"]["spec"]

    @property
    def container(self) -> Any:
        [container] = self.pod["containers"]
        return container

    @property
    def settings(self) -> dict[str, str]:
        """The environment of a container, without what is known in a cluster only."""
        name = self.container["envFrom"][0]["configMapRef"]["name"]
        [config] = [each for each in self.all("ConfigMap") if each["metadata"]["name"] == name]
        data: dict[str, str] = dict(config["data"])
        for variable in self.container.get("env", []):
            # As the kubelet does it: a reference may be to what is already there, by any name.
            text = variable.get("value", "")
            text = re.sub(r"\$\((\w+)\)", lambda match: data.get(match[1], match[0]), text)
            data[variable["name"]] = text
        return data

    @property
    def ports(self) -> dict[str, int]:
        return {each["name"]: each["containerPort"] for each in self.container["ports"]}

    @property
    def probes(self) -> list[dict[str, Any]]:
        return [probe for key, probe in self.container.items() if key.endswith("Probe")]


def deployed(project: Project, place: Path = PRODUCTION) -> Deployed:
    return Deployed(kustomize(project.path / place))


with_kubernetes = each_choice_with("kubernetes")


@with_kubernetes
def test_oldest_kubernetes_knows_every_field(
    generate: Generate, answers: combinations.Answers
) -> None:
    for manifest in deployed(generate(**answers)).manifests:
        # Only the Prometheus Operator's have no schema here.
        with suppress(SchemaNotFoundError):
            assert problem(manifest, OLDEST_KUBERNETES) == ""


@with_kubernetes
def test_manifests_agree_with_the_service(
    generate: Generate, answers: combinations.Answers
) -> None:
    project = generate(**answers)
    found = deployed(project)
    settings, container = found.settings, found.container
    policy = found.one("NetworkPolicy")["spec"]

    used = re.findall(r"\$\((\w+)\)", str(container.get("env")))
    assert settings.keys() - set(used) <= {field.upper() for field in setting_fields(project.path)}
    expected = {"http": settings["PORT"], "admin": settings.get("ADMIN_PORT")}
    assert found.ports == {name: int(port) for name, port in expected.items() if port}
    opened = {
        each["port"]: rule.get("from") for rule in policy["ingress"] for each in rule["ports"]
    }
    scraped = {"admin"} if answers["metrics"] == "prometheus" else set()
    assert opened.keys() == {"http"} | scraped
    assert opened["http"] is None
    assert opened.get("admin", True)
    services = found.all("Service")
    targets = [port["targetPort"] for each in services for port in each["spec"]["ports"]]
    assert sorted(targets) == sorted(opened)
    for monitor in found.all("ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        [service] = [each for each in services if wanted <= each["metadata"]["labels"].items()]
        assert [each["name"] for each in service["spec"]["ports"]] == ["admin"]

    page = (project.path / "docs/deployment.md").read_text(encoding="utf-8")
    assert ("admin port" in page.lower()) == ("admin" in found.ports)
    assert ("- **Probes** ask" in page) == any("httpGet" in each for each in found.probes)

    # Whom the settings name can be reached.
    egress = str(policy["egress"])
    for name, value in settings.items():
        address = re.fullmatch(
            r"(?:http://)?[\w-]+\.(?P<namespace>[a-z]+)(?::(\d+))?(?:/.*)?", value
        )
        if address and name.endswith(("_HOST", "ENDPOINT")):
            assert f"'kubernetes.io/metadata.name': '{address[1]}'" in egress, name
            assert f"'port': {address[2] or settings.get('STATSD_PORT', '8125')}" in egress, name

    bounds = {name: value for name, value in vars(server).items() if name.endswith("_SECONDS")}
    assert bounds.keys() == PHASES.keys()
    longest = sum(count * bounds[name] for name, count in PHASES.items()) + SPARE_SECONDS
    longest += float(settings["DRAIN_DELAY_SECONDS"]) + float(settings["DRAIN_TIMEOUT_SECONDS"])
    assert found.pod["terminationGracePeriodSeconds"] >= longest

    kib = int(settings["MAX_REQUESTS_IN_FLIGHT"]) * REQUEST_KIB
    headers = connections.LIMITS["max_header_size"] / 2**10
    kib += int(settings["MAX_CONNECTIONS"]) * (CONNECTION_KIB + headers)
    held = (limits.MAX_BODY_BYTES + websockets.MAX_WEBSOCKET_BYTES) / 2**20
    memory = container["resources"]["limits"]["memory"]
    assert int(memory.removesuffix("Mi")) >= BASE_MIB + held + kib / 2**10

    # On a busy node a pod has what it requests. Where that is less than the target (and the tenth
    # by which an autoscaler tolerates to miss it), saturated pods look idle to it.
    [metric] = found.one("HorizontalPodAutoscaler")["spec"]["metrics"]
    target = cores(metric["resource"]["target"]["averageValue"])
    assert math.ceil(6 * cores(container["resources"]["requests"]["cpu"]) / target) > 6 * 1.1


def cores(quantity: str) -> float:
    return float(quantity.removesuffix("m")) / 1000 if quantity.endswith("m") else float(quantity)


def test_rules_and_dashboard_are_those_of_the_files(generate: Generate) -> None:
    project = generate()
    found, deploy = deployed(project, MONITORING), project.path / "deploy"
    rules = yaml.safe_load((deploy / "prometheus/alerts.yml").read_text(encoding="utf-8"))
    assert found.one("PrometheusRule")["spec"] == rules
    path = deploy / "grafana/dashboards" / f"{project.slug}.json"
    assert {path.name: path.read_text(encoding="utf-8")} in [
        each["data"] for each in found.all("ConfigMap")
    ]


def test_changed_secret_and_changed_setting_are_rolled_out(generate: Generate) -> None:
    project = generate()
    pods = [deployed(project).pod]
    for name, old, new in (
        ("kustomization.yaml", f"{project.slug}-1", f"{project.slug}-2"),
        ("settings.env", "ENVIRONMENT=production", "ENVIRONMENT=other"),
    ):
        path = project.path / PRODUCTION / name
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1
        path.write_text(text.replace(old, new), encoding="utf-8")
        pod = deployed(project).pod
        assert pod not in pods, f"{name}: no pod would be replaced"
        pods.append(pod)
    # The page has the name that the overlay has.
    page = (project.path / "docs/deployment.md").read_text(encoding="utf-8")
    assert f"create secret generic {project.slug}-1 " in page


@with_kubernetes
def test_service_runs_with_the_settings_of_production(
    generate: Generate, answers: combinations.Answers
) -> None:
    project = generate(**answers)
    found = deployed(project)
    # Not on this machine's other addresses, and without waiting for balancers that are not there.
    local = {"HOST", "PORT", "ADMIN_HOST", "ADMIN_PORT", "DRAIN_DELAY_SECONDS"}
    settings = {name: text for name, text in found.settings.items() if name not in local}
    with project.start(**settings) as service:
        assert service.get("/")[0] == 200
        for probe in found.probes:
            if "httpGet" in probe:
                admin = probe["httpGet"]["port"] == "admin"
                assert service.get(probe["httpGet"]["path"], admin=admin)[0] == 200
        for monitor in found.all("ServiceMonitor"):
            [endpoint] = monitor["spec"]["endpoints"]
            assert service.get(endpoint["path"], admin=True)[0] == 200
        assert service.terminate() == 0


@pytest.mark.full
@pytest.mark.parametrize("metrics", ["prometheus", "statsd"])
def test_pod_really_runs(generate: Generate, tmp_path: Path, metrics: str) -> None:
    project = generate(deployment="kubernetes", health="probes", metrics=metrics)
    found = deployed(project)
    published = {name: free_port() for name in found.ports}
    with containers(tmp_path / "containers") as machine:
        lock(project.path)
        machine.build(project.path, found.container["image"])
        manifest = tmp_path / "production.yaml"
        manifest.write_text(yaml.safe_dump_all(playable(found, published)), encoding="utf-8")
        # Production does not start without what nobody should read.
        with pytest.raises(RuntimeError, match=f"no secret with name or id .{project.slug}-1"):
            machine.playing(manifest).__enter__()
        secret = tmp_path / "secret.json"
        secret.write_text(json.dumps({"SENTRY_DSN": ""}))
        machine.podman("secret", "create", f"{project.slug}-1", str(secret))
        with machine.playing(manifest) as [container]:
            probes = [
                f"http://127.0.0.1:{published[probe['httpGet']['port']]}{probe['httpGet']['path']}"
                for probe in found.probes
            ]
            assert len(probes) == 3
            container.wait_for(lambda: all(is_answered(url) for url in probes))

            host = container.inspect()["HostConfig"]
            assert host["ReadonlyRootfs"]
            assert "no-new-privileges" in host["SecurityOpt"]
            assert container.execute("id", "-u").strip() == "10001"
            status = container.execute("cat", "/proc/1/status")
            assert re.findall(r"Cap(?:Prm|Eff|Bnd):\s*(\w+)", status) == ["0" * 16] * 3
            assert re.findall(r"Seccomp:\s*(\d)", status) == ["2"]

            assert container.stop(found.pod["terminationGracePeriodSeconds"]) == 0


def playable(found: Deployed, published: dict[str, int]) -> list[Manifest]:
    """The manifests for podman: with ports published, and without probes, which it has systemd run.

    Kinds that podman has no use for are taken, too, and do nothing.
    """
    played = copy.deepcopy(found)
    container = played.container
    for port in container["ports"]:
        port |= {"hostIP": "127.0.0.1", "hostPort": published[port["name"]]}
    for name in [name for name in container if name.endswith("Probe")]:
        del container[name]
    return played.manifests
