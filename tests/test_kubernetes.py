"""The manifests: what Kubernetes takes, and whether they agree with each other and the service."""

import ast
import copy
import http.client
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_validate import SchemaNotFoundError, latest_version

from . import combinations
from .backends import answers as is_answered
from .backends import free_port
from .backends.containers import containers
from .backends.kubernetes import Manifest, kustomize, problem
from .conftest import Generate
from .project import setting_fields

BASE = Path("deploy", "kubernetes", "base")
PRODUCTION = Path("deploy", "kubernetes", "overlays", "production")
# The oldest that is tried has all fields that are used.
VERSIONS = ("1.28", latest_version())
# Of the Prometheus Operator.
CUSTOM = {"ServiceMonitor"}
NAME = "app.kubernetes.io/name"
# The phases of a stop after the delay and the timeout, by the name of their bound in server.py and
# how often it is waited for; waiting for idle connections is part of the timeout.
PHASES = {
    "CLOSE_SECONDS": 4,
    "FLUSH_SECONDS": 1,
    "IDLE_GRACE_SECONDS": 0,
    "SHORT_GRACE_SECONDS": 0,
    "REPORT_SECONDS": 0,
}
# What a process takes with every feature on, and what it takes more for each request in flight and
# each connection, beside bodies and headers. Rounded up from what was measured.
BASE_MIB = 96
REQUEST_KIB = 64
CONNECTION_KIB = 8
# For the service's own shutdown callbacks, and for the interpreter.
SPARE_SECONDS = 5


@dataclass
class Deployed:
    """A base or an overlay of a project, as it would be applied."""

    project: Path
    answers: combinations.Answers
    manifests: list[Manifest]

    @property
    def slug(self) -> str:
        return self.project.name

    def all(self, *kinds: str) -> list[Manifest]:
        return [each for each in self.manifests if each["kind"] in kinds]

    def one(self, kind: str) -> Manifest:
        [manifest] = self.all(kind)
        return manifest

    @property
    def pod(self) -> dict[str, Any]:
        pod: dict[str, Any] = self.one("Deployment")["spec"]["template"]
        return pod

    @property
    def container(self) -> dict[str, Any]:
        container: dict[str, Any]
        [container] = self.pod["spec"]["containers"]
        return container

    @property
    def settings(self) -> dict[str, str]:
        """The environment of a container, without what is known in a cluster only."""
        variables = {each["name"]: each.get("value", "") for each in self.container.get("env", [])}
        data: dict[str, str] = self.one("ConfigMap")["data"]
        return data | variables

    @property
    def ports(self) -> dict[str, int]:
        return {each["name"]: each["containerPort"] for each in self.container["ports"]}

    @property
    def probes(self) -> dict[str, dict[str, Any]]:
        return {key: probe for key, probe in self.container.items() if key.endswith("Probe")}

    def source(self, name: str) -> ast.Module:
        """A module of the chassis."""
        [path] = self.project.glob(f"src/*/chassis/{name}")
        return ast.parse(path.read_text(encoding="utf-8"))


Check = Callable[[Deployed], Iterator[str]]


def schemas(deployed: Deployed) -> Iterator[str]:
    for version in VERSIONS:
        for manifest in deployed.manifests:
            try:
                if found := problem(manifest, version):
                    yield f"{version}: {found}"
            except SchemaNotFoundError:
                if manifest["kind"] not in CUSTOM:
                    yield f"{version}: has no {manifest['apiVersion']} {manifest['kind']}"


def labels(deployed: Deployed) -> Iterator[str]:
    for manifest in deployed.manifests:
        if manifest["metadata"].get("labels", {}).get(NAME) != deployed.slug:
            yield f"{manifest['kind']} has no label {NAME}"


def selectors(deployed: Deployed) -> Iterator[str]:
    """Everything that selects pods selects these."""
    selected = {
        each["metadata"]["name"]: each["spec"]["selector"] for each in deployed.all("Service")
    }
    for kind in ("Deployment", "PodDisruptionBudget"):
        selected[kind] = deployed.one(kind)["spec"]["selector"]["matchLabels"]
    policy = deployed.one("NetworkPolicy")
    selected["NetworkPolicy"] = policy["spec"]["podSelector"]["matchLabels"]
    for spread in deployed.pod["spec"]["topologySpreadConstraints"]:
        selected[spread["topologyKey"]] = spread["labelSelector"]["matchLabels"]
    for name, selector in selected.items():
        if not selector or not selector.items() <= deployed.pod["metadata"]["labels"].items():
            yield f"{name} selects other pods: {selector}"


