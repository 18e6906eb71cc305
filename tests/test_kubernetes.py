"""The manifests: what Kubernetes takes, and whether they agree with each other and the service."""

import ast
import copy
import http.client
import math
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
from .backends import crds, free_port
from .backends.containers import containers
from .backends.kubernetes import Manifest, kustomize, problem
from .conftest import Generate
from .project import setting_fields
from .test_container import lock

BASE = Path("deploy", "kubernetes", "base")
PRODUCTION = Path("deploy", "kubernetes", "overlays", "production")
# The oldest that is tried has all fields that are used.
VERSIONS = ("1.28", latest_version())
# Of the Prometheus Operator.
CUSTOM = {"PrometheusRule", "ServiceMonitor"}
# What the Prometheus and the Grafana of kube-prometheus-stack select by.
SELECTED = {"release": "kube-prometheus-stack"}
DASHBOARD = {"grafana_dashboard": "1"}
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
        """Those of these kinds, without the dashboard."""
        return [each for each in self.manifests if each["kind"] in kinds and not is_dashboard(each)]

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
        data: dict[str, str] = dict(self.one("ConfigMap")["data"])
        for variable in self.container.get("env", []):
            # As the kubelet does it: a reference may be to what is already there, by any name.
            data[variable["name"]] = re.sub(
                r"\$\((\w+)\)",
                lambda match: data.get(match[1], match[0]),
                variable.get("value", ""),
            )
        return data

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


def is_dashboard(manifest: Manifest) -> bool:
    return bool(DASHBOARD.items() <= manifest["metadata"].get("labels", {}).items())


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
                elif found := crds.problem(manifest):
                    yield found


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
    variables = deployed.container.get("env", [])
    used = re.findall(r"\$\((\w+)\)", " ".join(each.get("value", "") for each in variables))
    for name in deployed.settings.keys() - fields - set(used):
        yield f"{name} is no setting"
    for name in re.findall(r"\$\((\w+)\)", " ".join(deployed.settings.values())):
        yield f"there is no variable {name}"
    for name, value in deployed.one("ConfigMap")["data"].items():
        if value not in deployed.settings[name]:
            yield f"what settings.env says of {name} is overridden"
    plain, secret = deployed.container["envFrom"]
    if plain["configMapRef"]["name"] != deployed.one("ConfigMap")["metadata"]["name"]:
        yield "the ConfigMap has another name"
    # An overlay counts the versions of its Secret.
    name = re.sub(r"-\d+$", "", secret.get("secretRef", {}).get("name", ""))
    if name != deployed.slug or not secret["secretRef"].get("optional"):
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


def cores(quantity: str) -> float:
    return float(quantity.removesuffix("m")) / 1000 if quantity.endswith("m") else float(quantity)


def reaches(deployed: Deployed, port: str, namespace: str) -> bool:
    """Whether the policy lets pods of a namespace connect to the port."""
    policy = deployed.one("NetworkPolicy")["spec"]
    assert "Ingress" in policy["policyTypes"]
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


