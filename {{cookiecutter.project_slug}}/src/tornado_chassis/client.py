"""Reports outgoing calls with Tornado's `AsyncHTTPClient` to the features."""

from collections.abc import Callable
from contextvars import copy_context
from functools import partial, wraps
from time import perf_counter
from typing import Any, ClassVar
from urllib.parse import urlsplit

from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse

from .exchange import METHODS
from .feature import Call, Feature, Runtime

NO_ANSWER = 599
"""Tornado's status for a call that failed without a response."""

MAX_SERVERS = 100
OTHER = "_OTHER"

_PORTS = {"http": 80, "https": 443}

Callback = Callable[[HTTPResponse], None]


class Calls(Feature):
    """Reports the calls of every `AsyncHTTPClient`.

    It observes the clients that there are. To configure one of its own would undo what the service
    has configured, and miss what it configures later.
    """

    runtime: ClassVar[Runtime | None] = None
    #: Called with a request before it is sent, and returns what is called with its response.
    follow: "ClassVar[Callable[[HTTPRequest, Callback], Callback] | None]" = None
    servers: ClassVar[set[tuple[str, int]]] = set()

    def attach(self, runtime: Runtime) -> None:
        if Calls.runtime is None:
            AsyncHTTPClient.fetch = _observed(AsyncHTTPClient.fetch)  # type: ignore[method-assign]
        Calls.runtime, Calls.follow = runtime, None


def _observed(fetch: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(fetch)
    def observed(client: AsyncHTTPClient, *args: Any, **kwargs: Any) -> Any:
        if "fetch_impl" not in vars(client):
            # What each kind of client has of its own.
            client.fetch_impl = partial(_fetch, client.fetch_impl)  # type: ignore[method-assign]
        return fetch(client, *args, **kwargs)

    return observed


def _fetch(
    fetch_impl: Callable[[HTTPRequest, Callback], None], request: HTTPRequest, callback: Callback
) -> None:
    runtime = Calls.runtime
    if runtime is None or hasattr(request, "original_request"):
        # A redirect belongs to the first request, and may run in the context of another one, which
        # that had to wait for.
        fetch_impl(request, callback)
        return
    if Calls.follow:
        callback = Calls.follow(request, callback)
    started = perf_counter()
    context = copy_context()

    def end(response: HTTPResponse) -> None:
        call = _describe(request, response, perf_counter() - started)
        context.run(runtime.notify, Feature.call_ended, call)
        callback(response)

    fetch_impl(request, end)


def _describe(request: HTTPRequest, response: HTTPResponse, duration: float) -> Call:
    status, error = response.code, ""
    if status == NO_ANSWER and response.error:
        status, error = 0, type(response.error).__qualname__
    elif status >= 400:
        error = str(status)
    method = request.method if request.method in METHODS else OTHER
    scheme, address, port = _server(request.url)
    if len(Calls.servers) < MAX_SERVERS:
        Calls.servers.add((address, port))
    elif (address, port) not in Calls.servers:
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
