"""Handlers to build on: JSON in and out, and errors as problem details."""

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from tornado.escape import json_encode
from tornado.web import HTTPError, RequestHandler, stream_request_body

if TYPE_CHECKING:
    from .application import Refusal


class JsonHandler(RequestHandler):
    """A handler whose errors are problem details, after RFC 9457."""

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
        request_id = self._headers["X-Request-ID"]
        problem = {"title": self._reason, "status": status_code, "request_id": request_id}
        self.finish(json_encode(problem))


class NotFound(JsonHandler):
    """Answers requests that no route matches."""

    def prepare(self) -> None:
        raise HTTPError(HTTPStatus.NOT_FOUND)


class InternalError(JsonHandler):
    """Answers in place of a handler that could not be created."""

    def prepare(self) -> None:
        self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)

    def data_received(self, chunk: bytes) -> None:
        """Drops the body of a handler that would have streamed it."""


@stream_request_body  # or a body that is not there would be parsed
class Refused(JsonHandler):
    """Answers in place of the handler that a refused request would have reached."""

    def initialize(self, refusal: "Refusal") -> None:
        self._refusal = refusal

    def prepare(self) -> None:
        self.send_error(self._refusal.status, reason=self._refusal.title)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        for name, value in self._refusal.headers.items():
            self.set_header(name, value)
        super().write_error(status_code, **kwargs)