def ports(deployed: Deployed) -> Iterator[str]:
    """Ports are named, the names are the container's, and the service listens on these."""
    named = [
        port["targetPort"] for each in deployed.all("Service") for port in each["spec"]["ports"]
    ]
    named += [
        each["port"]
        for rule in deployed.one("NetworkPolicy")["spec"]["ingress"]
        for each in rule["ports"]
    ]
    named += [
        probe["httpGet" if "httpGet" in probe else "tcpSocket"]["port"]
        for probe in deployed.probes.values()
    ]
    for name in named:
        if name not in deployed.ports:
            yield f"the container has no port {name}"
    listening = {"http": deployed.settings["PORT"], "admin": deployed.settings.get("ADMIN_PORT")}
    expected = {name: int(port) for name, port in listening.items() if port}
    if deployed.ports != expected:
        yield f"the container has the ports {deployed.ports}, its settings are {expected}"


def probes(deployed: Deployed) -> Iterator[str]:
    paths = {
        name: probe["httpGet"]["path"]
        for name, probe in deployed.probes.items()
        if "httpGet" in probe and probe["httpGet"]["port"] == "http"
    }
    expected = {
        "startupProbe": "/livez",
        "livenessProbe": "/livez",
        "readinessProbe": "/readyz",
    }
    if deployed.answers["health"] == "none":
        if deployed.probes.keys() != {"startupProbe"} or paths:
            yield f"there is nothing to ask: {deployed.probes}"
        return
    if paths != expected or deployed.probes.keys() != expected.keys():
        yield f"other paths: {paths}"
    [routes] = (
        node
        for node in ast.walk(deployed.source("health.py"))
        if isinstance(node, ast.FunctionDef) and node.name == "routes"
    )
    there = {node.value for node in ast.walk(routes) if isinstance(node, ast.Constant)}
    for path in paths.values():
        if path not in there:
            yield f"no route {path}"


def configuration(deployed: Deployed) -> Iterator[str]:
    """What the environment says is a setting, unless another variable is made of it."""
    fields = {field.upper() for field in setting_fields(deployed.project)}
    used = re.findall(r"\$\((\w+)\)", " ".join(deployed.settings.values()))
    for name in deployed.settings.keys() - fields - set(used):
        yield f"{name} is no setting"
    for name in set(used) - deployed.settings.keys():
        yield f"there is no variable {name}"
    plain, secret = deployed.container["envFrom"]
    if plain["configMapRef"]["name"] != deployed.one("ConfigMap")["metadata"]["name"]:
        yield "the ConfigMap has another name"
    if secret["secretRef"] != {"name": deployed.slug, "optional": True}:
        yield "a Secret that is not there would keep the pods from starting"
    if deployed.settings["HOST"] != "0.0.0.0":
        yield "nobody could connect"


def exposure(deployed: Deployed) -> Iterator[str]:
    """Who reaches the main port: all; the admin port: the scraper, and nobody if there is none."""
    scraped = deployed.answers["metrics"] == "prometheus"
    if not reaches(deployed, "http", "elsewhere"):
        yield "the main port is closed"
    if reaches(deployed, "admin", "elsewhere"):
        yield "the admin port is open"
    if reaches(deployed, "admin", "monitoring") != scraped:
        yield "the admin port is not the scraper's"
    if "admin" in deployed.ports:
        host = "0.0.0.0" if scraped else "127.0.0.1"
        if deployed.settings["ADMIN_HOST"] != host:
            yield f"the admin port should listen on {host}"
    for service in deployed.all("Service"):
        if service["spec"].get("type", "ClusterIP") != "ClusterIP":
            yield f"{service['metadata']['name']} is reached from outside of the cluster"
    [main] = [each for each in deployed.all("Service") if each["metadata"]["name"] == deployed.slug]
    if [each["targetPort"] for each in main["spec"]["ports"]] != ["http"]:
        yield "the main Service should have the main port, and no other"


