"""Requests that never reach a handler: they are malformed, too large, or don't arrive in time.

Tornado answers them itself or closes the connection, and calls no hook.
"""

import json
import logging
from contextlib import suppress
from http import HTTPStatus
from time import time
from typing import Any

from tornado.log import gen_log

from .exchange import http_date, is_cancelled
from .feature import Feature, Runtime

log = logging.getLogger(__name__)

TORNADOS_ANSWER = b"HTTP/1.1 400 Bad Request\r\n\r\n"
"""What Tornado answers, whatever is wrong."""

_CUT_OFF = "Cannot send error response after headers written"
_OF_TORNADO = ("Malformed HTTP message from", "Timeout reading body from")


def status_of(error: Exception) -> HTTPStatus:
    """Status for what Tornado could not read."""
    is_large = "too long" in str(error) or "too large" in str(error)
    return HTTPStatus.REQUEST_ENTITY_TOO_LARGE if is_large else HTTPStatus.BAD_REQUEST


def answer(status: HTTPStatus) -> bytes:
    """A problem (RFC 9457) as the last response on a connection, in place of `TORNADOS_ANSWER`."""
    body = json.dumps({"title": status.phrase, "status": status})
    return (
        f"HTTP/1.1 {status:d} {status.phrase}\r\nDate: {http_date(int(time()))}\r\n"
        "Connection: close\r\nContent-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def rejected(context: Any, runtime: Runtime, status: int) -> None:
    """Notifies the features of a request that could not be read."""
    reasons = {HTTPStatus.BAD_REQUEST: "malformed", HTTPStatus.REQUEST_TIMEOUT: "timeout"}
    reason = reasons.get(HTTPStatus(status), "too_large")
    # Without what the client sent, which could be anything.
    log.info("Rejected a request: %s", reason, extra={"client.address": context.remote_ip})
    runtime.notify(Feature.request_rejected, reason)


def _is_needed(record: logging.LogRecord) -> bool:
    message = record.msg if isinstance(record.msg, str) else ""
    if message == _CUT_OFF:
        # Whoever cancels a handler that has begun to answer has said so.
        with suppress(RuntimeError):  # in a thread
            return not is_cancelled()
    # Tornado's lines about rejected requests quote them. Those of its client have no address.
    is_rejection = message.startswith(_OF_TORNADO)
    return not (is_rejection and isinstance(record.args, tuple) and record.args[0] is not None)


gen_log.addFilter(_is_needed)
