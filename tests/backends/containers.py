"""Containers without a daemon and without a registry: buildah builds, podman runs.

Each test has a storage of its own over that of `.ci/install-backends`, which has the image
`python:3.14-slim` that builds begin with. Ports are published on loopback.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import LOG_TAIL_CHARACTERS, RUN_SECONDS, NotInstalled, eventually, home

BASE = "docker.io/library/python:3.14-slim"
# podman's defaults are more than a process in a sandbox may ask for.
ULIMITS = ["nofile=4096:4096", "nproc=4096:4096"]
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


@dataclass(frozen=True)
class Containers:
    """Images and containers that are gone at the end of the test."""

    directory: Path

    def build(self, context: Path, name: str, **arguments: str) -> str:
        """Builds the Dockerfile in `context`, and returns what was printed.

        The image is `localhost/NAME`. It begins with the one that is here, whichever the first line
        of the Dockerfile names, and packages come from where this machine's pip has them from.
        """
        return self.run(
            *("buildah", "build", "--format=docker", "--isolation=chroot", "--network=host"),
            *("--pull=never", "--layers", f"--from={BASE}", f"--tag={name}"),
            *(f"--build-arg={key}={value}" for key, value in arguments.items()),
            *(f"--volume={source}:{target}:ro" for source, target in self._package_index()),
            str(context),
        )

    @contextmanager
    def running(
        self,
        image: str,
        *options: str,
        publish: Mapping[int, int] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Iterator["Container"]:
        """Runs a container until the end of the block.

        `publish` has for ports on 127.0.0.1 those in the container; `options` are those of
        `podman run`. The block is entered when the container has been started, which says nothing
        of what it runs.
        """
        container = self.podman(
            # Nobody is there who would run the image's check again and again.
            *("run", "--detach", "--no-healthcheck"),
            *(f"--publish=127.0.0.1:{host}:{port}" for host, port in (publish or {}).items()),
            *(f"--env={key}={value}" for key, value in (env or {}).items()),
            *options,
            image,
        ).strip()
        try:
            yield Container(self, container)
        finally:
            self.podman("rm", "--force", "--time=0", container)

    @contextmanager
    def playing(self, manifest: Path) -> Iterator[list["Container"]]:
        """Runs the pods of a file of Kubernetes manifests until the end of the block.

        A port is published where its container has a `hostPort`. Images must have been built.
        Probes are left out, since podman would have systemd run them.
        """
        # What stands before a failure must go, too.
        try:
            self.podman("play", "kube", str(manifest))
            there = json.loads(self.podman("ps", "--all", "--format=json"))
            yield [
                Container(self, each["Id"]) for each in there if each["Pod"] and not each["IsInfra"]
            ]
        finally:
            self.podman("pod", "rm", "--all", "--force", "--time=0")

    def once(self, *argv: str) -> str:
        """What a container prints that has no network; `argv` has options, image and command."""
        return self.podman("run", "--rm", "--no-healthcheck", "--network=none", *argv)

    def image(self, name: str) -> Any:
        """What podman knows of an image."""
        [found] = json.loads(self.podman("inspect", "--type=image", name))
        return found

    def podman(self, *argv: str) -> str:
        """What `podman ARGV` prints; raises RuntimeError with it where podman fails."""
        return self.run("podman", *argv)

    def run(self, *argv: str) -> str:
        done = subprocess.run(
            argv,
            env={**os.environ, **self._configuration()},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
        if done.returncode:
            output = f"{done.stdout}\n{done.stderr}"
            raise RuntimeError(f"{' '.join(argv[:2])} ended with {done.returncode}:\n{output}")
        return done.stdout

    def _configuration(self) -> dict[str, str]:
        return {
            "CONTAINERS_CONF": str(self.directory / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.directory / "storage.conf"),
        }

    def _package_index(self) -> list[tuple[Path, str]]:
        """Files to mount for pip and uv, in the build alone and not in the image."""
        options = {}
        listed = subprocess.run(
            ["pip", "config", "list"], capture_output=True, text=True, check=False
        )
        for line in listed.stdout.splitlines():
            key, _, value = line.partition("=")
            options[key.rpartition(".")[2]] = value.strip("'")
        index = os.environ.get("UV_DEFAULT_INDEX") or options.get("index-url")
        names = ("index-url", "extra-index-url", "trusted-host")
        kept = [f"{name} = {options[name]}" for name in names if name in options]
        pip = self.directory / "pip.conf"
        pip.write_text("\n".join(["[global]", "root-user-action = ignore", *kept, ""]))
        uv = self.directory / "uv.toml"
        source = f"[[index]]\nurl = {json.dumps(index)}\ndefault = true\n" if index else ""
        uv.write_text(f"system-certs = true\n{source}")
        mounts = [(pip, "/etc/pip.conf"), (uv, "/etc/uv/uv.toml")]
        certificates = Path(os.environ.get("SSL_CERT_FILE", CERTIFICATES))
        if certificates.exists():
            mounts.append((certificates, CERTIFICATES))
        return mounts


@dataclass(frozen=True)
class Container:
    containers: Containers
    id: str

    def inspect(self) -> Any:
        """What podman knows of the container."""
        [found] = json.loads(self.containers.podman("inspect", "--type=container", self.id))
        return found

    def execute(self, *argv: str) -> str:
        """What a command in the container prints; raises RuntimeError where it fails."""
        return self.containers.podman("exec", self.id, *argv)

    def log_tail(self) -> str:
        """The end of what the container has printed to standard output so far."""
        return self.containers.podman("logs", self.id)[-LOG_TAIL_CHARACTERS:]

    def wait_for(self, ready: Callable[[], object]) -> None:
        """Returns once `ready` returns something true; an OSError from it counts as "not yet".

        Raises RuntimeError where the container ends first, and TimeoutError, with its logs.
        """

        def started() -> object:
            state = self.inspect()["State"]
            if state["Status"] == "exited":
                raise RuntimeError(f"ended with {state['ExitCode']}:\n{self.log_tail()}")
            return ready()

        try:
            eventually(started, f"container {self.id[:12]} ready")
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.log_tail()}") from error

    def stop(self, timeout: int = 30) -> int:
        """Sends the image's stop signal, and SIGKILL after `timeout` seconds; the exit status."""
        self.containers.podman("stop", f"--time={timeout}", self.id)
        status: int = self.inspect()["State"]["ExitCode"]
        return status