def reaches(deployed: Deployed, port: str, namespace: str) -> bool:
    """Whether the policy lets pods of a namespace connect to the port."""
    policy = deployed.one("NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    for rule in policy["ingress"]:
        names = [
            peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
            for peer in rule.get("from", [])
        ]
        is_from = not names or namespace in names
        is_to = not rule.get("ports") or port in [each["port"] for each in rule["ports"]]
        if is_from and is_to:
            return True
    return False


def scraping(deployed: Deployed) -> Iterator[str]:
    """A ServiceMonitor finds one Service, and in it the port."""
    monitors = deployed.all("ServiceMonitor")
    if deployed.answers["metrics"] != "prometheus":
        if monitors or len(deployed.all("Service")) > 1:
            yield "there is nothing to scrape"
        return
    for monitor in monitors:
        spec = monitor["spec"]
        if spec.keys() != {"jobLabel", "selector", "endpoints"}:
            yield f"ServiceMonitor has the fields {sorted(spec)}"
        wanted = spec["selector"]["matchLabels"].items()
        services = [
            each for each in deployed.all("Service") if wanted <= each["metadata"]["labels"].items()
        ]
        if len(services) != 1:
            yield f"ServiceMonitor selects {len(services)} Services"
            continue
        there = {each["name"]: each["targetPort"] for each in services[0]["spec"]["ports"]}
        for endpoint in spec["endpoints"]:
            if there.get(endpoint["port"]) != "admin" or endpoint["path"] != "/metrics":
                yield f"ServiceMonitor scrapes {endpoint}"
        if services[0]["metadata"]["labels"].get(spec["jobLabel"]) != deployed.slug:
            yield "the job has another name than the service"


def stopping(deployed: Deployed) -> Iterator[str]:
    """All that a stop may take is over before the kernel ends the process."""
    bounds = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in deployed.source("server.py").body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id.endswith("_SECONDS")
    }
    if bounds.keys() != PHASES.keys():
        yield f"server.py has other phases: {bounds}"
        return
    longest = sum(count * bounds[name] for name, count in PHASES.items()) + SPARE_SECONDS
    longest += float(deployed.settings["DRAIN_DELAY_SECONDS"])
    longest += float(deployed.settings["DRAIN_TIMEOUT_SECONDS"])
    grace = deployed.pod["spec"]["terminationGracePeriodSeconds"]
    if grace < longest:
        yield f"terminationGracePeriodSeconds is {grace}, a stop takes up to {longest}"


def memory(deployed: Deployed) -> Iterator[str]:
    """All that clients may have a process hold at once fits into its memory."""
    [bodies] = (
        eval(compile(ast.Expression(node.value), "admission.py", "eval"))  # noqa: S307
        for node in deployed.source("admission.py").body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == "MAX_BODY_BYTES"
    )
    [headers] = (
        eval(compile(ast.Expression(value), "connections.py", "eval"))  # noqa: S307
        for node in ast.walk(deployed.source("connections.py"))
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant) and key.value == "max_header_size"
    )
    most = BASE_MIB + bodies / 2**20
    most += int(deployed.settings["MAX_REQUESTS_IN_FLIGHT"]) * REQUEST_KIB / 2**10
    most += int(deployed.settings["MAX_CONNECTIONS"]) * (CONNECTION_KIB + headers / 2**10) / 2**10
    limit = deployed.container["resources"]["limits"].get("memory", "0Mi")
    if not limit.endswith("Mi") or int(limit.removesuffix("Mi")) < most:
        yield f"the memory limit is {limit}, clients may have the process take {most:.0f} MiB"


def replicas(deployed: Deployed) -> Iterator[str]:
    """Scaled by the CPU; neither a rollout nor a drained node takes the last replica."""
    deployment = deployed.one("Deployment")
    scaler = deployed.one("HorizontalPodAutoscaler")["spec"]
    target = {"kind": "Deployment", "apiVersion": deployment["apiVersion"]}
    if scaler["scaleTargetRef"] != target | {"name": deployment["metadata"]["name"]}:
        yield f"the autoscaler scales {scaler['scaleTargetRef']}"
    if "replicas" in deployment["spec"]:
        yield "each deployment would undo what the autoscaler did"
    if not 2 <= scaler["minReplicas"] < scaler["maxReplicas"]:
        yield "there should be two replicas or more, and room to grow"
    [metric] = scaler["metrics"]
    if metric["resource"]["name"] not in deployed.container["resources"]["requests"]:
        yield "what it scales by is not requested"
    budget = deployed.one("PodDisruptionBudget")["spec"]
    if not 1 <= budget.get("maxUnavailable", 0) < scaler["minReplicas"]:
        yield f"the budget keeps a node from being drained, or lets all pods go: {budget}"
    rollout = deployment["spec"]["strategy"]["rollingUpdate"]
    if rollout["maxUnavailable"] != 0 or rollout["maxSurge"] in (0, "0%"):
        yield f"a rollout takes pods away, or cannot begin: {rollout}"


