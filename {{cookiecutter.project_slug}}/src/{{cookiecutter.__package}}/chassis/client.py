"""Observes outgoing calls with Tornado's `AsyncHTTPClient`."""

from collections.abc import Callable
from contextvars import copy_context
from time import perf_counter
from typing import ClassVar, NamedTuple
from urllib.parse import urlsplit

from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from .application import METHODS, Application, Observer

NO_ANSWER = 599
"""Tornado's status for a call that failed without a response."""

MAX_SERVERS = 100
OTHER = "_OTHER"

_PORTS = {"http": 80, "https": 443}


class Call(NamedTuple):
    """One outgoing call, in OpenTelemetry's terms. Each value is from a bounded set."""

    #: Known method, or `_OTHER`.
    method: str
    #: Name or address; `_OTHER` with port 0 for all servers after the first hundred.
    server_address: str
    server_port: int
    #: `http`, `https` or `_OTHER`.
    scheme: str
    #: 0 if there was no response.
    status: int
    #: The class of the exception if there was no response, a status of 400 or higher, or empty.
    error_type: str
    #: In seconds, including redirects and the time spent waiting for a free slot.
    duration: float


class Calls(Observer):
    """Reports outgoing calls to the observers of the application."""

    def attach(self, application: Application) -> None:
        ObservedClient.application = application
        if not issubclass(AsyncHTTPClient.configured_class(), ObservedClient):
            AsyncHTTPClient.configure(ObservedClient)


class ObservedClient(SimpleAsyncHTTPClient):
    """Tornado's HTTP client, which reports each call."""

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