@contextmanager
def containers(directory: Path) -> Iterator[Containers]:
    """A storage in `directory`, with the base image and nothing else."""
    if os.geteuid() != 0:
        raise NotInstalled("containers (for root)")
    base = home("containers") / "images"
    directory.mkdir(parents=True, exist_ok=True)
    # podman takes no path of more than 50 characters here.
    run = tempfile.mkdtemp(prefix="containers-")
    # Strings and lists of TOML are those of JSON.
    (directory / "storage.conf").write_text(f"""\
[storage]
driver = "overlay"
graphroot = {json.dumps(str(directory / "storage"))}
runroot = {json.dumps(run)}
[storage.options]
additionalimagestores = {json.dumps([str(base)])}
[storage.options.overlay]
# Or all that anybody has written to the disk is waited for at each unmount.
mountopt = "volatile"
""")
    (directory / "containers.conf").write_text(f"""\
[containers]
default_ulimits = {json.dumps(ULIMITS)}
[network]
network_backend = "netavark"
network_config_dir = {json.dumps(str(directory / "networks"))}
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
tmp_dir = {json.dumps(str(directory / "libpod"))}
""")
    found = Containers(directory)
    try:
        yield found
    finally:
        found.podman("rm", "--all", "--force", "--time=0")
        _unmount(directory)
        for each in (run, directory / "storage"):
            shutil.rmtree(each)


def _unmount(directory: Path) -> None:
    """The storage leaves something mounted, even where no container is left."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in reversed(mounts):
        if Path(mount).is_relative_to(directory):
            subprocess.run(["umount", mount], check=True)
