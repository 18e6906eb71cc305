"""What is known about a request and its response."""

import asyncio
import random
import re
from collections.abc import Mapping, Sequence
from contextvars import Context, ContextVar
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from time import perf_counter
from types import MappingProxyType
from typing import Any, NamedTuple

from tornado.httputil import HTTPHeaders, HTTPServerRequest, format_timestamp
from tornado.web import HTTPError, RequestHandler

from .text import name_of

METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}

CLIENT_CLOSED_REQUEST = 499
"""Status if the client disconnected before the response was complete, as in nginx."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

_WITH_PORT = re.compile(r"\[([^]]+:[^]]*)](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")

Networks = Sequence[IPv4Network | IPv6Network]

correlation: ContextVar[Mapping[str, str]] = ContextVar(
    "correlation",
    default=MappingProxyType({}),
)
"""Ids of the current work, for log lines and reports; empty outside a request."""


class Exchange:
    """One HTTP request and its response."""

    #: As it was when the handler started.
    context: Context
    has_started = False
    #: False if the handler's class says so: its responses are long by design, such as streams.
    has_latency_objective = True
    #: Status code sent; 0 until the exchange has ended.
    status = 0
    #: Seconds from the request's headers to the end of the response.
    duration = 0.0
    #: The last unhandled exception, except for an `HTTPError` below 500.
    error: BaseException | None = None
    #: Ids that connect a measurement of this exchange with a record of it elsewhere.
    exemplar: dict[str, str] | None = None
    #: Bytes in memory for what the client has sent of it, until it has ended: its body, and what
    #: its arguments are parsed into.
    body_size = 0

    def __init__(self, request: HTTPServerRequest, route: str, is_probe: bool) -> None:
        #: When the headers had been read, by `time.perf_counter()`.
        self.started = perf_counter()
        self.request = request
        #: A known method, or `_OTHER`: clients must not be able to create labels.
        self.method = request.method if request.method in METHODS else "_OTHER"
        #: Template of the matched route, such as `/hello/{name}`; empty if none matched.
        self.route = route
        #: True for probe traffic, which would drown out everything else.
        self.is_probe = is_probe
        #: The caller's `X-Request-ID` if it is harmless, otherwise a new one.
        self.request_id = _request_id(request.headers)
        #: Ids for log lines and reports of this exchange. Features add to them.
        self.ids = {"request_id": self.request_id}

    def __str__(self) -> str:
        # Without the path, because log messages are grouped by their text.
        return f"{self.method} {self.route or 'unmatched'}"

    @property
    def error_type(self) -> str:
        """OpenTelemetry's `error.type`: an exception's class, a status of 500 and up, or empty."""
        if self.error is not None and not isinstance(self.error, HTTPError):
            return name_of(self.error)
        return str(self.status) if self.status >= 500 else ""


class Rejection(NamedTuple):
    """A response in place of the handler's, sent before the request's body is read."""

    status: int
    #: Shown to the client as the title of the problem.
    title: str
    #: The reason, one word from a small set, for `Feature.request_rejected`.
    reason: str
    headers: Mapping[str, str] = MappingProxyType({})


def _request_id(headers: HTTPHeaders) -> str:
    if "X-Request-ID" in headers and _REQUEST_ID.fullmatch(headers["X-Request-ID"]):
        return headers["X-Request-ID"]
    return random.getrandbits(128).to_bytes(16).hex()


def methods_of(handler: type[RequestHandler]) -> list[str]:
    """The methods that a handler answers, in Tornado's order."""
    missing = RequestHandler._unimplemented_method
    return [
        each
        for each in handler.SUPPORTED_METHODS
        if getattr(handler, each.lower(), missing) is not missing
    ]


def contain(error: BaseException) -> None:
    """Lets the event loop raise an error that is to end the process, which Tornado would swallow
    here. Whatever a team's code raises costs only what it was called for."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        asyncio.get_running_loop().call_soon(reraise, error)


def reraise(error: BaseException, *_: object) -> None:
    raise error


def is_cancelled() -> bool:
    """Whether the current task is cancelled, and not only what it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@lru_cache(maxsize=1)
def http_date(seconds: int) -> str:
    """The value of a `Date` header for a time in seconds since 1970."""
    return format_timestamp(seconds)


def believe_proxies(context: Any, headers: HTTPHeaders, trusted: Networks) -> None:
    """Takes the client's address and scheme from the headers that trusted proxies set.

    Each proxy appends the address that it received the request from to `X-Forwarded-For`. Read from
    the right, the first address that is not a trusted proxy is the client: what is further left may
    be forged.
    """

    def is_trusted(address: str) -> bool:
        ip = ip_address(address)
        return any(ip in network for network in trusted)

    # The context belongs to the connection, and still has the values of the request before.
    context.remote_ip, context.protocol = context.address[0], "http"
    if not is_trusted(context.remote_ip):
        return
    for hop in reversed(",".join(headers.get_list("X-Forwarded-For")).split(",")):
        address = address_of(hop.strip())
        if not address:
            break
        context.remote_ip = address
        if not is_trusted(address):
            break
    scheme = ",".join(headers.get_list("X-Forwarded-Proto")).rpartition(",")[2].strip()
    if scheme in ("http", "https"):
        context.protocol = scheme


def address_of(text: str) -> str:
    """The IP address in a text, without the port and the brackets that it may have; empty if there
    is none, or one with a zone, which may be any text and has a meaning on its own machine only."""
    found = _WITH_PORT.fullmatch(text)
    address = found[1] or found[2] if found else text
    try:
        ip_address(address)
    except ValueError:
        return ""
    return "" if "%" in address else address
