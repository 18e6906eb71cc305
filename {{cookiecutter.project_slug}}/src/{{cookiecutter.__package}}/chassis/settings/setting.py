"""A field of `Settings` that is more than a name, a type and a default."""

from collections.abc import Callable
from dataclasses import MISSING, field
from typing import Any


def setting(
    default: Any = MISSING,
    *,
    default_factory: Any = MISSING,
    parse: Callable[[str], Any] | None = None,
    secret: bool = False,
) -> Any:
    """Describes a field. Without a default, the setting is required.

    `parse` returns the value for the variable's text, or raises ValueError with a message that says
    what the text should be; `parsing` has some. Without it, the field's type decides. A secret is
    never shown, neither in a repr nor in an error message.
    """
    return field(
        default=default,
        default_factory=default_factory,
        repr=not secret,
        metadata={"parse": parse, "secret": secret},
    )
