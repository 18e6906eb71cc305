"""Kubernetes' API server, with its controllers and etcd. There is no node, so no pod ever runs."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import answers, free_port, home, process, tool

TOKEN = "an-administrator"
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"


@dataclass(frozen=True)
class Cluster:
    directory: Path

    def kubectl(self, *argv: str | Path, input: str = "") -> str:
        """What `kubectl ARGV` prints, warnings included; raises RuntimeError where it fails."""
        program = home("apiserver") / "bin/kubectl"
        return tool(program, *argv, input=input, env=self._environment())

    def shell(self, command: str) -> str:
        """What a command of a page prints, with `kubectl` for this cluster."""
        path = f"{home('apiserver') / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return tool("bash", "-ec", command, env={"PATH": path, **self._environment()})

    def _environment(self) -> dict[str, str]:
        """Nothing is read from the home directory, and nothing is left there."""
        return {
            "KUBECONFIG": str(self.directory / "kubeconfig"),
            "KUBECACHEDIR": str(self.directory / "cache"),
        }

    def get(self, *argv: str) -> Any:
        """One object, or the list of those that there are."""
        found = json.loads(self.kubectl("get", *argv, "--output=json"))
        return found.get("items", found)

    def make_ready(self, namespace: str, pod: str) -> None:
        """What a kubelet reports of a pod that has been ready for long."""
        condition = {
            "type": "Ready",
            "status": "True",
            "lastTransitionTime": "2020-01-01T00:00:00Z",
        }
        status = {"status": {"phase": "Running", "conditions": [condition]}}
        patch = ("--subresource=status", "--type=merge", f"--patch={json.dumps(status)}")
        self.kubectl("patch", "pod", pod, f"--namespace={namespace}", *patch)

    def evict(self, namespace: str, pod: str) -> None:
        """Asks to evict a pod, as emptying a node does; raises RuntimeError if it must stay."""
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
        name = {"name": pod, "namespace": namespace}
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": name}
        self.kubectl("create", f"--raw={path}", "--filename=-", input=json.dumps(eviction))


@contextmanager
def running(directory: Path) -> Iterator[Cluster]:
    """A cluster on loopback, empty but for the definitions that `.ci/backends/crds.sh` names."""
    programs = home("apiserver") / "bin"
    definitions = home("crds").resolve()
    directory.mkdir(parents=True)
    etcd, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    port = free_port()
    key, tokens = directory / "accounts.key", directory / "tokens.csv"
    tool("openssl", "genrsa", "-out", key, "2048")
    tokens.write_text(f'{TOKEN},admin,1,"system:masters"\n')
    kubeconfig = directory / "kubeconfig"
    cluster = {"server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "here", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "admin"}}],
        "current-context": "here",
    }
    # JSON is YAML.
    kubeconfig.write_text(json.dumps(config))
    found = Cluster(directory)

    def is_ready() -> bool:
        try:
            return found.kubectl("get", "--raw=/readyz") == "ok"
        except RuntimeError as error:
            raise OSError(str(error)) from None

    with ExitStack() as stack:

        def start(name: str, ready: Any, *options: str) -> None:
            argv = [programs / name, *options]
            log = directory / f"{name}.log"
            stack.enter_context(process(argv, directory, {}, log, ready))

        start(
            "etcd",
            lambda: answers(f"{etcd}/health"),
            f"--data-dir={directory / 'etcd'}",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
        )
        start(
            "kube-apiserver",
            is_ready,
            f"--etcd-servers={etcd}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={port}",
            f"--cert-dir={directory / 'certificates'}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
        )
        start(
            "kube-controller-manager",
            lambda: bool(found.get("serviceaccount", "--namespace=default")),
            f"--kubeconfig={kubeconfig}",
            f"--service-account-private-key-file={key}",
            "--leader-elect=false",
            "--secure-port=0",
            "--horizontal-pod-autoscaler-sync-period=1s",
        )
        found.kubectl("apply", "--server-side", f"--filename={definitions}")
        found.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=120s")
        yield found
