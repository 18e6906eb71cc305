"""The overlays on a real API server, which enforces the restricted Pod Security, and the real
controllers. Nothing runs the pods: a test says of them what a kubelet would."""

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
import yaml

from ..backends import apiserver, eventually
from ..backends.apiserver import RESTRICTED, Cluster
from .conftest import Generate
from .project import Project
from .test_kubernetes import OVERLAYS, PRODUCTION, deployed, with_kubernetes

APPLY = ("apply", "--server-side", "--force-conflicts", "--validate=strict")
# What a kubelet would have to answer, or a metrics-server; and what leads out of the cluster.
NOT_HERE = ("port-forward", "top")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with apiserver.running(tmp_path_factory.mktemp("apiserver") / "cluster") as found:
        found.kubectl("create", "namespace", "monitoring")
        yield found


def apply(cluster: Cluster, directory: Path) -> None:
    """Applies a base or an overlay; a warning is as bad as an error."""
    assert "Warning" not in cluster.kubectl(*APPLY, f"--kustomize={directory}")


def apply_text(cluster: Cluster, manifest: str) -> None:
    assert "Warning" not in cluster.kubectl(*APPLY, "--filename=-", input=manifest)


def pods(cluster: Cluster, namespace: str) -> list[Any]:
    found = cluster.get("pods", f"--namespace={namespace}")
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def is_ready(pod: Any) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def roll_out(cluster: Cluster, slug: str) -> list[Any]:
    """Makes one pod after another ready until the rollout is complete; returns the pods."""
    names = f"deployment/{slug}", f"--namespace={slug}"

    def is_complete() -> bool:
        for pod in pods(cluster, slug):
            if not is_ready(pod):
                cluster.make_ready(slug, pod["metadata"]["name"])
                break
        # At no time are there fewer than before; a surplus one may be gone at the next look.
        [deployment] = cluster.get("deployments", f"--namespace={slug}")
        status = deployment["status"]
        available.append(min(status.get("availableReplicas", 0), deployment["spec"]["replicas"]))
        wanted = deployment["spec"]["replicas"], deployment["metadata"]["generation"]
        counts = status.get("updatedReplicas"), status.get("observedGeneration")
        return counts == wanted and status.get("replicas") == available[-1] == wanted[0]

    available: list[int] = []
    eventually(is_complete, "a complete rollout")
    assert min(available) >= available[0]
    assert "successfully rolled out" in cluster.kubectl("rollout", "status", *names)
    return pods(cluster, slug)


def config(pod: Any) -> str:
    name: str = pod["spec"]["containers"][0]["envFrom"][0]["configMapRef"]["name"]
    return name


def prepared(cluster: Cluster, project: Project) -> None:
    """Does what docs/deployment.md says to do first."""
    page = (project.path / "docs/deployment.md").read_text(encoding="utf-8")
    steps = re.findall(r"^    kubectl ((?:apply --filename|create secret) .*)", page, re.MULTILINE)
    assert len(steps) == 2
    for step in steps:
        argv = step.replace("deploy/", f"{project.path}/deploy/").replace("…", "x").split()
        cluster.kubectl(*argv)


@with_kubernetes
def test_every_overlay_is_taken_and_its_pods_are(
    generate: Generate, cluster: Cluster, answers: dict[str, str], request: pytest.FixtureRequest
) -> None:
    slug = f"s{crc32(request.node.callspec.id.encode())}"
    project = generate(**answers | {"project_slug": slug})
    prepared(cluster, project)
    for overlay in sorted((project.path / OVERLAYS).iterdir()):
        apply(cluster, overlay)
    assert slug in cluster.kubectl("get", "namespace", f"--selector={RESTRICTED}")
    # The autoscaler asks for three, and each of them is allowed in this namespace.
    found = eventually(partial(pods, cluster, slug), "three pods", lambda found: len(found) == 3)
    optional = found[0]["spec"]["containers"][0]["envFrom"][1]["secretRef"].get("optional", False)
    assert optional == (answers["error_tracking"] == "none")
    cluster.kubectl("delete", "namespace", slug, "--wait=false")


