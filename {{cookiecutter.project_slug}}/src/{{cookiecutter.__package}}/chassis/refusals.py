"""Requests that never reach a handler: they are malformed, too large, or don't arrive in time.

Tornado answers them itself or closes the connection, and calls no hook.
"""

import logging
import sys
from typing import TYPE_CHECKING, Any

from tornado.http1connection import HTTP1Connection, HTTP1ServerConnection
from tornado.httputil import HTTPConnection, HTTPInputError
from tornado.iostream import UnsatisfiableReadError
from tornado.log import gen_log

if TYPE_CHECKING:
    from .application import Application

log = logging.getLogger(__name__)

_OF_TORNADO = ("Malformed HTTP message from", "Timeout reading body from")


class HeadersTimeoutError(Exception):
    """Why a connection is closed whose next request has not come in time."""


def observe_connection(connection: HTTPConnection, application: "Application") -> None:
    """Makes a server's connection report the requests that it refuses."""
    # Tornado creates the connections, and their class cannot be chosen.
    if type(connection) is HTTP1Connection:
        connection.__class__ = _Connection
        connection.application = application  # type: ignore[attr-defined]


def body_lost(connection: HTTPConnection | None, seconds: float) -> None:
    """Called if a connection was closed before the body was complete, this long after the headers.

    Either the client has disconnected, or its time was up.
    """
    if isinstance(connection, _Connection) and seconds >= (connection._body_timeout or seconds + 1):
        _refuse(connection.context, connection.application, "timeout")


def connection_closed(connection: HTTP1ServerConnection, application: "Application") -> None:
    """Called if a connection was closed between two requests, or while reading headers."""
    stream = connection.stream
    if isinstance(stream.error, UnsatisfiableReadError):
        _refuse(connection.context, application, "too_large")
    elif isinstance(stream.error, HeadersTimeoutError) and stream._read_buffer:
        _refuse(connection.context, application, "timeout")  # in the middle of its headers


class _Connection(HTTP1Connection):
    application: "Application"

    # Only called if something is wrong, so that other requests take no longer.
    def close(self) -> None:
        error = sys.exception()
        if isinstance(error, HTTPInputError):
            is_large = "too long" in str(error) or "too large" in str(error)
            _refuse(self.context, self.application, "too_large" if is_large else "malformed")
        super().close()


def _refuse(context: Any, application: "Application", reason: str) -> None:
    # Without what the client sent, which could be anything.
    log.info("Refused a request: %s", reason, extra={"client.address": context.remote_ip})
    application.report_refusal(reason)


def _is_of_a_client(record: logging.LogRecord) -> bool:
    # Tornado's lines about refused requests quote the request. Those of its client have no address.
    is_refusal = isinstance(record.msg, str) and record.msg.startswith(_OF_TORNADO)
    return not (is_refusal and isinstance(record.args, tuple) and record.args[0] is not None)


gen_log.addFilter(_is_of_a_client)
