"""Probes: `/livez`, `/readyz` and `/health`.

The response of `/health` follows draft-inadarei-api-health-check-06.
"""

from http import HTTPStatus
from typing import Any

from tornado.escape import json_encode
from tornado.web import RequestHandler

from ..feature import Feature, Runtime
from ..settings.server import ServerSettings
from .checks import Result, results


class Probes(Feature):
    """Serves the state of the service and the results of its checks."""

    def __init__(self, settings: ServerSettings) -> None:
        self.name = settings.service_name
        self.version = settings.service_version
        self.runtime: Runtime

    def attach(self, runtime: Runtime) -> None:
        self.runtime = runtime

    def not_ready(self) -> str:
        """Why the service is not ready, whatever its checks say; empty if it is."""
        runtime = self.runtime
        if runtime.state != "ready":
            return runtime.state
        return f"MAX_CONNECTIONS={runtime.max_connections} reached" if runtime.is_full() else ""

    def routes(self) -> list[Any]:
        """For the main port: these reveal no internals."""
        # One pattern for all three, because every other request is matched against it first.
        return [(r"/(?:livez|readyz|health)", self.admin_routes(detail=False))]

    def admin_routes(self, detail: bool = True) -> list[Any]:
        """For the admin port: the same for whoever must not share the limits of the main port, and
        each check with its value, and the reason if it does not pass."""
        kinds = ("/livez", Livez), ("/readyz", Readyz), ("/health", HealthReport)
        return [(path, kind, {"probes": self, "detail": detail}) for path, kind in kinds]


class Probe(RequestHandler):
    """Answers probe traffic, which is never cached and is too frequent to be logged or traced."""

    is_probe = True

    def initialize(self, probes: Probes, detail: bool) -> None:
        self.probes, self.detail = probes, detail

    def set_default_headers(self) -> None:
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Type", "application/health+json")

    def compute_etag(self) -> None:
        return None

    def respond(self, body: dict[str, Any]) -> None:
        if body["status"] == "fail":
            self.set_status(HTTPStatus.SERVICE_UNAVAILABLE)
        self.finish(json_encode(body))


class Livez(Probe):
    """Alive while the event loop runs. Checks nothing outside of the process."""

    def get(self) -> None:
        self.respond({"status": "pass"})

    head = get


class Readyz(Probe):
    """Ready once started, while not draining, no check fails and there is room for a connection."""

    async def get(self) -> None:
        if output := self.probes.not_ready():
            self.respond({"status": "fail", "output": output})
        else:
            self.respond({"status": _worst(await results(self.probes.runtime.health))})

    head = get


class HealthReport(Probe):
    """The state of the service and of each check."""

    async def get(self) -> None:
        checks = await results(self.probes.runtime.health)
        output = self.probes.not_ready()
        body: dict[str, Any] = {
            "status": "fail" if output else _worst(checks),
            "version": self.probes.version.partition(".")[0],
            "releaseId": self.probes.version,
            "serviceId": self.probes.name,
        }
        if output:
            body["output"] = output
        if not self.detail:
            shown = ("componentType", "status", "time")
            checks = {name: {key: result[key] for key in shown} for name, result in checks.items()}
        body["checks"] = {name: [result] for name, result in checks.items()}
        self.respond(body)

    head = get


def _worst(checks: dict[str, Result]) -> str:
    order = ["fail", "warn", "pass"]
    return min((result["status"] for result in checks.values()), key=order.index, default="pass")
