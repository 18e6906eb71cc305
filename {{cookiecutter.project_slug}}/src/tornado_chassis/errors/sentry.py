"""Error tracking with Sentry."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from threading import Lock
from typing import TYPE_CHECKING

from ..exchange import Exchange
from ..feature import Export, Feature, Runtime
from ..settings.sentry import SentrySettings

if TYPE_CHECKING:
    from .sentry_sdk import Reporter

log = logging.getLogger(__name__)


class Sentry(Feature):
    """Reports each unhandled exception to Sentry; without a DSN, reports nothing."""

    def __init__(self, settings: SentrySettings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._reporter: Reporter | None = None
        self._isolate: Callable[[], None] | None = None
        if not settings.sentry_dsn:
            log.info("Errors are not reported: SENTRY_DSN is not set")

    def attach(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def startup(self) -> None:
        if self._settings.sentry_dsn:
            # In a thread: the SDK takes a while to load, and requests are already being served.
            await asyncio.to_thread(self._load)
            from .sentry_sdk import isolation

            self._isolate = isolation(self._runtime)

    def request_started(self, exchange: Exchange) -> None:
        if self._isolate:
            self._isolate()

    def request_failed(self, exchange: Exchange, error: BaseException) -> None:
        if reporter := self._load():
            reporter.report(error, exchange)

    def background_failed(self, name: str, error: BaseException) -> None:
        if reporter := self._load():
            reporter.report(error, name)

    async def shutdown(self) -> None:
        if self._reporter:
            await self._reporter.close()

    def exports(self) -> Iterable[Export]:
        yield Export("Sentry", *(self._reporter.exported() if self._reporter else ("errors",)))

    def _load(self) -> "Reporter | None":
        with self._lock:
            if self._settings.sentry_dsn and not self._reporter:
                from .sentry_sdk import Reporter

                self._reporter = Reporter(self._settings)
        return self._reporter
