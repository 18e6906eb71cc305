"""What is reported through Sentry's SDK, and how.

The SDK's own Tornado integration stays off: it drops every `HTTPError` of 500 or higher, sends
query strings even without `send_default_pii`, and adds 90 µs to each request. Capturing errors only
adds 1 µs.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import sentry_sdk
from sentry_sdk.integrations.atexit import AtexitIntegration
from sentry_sdk.integrations.dedupe import DedupeIntegration
from sentry_sdk.integrations.excepthook import ExcepthookIntegration
from sentry_sdk.integrations.threading import ThreadingIntegration
from sentry_sdk.scope import _current_scope, _isolation_scope
from sentry_sdk.transport import HttpTransport

from ..exchange import Exchange, correlation
from ..feature import Runtime
from ..settings.sentry import SentrySettings
from ..values import cut, reported, to_json
from . import LoggedErrors

if TYPE_CHECKING:
    from sentry_sdk.envelope import Envelope
    from sentry_sdk.types import Event, Hint

FLUSH_SECONDS = 1.4
RETRIES_SECONDS = 60.0

REPORT_BYTES = 1_000_000
"""Sentry drops what is larger than 1 MiB, with all that comes with it."""


class Reporter:
    """Reports errors to Sentry. Once started, it also finds errors outside of requests.

    If the service's own code has initialized the SDK, before or later, it stays as that has set it.
    """

    def __init__(self, settings: SentrySettings) -> None:
        #: Errors that the SDK was given.
        self.reported = 0
        transport = sentry_sdk.get_client().transport
        if transport is None or isinstance(transport, _Transport):
            _initialize(settings)
        self._logged_errors = LoggedErrors(self.report)
        self._logged_errors.attach()
        logger = logging.getLogger("urllib3.connectionpool")
        if not any(isinstance(each, _Retries) for each in logger.filters):
            logger.addFilter(_Retries())

    def report(self, error: BaseException, where: Exchange | str = "") -> None:
        """Reports an exception that was raised in a request, or by background work of this name."""
        with sentry_sdk.new_scope() as scope:
            if isinstance(where, Exchange):
                _describe(scope, where)
            elif where:
                scope.set_transaction_name(where, source="task")
            ids = dict(correlation.get())
            scope.set_tags(ids)
            ids.pop("request_id", None)
            if ids:
                scope.set_context("trace", ids)
            reported(scope.capture_exception, error)
        self.reported += 1

    def exported(self) -> tuple[Any, ...]:
        """What a `feature.Export` has, without its name. If the service's own code has initialized
        the SDK, nothing is known of what arrives."""
        transport = sentry_sdk.get_client().transport
        if isinstance(transport, _Transport):
            return "errors", transport.sent, transport.dropped
        return "errors given to the SDK", self.reported

    async def close(self) -> None:
        """Sends the remaining reports, for at most `FLUSH_SECONDS`, and accepts no more."""
        # In a thread, because it blocks while Sentry does not respond.
        await asyncio.to_thread(sentry_sdk.get_client().close, timeout=FLUSH_SECONDS)
        self._logged_errors.detach()


def _initialize(settings: SentrySettings) -> None:
    own = f"{settings.service_name}@{settings.service_version}"
    proxy = settings.proxy_for(settings.sentry_dsn or "")
    sentry_sdk.init(
        settings.sentry_dsn,
        transport=_Transport,
        release=settings.sentry_release or own,
        environment=settings.sentry_environment or settings.environment,
        # Of both, or it reads variables, and fails if one is malformed.
        http_proxy=proxy,
        https_proxy=proxy,
        default_integrations=False,
        auto_enabling_integrations=False,
        integrations=[
            AtexitIntegration(callback=lambda pending, timeout: None),
            DedupeIntegration(),
            ExcepthookIntegration(),
            ThreadingIntegration(),
        ],
        # Local variables include requests, which show their query string and headers.
        include_local_variables=False,
        max_request_body_size="never",
        auto_session_tracking=False,
        shutdown_timeout=FLUSH_SECONDS,
        before_send=_sendable,
    )


def _describe(scope: sentry_sdk.Scope, exchange: Exchange) -> None:
    request, route = exchange.request, exchange.route or "unmatched"
    url = f"{request.protocol}://{request.host}{request.path}"

    def describe(event: "Event", hint: "Hint") -> "Event":
        event["request"] = {"method": exchange.method, "url": url}
        return event

    scope.set_transaction_name(f"{exchange.method} {route}", source="route")
    scope.set_tag("http.route", route)
    scope.add_event_processor(describe)


class _Fork(sentry_sdk.Scope):
    """A copy of a scope, made when something first uses it: most requests report nothing."""

    __slots__ = ("original",)
    original: sentry_sdk.Scope

    def __getattr__(self, name: str) -> Any:
        """Called for what is not there yet."""
        if name not in sentry_sdk.Scope.__slots__:
            raise AttributeError(name)
        copy = self.original.fork()
        for each in sentry_sdk.Scope.__slots__:
            try:
                object.__getattribute__(self, each)
            except AttributeError:
                setattr(self, each, getattr(copy, each, None))
        return object.__getattribute__(self, name)


def isolation(runtime: Runtime) -> Callable[[], None]:
    """Keeps what this context sets until the service is ready, such as tags, for the reports of all
    requests.

    After a call of the function, what its context sets is in no other request's reports.
    """
    isolated, current = sentry_sdk.get_isolation_scope(), sentry_sdk.get_current_scope()
    new: Callable[[type], Any] = object.__new__
    is_complete = False

    def isolate() -> None:
        nonlocal isolated, current, is_complete
        if not is_complete and runtime.state != "starting":
            # Tasks of the start may go on, and set more.
            isolated, current, is_complete = isolated.fork(), current.fork(), True
        isolation = new(_Fork)
        isolation.original = isolated
        _isolation_scope.set(isolation)
        scope = new(_Fork)
        scope.original = current
        _current_scope.set(scope)

    return isolate


class _Retries(logging.Filter):
    """Lets urllib3 say once a minute that Sentry cannot be reached, and not thrice a report."""

    def __init__(self) -> None:
        super().__init__()
        self._due = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.getMessage().endswith("/envelope/"):
            return True
        is_due = record.created >= self._due
        if is_due:
            self._due = record.created + RETRIES_SECONDS
        return is_due


class _Transport(HttpTransport):
    """Counts the errors that Sentry has accepted, and those that were lost."""

    sent = 0
    dropped = 0
    _is_lost = False

    def on_dropped_event(self, reason: str) -> None:
        if reason == "full_queue":
            self.dropped += 1  # It is never sent.
        else:
            self._is_lost = True

    def _send_envelope(self, envelope: "Envelope") -> None:
        self._is_lost = False
        try:
            super()._send_envelope(envelope)
        finally:
            # An envelope without an event reports what was lost.
            if envelope.get_event():
                self.sent += not self._is_lost
                self.dropped += self._is_lost


def _sendable(event: "Event", hint: "Hint") -> "Event":
    """The event without lone surrogates, any of which would cost all of it, and with long texts
    and lists cut as much as is needed."""
    encoded = to_json(event, room=REPORT_BYTES)
    for length in (8192, 1024, 128, 32):
        if len(encoded) <= REPORT_BYTES:
            break
        encoded = to_json(_cut(event, length), room=REPORT_BYTES)
    sendable: Event = json.loads(encoded)
    return sendable


def _cut(value: Any, length: int) -> Any:
    if isinstance(value, str):
        return cut(value, length)
    if isinstance(value, list):
        # The last frames are where it happened, and the last breadcrumbs led there.
        return [_cut(each, length) for each in value[-max(length // 8, 8) :]]
    if isinstance(value, dict):
        return {name: _cut(each, length) for name, each in [*value.items()][: max(length // 8, 32)]}
    return value
