"""The schemas of the Prometheus Operator's custom resources."""

from functools import cache
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from . import home
from .kubernetes import Manifest


def problem(manifest: Manifest) -> str:
    """Return what the operator's definition would refuse; empty if nothing.

    A field that is not in the schema counts. Raises KeyError for a kind that is not defined.
    """
    schema = _schemas()[manifest["apiVersion"], manifest["kind"]]
    for error in Draft202012Validator(schema).iter_errors(manifest):
        path = ".".join(map(str, error.path))
        return f"{manifest['kind']}: {path}: {error.message}"
    return ""


@cache
def _schemas() -> dict[tuple[str, str], Any]:
    found = {}
    for path in home("crds").glob("*.yaml"):
        spec = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]
        for version in spec["versions"]:
            schema = version["schema"]["openAPIV3Schema"]
            # Of these the API server has a schema of its own.
            schema["properties"]["metadata"] = True
            api = f"{spec['group']}/{version['name']}"
            found[api, spec["names"]["kind"]] = _strict(schema)
    return found


def _strict(schema: Any) -> Any:
    """The schema without fields that it doesn't name, which an API server would drop."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(value) for key, value in schema.items()}
    if isinstance(strict.get("properties"), dict) and strict.get("type") == "object":
        strict.setdefault("additionalProperties", False)
    if strict.get("x-kubernetes-int-or-string"):
        strict.pop("type", None)
    return strict
