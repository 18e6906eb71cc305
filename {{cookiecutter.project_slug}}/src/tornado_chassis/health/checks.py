"""Runs the health checks, each at most once at a time."""

import asyncio
import json
import logging
from datetime import UTC, datetime
from time import monotonic, perf_counter
from typing import Any
from weakref import WeakKeyDictionary

from ..text import encodable, text
from . import Check, Degraded, Health

OUTPUT_CHARACTERS = 1000
"""Longest output of a check that does not pass."""

log = logging.getLogger(__name__)

Result = dict[str, Any]


async def results(health: Health) -> dict[str, Result]:
    """The result of each check. They run concurrently."""
    checks = health.checks.values()
    latest = await asyncio.gather(*(_runs.setdefault(each, _Run()).result(each) for each in checks))
    return dict(zip(health.checks, latest, strict=True))


class _Run:
    """The latest run of a check, which it does not keep alive."""

    _expires = 0.0
    _status = "pass"
    _task: asyncio.Task[Result] | None = None

    async def result(self, check: Check) -> Result:
        if self._task is None or (self._task.done() and monotonic() >= self._expires):
            self._task = asyncio.create_task(self._run(check))
        # All callers share one run. A caller that disconnects must not cancel it for the others.
        return await asyncio.shield(self._task)

    async def _run(self, check: Check) -> Result:
        began = perf_counter()
        task = asyncio.ensure_future(check.function())
        # Not wait_for(), which goes on waiting for a check that ignores its cancellation.
        done, _ = await asyncio.wait({task}, timeout=check.timeout)
        status, output, value = "pass", "", None
        if not done:
            task.cancel()
            status, output = "fail", f"no answer within {check.timeout:g} s"
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
        result: Result = {"componentType": check.component_type, "status": status}
        if value is None:
            value = round((perf_counter() - began) * 1000, 3)
            result["observedUnit"] = "ms"
        result["observedValue"] = value
        result["time"] = datetime.now(UTC).isoformat(timespec="milliseconds")
        if output:
            result["output"] = output
        self._expires = monotonic() + check.ttl
        if status != self._status:
            # Only changes, because a failing check runs again with every few probes.
            self._status = status
            level = logging.WARNING if output else logging.INFO
            log.log(level, "Check %s: %s", check.name, f"{status}: {output}" if output else status)
        return result


_runs: WeakKeyDictionary[Check, _Run] = WeakKeyDictionary()


def _reason(error: BaseException) -> str:
    return encodable(f"{type(error).__name__}: {text(error)}"[:OUTPUT_CHARACTERS])


def _as_json(value: object) -> object:
    """The value if it can be written as JSON, otherwise as text.

    Raises what its `__str__` raises.
    """
    try:
        return json.loads(json.dumps(value, default=str, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return str(value)