def connections(deployed: Deployed) -> Iterator[str]:
    """The pods may connect to the cluster's DNS and to the chosen backends, and nowhere else."""
    settings = deployed.settings
    expected = {("kube-system", "UDP", 53), ("kube-system", "TCP", 53)}
    expected |= {("169.254.20.10/32", "UDP", 53), ("169.254.20.10/32", "TCP", 53)}
    if deployed.answers["metrics"] == "statsd":
        expected.add(("monitoring", "UDP", int(settings.get("STATSD_PORT", "8125"))))
    if deployed.answers["tracing"] in ("jaeger", "zipkin"):
        expected.add(
            ("monitoring", "TCP", {"jaeger": 4318, "zipkin": 9411}[deployed.answers["tracing"]])
        )
    if deployed.answers["error_tracking"] in ("sentry", "newrelic"):
        expected.add(("0.0.0.0/0", "TCP", 443))
        expected.add(("::/0", "TCP", 443))
    policy = deployed.one("NetworkPolicy")["spec"]
    if policy["policyTypes"] != ["Ingress", "Egress"]:
        yield f"the policy is about {policy['policyTypes']}"
        return
    allowed = {
        (place, each["protocol"], each["port"])
        for rule in policy["egress"]
        for peer in rule.get("to", [{}])
        for place in [
            peer["ipBlock"]["cidr"]
            if "ipBlock" in peer
            else peer.get("namespaceSelector", {})
            .get("matchLabels", {})
            .get("kubernetes.io/metadata.name")
        ]
        for each in rule.get("ports", [{"protocol": "any", "port": "any"}])
    }
    if allowed != expected:
        yield f"connects to {allowed ^ expected}"
    # Whom the settings name can be reached.
    for name, value in settings.items():
        if match := re.search(r"^(?:http://)?[\w-]+\.([\w-]+)(?::(\d+))?(?:/|$)", value):
            if not name.endswith(("_HOST", "ENDPOINT")) or name == "ADMIN_HOST":
                continue
            places = {place for place, _, port in allowed if not match[2] or port == int(match[2])}
            if match[1] not in places:
                yield f"{name} is {value}, which the policy does not let through"


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


def observing(deployed: Deployed) -> Iterator[str]:
    """Rules and dashboard are those of the files, and are found."""
    rules, monitors = deployed.all("PrometheusRule"), deployed.all("ServiceMonitor")
    dashboards = [each for each in deployed.manifests if is_dashboard(each)]
    if len(rules) != len(monitors) or len(dashboards) != len(monitors):
        yield f"{len(monitors)} monitors, {len(rules)} rules, {len(dashboards)} dashboards"
    for each in rules + monitors:
        if not SELECTED.items() <= each["metadata"]["labels"].items():
            yield f"{each['kind']} is not selected"
    for rule in rules:
        path = deployed.project / "deploy" / "prometheus" / "alerts.yml"
        if rule["spec"] != yaml.safe_load(path.read_text(encoding="utf-8")):
            yield f"other rules than {path.name}"
        selector = set(re.findall(r'job="([^"]+)"', str(rule["spec"])))
        if selector != {deployed.slug}:
            yield f"rules are about {selector}"
    for dashboard in dashboards:
        path = deployed.project / "deploy" / "grafana" / "dashboards" / f"{deployed.slug}.json"
        if dashboard["data"] != {path.name: path.read_text(encoding="utf-8")}:
            yield f"another dashboard than {path.name}"


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
    bodies, messages = (
        eval(compile(ast.Expression(node.value), module, "eval"))
        for module, name in (
            ("admission.py", "MAX_BODY_BYTES"),
            ("observed.py", "MAX_WEBSOCKET_BYTES"),
        )
        for node in deployed.source(module).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == name
    )
    [headers] = (
        eval(compile(ast.Expression(value), "connections.py", "eval"))
        for node in ast.walk(deployed.source("connections.py"))
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant) and key.value == "max_header_size"
    )
    most = BASE_MIB + (bodies + messages) / 2**20
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
    requests = deployed.container["resources"]["requests"]
    if metric["resource"]["name"] not in requests:
        yield "what it scales by is not requested"
    else:
        # On a busy node a pod has what it requests. Where that is less than the target (and the
        # tenth by which an autoscaler tolerates to miss it), saturated pods look idle to it.
        target = cores(metric["resource"]["target"]["averageValue"])
        has = cores(requests[metric["resource"]["name"]])
        if math.ceil(6 * has / target) <= 6 * 1.1:
            yield f"six saturated pods of {has} would be scaled to {math.ceil(6 * has / target)}"
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
    for resource in ("memory", "ephemeral-storage"):
        if resource not in container["resources"]["limits"]:
            yield f"one pod may take all {resource} of a node"
        if resource not in container["resources"]["requests"]:
            yield f"a node may be full of pods that have been promised no {resource}"


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
    connections,
    scraping,
    observing,
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
    assert re.fullmatch(rf"[\w.:/-]+/{project.name}:0\.1\.0", production.container["image"])
    kinds = [each["kind"] for each in base.manifests]
    custom = [*CUSTOM, "ConfigMap"] if answers["metrics"] == "prometheus" else []
    assert sorted([*kinds, *custom]) == sorted(each["kind"] for each in production.manifests)


