"""The service's own handlers. Add yours here, and its route to `app.py`."""

import logging
from http import HTTPStatus
from typing import Any

from tornado.escape import json_encode
from tornado.web import HTTPError, RequestHandler

from . import SERVICE, __version__
# {% if cookiecutter.tracing != "none" %}
from .tracing import span
# {% endif %}

log = logging.getLogger(__name__)


class JsonHandler(RequestHandler):
    """A handler whose errors are problem details, after RFC 9457."""

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Writes the problem; a client is told an `HTTPError`'s `reason`, never its log message."""
        self.set_header("Content-Type", "application/problem+json")
        request_id = self._headers["X-Request-ID"]
        problem = {"title": self._reason, "status": status_code, "request_id": request_id}
        self.finish(json_encode(problem))


class NotFound(JsonHandler):
    def prepare(self) -> None:
        raise HTTPError(HTTPStatus.NOT_FOUND)


class Root(JsonHandler):
    def get(self) -> None:
        self.finish({"service": SERVICE, "version": __version__})


class Hello(JsonHandler):
    def get(self, name: str) -> None:
        log.debug("Greeting")
        self.finish({"message": greet(name)})


# {% if cookiecutter.tracing != "none" %}
@span("greet")
# {% endif %}
def greet(name: str) -> str:
    return f"Hello, {name}!"
