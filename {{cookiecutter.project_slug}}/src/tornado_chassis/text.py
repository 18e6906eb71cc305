"""The texts of the team's values, which their own code makes.

What a value does when it is asked for its text may raise, not end, or log the value again. Nothing
of it reaches whoever logs, traces or reports the value.
"""

import threading
from collections.abc import Callable
from typing import Any

TEXT_CHARACTERS = 32 * 1024
"""Maximum length of a text; a longer one is cut in the middle."""

_NESTED = 2
"""How many texts may be made within each other: that of a value may log the value itself."""

_DEEP = 500

# The name that `class` gave, whatever a metaclass shows.
_name_of_class = type.__dict__["__qualname__"].__get__


class _Local(threading.local):
    texts = 0


_local = _Local()


def text(value: object, convert: Callable[[Any], str] = str) -> str:
    """What `convert` makes of a value; if that fails, a placeholder which says so."""
    if type(value) is str and convert is str:
        return value
    outer = _local.texts
    try:
        if outer == _NESTED or is_deep(value):
            raise RecursionError
        _local.texts = outer + 1
        # Exactly a `str`, as a class that extends it may do anything.
        return str.__str__(convert(value))
    except BaseException as error:  # It may raise what usually ends a process.
        return f"<{name_of(value)} whose text fails: {name_of(error)}>"
    finally:
        _local.texts = outer


def is_deep(value: object) -> bool:
    """Whether a list, tuple or dictionary goes deeper than anybody reads. To find that there is no
    text for it, Python 3.14 takes half a second."""
    for _ in range(_DEEP):
        kind = type(value)
        if kind is dict:
            value = next(iter(value.values()), None)  # type: ignore[attr-defined]
        elif (kind is list or kind is tuple) and value:
            value = value[0]  # type: ignore[index]
        else:
            return False
    return True


def name_of(value: object) -> str:
    """The name of a value's class."""
    return str(_name_of_class(type(value)))


def cut(text: str, limit: int = TEXT_CHARACTERS) -> str:
    if len(text) <= limit:
        return text
    kept = max(limit // 2 - 32, 0)
    end = text[len(text) - kept :]
    return f"{text[:kept]} ... {len(text) - 2 * kept} characters cut ... {end}"


def encodable(text: str) -> str:
    """The text, with `?` for what UTF-8 cannot hold."""
    return text.encode(errors="replace").decode()
