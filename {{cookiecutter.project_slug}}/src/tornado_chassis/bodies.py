"""JSON bodies of declared types: dataclasses, `msgspec.Struct` and what else msgspec knows."""

import json
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from itertools import islice
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints
from urllib.parse import quote

import msgspec

MAX_ERRORS = 20
# What a hostile body may make of it is bounded: each level converts what is below once more.
_MAX_DEPTH = 8
_MAX_VALUES = 1000

_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]")


def encode(value: Any) -> bytes:
    """The JSON of a value. Raises TypeError for what has none."""
    try:
        return msgspec.json.encode(value)
    except (TypeError, UnicodeEncodeError):
        # Less strict: keys that are None, subclasses of `str`, lone surrogates.
        encoded = json.dumps(value, default=msgspec.to_builtins)
        if "NaN" in encoded or "Infinity" in encoded:
            # Without a value in JSON: null, as msgspec has it.
            encoded = json.dumps(json.loads(encoded, parse_constant=lambda name: None))
        return encoded.encode()


def is_json(content_type: str) -> bool:
    """Whether a `Content-Type` is `application/json` or, such as GeoJSON's, ends in `+json`."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind[-5:] == "+json")


def decode(body: bytes, kind: Any) -> Any:
    """A body as an instance of this type. Raises what `msgspec.json.decode` raises."""
    value = msgspec.json.decode(body, type=kind)
    if kind is not Any:
        _complete(value)
    return value


def _complete(value: Any) -> None:
    """Gives each dataclass its defaults: msgspec leaves them to the class, and its encoder looks
    for them in the instance only."""
    if is_dataclass(value):
        parts = {each.name: getattr(value, each.name) for each in fields(value)}
        if hasattr(value, "__dict__"):
            vars(value).update(parts)
        value = parts
    elif isinstance(value, msgspec.Struct):
        value = msgspec.structs.asdict(value)
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple | set | frozenset):
        return
    for each in value:
        if not isinstance(each, str | int | float):
            _complete(each)


def find_errors(body: bytes, kind: Any, error: msgspec.ValidationError) -> list[dict[str, str]]:
    """What is wrong with a body that is not of this type, which msgspec gave up on with `error`.

    Each has a `detail` and a JSON Pointer (RFC 6901, as a fragment) to its place in the body. There
    is one for each wrong or missing field, and one for the first wrong item of each array.

    Raises `msgspec.DecodeError` or UnicodeDecodeError if the body is not even JSON.
    """
    try:
        value = msgspec.json.decode(body)
    except msgspec.ValidationError:  # a number that is too large
        return [_found(error, "#")]
    return list(islice(_errors(value, kind, "#", 0), MAX_ERRORS)) or [_found(error, "#")]


def _found(error: msgspec.ValidationError, pointer: str) -> dict[str, str]:
    """An error in the part of the body that is at `pointer`."""
    detail, _, place = str(error).partition(" - at `")
    if place.startswith("key"):
        detail += " as a name"
    steps = _STEP.findall(place.rstrip("`").partition("[...]")[0])
    path = "".join(f"/{_escaped(name or index)}" for name, index in steps)
    return {"detail": detail, "pointer": pointer + path}


def _errors(value: Any, kind: Any, pointer: str, depth: int) -> Iterator[dict[str, str]]:
    try:
        msgspec.convert(value, kind, str_keys=True)
        return
    except msgspec.ValidationError as error:
        whole = _found(error, pointer)
        path = str(error).partition(" - at `")[2].partition("$")[2]
    is_found = False
    for name, part, of in _parts(value, _class_of(value, kind), path) if depth < _MAX_DEPTH else ():
        place = f"{pointer}/{_escaped(name)}"
        if part is MISSING:
            is_found = True
            yield {"detail": "is required", "pointer": place}
        else:
            for each in _errors(part, of, place, depth + 1):
                is_found = True
                yield each
    if not is_found:
        yield whole


def _parts(value: Any, kind: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Name, value and type of those parts in which an error at `path` can be."""
    arguments = get_args(kind)
    if isinstance(value, dict) and path.startswith("[") and arguments:
        for key, part in islice(value.items(), _MAX_VALUES):
            yield key, part, arguments[-1]
    elif isinstance(value, list) and (step := _STEP.match(path)) and step[2] and arguments:
        index = int(step[2])
        is_fixed = get_origin(kind) is tuple and arguments[-1] is not ...
        yield step[2], value[index], arguments[index if is_fixed else 0]
    elif isinstance(value, dict):
        for name, of, is_required in _fields(kind):
            if name in value or is_required:
                yield name, value.get(name, MISSING), of


def _fields(kind: Any) -> Iterator[tuple[str, Any, bool]]:
    """Name, type and necessity of each field of a class, as in JSON."""
    bare = get_origin(kind) or kind
    if isinstance(bare, type) and issubclass(bare, msgspec.Struct):
        for each in msgspec.structs.fields(kind):
            yield each.encode_name, each.type, each.required
    elif is_dataclass(bare):
        hints = get_type_hints(bare, include_extras=True)
        for field in fields(bare):
            has_default = field.default is not MISSING or field.default_factory is not MISSING
            yield field.name, hints[field.name], not has_default


def _class_of(value: Any, kind: Any) -> Any:
    """A type without what it is annotated with; of several, the one that is not None, or that the
    value's tag says."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, UnionType):
        others = [each for each in get_args(kind) if each is not NoneType]
        if len(others) > 1 and isinstance(value, dict):
            others = [each for each in others if _has_tag(value, each)]
        return _class_of(value, others[0]) if len(others) == 1 else kind
    return kind


def _has_tag(value: dict[str, Any], kind: Any) -> bool:
    config = getattr(kind, "__struct_config__", None)
    return bool(config and config.tag is not None and value.get(config.tag_field) == config.tag)


def _escaped(name: str) -> str:
    return quote(name.replace("~", "~0").replace("/", "~1"), safe="~!$&'()*+,;=:@")