def test_example_of_an_ingress_leads_to_the_service(generate: Generate) -> None:
    project = generate().path
    kustomization = project / PRODUCTION / "kustomization.yaml"
    text = kustomization.read_text(encoding="utf-8")
    without = kustomize(project / PRODUCTION)
    kustomization.write_text(text.replace("  # - ingress.yaml", "  - ingress.yaml"))
    deployed = Deployed(project, FAULTY, kustomize(project / PRODUCTION))
    assert len(deployed.manifests) == len(without) + 1
    assert list(schemas(deployed)) == []
    [rule] = deployed.one("Ingress")["spec"]["rules"]
    [path] = rule["http"]["paths"]
    backend = path["backend"]["service"]
    [service] = [
        each for each in deployed.all("Service") if each["metadata"]["name"] == backend["name"]
    ]
    assert backend["port"]["name"] in [each["name"] for each in service["spec"]["ports"]]
    [tls] = deployed.one("Ingress")["spec"]["tls"]
    assert tls["hosts"] == [rule["host"]]


def test_changed_secret_and_changed_setting_are_rolled_out(generate: Generate) -> None:
    project = generate().path
    deployed = Deployed(project, FAULTY, kustomize(project / PRODUCTION))
    pods = [deployed.pod]
    for name, old, new in (
        ("kustomization.yaml", f"{project.name}-1", f"{project.name}-2"),
        ("settings.env", "ENVIRONMENT=production", "ENVIRONMENT=other"),
    ):
        path = project / PRODUCTION / name
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1
        path.write_text(text.replace(old, new), encoding="utf-8")
        deployed = Deployed(project, FAULTY, kustomize(project / PRODUCTION))
        assert deployed.pod not in pods, f"{name}: no pod would be replaced"
        pods.append(deployed.pod)
    # The page has the name that the overlay has.
    assert f"create secret generic {project.name}-1 " in (
        project / "docs" / "deployment.md"
    ).read_text(encoding="utf-8")


@pytest.mark.parametrize("slug", ["null", "yes", "x", "a" * 32])
def test_any_slug_is_a_name(generate: Generate, slug: str) -> None:
    answers = FAULTY
    project = generate(project_slug=slug, **answers).path
    deployed = Deployed(project, answers, kustomize(project / PRODUCTION))
    problems = [found for check in CHECKS for found in check(deployed)]
    assert not problems, "\n".join(problems)
    for manifest in deployed.manifests:
        assert len(manifest["metadata"]["name"]) <= 63


@pytest.mark.parametrize("choice", ["docker", "none"])
def test_nothing_without_kubernetes(generate: Generate, choice: str) -> None:
    assert not (generate(deployment=choice).path / "deploy" / "kubernetes").exists()


