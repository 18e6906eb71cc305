"""The team's values as JSON and in what is logged: one that cannot be written costs only itself."""

import json
import logging
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from itertools import islice, takewhile
from math import isfinite
from types import TracebackType
from typing import Any

from .text import TEXT_CHARACTERS as TEXT_CHARACTERS
from .text import cut as cut
from .text import encodable as encodable
from .text import is_deep
from .text import name_of as name_of
from .text import text as text

_DEPTH = 16
"""How deep `plain` follows values within values."""

_encode = json.JSONEncoder(
    default=lambda value: text(value), allow_nan=False, separators=(",", ":")
).encode
_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime"}
_SURROGATE = re.compile(r"\\(?:ud[89ab]..\\ud[c-f]..|(ud[89a-f]..)|.)")


def message(record: logging.LogRecord) -> str:
    """The message of a log record, with a placeholder for an argument that has no text."""
    if not record.args and type(record.msg) is str and type(record) is logging.LogRecord:
        return cut(record.msg)
    return cut(text(record, _formatted))


def _formatted(record: logging.LogRecord) -> str:
    try:
        if type(record.args) is tuple and any(map(is_deep, (record.msg, *record.args))):
            raise RecursionError
        return record.getMessage()
    except BaseException:
        form, args = text(record.msg), record.args
        shown: Any = _Shown(args)
        if type(args) is tuple:
            shown = tuple(map(_shown, args))
        elif type(args) is dict:
            shown = {key: _shown(each) for key, each in args.items()}
        try:
            return str(form % shown)
        except BaseException:  # The arguments don't match the format.
            return f"{form} {shown!r}"


def _shown(value: object) -> object:
    is_number = type(value) is float or (type(value) is int and value.bit_length() < 1024)
    return value if is_number else _Shown(value)


class _Shown:
    """A value, and what its texts are."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __str__(self) -> str:
        return text(self._value)

    def __repr__(self) -> str:
        return text(self._value, repr)


def extra(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    """The names and values that a log record was given as `extra`."""
    return ((name, value) for name, value in vars(record).items() if name not in _STANDARD)


def raised(record: logging.LogRecord) -> BaseException | None:
    """The exception that a log record is about."""
    return record.exc_info[1] if isinstance(record.exc_info, tuple) else None


def trace(record: logging.LogRecord) -> str:
    """The traceback of what was raised; of a record from another process, only its text is left."""
    error = raised(record)
    return stack(error) if error else record.exc_text or ""


# What was raised may have a property of this name.
traceback_of: Callable[[BaseException], TracebackType | None] = vars(BaseException)[
    "__traceback__"
].__get__


def stack(error: BaseException) -> str:
    """The traceback of an exception, with those of its causes."""
    return text(error, _stack)


def reported(report: Callable[[BaseException], object], error: BaseException) -> None:
    """Reports an exception to a library; one that it would fail with, as another that looks like
    it."""
    said = text(error)
    try:
        said.encode()
        report(error)
    except BaseException:
        kind = type(name_of(error), (Exception,), {"__module__": text(type(error).__module__)})
        report(kind(encodable(said)).with_traceback(traceback_of(error)))


def _stack(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except BaseException:  # from a property of its own, such as `__notes__`
        frames = "".join(traceback.format_tb(traceback_of(error)))
        return f"{frames}{name_of(error)}: {text(error)}\n"


def to_json(value: object, room: int = TEXT_CHARACTERS) -> str:
    """A value as JSON, in ASCII. If something in it has none, it, or each member of a dictionary,
    is as `plain` has it."""
    try:
        encoded = _encode(value)
    except BaseException:  # NaN, a value within itself, a key that is not a string
        members = value if type(value) is dict else {}
        shown = {cut(text(key)): plain(each, room) for key, each in members.items()}
        encoded = _encode(shown or plain(value, room))
    return well_formed(encoded)


def plain(value: object, room: int = TEXT_CHARACTERS) -> Any:
    """A copy of a value that consists only of what JSON has, with text for the rest.

    It has about `room` characters, in place of the rest of which it has `...`.
    """
    if type(value) is str:
        return cut(value, room)
    if type(value) is int and value.bit_length() < 64:
        return value

    def copy(value: Any, depth: int) -> Any:
        nonlocal room
        room -= 4
        kind = type(value)
        if value is None or kind is bool:
            return value
        if issubclass(kind, int) and int.bit_length(value) < 1024:
            return int.__int__(value)
        if issubclass(kind, float) and isfinite(float.__float__(value)):
            return float.__float__(value)
        if room <= 0:
            return "..."
        # With the methods of the base class: those of the value's own may do anything.
        if issubclass(kind, dict) and depth:
            pairs = list(islice(dict.items(value), room))
            return {shown(key): copy(each, depth - 1) for key, each in takewhile(has_room, pairs)}
        for base in (list, tuple) if depth else ():
            if issubclass(kind, base):
                return [copy(each, depth - 1) for each in takewhile(has_room, base.__iter__(value))]
        return shown(value)

    def has_room(each: object) -> bool:
        return room > 0

    def shown(value: object) -> str:
        nonlocal room
        kept = cut(text(value), max(room, 0))
        room -= len(kept)
        return kept

    return copy(value, _DEPTH)


def exceeds(value: object, room: int) -> bool:
    """Whether a value has more characters or items than this, as one does that contains itself."""
    waiting = [value]
    while waiting and room > 0:
        each = waiting.pop()
        room -= 1
        if isinstance(each, str):
            room -= str.__len__(each)
        elif isinstance(each, Mapping):
            waiting += islice(each, room)
            waiting += islice(each.values(), room)
        elif isinstance(each, list | tuple):
            waiting += islice(each, room)
    return room <= 0


def well_formed(encoded: str) -> str:
    """JSON in ASCII with U+FFFD for each lone surrogate, because of which a reader may reject all
    of it."""
    if "\\ud" not in encoded:
        return encoded
    return _SURROGATE.sub(lambda match: "\\ufffd" if match[1] else match[0], encoded)
