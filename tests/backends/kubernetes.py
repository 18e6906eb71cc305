"""What `kubectl kustomize` makes of manifests, and the schemas of Kubernetes' API."""

import subprocess
from pathlib import Path
from typing import Any

import yaml
from kubernetes_validate import ValidationError, validate

from . import RUN_SECONDS, home

Manifest = dict[str, Any]


def kustomize(directory: Path) -> list[Manifest]:
    """Return the documents made of a base or an overlay.

    Raises RuntimeError with what kustomize says.
    """
    done = subprocess.run(
        [home("kubernetes") / "bin/kustomize", "build", directory],
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    # A deprecated field is reported on standard error.
    if done.returncode or done.stderr:
        raise RuntimeError(f"kustomize exited with {done.returncode}:\n{done.stderr}")
    return list(yaml.safe_load_all(done.stdout))


def problem(manifest: Manifest, version: str) -> str:
    """Return what a Kubernetes of this version, such as "1.34", would refuse; empty if nothing.

    A field that is not in the schema counts. Raises SchemaNotFoundError for a kind that
    Kubernetes itself does not have.
    """
    try:
        validate(manifest, version, strict=True)
    except ValidationError as error:
        path = ".".join(map(str, error.path))
        return f"{manifest['kind']}: {path}: {error.message}"
    return ""
