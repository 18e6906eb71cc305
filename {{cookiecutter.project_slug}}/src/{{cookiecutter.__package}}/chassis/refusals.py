"""Requests that never reach a handler: they are malformed, too large, or don't arrive in time.

Tornado answers them itself or closes the connection, and calls no hook.
"""

import logging
from time import perf_counter
from typing import TYPE_CHECKING, Any

from tornado.http1connection import HTTP1ServerConnection
from tornado.httputil import HTTPInputError
from tornado.iostream import UnsatisfiableReadError
from tornado.log import gen_log

if TYPE_CHECKING:
    from .application import Application

log = logging.getLogger(__name__)

_OF_TORNADO = ("Malformed HTTP message from", "Timeout reading body from")


class HeadersTimeoutError(Exception):
    """Why a connection is closed whose next request has not come in time."""


def body_lost(connection: Any, application: "Application", since: float) -> None:
    """Called if a connection was closed before the body was complete, whose headers had been read
    at this time.

    Either the client has disconnected, or its time was up.
    """
    timeout = getattr(connection, "_body_timeout", None)
    if timeout and perf_counter() - since >= timeout:
        _refuse(connection.context, application, "timeout")


def connection_closed(connection: HTTP1ServerConnection, application: "Application") -> None:
    """Called if a connection was closed between two requests, or while reading one."""
    stream = connection.stream
    error = getattr(stream, "closed_for", None)
    if isinstance(error, HTTPInputError):
        is_large = "too long" in str(error) or "too large" in str(error)
        _refuse(connection.context, application, "too_large" if is_large else "malformed")
    elif isinstance(stream.error, UnsatisfiableReadError):
        _refuse(connection.context, application, "too_large")
    elif isinstance(stream.error, HeadersTimeoutError) and stream._read_buffer:
        _refuse(connection.context, application, "timeout")  # in the middle of its headers


def _refuse(context: Any, application: "Application", reason: str) -> None:
    # Without what the client sent, which could be anything.
    log.info("Refused a request: %s", reason, extra={"client.address": context.remote_ip})
    application.report_refusal(reason)


def _is_of_a_client(record: logging.LogRecord) -> bool:
    # Tornado's lines about refused requests quote the request. Those of its client have no address.
    is_refusal = isinstance(record.msg, str) and record.msg.startswith(_OF_TORNADO)
    return not (is_refusal and isinstance(record.args, tuple) and record.args[0] is not None)


gen_log.addFilter(_is_of_a_client)
