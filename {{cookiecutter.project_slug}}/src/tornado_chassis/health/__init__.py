"""Health checks, under the names that their owner gives them.

`checks` runs them, for the features that show their results.
"""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


class Degraded(Exception):
    """Raised by a check if its component works, but not well: `warn` instead of `fail`."""


@dataclass(frozen=True, eq=False)
class Check:
    """A check as it was registered: see `Health.add`."""

    name: str
    function: Callable[[], Awaitable[object]]
    component_type: str
    timeout: float
    ttl: float


class Health:
    """The checks of the service."""

    def __init__(self) -> None:
        #: By name.
        self.checks: dict[str, Check] = {}

    def add(
        self,
        name: str,
        check: Callable[[], Awaitable[object]],
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
        self.checks[name] = Check(name, check, component_type, timeout, ttl)
