"""Reports outgoing calls with Tornado's `AsyncHTTPClient` to the features."""

from collections.abc import Callable
from contextvars import copy_context
from time import perf_counter
from typing import ClassVar
from urllib.parse import urlsplit

from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from .exchange import METHODS
from .feature import Call, Feature, Runtime

NO_ANSWER = 599
"""Tornado's status for a call that failed without a response."""

MAX_SERVERS = 100
OTHER = "_OTHER"

_PORTS = {"http": 80, "https": 443}


class Calls(Feature):
    """Lets `AsyncHTTPClient` report its calls."""

    def attach(self, runtime: Runtime) -> None:
        ReportingClient.runtime = runtime
        if not issubclass(AsyncHTTPClient.configured_class(), ReportingClient):
            AsyncHTTPClient.configure(ReportingClient)


class ReportingClient(SimpleAsyncHTTPClient):
    """Tornado's HTTP client, which reports each call."""

    runtime: ClassVar[Runtime | None] = None
    _servers: ClassVar[set[tuple[str, int]]] = set()

    def fetch_impl(self, request: HTTPRequest, callback: Callable[[HTTPResponse], None]) -> None:
        runtime = self.runtime
        if runtime is None or hasattr(request, "original_request"):  # a redirect
            super().fetch_impl(request, callback)
            return
        started = perf_counter()
        context = copy_context()

        def end(response: HTTPResponse) -> None:
            call = self._describe(request, response, perf_counter() - started)
            context.run(runtime.notify, Feature.call_ended, call)
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
