"""Transactions and errors for New Relic, recorded through the API of its agent."""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import partial
from traceback import walk_tb
from types import SimpleNamespace
from typing import Any

from tornado.web import HTTPError

from ..exchange import Exchange, correlation
from ..feature import Export, Feature
from ..settings.newrelic import NewRelicSettings
from ..values import reported, text, traceback_of
from . import LoggedErrors

SHUTDOWN_SECONDS = 1.4
MAX_WAITING = 50
MAX_FRAMES = 50
MESSAGE_CHARACTERS = 4096

log = logging.getLogger(__name__)

_transaction: ContextVar[Any] = ContextVar("transaction", default=None)


class NewRelic(Feature):
    """Records each request as a transaction, and reports each unhandled exception.

    Does neither without a license key.
    """

    def __init__(self, settings: NewRelicSettings) -> None:
        self._application: Any = None
        #: Errors and their attributes, which the agent would drop until it is connected.
        self._waiting: deque[tuple[tuple[Any, ...], dict[str, str]]] = deque(maxlen=MAX_WAITING)
        #: Errors that the agent took, and those that there was no room for before.
        self._reported = self._dropped = 0
        self._logged_errors = LoggedErrors(lambda error: self.report(error, {}))
        if settings.new_relic_license_key is None:
            log.info("Errors are not reported: NEW_RELIC_LICENSE_KEY is not set")
            return
        # Imported here, because it takes longer than everything else.
        import newrelic.agent

        if not newrelic.agent.global_settings().enabled:
            log.info("Errors are not reported: NEW_RELIC_MONITOR_MODE is off")
            return
        self._agent: Any = newrelic.agent
        # The agent finds a transaction by its task, and knows only tasks that the loop has run.
        self.eager_start = False
        self._application = newrelic.agent.application()
        self._logged_errors.attach()

    async def startup(self) -> None:
        if self._application:
            # Does not wait: a thread of the agent connects, and retries if necessary.
            self._application.activate(timeout=0)

    def exports(self) -> Iterable[Export]:
        counts = (self._reported, self._dropped) if self._application else ()
        yield Export("New Relic", "errors given to the agent", *counts)

    def request_started(self, exchange: Exchange) -> None:
        if self._application is None or exchange.is_probe:
            return
        transaction = self._agent.WebTransaction(
            self._application,
            f"{exchange.method} {exchange.route or 'unmatched'}",
            group="Tornado",
            request_method=exchange.method,
            request_path=exchange.request.path,
            headers=_trace_headers(exchange),
        )
        # Current from here on, so that calls to databases and other services become part of it.
        transaction.__enter__()
        _transaction.set(transaction)

    def request_failed(self, exchange: Exchange, error: BaseException) -> None:
        route = exchange.route or "unmatched"
        self.report(error, {"http.request.method": exchange.method, "http.route": route})

    def request_ended(self, exchange: Exchange) -> None:
        if transaction := _transaction.get():
            transaction.process_response(exchange.status, None)
            transaction.__exit__(None, None, None)
        self._report_waiting()

    def background_failed(self, name: str, error: BaseException) -> None:
        self.report(error, {"background.work": name})

    def report(self, error: BaseException, attributes: dict[str, str]) -> None:
        """Reports an error, in the current transaction unless it has already ended."""
        if self._application is None:
            return
        attributes |= correlation.get()
        transaction = _transaction.get()
        if not self._application.active:
            if not self._waiting:
                log.warning("Not connected to New Relic: keeping the last %d errors", MAX_WAITING)
            self._dropped += len(self._waiting) == MAX_WAITING
            attributes["occurred"] = datetime.now(UTC).isoformat(timespec="milliseconds")
            self._waiting.append((_slim(error), attributes))
            return
        notice = self._application.notice_error
        if transaction and transaction.enabled:
            status = error.status_code if isinstance(error, HTTPError) else None
            notice = partial(transaction.root_span.notice_error, status_code=status)
        reported(lambda each: notice(each, attributes), error)
        self._reported += 1

    async def shutdown(self) -> None:
        if self._application is None:
            return
        self._logged_errors.detach()
        self._report_waiting()
        # In a thread: it blocks until the last harvest has been sent.
        await asyncio.to_thread(self._agent.shutdown_agent, timeout=SHUTDOWN_SECONDS)

    def _report_waiting(self) -> None:
        while self._waiting and self._application.active:
            self._application.notice_error(*self._waiting.popleft())
            self._reported += 1


class _Slim(Exception):
    """What the agent reads of an exception, which would keep its request alive."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(text(error)[:MESSAGE_CHARACTERS])
        self._kind = type(error)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return self._kind


def _slim(error: BaseException) -> tuple[type, _Slim, Any]:
    """What stands for `sys.exc_info()`, without the frames and with what they hold."""
    slim: Any = None
    for frame, line in reversed(deque(walk_tb(traceback_of(error)), MAX_FRAMES)):
        code = SimpleNamespace(f_code=frame.f_code, f_back=None)
        slim = SimpleNamespace(tb_frame=code, tb_lineno=line, tb_next=slim)
    return type(error), _Slim(error), slim


def _trace_headers(exchange: Exchange) -> dict[str, str]:
    """W3C Trace Context headers that put the transaction into the trace of the request."""
    headers, ids = exchange.request.headers, correlation.get()
    found = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
    if "trace_id" in ids:
        found["traceparent"] = f"00-{ids['trace_id']}-{ids['span_id']}-{ids['trace_flags']}"
    return found
