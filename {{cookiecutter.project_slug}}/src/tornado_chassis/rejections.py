"""Requests that never reach a handler: they are malformed, too large, or don't arrive in time.

Tornado answers them itself or closes the connection, and calls no hook.
"""

import logging
from http import HTTPStatus
from time import perf_counter
from typing import Any

from tornado.http1connection import HTTP1ServerConnection
from tornado.httputil import HTTPInputError
from tornado.iostream import UnsatisfiableReadError
from tornado.log import gen_log

from .feature import Feature, Runtime

log = logging.getLogger(__name__)

_OF_TORNADO = ("Malformed HTTP message from", "Timeout reading body from")


class HeadersTimeoutError(Exception):
    """Why a connection is closed whose next request has not come in time."""


def body_lost(connection: Any, runtime: Runtime, since: float) -> None:
    """Called if a connection was closed before the body was complete, whose headers had been read
    at this time.

    Either the client has disconnected, or its time was up.
    """
    if closed_with(connection, since) == HTTPStatus.REQUEST_TIMEOUT:
        _reject(connection.context, runtime, "timeout")


def closed_with(connection: Any, since: float) -> int:
    """Status of a request whose connection Tornado closed before the body was complete; 0 if the
    client did."""
    stream = connection.stream
    error = getattr(stream, "closed_for", None) or getattr(stream, "error", None)
    if isinstance(error, HTTPInputError | UnsatisfiableReadError):
        return HTTPStatus.BAD_REQUEST
    timeout = getattr(connection, "_body_timeout", None)
    is_late = timeout and perf_counter() - since >= timeout
    return HTTPStatus.REQUEST_TIMEOUT if is_late else 0


def connection_closed(connection: HTTP1ServerConnection, runtime: Runtime) -> None:
    """Called if a connection was closed between two requests, or while reading one."""
    stream = connection.stream
    error = getattr(stream, "closed_for", None)
    if isinstance(error, HTTPInputError):
        is_large = "too long" in str(error) or "too large" in str(error)
        _reject(connection.context, runtime, "too_large" if is_large else "malformed")
    elif isinstance(stream.error, UnsatisfiableReadError):
        _reject(connection.context, runtime, "too_large")
    elif isinstance(stream.error, HeadersTimeoutError) and stream._read_buffer:
        _reject(connection.context, runtime, "timeout")  # in the middle of its headers


def _reject(context: Any, runtime: Runtime, reason: str) -> None:
    # Without what the client sent, which could be anything.
    log.info("Rejected a request: %s", reason, extra={"client.address": context.remote_ip})
    runtime.notify(Feature.request_rejected, reason)


def _is_of_a_client(record: logging.LogRecord) -> bool:
    # Tornado's lines about rejected requests quote them. Those of its client have no address.
    is_rejection = isinstance(record.msg, str) and record.msg.startswith(_OF_TORNADO)
    return not (is_rejection and isinstance(record.args, tuple) and record.args[0] is not None)


gen_log.addFilter(_is_of_a_client)
