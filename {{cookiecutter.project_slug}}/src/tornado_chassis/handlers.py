"""Handlers to build on: JSON in and out, and errors as problem details."""

import json
from http import HTTPStatus
from time import time
from typing import Any

from tornado.escape import json_encode
from tornado.httputil import HTTPHeaders
from tornado.web import HTTPError, RequestHandler

from .exchange import correlation, http_date


class JsonHandler(RequestHandler):
    """A handler whose errors are problem details, after RFC 9457."""

    def clear(self) -> None:
        # In place of Tornado's own headers: formatting the date for each response takes as long as
        # all the hooks together, and `Server` reveals the version.
        self._headers = HTTPHeaders()
        self._headers["Content-Type"] = "text/html; charset=UTF-8"
        self._headers["Date"] = http_date(int(time()))
        self.set_default_headers()
        self._write_buffer = []
        self._status_code = 200
        self._reason = "OK"

    def read_json(self) -> Any:
        """The request's body, parsed.

        Raises `HTTPError` 400 for a body that is not JSON.
        """
        try:
            return json.loads(self.request.body)
        except (ValueError, RecursionError):
            raise HTTPError(HTTPStatus.BAD_REQUEST, reason="The body is not valid JSON") from None

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Writes the problem. Clients see the `reason` of an `HTTPError`, never its log message."""
        self.set_header("Content-Type", "application/problem+json")
        request_id = correlation.get().get("request_id")
        problem = {"title": self._reason, "status": status_code, "request_id": request_id}
        self.finish(json_encode(problem))


class NotFound(JsonHandler):
    """Answers requests that no route matches."""

    def check_xsrf_cookie(self) -> None:
        """Does nothing, as in Tornado's `ErrorHandler`."""

    def check_trusted_origin(self, origin: str) -> bool:
        return True

    def prepare(self) -> None:
        raise HTTPError(HTTPStatus.NOT_FOUND)