@pytest.mark.parametrize("slug", ["null", "yes", "x", "a" * 32])
def test_any_slug_is_a_name(generate: Generate, cluster: Cluster, slug: str) -> None:
    project = generate(deployment="kubernetes", project_slug=slug)
    ingress_is_included(project)
    prepared(cluster, project)
    apply(cluster, project.path / PRODUCTION)
    [rule] = cluster.get("ingress", slug, f"--namespace={slug}")["spec"]["rules"]
    [path] = rule["http"]["paths"]
    backend = path["backend"]["service"]
    service = cluster.get("service", backend["name"], f"--namespace={slug}")
    assert backend["port"]["name"] in [each["name"] for each in service["spec"]["ports"]]


def ingress_is_included(project: Project) -> None:
    kustomization = project.path / PRODUCTION / "kustomization.yaml"
    text = kustomization.read_text(encoding="utf-8")
    assert "  # - ingress.yaml" in text
    kustomization.write_text(text.replace("  # - ingress", "  - ingress"), encoding="utf-8")


def test_values_are_passed_as_the_page_says(generate: Generate, cluster: Cluster) -> None:
    project = generate(deployment="kubernetes", project_slug="values")
    page = (project.path / "docs/gitops.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```yaml\n(apiVersion: kustomize\.config.*?)```", page, re.DOTALL)
    staging = project.path / OVERLAYS / "staging"
    staging.mkdir()
    (staging / "kustomization.yaml").write_text(example, encoding="utf-8")
    cluster.kubectl("create", "namespace", "values-staging")
    cluster.kubectl("label", "namespace", "values-staging", RESTRICTED)
    apply(cluster, staging)
    [pod] = eventually(partial(pods, cluster, "values-staging"), "a pod")
    assert pod["spec"]["containers"][0]["image"].endswith("/values:0.2.0")
    settings = cluster.get("configmap", config(pod), "--namespace=values-staging")["data"]
    assert settings["ENVIRONMENT"] == "staging"


def test_argo_cd_and_flux_take_what_the_page_says(generate: Generate, cluster: Cluster) -> None:
    """As it stands there, and with the values that the page says they take from outside."""
    project = generate(deployment="kubernetes", project_slug="gitops", metrics="otlp")
    page = (project.path / "docs/gitops.md").read_text(encoding="utf-8")
    found = re.findall(r"```yaml\n# (?:Argo CD|Flux).*?\n(.*?)```", page, re.DOTALL)
    argo, flux = map(yaml.safe_load, found)
    patches = [{"target": {"kind": "Deployment"}, "patch": "- {op: remove, path: /spec/strategy}"}]
    values: dict[str, Any] = {"patches": patches, "images": ["gitops=gitops:0.2.0"]}
    for name, manifest, spec in (
        ("argocd", argo, {"source": argo["spec"]["source"] | {"kustomize": values}}),
        ("flux-system", flux, values | {"images": [{"name": "gitops", "newTag": "0.2.0"}]}),
    ):
        of_overlay = manifest["spec"].get("source", manifest["spec"])["path"]
        assert deployed(project, Path(of_overlay)).one("Deployment")
        cluster.kubectl("create", "namespace", name)
        for each in (manifest, manifest | {"spec": manifest["spec"] | spec}):
            apply_text(cluster, json.dumps(each))
        with pytest.raises(RuntimeError, match="not declared in schema"):
            apply_text(cluster, json.dumps(manifest).replace('"prune"', '"prunes"'))


