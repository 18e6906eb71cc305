"""Handlers to build on: JSON in and out, and errors as problem details."""

import inspect
from asyncio import Future
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, wraps
from http import HTTPStatus
from time import time
from types import MappingProxyType
from typing import Any, TypeVar, get_type_hints, overload

import msgspec
from tornado.httputil import HTTPHeaders
from tornado.web import HTTPError, RequestHandler

from .bodies import decode, encode, find_errors, is_json
from .exchange import correlation, http_date
from .text import text

T = TypeVar("T")


class Problem(HTTPError):
    """An `HTTPError` with more to say: raise it to answer with a problem (RFC 9457).

    The arguments are those of `JsonHandler.problem`.
    """

    def __init__(self, status: int, title: str | None = None, **members: Any) -> None:
        super().__init__(status, reason=title)
        self.members = members


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

    @overload
    def read_json(self) -> Any: ...
    @overload
    def read_json(self, kind: type[T]) -> T: ...
    def read_json(self, kind: Any = Any) -> Any:
        """The request's body, parsed and, with a type, as an instance of it.

        The type is a dataclass, a `msgspec.Struct` or another that msgspec supports, such as
        `list[NewOrder]`. If a name occurs twice in an object, its last value counts. Names that the
        type does not have are ignored, unless it is a `Struct` with `forbid_unknown_fields`.

        Raises `Problem` with the status 400 for a body that is not JSON. With a type, raises it
        also with 415 if the `Content-Type` is not JSON's, and with 422 if the body is not of the
        type: its `errors` are those of `bodies.find_errors`.
        """
        content_type = self.request.headers.get("Content-Type", "")
        if kind is not Any and not is_json(content_type):
            raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The body must be application/json")
        body = self.request.body
        try:
            try:
                return decode(body, kind)
            except msgspec.ValidationError as error:
                errors = find_errors(body, kind, error)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Problem(HTTPStatus.BAD_REQUEST, "The body is not valid JSON") from None
        title = "The body does not have the expected content"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, title, errors=errors)

    def write(self, chunk: Any) -> None:
        """Writes text or bytes as they are, and anything else as JSON, such as a dataclass or a
        list of them."""
        if not isinstance(chunk, (str, bytes)):
            chunk = encode(chunk)
            self.set_header("Content-Type", "application/json; charset=UTF-8")
        super().write(chunk)

    def finish(self, chunk: Any = None) -> "Future[None]":
        return super().finish(chunk)

    def problem(self, status: int, title: str | None = None, **members: Any) -> "Future[None]":
        """Answers with a problem (RFC 9457).

        The title is the same for all problems of a kind; without one, it is the status's. `members`
        are further ones of the problem, such as `detail`, `type` and `errors`.
        """
        self.set_status(status)
        return self._finish_problem(title or self._reason, members)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Writes the problem. Clients see the `reason` of an `HTTPError`, never its log message."""
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        reason, members = kwargs.get("reason"), {}
        if isinstance(error, HTTPError):
            reason = error.reason or reason
        if isinstance(error, Problem):
            members = error.members
        if reason and reason != self._reason:
            # Tornado has made it "Unknown": it may not stand in a status line.
            self.set_status(status_code)
        self._finish_problem(reason or self._reason, members)

    def _finish_problem(self, title: str, members: Mapping[str, Any]) -> "Future[None]":
        if self._status_code in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
            return self.finish()
        self.set_header("Content-Type", "application/problem+json")
        problem = {"title": title, "status": int(self._status_code), **members}
        problem["request_id"] = correlation.get().get("request_id")
        try:
            encoded = encode(problem)
        except Exception:  # from one of its members
            encoded = encode({name: _encodable(each) for name, each in problem.items()})
        return self.finish(encoded)


def _encodable(value: Any) -> Any:
    """The value, or as text if it has no JSON."""
    try:
        encode(value)
    except Exception:
        return text(value)
    return value


@dataclass
class Operation:
    """What a method takes and returns, as its annotations say, and with which problems it
    answers."""

    method: Callable[..., Any]
    status: int
    problems: Mapping[int, str]

    @cached_property
    def _types(self) -> dict[str, Any]:
        # Not before the first use: a class may be defined further below.
        return get_type_hints(self.method, include_extras=True)

    @property
    def body(self) -> Any:
        """The type of the body; None if there is none."""
        return self._types.get("body")

    @property
    def answer(self) -> Any:
        """The type of the answer; `type(None)` if it has no content."""
        return self._types.get("return", Any)


def operation(
    *, status: int = 200, problems: Mapping[int, str] = MappingProxyType({})
) -> Callable[[Callable[..., Any]], Callable[..., Awaitable[None]]]:
    """Lets the annotations of a handler's method say what it takes and returns.

    The parameter `body` is given the request's body, read by `JsonHandler.read_json` as its type.
    What the method returns, text too, is sent as JSON with `status`; None is no content. The
    OpenAPI document has all of this, the method's docstring, and `problems`: the meaning of each
    status that the method raises as an `HTTPError` or a `Problem`.

        @operation(status=201, problems={409: "Sold out"})
        async def post(self, body: NewOrder) -> Order:
    """

    def decorate(method: Callable[..., Any]) -> Callable[..., Awaitable[None]]:
        described = Operation(method, status, problems)

        @wraps(method)
        async def answer(handler: JsonHandler, *args: Any, **kwargs: Any) -> None:
            if described.body is not None:
                kwargs["body"] = handler.read_json(described.body)
            handler.set_status(status)
            result = method(handler, *args, **kwargs)
            if inspect.isawaitable(result):
                result = await result
            if result is not None and not handler._finished:
                if isinstance(result, str | bytes):
                    # JSON as well, as the document says: never HTML.
                    handler.set_header("Content-Type", "application/json; charset=UTF-8")
                    result = encode(result)
                handler.finish(result)

        answer.operation = described  # type: ignore[attr-defined]
        return answer

    return decorate


class NotFound(JsonHandler):
    """Answers requests that no route matches."""

    def check_xsrf_cookie(self) -> None:
        """Does nothing, as in Tornado's `ErrorHandler`."""

    def check_trusted_origin(self, origin: str) -> bool:
        return True

    def prepare(self) -> None:
        raise HTTPError(HTTPStatus.NOT_FOUND)
