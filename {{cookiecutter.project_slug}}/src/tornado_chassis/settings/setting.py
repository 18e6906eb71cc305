"""What the classes of settings are made with."""

from collections.abc import Callable
from dataclasses import MISSING, dataclass, field
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


def setting(
    default: Any = MISSING,
    *,
    default_factory: Any = MISSING,
    parse: Callable[[str], Any] | None = None,
    secret: bool = False,
    shared: bool = False,
) -> Any:
    """Describes a field. Without a default, the setting is required.

    `parse` returns the value for the variable's text, or raises ValueError with a message that says
    what the text should be; `parsing` has some. Without it, the field's type decides. A secret is
    never shown, neither in a repr nor in an error message.

    A shared variable is also set for other programs, such as by a platform for all that it runs. It
    never keeps a service from starting: a problem with it is logged, and the default takes its
    place.
    """
    return field(
        default=default,
        default_factory=default_factory,
        repr=not secret,
        metadata={"parse": parse, "secret": secret, "shared": shared},
    )


@dataclass_transform(frozen_default=True, kw_only_default=True)
def group(cls: type[T]) -> type[T]:
    """Makes a class the settings of one feature: a base of `Settings`, not to be used by itself.

    It is a dataclass without methods. Python would compile `__init__` and its like for each base,
    and that would take a tenth of the time that Tornado takes to load.
    """
    return dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)(cls)
