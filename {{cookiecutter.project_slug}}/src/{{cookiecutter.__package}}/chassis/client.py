"""Outgoing calls by Tornado's `AsyncHTTPClient`, observed."""

from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from time import perf_counter
from typing import ClassVar
from urllib.parse import urlsplit

from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from .application import METHODS, Application, Observer

NO_ANSWER = 599
"""Tornado's status for a call that failed before there was any."""

MAX_SERVERS = 100
OTHER = "_OTHER"

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Call:
    """One outgoing call, in OpenTelemetry's terms. Each of its values is one of a bounded set."""

    #: Known method, or `_OTHER`.
    method: str
    #: Name or address; `_OTHER` with port 0 for all servers but the first hundred.
    server_address: str
    server_port: int
    #: `http`, `https` or `_OTHER`.
    scheme: str
    #: 0 where there was no answer.
    status: int
    #: An exception's class where there was no answer, a status of 400 and up, or empty.
    error_type: str
    #: Seconds, waiting for a turn and redirects included.
    duration: float


class Calls(Observer):
    """Has outgoing calls reported to the observers of the application."""

    def attach(self, application: Application) -> None:
        ObservedClient.application = application
        if not issubclass(AsyncHTTPClient.configured_class(), ObservedClient):
            AsyncHTTPClient.configure(ObservedClient)


class ObservedClient(SimpleAsyncHTTPClient):
    """Tornado's HTTP client; it reports each call."""

    application: ClassVar[Application | None] = None
    _servers: ClassVar[set[tuple[str, int]]] = set()

    def fetch_impl(self, request: HTTPRequest, callback: Callable[[HTTPResponse], None]) -> None:
        application = self.application
        if application is None or hasattr(request, "original_request"):  # a redirect
            super().fetch_impl(request, callback)
            return
        started = perf_counter()
        context = copy_context()

        def end(response: HTTPResponse) -> None:
            call = self._describe(request, response, perf_counter() - started)
            context.run(application.report_call, call)
            callback(response)

        super().fetch_impl(request, end)

    def _describe(self, request: HTTPRequest, response: HTTPResponse, duration: float) -> Call:
        status, error = response.code, ""
        if status == NO_ANSWER and response.error:
            status, error = 0, type(response.error).__qualname__
        elif status >= 400:
            error = str(status)
        method = request.method if request.method in METHODS else OTHER
        scheme, address, port = _server(request.url)
        if (address, port) not in self._servers:
            if len(self._servers) < MAX_SERVERS:
                self._servers.add((address, port))
            else:
                address, port = OTHER, 0
        return Call(method, address, port, scheme, status, error, duration)


def _server(url: str) -> tuple[str, str, int]:
    """Scheme, address and port."""
    try:
        parts = urlsplit(url)
        scheme = parts.scheme if parts.scheme in _PORTS else OTHER
        return scheme, parts.hostname or OTHER, parts.port or _PORTS.get(scheme, 0)
    except ValueError:  # not a URL, which is why the call failed
        return OTHER, OTHER, 0