FAULTY = {
    "health": "probes",
    "metrics": "prometheus",
    "tracing": "jaeger",
    "error_tracking": "sentry",
}
OVERRIDING = {"name": "LOG_LEVEL", "value": "DEBUG"}
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
    (configuration, "Deployment", "spec.template.spec.containers.0.env", [OVERRIDING]),
    (exposure, "NetworkPolicy", "spec.ingress.1.from", []),
    (exposure, "NetworkPolicy", "spec.ingress.0.ports", []),
    (exposure, "NetworkPolicy", "spec.ingress.0.ports.0.port", "admin"),
    (exposure, "NetworkPolicy", "spec.ingress.0.from", [MONITORING]),
    (exposure, "ConfigMap", "data.ADMIN_HOST", "127.0.0.1"),
    (exposure, "Service", "spec.type", "LoadBalancer"),
    (exposure, "Service", "spec.ports.0.targetPort", "admin"),
    (connections, "NetworkPolicy", "spec.policyTypes", ["Ingress"]),
    (connections, "NetworkPolicy", "spec.egress.0.to", []),
    (connections, "NetworkPolicy", "spec.egress.0.ports.0.port", 54),
    (connections, "NetworkPolicy", "spec.egress.1", {}),
    (connections, "NetworkPolicy", "spec.egress.2", {"to": [MONITORING], "ports": []}),
    (connections, "ConfigMap", "data.OTEL_EXPORTER_OTLP_ENDPOINT", "http://jaeger.other:4318"),
    (scraping, "ServiceMonitor", "spec.selector.matchLabels", {NAME: "my-service"}),
    (scraping, "ServiceMonitor", "spec.endpoints.0.port", "http"),
    (scraping, "ServiceMonitor", "spec.endpoints.0.path", "/"),
    (scraping, "ServiceMonitor", "spec.jobLabel", "job"),
    (schemas, "PrometheusRule", "spec.groups.0.rules.0.labels", {"severity": 1}),
    (schemas, "PrometheusRule", "groups", []),
    (schemas, "ServiceMonitor", "spec.endpoints.0.interval", "often"),
    (observing, "PrometheusRule", "metadata.labels.release", "other"),
    (observing, "PrometheusRule", "spec.groups.0.name", "other"),
    (observing, "PrometheusRule", "kind", "Other"),
    (observing, "ServiceMonitor", "metadata.labels.release", "other"),
    (stopping, "ConfigMap", "data.DRAIN_TIMEOUT_SECONDS", "25"),
    (stopping, "ConfigMap", "data.DRAIN_DELAY_SECONDS", "10"),
    (stopping, "Deployment", "spec.template.spec.terminationGracePeriodSeconds", 30),
    (memory, "ConfigMap", "data.MAX_REQUESTS_IN_FLIGHT", "1000"),
    (memory, "ConfigMap", "data.MAX_CONNECTIONS", "2000"),
    (memory, "Deployment", "spec.template.spec.containers.0.resources.limits.memory", "128Mi"),
    (replicas, "HorizontalPodAutoscaler", "spec.scaleTargetRef.name", "other"),
    (replicas, "HorizontalPodAutoscaler", "spec.minReplicas", 1),
    (replicas, "HorizontalPodAutoscaler", "spec.metrics.0.resource.name", "gpu"),
    (replicas, "HorizontalPodAutoscaler", "spec.metrics.0.resource.target.averageValue", "700m"),
    (replicas, "Deployment", "spec.template.spec.containers.0.resources.requests.cpu", "250m"),
    (replicas, "PodDisruptionBudget", "spec.maxUnavailable", 0),
    (replicas, "PodDisruptionBudget", "spec.maxUnavailable", 3),
    (replicas, "Deployment", "spec.replicas", 3),
    (replicas, "Deployment", "spec.strategy.rollingUpdate.maxUnavailable", 1),
    (restrictions, "Deployment", "spec.template.spec.securityContext.runAsNonRoot", False),
    (restrictions, "Deployment", "spec.template.spec.containers.0.securityContext", {}),
    (restrictions, "Deployment", "spec.template.spec.enableServiceLinks", True),
    (restrictions, "Deployment", "spec.template.spec.hostNetwork", True),
    (restrictions, "Deployment", "spec.template.spec.containers.0.resources.limits", {}),
    (restrictions, "Deployment", "spec.template.spec.containers.0.resources.requests", {}),
    (image, "Deployment", "spec.template.spec.securityContext.runAsUser", 1000),
    (image, "Deployment", "spec.template.spec.containers.0.image", "my-service:latest"),
]


def test_each_check_finds_its_fault(generate: Generate) -> None:
    answers = FAULTY
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
        if last.isdigit():
            place[int(last)] = value
        elif value is None:
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
        lock(project)
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
