"""The OpenAPI 3.1 document of a service, made from its routes and handlers.

What `handlers.operation` decorates is described by its annotations, docstring and problems. Of any
other handler, the document has the path, the methods and their docstrings.
"""

import inspect
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import responses
from itertools import chain, count
from types import MappingProxyType, NoneType
from typing import Any, NamedTuple

import msgspec
from tornado.web import RequestHandler

from .exchange import METHODS, methods_of
from .handlers import Operation

# What reading a body may answer; see `JsonHandler.read_json`.
OF_BODIES = {
    400: "The body is not valid JSON",
    415: "The body is not declared as application/json",
    422: "The body does not have the expected content",
}
_PARAMETER = re.compile(r"{([^{}/#?]+)}")
_STATUS = re.compile(r"[1-5]([0-9]{2}|XX)|default")
_REFERENCE = "#/components/schemas/{name}"

log = logging.getLogger(__name__)


@dataclass
class WrongPart:
    """Something that is wrong with the request's body."""

    detail: str
    #: A JSON Pointer (RFC 6901), as a fragment such as `#/items/0`.
    pointer: str


@dataclass
class ProblemDetails:
    """Why a request failed (RFC 9457)."""

    title: str
    status: int
    detail: str | None = None
    errors: list[WrongPart] = field(default_factory=list)
    request_id: str | None = None


class _Method(NamedTuple):
    path: str
    name: str
    handler: type[RequestHandler]
    docstring: str
    #: What its annotations say; None if they say nothing.
    operation: Operation | None = None
    #: Types; None if there is no content.
    body: Any = None
    answer: Any = None
    status: str = ""
    #: The meaning of each status of a problem.
    problems: Mapping[str, str] = MappingProxyType({})


def document(name: str, version: str, routes: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The document of a service, of whose `routes` each has a template and what answers it."""
    paths: dict[str, dict[str, Any]] = {}
    methods: list[_Method] = []
    for path, target in _paths(routes):
        paths[path] = {}
        if parameters := _PARAMETER.findall(path):
            of_path = {"in": "path", "required": True, "schema": {"type": "string"}}
            paths[path]["parameters"] = [{"name": each, **of_path} for each in parameters]
        if isinstance(target, type) and issubclass(target, RequestHandler):
            # A path of the document cannot have CONNECT.
            names = (each for each in methods_of(target) if each in METHODS - {"CONNECT"})
            methods += [_described(path, each, target) for each in names]
    try:
        (problem, *schemas), components = _schemas(methods)
    except Exception:  # One of them may be fine by itself.
        methods = _without_conflicts(methods)
        (problem, *schemas), components = _schemas(methods)
    ids: set[str] = set()
    for method, body, answer in zip(methods, schemas[::2], schemas[1::2], strict=True):
        unnumbered = f"{method.name}_{_words(method.handler.__name__)}".lower()
        numbered = (f"{unnumbered}_{number}" for number in count(2))
        operation_id = next(each for each in chain([unnumbered], numbered) if each not in ids)
        ids.add(operation_id)
        summary, _, description = method.docstring.partition("\n\n")
        described: dict[str, Any] = {
            "operationId": operation_id,
            "summary": " ".join(summary.split()),
            "description": description,
        }
        if method.body is not None:
            described["requestBody"] = {"required": True, "content": _content(body)}
        described["responses"] = _responses(method, answer, problem)
        paths[method.path][method.name.lower()] = {key: it for key, it in described.items() if it}
    return {
        "openapi": "3.1.0",
        "info": {"title": name, "version": version},
        "paths": paths,
        "components": {"schemas": components},
    }


def _paths(routes: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """The routes that are reached, without those of probes."""
    seen = set()
    for path, target in routes:
        names = _PARAMETER.findall(path)
        if len({*names}) < len(names) or re.search("[{}]", _PARAMETER.sub("", path)):
            # A pattern that is no template, such as one with `{2}` twice.
            path = path.replace("{", "%7B").replace("}", "%7D")
        shape = _PARAMETER.sub("{}", path)
        if path.startswith("/") and shape not in seen and not getattr(target, "is_probe", False):
            seen.add(shape)
            yield path, target


def _described(path: str, name: str, handler: type[RequestHandler]) -> _Method:
    method = getattr(handler, name.lower())
    operation: Operation | None = getattr(method, "operation", None)
    docstring = inspect.cleandoc(str(method.__doc__ or ""))
    if operation:
        try:
            types = operation.body, operation.answer
            msgspec.json.schema_components(types, schema_hook=_schema_of_other)
            problems = {**(OF_BODIES if operation.body is not None else {}), **operation.problems}
            answers = {_status(each): str(meaning) for each, meaning in problems.items()}
            status = _status(operation.status)
            return _Method(path, name, handler, docstring, operation, *types, status, answers)
        except Exception as error:  # whatever an annotation does
            log.warning("Cannot describe %s %s: %s", name, path, error)
    return _Method(path, name, handler, docstring)


def _responses(method: _Method, answer: Any, problem: Any) -> dict[str, Any]:
    if method.operation is None:
        return {"default": {"description": "Not described"}}
    meaning = responses.get(method.operation.status, "")
    described: dict[str, Any] = {"description": meaning}
    if method.answer is not NoneType:
        described["content"] = _content(answer)
    all_responses = {method.status: described}
    for status, meaning in sorted(method.problems.items()):
        content = _content(problem, "application/problem+json")
        all_responses[status] = {"description": meaning, "content": content}
    return all_responses


def _status(given: object) -> str:
    """A status as the document has it. Raises ValueError for what is none."""
    status = str(int(given)) if isinstance(given, int) else str(given)
    if not _STATUS.fullmatch(status):
        raise ValueError(f"{given!r} is not a status")
    return status


def _schemas(methods: Sequence[_Method]) -> tuple[Any, dict[str, Any]]:
    """The schema of a problem, those of the methods' bodies and answers, and their components."""
    types = [each for method in methods for each in (method.body, method.answer)]
    return msgspec.json.schema_components(
        [ProblemDetails, *types], schema_hook=_schema_of_other, ref_template=_REFERENCE
    )


def _without_conflicts(methods: Sequence[_Method]) -> list[_Method]:
    """Leaves out what cannot be described beside the ones before, such as another class of the same
    full name."""
    kept: list[_Method] = []
    for each in methods:
        try:
            _schemas([*kept, each])
            kept.append(each)
        except Exception as error:
            log.warning("Cannot describe %s %s: %r", each.name, each.path, error)
            kept.append(_Method(*each[:4]))
    return kept


def _schema_of_other(kind: type[Any]) -> dict[str, Any]:
    """Of a class that msgspec does not know, such as one that encodes itself."""
    return {"title": kind.__name__}


def _content(schema: Any, kind: str = "application/json") -> dict[str, Any]:
    return {kind: {"schema": schema}}


def _words(name: str) -> str:
    """`new_order` for `NewOrder`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