def test_rollout_rollback_disruption_and_autoscaler(generate: Generate, cluster: Cluster) -> None:
    slug = "life"
    project = generate(deployment="kubernetes", project_slug=slug, error_tracking="sentry")
    here = f"--namespace={slug}"
    prepared(cluster, project)
    apply(cluster, project.path / PRODUCTION)
    eventually(lambda: len(pods(cluster, slug)) == 3, "as many pods as the autoscaler has at least")
    before = {config(pod) for pod in roll_out(cluster, slug)}

    # A setting is changed and rolled out; a rollback finds the old one.
    settings = project.path / PRODUCTION / "settings.env"
    text = settings.read_text(encoding="utf-8")
    settings.write_text(f"{text}LOG_LEVEL=DEBUG\n", encoding="utf-8")
    apply(cluster, project.path / PRODUCTION)
    after = {config(pod) for pod in roll_out(cluster, slug)}
    assert after.isdisjoint(before)
    cluster.kubectl("rollout", "undo", f"deployment/{slug}", here)
    assert {config(pod) for pod in roll_out(cluster, slug)} == before
    kept = cluster.get("configmap", *before, here)["metadata"]["annotations"]
    assert kept["kustomize.toolkit.fluxcd.io/prune"] == "disabled"
    assert kept["argocd.argoproj.io/sync-options"] == "Prune=false"

    # A node that is emptied takes one pod at a time.
    def allowed() -> int:
        number: int = cluster.get("pdb", slug, here)["status"].get("disruptionsAllowed", 0)
        return number

    eventually(lambda: allowed() == 1, "a disruption that is allowed")
    first, second, _ = (pod["metadata"]["name"] for pod in pods(cluster, slug))
    cluster.evict(slug, first)
    with pytest.raises(RuntimeError, match="violate the pod's disruption budget"):
        cluster.evict(slug, second)
    eventually(lambda: len(pods(cluster, slug)) == 3, "another pod")
    roll_out(cluster, slug)
    eventually(lambda: allowed() == 1, "a disruption that is allowed")
    cluster.evict(slug, second)

    # No metrics-server: the autoscaler says what the alert AutoscalerBlind is about.
    conditions = cluster.get("hpa", slug, here)["status"]["conditions"]
    [scaling] = [each for each in conditions if each["type"] == "ScalingActive"]
    assert (scaling["status"], scaling["reason"]) == ("False", "FailedGetResourceMetric")


def test_commands_of_the_runbook_run(generate: Generate, cluster: Cluster) -> None:
    slug = "runbook"
    project = generate(deployment="kubernetes", project_slug=slug, error_tracking="sentry")
    prepared(cluster, project)
    apply(cluster, project.path / PRODUCTION)
    eventually(lambda: len(pods(cluster, slug)) == 3, "three pods")
    roll_out(cluster, slug)
    # A revision to go back to.
    patch = {"spec": {"template": {"metadata": {"annotations": {"changed": "yes"}}}}}
    here = f"--namespace={slug}"
    cluster.kubectl("patch", f"deployment/{slug}", here, f"--patch={json.dumps(patch)}")
    roll_out(cluster, slug)

    page = (project.path / "docs/runbook.md").read_text(encoding="utf-8")
    found = re.findall(r"^    (kubectl .*)$|`(kubectl [^`\n]+)`", page, re.MULTILINE)
    commands = list(dict.fromkeys("".join(each) for each in found))
    assert len(commands) > 12
    for command in commands:
        command = command.replace("deploy/", f"{project.path}/deploy/")
        run = partial(in_shell, cluster, slug, command)
        verb = command.split()[1]
        if verb == "debug":
            # As the page says: it is rejected where the pods are confined, and else taken.
            with pytest.raises(RuntimeError, match="violates PodSecurity"):
                run()
            label = "pod-security.kubernetes.io/enforce=privileged"
            cluster.kubectl("label", "namespace", slug, "--overwrite", label)
            in_shell(cluster, slug, command.replace(" --attach", ""))
        elif verb in NOT_HERE:
            with pytest.raises(
                RuntimeError, match=r"host assigned|not running|Metrics API|Pending"
            ):
                run()
        else:
            run()


def in_shell(cluster: Cluster, namespace: str, command: str) -> str:
    """Runs a command of the page for one of the pods that are there."""
    pod = pods(cluster, namespace)[0]["metadata"]["name"]
    command = re.sub(r"\bPOD\b", pod, command).replace("NAMESPACE", namespace)
    return cluster.shell(command)