def restrictions(deployed: Deployed) -> Iterator[str]:
    """The Pod Security Standard `restricted`, and a little more."""
    pod, container = deployed.pod["spec"], deployed.container
    user = pod["securityContext"]
    if not user["runAsNonRoot"] or user["seccompProfile"] != {"type": "RuntimeDefault"}:
        yield f"the pod is not restricted: {user}"
    restricted = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    if container["securityContext"] != restricted:
        yield f"the container is not restricted: {container['securityContext']}"
    for field in ("automountServiceAccountToken", "enableServiceLinks"):
        if pod.get(field, True):
            yield f"{field} is on"
    if {"hostNetwork", "hostPID", "hostIPC", "volumes"} & pod.keys():
        yield "the pod has something of its node"
    if "memory" not in container["resources"]["limits"]:
        yield "one pod may take all memory of a node"


def image(deployed: Deployed) -> Iterator[str]:
    """The user is the image's own."""
    dockerfile = (deployed.project / "Dockerfile").read_text(encoding="utf-8")
    user = deployed.pod["spec"]["securityContext"]
    if re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE)[-1] != (
        f"{user['runAsUser']}:{user['runAsGroup']}"
    ):
        yield "the user is another one than in the Dockerfile"
    name, _, tag = deployed.container["image"].partition(":")
    if name.rpartition("/")[2] != deployed.slug or tag == "latest":
        yield f"another image: {deployed.container['image']}"


CHECKS: list[Check] = [
    schemas,
    labels,
    selectors,
    ports,
    probes,
    configuration,
    exposure,
    scraping,
    stopping,
    memory,
    replicas,
    restrictions,
    image,
]


def with_kubernetes(sample: list[combinations.Answers]) -> list[combinations.Answers]:
    return [answers | {"deployment": "kubernetes"} for answers in sample]


@pytest.mark.parametrize("answers", with_kubernetes(combinations.sample()), ids=combinations.name)
def test_manifests_agree(generate: Generate, answers: combinations.Answers) -> None:
    project = generate(**answers).path
    base, production = (
        Deployed(project, answers, kustomize(project / each)) for each in (BASE, PRODUCTION)
    )
    problems = [
        f"{where}: {check.__name__}: {found}"
        for where, deployed in {"base": base, "production": production}.items()
        for check in CHECKS
        for found in check(deployed)
    ]
    assert not problems, "\n".join(problems)

    # Alike but for what the overlay is there to show.
    assert {each["metadata"].get("namespace") for each in base.manifests} == {None}
    assert {each["metadata"]["namespace"] for each in production.manifests} == {project.name}
    assert production.settings.items() > base.settings.items()
    assert production.settings["ENVIRONMENT"] == "production"
    assert production.container["image"] == f"registry.example.com/{project.name}:0.1.0"
    kinds = [each["kind"] for each in base.manifests]
    custom = sorted(CUSTOM) if answers["metrics"] == "prometheus" else []
    assert sorted([*kinds, *custom]) == sorted(each["kind"] for each in production.manifests)


@pytest.mark.parametrize("slug", ["null", "yes", "x", "a" * 32])
def test_any_slug_is_a_name(generate: Generate, slug: str) -> None:
    answers = {"health": "probes", "metrics": "prometheus"}
    project = generate(project_slug=slug, **answers).path
    deployed = Deployed(project, answers, kustomize(project / PRODUCTION))
    problems = [found for check in CHECKS for found in check(deployed)]
    assert not problems, "\n".join(problems)
    for manifest in deployed.manifests:
        assert len(manifest["metadata"]["name"]) <= 63


@pytest.mark.parametrize("choice", ["docker", "none"])
def test_nothing_without_kubernetes(generate: Generate, choice: str) -> None:
    assert not (generate(deployment=choice).path / "deploy" / "kubernetes").exists()


