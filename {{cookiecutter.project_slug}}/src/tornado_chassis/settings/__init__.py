"""Settings, read once at the start from the environment and, in development, from a file `.env`.

Names are the ecosystem's own if there is one, and have no prefix: an orchestrator may announce the
service with a variable `MY_SERVICE_PORT=tcp://...`, which is not the port to listen on.

They are a dataclass with a reader of its own: pydantic-settings took as long to load as everything
else that a service loads besides Tornado, and 9 MiB of memory.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from fnmatch import fnmatchcase
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_type_hints

from . import parsing
from .server import ServerSettings
from .setting import SHARED, is_secret, is_shared, masked
from .setting import group as group
from .setting import setting as setting

# What Kubernetes adds to the environment for a service called, for example, `otel-collector`.
_LINK = re.compile(r"[A-Z0-9_]+_(SERVICE_(HOST|PORT)\b.*|PORT_\d+_(TCP|UDP).*|PORT=(tcp|udp)://.*)")

EX_CONFIG = 78
"""Exit status for a configuration error, after sysexits.h."""

AnySettings = TypeVar("AnySettings", bound=ServerSettings)


def load(kind: type[AnySettings]) -> AnySettings:
    """Reads settings of this class; exits with status 78 and every problem on standard error."""
    try:
        return read(kind, os.environ, _dotenv())
    except ValueError as error:
        print("Invalid settings:", error, sep="\n", file=sys.stderr)
        raise SystemExit(EX_CONFIG) from None


def read(
    kind: type[AnySettings],
    environ: Mapping[str, str],
    file: Mapping[str, str] = MappingProxyType({}),
) -> AnySettings:
    """Reads settings of this class from variables and, where these are unset, from what a file
    sets. An empty variable counts as unset.

    What is wrong with shared variables is in its `warnings`. Raises ValueError with a line for each
    other setting that is invalid or missing.
    """
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    problems, warnings, sources = [], [], {}
    for each in fields(kind):
        name = each.name.upper()
        # Those of proxies may be in lower case.
        text = (environ.get(name) or (is_shared(each) and environ.get(each.name)) or "").strip()
        sources[each.name] = "environment" if text else ".env"
        if text := text or file.get(name, "").strip():
            parse = each.metadata.get("parse") or parsing.parser_of(hints[each.name])
            try:
                values[each.name] = parse(text)
            except ValueError as error:
                shown = masked(text)
                shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
                problem = f"{name}: {error}" + ("" if is_secret(each) else f", not {shown!r}")
                if not is_shared(each):
                    problems.append(f"  {problem}")
                elif isinstance(error, parsing.PartlyInvalid):
                    values[each.name] = error.value
                    warnings.append(f"{problem}. Only the rest of it is used")
                else:
                    warnings.append(f"{problem}. It is ignored")
        elif each.default is MISSING and each.default_factory is MISSING:
            problems.append(f"  {name}: is required")
    if problems:
        raise ValueError("\n".join(problems))
    loaded = kind(**values)
    warnings += [*loaded.conflicts(), *_unread(kind, {**file, **environ})]
    vars(loaded).update(warnings=warnings, _sources={name: sources[name] for name in values})
    return loaded


def source(loaded: ServerSettings, name: str) -> str:
    """Where a field was read from: `environment` or `.env`; empty if from neither."""
    return str(vars(loaded).get("_sources", {}).get(name, ""))


def _unread(kind: type[ServerSettings], environ: Mapping[str, str]) -> Iterator[str]:
    """What to log about variables that are not settings."""
    known = {each.name.upper() for each in fields(kind)}
    reasons = [item for each in kind.__mro__ for item in vars(each).get("unread", {}).items()]
    unread: dict[str, list[str]] = {}
    for name, text in environ.items():
        if name in known:
            continue
        variable = f"{name}={text}"
        is_telemetry_s = name.startswith(SHARED) and not _LINK.fullmatch(variable)
        matching = (
            why
            for pattern, why in reasons
            if fnmatchcase(variable, pattern if "=" in pattern else f"{pattern}=*")
        )
        reason = next(matching, None) if is_telemetry_s else None
        if reason is None and (near := [each for each in known if _is_typo(name, each)]):
            yield f"{name} is not a setting; did you mean {near[0]}?"
        elif is_telemetry_s and reason != "":
            unread.setdefault(reason or "nothing in this service reads it", []).append(name)
    for reason, names in unread.items():
        yield f"{', '.join(names)}: ignored, because {reason}"


def _is_typo(name: str, known: str) -> bool:
    """Whether the names differ by at most two letters side by side, by a missing unit, or by what
    stands elsewhere for a file with the value."""
    if abs(len(name) - len(known)) > 2 or len(name) < 6:
        return known in (f"{name}_SECONDS", name.removesuffix("_FILE"))
    short, long = sorted((name, known), key=len)
    return any(
        short.startswith(long[:i]) and short.endswith(long[i + 2 :]) for i in range(len(long))
    )


def _dotenv() -> dict[str, str]:
    """What the file `.env` sets, if there is one. Raises ValueError if it cannot be read."""
    if not Path(".env").exists():
        return {}
    # Imported only if it is needed.
    from dotenv import dotenv_values
    from dotenv.parser import parse_stream

    try:
        text = Path(".env").read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"  .env: {error}") from None
    problems = [
        f"  .env: line {each.original.line} should look like NAME=value"
        for each in parse_stream(StringIO(text))
        # A name alone sets nothing, but `PORT:80` is meant to.
        if each.error or (each.value is None and ":" in (each.key or ""))
    ]
    if problems:
        raise ValueError("\n".join(problems))
    return {name: value for name, value in dotenv_values(stream=StringIO(text)).items() if value}
