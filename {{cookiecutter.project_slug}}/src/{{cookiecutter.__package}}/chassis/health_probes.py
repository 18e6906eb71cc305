"""Health: `/livez`, `/readyz` and `/health`.

The response of `/health` follows draft-inadarei-api-health-check-06.
"""

import asyncio
import inspect
import json
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from http import HTTPStatus
from time import monotonic, perf_counter
from typing import Any

from tornado.escape import json_encode
from tornado.web import RequestHandler

from . import SERVICE, __version__
from .application import Application, Observer

OUTPUT_CHARACTERS = 1000
"""Longest output of a check that does not pass."""

log = logging.getLogger(__name__)

Check = Callable[[], Awaitable[object]]
Result = dict[str, Any]


class Degraded(Exception):  # noqa: N818 (the component works)
    """Raised by a check if its component works, but not well: `warn` instead of `fail`."""


class Health(Observer):
    """The checks of the service, and their latest results."""

    def __init__(self) -> None:
        self._checks: dict[str, _Check] = {}
        self._application: Application

    def attach(self, application: Application) -> None:
        self._application = application

    def add(
        self,
        name: str,
        check: Check,
        *,
        component_type: str = "component",
        timeout: float = 2.0,
        ttl: float = 5.0,
    ) -> None:
        """Registers a check.

        `check` is an async function. Its return value becomes the `observedValue`, as text if it is
        not JSON. The check fails if it raises an exception or takes longer than `timeout` seconds.
        Its result is reused for `ttl` seconds. `component_type` is `component`, `datastore` or
        `system`.

        Raises TypeError for a function that is not async, because it would block the event loop.
        """
        if not inspect.iscoroutinefunction(check):
            raise TypeError(f"check {name!r} must be an async function")
        self._checks[name] = _Check(name, check, component_type, timeout, ttl)

    async def results(self) -> dict[str, Result]:
        """The result of each check. They run concurrently."""
        results = await asyncio.gather(*(check.result() for check in self._checks.values()))
        return dict(zip(self._checks, results, strict=True))

    def routes(self) -> list[Any]:
        """For the main port: these reveal no internals."""
        probes = [
            (r"/livez", Livez),
            (r"/readyz", Readyz, {"health": self}),
            (r"/health", HealthReport, {"health": self}),
        ]
        # One pattern for all three, because every other request is matched against it first.
        return [(r"/(?:livez|readyz|health)", probes)]

    def admin_routes(self) -> list[Any]:
        """For the admin port: each check with its value, and the reason if it does not pass."""
        return [(r"/health", HealthReport, {"health": self, "detail": True})]

    @property
    def state(self) -> str:
        """`starting`, `ready` or `draining`."""
        return self._application.state


class _Check:
    def __init__(
        self, name: str, check: Check, component_type: str, timeout: float, ttl: float
    ) -> None:
        self._name = name
        self._check = check
        self._component_type = component_type
        self._timeout = timeout
        self._ttl = ttl
        self._expires = 0.0
        self._status = "pass"
        self._run: asyncio.Task[Result] | None = None

    async def result(self) -> Result:
        if self._run is None or (self._run.done() and monotonic() >= self._expires):
            self._run = asyncio.create_task(self._ask())
        # All callers share one run. A caller that disconnects must not cancel it for the others.
        return await asyncio.shield(self._run)

    async def _ask(self) -> Result:
        began = perf_counter()
        task = asyncio.ensure_future(self._check())
        # Not wait_for(), which goes on waiting for a check that ignores its cancellation.
        done, _ = await asyncio.wait({task}, timeout=self._timeout)
        status, output, value = "pass", "", None
        if not done:
            task.cancel()
            status, output = "fail", f"no answer within {self._timeout:g} s"
        elif task.cancelled():
            status, output = "fail", "cancelled"
        elif error := task.exception():
            status = "warn" if isinstance(error, Degraded) else "fail"
            output = _reason(error)
        else:
            try:
                value = _as_json(task.result())
            except Exception as error:  # from its own `__str__`
                status, output = "fail", _reason(error)
        result: Result = {"componentType": self._component_type, "status": status}
        if value is None:
            value = round((perf_counter() - began) * 1000, 3)
            result["observedUnit"] = "ms"
        result["observedValue"] = value
        result["time"] = datetime.now(UTC).isoformat(timespec="milliseconds")
        if output:
            result["output"] = output
        self._expires = monotonic() + self._ttl
        if status != self._status:
            self._log(status, output)
        return result

    def _log(self, status: str, output: str) -> None:
        # Only changes, because a failing check runs again with every few probes.
        self._status = status
        if output:
            log.warning("Check %s: %s: %s", self._name, status, output)
        else:
            log.info("Check %s: %s", self._name, status)


def _reason(error: BaseException) -> str:
    name = type(error).__name__
    try:
        return f"{name}: {error}"[:OUTPUT_CHARACTERS]
    except Exception:  # from its own `__str__`
        return name


def _as_json(value: object) -> object:
    """The value if it can be written as JSON, otherwise as text.

    Raises what its `__str__` raises.
    """
    try:
        return json.loads(json.dumps(value, default=str, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return str(value)


class Probe(RequestHandler):
    """Answers probe traffic, which is never cached and is too frequent to be logged or traced."""

    is_probe = True

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
    """Ready once started, while not draining and no check fails."""

    def initialize(self, health: Health) -> None:
        self.health = health

    async def get(self) -> None:
        if self.health.state != "ready":
            self.respond({"status": "fail", "output": self.health.state})
        else:
            self.respond({"status": _worst(await self.health.results())})

    head = get


class HealthReport(Probe):
    """The state of the service and of each check."""

    def initialize(self, health: Health, detail: bool = False) -> None:
        self.health = health
        self.detail = detail

    async def get(self) -> None:
        results = await self.health.results()
        status = _worst(results)
        body: dict[str, Any] = {
            "status": status if self.health.state == "ready" else "fail",
            "version": __version__.partition(".")[0],
            "releaseId": __version__,
            "serviceId": SERVICE,
        }
        if self.health.state != "ready":
            body["output"] = self.health.state
        if not self.detail:
            shown = ("componentType", "status", "time")
            results = {
                name: {key: result[key] for key in shown} for name, result in results.items()
            }
        body["checks"] = {name: [result] for name, result in results.items()}
        self.respond(body)

    head = get


def _worst(results: dict[str, Result]) -> str:
    statuses = {result["status"] for result in results.values()}
    return next((status for status in ("fail", "warn") if status in statuses), "pass")