MONITORING = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
# A way to the place in a manifest, and what it should not be: the checks must find it.
FAULTS: list[tuple[Check, str, str, Any]] = [
    (schemas, "Deployment", "spec.template.spec.containers.0.livenessprobe", {}),
    (schemas, "HorizontalPodAutoscaler", "apiVersion", "autoscaling/v2beta2"),
    (schemas, "PodDisruptionBudget", "spec.maxUnavailable", [1]),
    (labels, "ConfigMap", "metadata.labels", {}),
    (selectors, "Service", "spec.selector", {NAME: "other"}),
    (selectors, "PodDisruptionBudget", "spec.selector.matchLabels", {}),
    (selectors, "NetworkPolicy", "spec.podSelector.matchLabels", {NAME: "other"}),
    (selectors, "Deployment", "spec.template.metadata.labels", {NAME: "other"}),
    (ports, "Service", "spec.ports.0.targetPort", "https"),
    (ports, "NetworkPolicy", "spec.ingress.1.ports.0.port", "metrics"),
    (ports, "ConfigMap", "data.PORT", "8080"),
    (ports, "ConfigMap", "data.ADMIN_PORT", "8002"),
    (ports, "Deployment", "spec.template.spec.containers.0.ports.0.name", "web"),
    (probes, "Deployment", "spec.template.spec.containers.0.readinessProbe.httpGet.path", "/"),
    (probes, "Deployment", "spec.template.spec.containers.0.livenessProbe.httpGet.port", "admin"),
    (probes, "Deployment", "spec.template.spec.containers.0.startupProbe.httpGet", None),
    (configuration, "ConfigMap", "data.LOGLEVEL", "INFO"),
    (configuration, "ConfigMap", "data.HOST", "127.0.0.1"),
    (configuration, "ConfigMap", "data.ENVIRONMENT", "$(CLUSTER)"),
    (configuration, "ConfigMap", "metadata.name", "other"),
    (configuration, "Deployment", "spec.template.spec.containers.0.envFrom.1.secretRef", {}),
    (exposure, "NetworkPolicy", "spec.ingress.1.from", []),
    (exposure, "NetworkPolicy", "spec.ingress.0.ports", []),
    (exposure, "NetworkPolicy", "spec.ingress.0.ports.0.port", "admin"),
    (exposure, "NetworkPolicy", "spec.ingress.0.from", [MONITORING]),
    (exposure, "ConfigMap", "data.ADMIN_HOST", "127.0.0.1"),
    (exposure, "Service", "spec.type", "LoadBalancer"),
    (exposure, "Service", "spec.ports.0.targetPort", "admin"),
    (scraping, "ServiceMonitor", "spec.selector.matchLabels", {NAME: "my-service"}),
    (scraping, "ServiceMonitor", "spec.endpoints.0.port", "http"),
    (scraping, "ServiceMonitor", "spec.endpoints.0.path", "/"),
    (scraping, "ServiceMonitor", "spec.jobLabel", "job"),
    (stopping, "ConfigMap", "data.DRAIN_TIMEOUT_SECONDS", "25"),
    (stopping, "ConfigMap", "data.DRAIN_DELAY_SECONDS", "10"),
    (stopping, "Deployment", "spec.template.spec.terminationGracePeriodSeconds", 30),
    (memory, "ConfigMap", "data.MAX_REQUESTS_IN_FLIGHT", "1000"),
    (memory, "ConfigMap", "data.MAX_CONNECTIONS", "2000"),
    (memory, "Deployment", "spec.template.spec.containers.0.resources.limits.memory", "128Mi"),
    (replicas, "HorizontalPodAutoscaler", "spec.scaleTargetRef.name", "other"),
    (replicas, "HorizontalPodAutoscaler", "spec.minReplicas", 1),
    (replicas, "HorizontalPodAutoscaler", "spec.metrics.0.resource.name", "gpu"),
    (replicas, "PodDisruptionBudget", "spec.maxUnavailable", 0),
    (replicas, "PodDisruptionBudget", "spec.maxUnavailable", 3),
    (replicas, "Deployment", "spec.replicas", 3),
    (replicas, "Deployment", "spec.strategy.rollingUpdate.maxUnavailable", 1),
    (restrictions, "Deployment", "spec.template.spec.securityContext.runAsNonRoot", False),
    (restrictions, "Deployment", "spec.template.spec.containers.0.securityContext", {}),
    (restrictions, "Deployment", "spec.template.spec.enableServiceLinks", True),
    (restrictions, "Deployment", "spec.template.spec.hostNetwork", True),
    (restrictions, "Deployment", "spec.template.spec.containers.0.resources.limits", {}),
    (image, "Deployment", "spec.template.spec.securityContext.runAsUser", 1000),
    (image, "Deployment", "spec.template.spec.containers.0.image", "my-service:latest"),
]


