"""What the classes of settings are made with, and what of them is not shown."""

import re
import sys
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")

HIDDEN = "••••••"

SHARED = "OTEL_", "SENTRY_", "NEW_RELIC_"
"""What the names of shared variables start with."""

# Parts of names, and whole words of them. These patterns are compiled only when they are used: it
# takes longer than all else here.
_SECRET = (
    r"(?:(?<!by)(?<!com)pass(?![a-z0-9])|passw|passphrase|passcode|pwd|secret|token|credential|creds|"
    r"private|signature|webhook|(?:api|access|account)[_-]?key|authorization|(?<![a-z])auth(?![a-z0-9_])|"
    r"(?<![a-z0-9])(?:keys?|pw|sk|sig|jwt|salt)(?![a-z0-9])|dsn(?![a-z0-9]))"
)
# From `://` to the last `@` before the next `://`: a password may hold what should be encoded. Or,
# without a scheme, from a name and a colon to an `@`.
_USERINFO = r"(?s)(://)(?:(?!://).)*(?=@)|((?<![\w.+/-])[\w.+-]*:(?!//))[^\s@]+(?=@)"
# `password=x`, `"password": "x"` and their like, within whatever else.
_ASSIGNED = (
    rf"""(?i)({_SECRET}[\w.-]{{0,40}}["']?\s*[=:]\s*)"""
    r"""('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|(?:(?:basic|bearer)\s+)?[^\s&]+)"""
)


def setting(
    default: Any = MISSING,
    *,
    default_factory: Any = MISSING,
    parse: Callable[[str], Any] | None = None,
    secret: bool = False,
    shared: bool = False,
    instead: Callable[[Any], Any] | None = None,
) -> Any:
    """Describes a field. Without a default, the setting is required.

    `parse` returns the value for the variable's text, or raises ValueError with a message that says
    what the text should be; `parsing` has some. Without it, the field's type decides. A secret is
    never shown, neither in a repr nor in an error message. `instead` returns, given all settings,
    what is in force where this one is None: see `in_force`.

    A shared variable is also set for other programs, such as by a platform for all that it runs;
    all whose names start as in `SHARED` are. It never keeps a service from starting: a problem with
    it is logged, and the default takes its place.
    """
    return field(
        default=default,
        default_factory=default_factory,
        repr=not secret,
        metadata={"parse": parse, "secret": secret, "shared": shared, "instead": instead},
    )


def on_terminal() -> bool:
    """Whether somebody sees the output; there is none if it was closed before the start."""
    return bool(sys.stdout and sys.stdout.isatty())


def in_force(settings: Any, name: str) -> Any:
    """The value of the setting of this name, or what is in force where that is None."""
    value = getattr(settings, name)
    instead = type(settings).__dataclass_fields__[name].metadata.get("instead")
    return instead(settings) if value is None and instead else value


def is_shared(setting: "Field[Any]") -> bool:
    return setting.name.upper().startswith(SHARED) or bool(setting.metadata.get("shared"))


def is_secret(setting: "Field[Any]") -> bool:
    """Whether a setting is a secret, or is called like one."""
    return bool(setting.metadata.get("secret") or re.search(_SECRET, setting.name, re.IGNORECASE))


def masked(text: str) -> str:
    """A text without the passwords of URLs and of what is assigned to names such as `password`."""
    text = re.sub(_USERINFO, rf"\1\2{HIDDEN}", text)
    return re.sub(_ASSIGNED, rf"\1{HIDDEN}", text)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def group(cls: type[T]) -> type[T]:
    """Makes a class the settings of one feature: a base of `Settings`, not to be used by itself.

    It is a dataclass without methods. Python would compile `__init__` and its like for each base,
    and that would take a tenth of the time that Tornado takes to load.
    """
    # Or its signature would be written out for it.
    cls.__doc__ = cls.__doc__ or cls.__name__
    return dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)(cls)