def test_each_check_finds_its_fault(generate: Generate) -> None:
    answers = {"health": "probes", "metrics": "prometheus"}
    project = generate(**answers).path
    deployed = Deployed(project, answers, kustomize(project / PRODUCTION))
    for check in CHECKS:
        assert list(check(deployed)) == []
    for check, kind, way, value in FAULTS:
        broken = copy.deepcopy(deployed)
        place: Any = broken.all(kind)[0]
        *steps, last = way.split(".")
        for step in steps:
            place = place[int(step) if step.isdigit() else step]
        if value is None:
            del place[last]
        else:
            place[last] = value
        assert list(check(broken)), f"{check.__name__} did not find {way} = {value!r} in {kind}"
    assert {check for check, *_ in FAULTS} == set(CHECKS)


@pytest.mark.parametrize(
    "answers", with_kubernetes(combinations.each_choice()), ids=combinations.name
)
def test_service_runs_with_the_settings_of_production(
    generate: Generate, answers: combinations.Answers
) -> None:
    project = generate(**answers)
    deployed = Deployed(project.path, answers, kustomize(project.path / PRODUCTION))
    # Not on this machine's other addresses, and without waiting for balancers that are not there.
    local = {"HOST", "PORT", "ADMIN_HOST", "ADMIN_PORT", "DRAIN_DELAY_SECONDS"}
    settings = {name: text for name, text in deployed.settings.items() if name not in local}
    with project.start(**settings) as service:
        # First, as the admin port is opened after the main one, and before that is answered.
        assert service.get("/")[0] == 200
        for probe in deployed.probes.values():
            if "httpGet" in probe:
                assert service.get(probe["httpGet"]["path"])[0] == 200
        for monitor in deployed.all("ServiceMonitor"):
            [endpoint] = monitor["spec"]["endpoints"]
            assert service.get(endpoint["path"], admin=True)[0] == 200
        assert service.terminate() == 0


@pytest.mark.full
@pytest.mark.parametrize("metrics", ["prometheus", "statsd"])
def test_pod_really_runs(generate: Generate, tmp_path: Path, metrics: str) -> None:
    answers = {"deployment": "kubernetes", "health": "probes", "metrics": metrics}
    project = generate(**answers).path
    deployed = Deployed(project, answers, kustomize(project / PRODUCTION))
    published = {name: free_port() for name in deployed.ports}
    with containers(tmp_path / "containers") as machine:
        machine.build(project, deployed.container["image"])
        manifest = tmp_path / "production.yaml"
        manifest.write_text(yaml.safe_dump_all(playable(deployed, published)), encoding="utf-8")
        with machine.playing(manifest) as [container]:
            probes = [
                f"http://127.0.0.1:{published[probe['httpGet']['port']]}{probe['httpGet']['path']}"
                for probe in deployed.probes.values()
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

            # What is for operators is not for the network, unless it is scraped from there.
            admin = f"http://127.0.0.1:{published['admin']}"
            if metrics == "prometheus":
                assert is_answered(f"{admin}/metrics")
            else:
                with pytest.raises((OSError, http.client.HTTPException)):
                    is_answered(f"{admin}/health")
            inside = "import urllib.request as it; it.urlopen('http://127.0.0.1:8001/health')"
            container.execute("python", "-c", inside)

            grace = deployed.pod["spec"]["terminationGracePeriodSeconds"]
            assert container.stop(grace) == 0


def playable(deployed: Deployed, published: dict[str, int]) -> list[Manifest]:
    """The manifests for podman: with ports published, and without probes, which it has systemd run.

    Kinds that podman has no use for are taken, too, and do nothing.
    """
    played = copy.deepcopy(deployed)
    for port in played.container["ports"]:
        port |= {"hostIP": "127.0.0.1", "hostPort": published[port["name"]]}
    for probe in played.probes:
        del played.container[probe]
    return played.manifests
