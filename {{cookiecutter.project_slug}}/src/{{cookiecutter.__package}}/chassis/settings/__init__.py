"""Settings, read once at the start from the environment and, in development, from a file `.env`.

Names are the ecosystem's own if there is one, and have no prefix: an orchestrator may announce the
service with a variable `MY_SERVICE_PORT=tcp://...`, which is not the port to listen on.

They are a dataclass with a reader of its own: pydantic-settings took as long to load as everything
else that a service loads besides Tornado, and 9 MiB of memory.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_type_hints

from . import parsing
# {% if cookiecutter.console != "none" %}
from .console import ConsoleSettings
# {% endif %}
# {% if cookiecutter.error_tracking != "none" %}
from .errors import ErrorSettings
# {% endif %}
# {% if cookiecutter.logging != "none" %}
from .logs import LogSettings
# {% endif %}
# {% if cookiecutter.metrics == "statsd" %}
from .metrics import MetricSettings
# {% endif %}
from .server import ServerSettings
from .setting import group as group
from .setting import setting as setting
# {% if cookiecutter.tracing in ("jaeger", "zipkin") %}
from .tracing import TracingSettings
# {% endif %}

EX_CONFIG = 78
"""Exit status for a configuration error, after sysexits.h."""


# {% if cookiecutter.__admin %}
@group
class AdminSettings(ServerSettings):
    admin_host: str = "127.0.0.1"
    """Address that the admin server listens on. It must not be public."""

    admin_port: int = setting(8001, parse=parsing.port)
    """Port of the admin server, or 0 for any free port."""

    admin_allowed_hosts: tuple[str, ...] = setting((), parse=parsing.comma_separated)
    """Host names under which the admin server can be reached, comma-separated, in addition to
    `localhost` and IP addresses."""


# {% endif %}
# {% if cookiecutter.console != "none" and cookiecutter.tracing in ("jaeger", "zipkin") %}
def _trace_url(text: str) -> str:
    if "{trace_id}" not in text:
        raise ValueError("should look like https://host:port/trace/{trace_id}")
    return parsing.http_url(text)


@group
class TraceLinkSettings(ServerSettings):
    trace_url: str | None = setting(None, parse=_trace_url)
    """Where a browser finds a trace, such as `https://traces.example.com/trace/{trace_id}`. The
    console links to it."""


# {% endif %}
@dataclass(frozen=True, kw_only=True)
class Settings(
    # {% if cookiecutter.console != "none" and cookiecutter.tracing in ("jaeger", "zipkin") %}
    TraceLinkSettings,
    # {% endif %}
    # {% if cookiecutter.console != "none" %}
    ConsoleSettings,
    # {% endif %}
    # {% if cookiecutter.error_tracking != "none" %}
    ErrorSettings,
    # {% endif %}
    # {% if cookiecutter.tracing in ("jaeger", "zipkin") %}
    TracingSettings,
    # {% endif %}
    # {% if cookiecutter.metrics == "statsd" %}
    MetricSettings,
    # {% endif %}
    # {% if cookiecutter.logging != "none" %}
    LogSettings,
    # {% endif %}
    # {% if cookiecutter.__admin %}
    AdminSettings,
    # {% endif %}
    ServerSettings,
):
    """The settings of the chassis. Fields are in the order of these classes, from last to first."""


AnySettings = TypeVar("AnySettings", bound=Settings)


def load(kind: type[AnySettings]) -> AnySettings:
    """Reads settings of this class; exits with status 78 and every problem on standard error."""
    try:
        environ = {name: text for name, text in os.environ.items() if text}
        return read(kind, {**_dotenv(), **environ})
    except ValueError as error:
        fail(str(error))


def read(kind: type[AnySettings], environ: Mapping[str, str]) -> AnySettings:
    """Reads settings of this class from variables; an empty variable counts as unset.

    Raises ValueError with a line for each setting that is invalid or missing.
    """
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    problems = []
    for each in fields(kind):
        name = each.name.upper()
        text = environ.get(name, "").strip()
        if text:
            parse = each.metadata.get("parse") or parsing.parser_of(hints[each.name])
            try:
                values[each.name] = parse(text)
            except ValueError as error:
                shown = "" if each.metadata.get("secret") else f", not {parsing.quoted(text)}"
                problems.append(f"  {name}: {error}{shown}")
        elif each.default is MISSING and each.default_factory is MISSING:
            problems.append(f"  {name}: is required")
    if problems:
        raise ValueError("\n".join(problems))
    return kind(**values)


def misspelled(kind: type[Settings]) -> list[tuple[str, str]]:
    """Variables whose names are almost those of settings, each with the setting's name."""
    known = {each.name.upper() for each in fields(kind)}
    return [
        (name, near)
        for name in {**_dotenv(), **os.environ}
        if name not in known
        for near in known
        if _is_slip(name, near)
    ]


def _is_slip(name: str, known: str) -> bool:
    """Whether the names differ by at most two letters, or by a missing unit."""
    if abs(len(name) - len(known)) > 2 or len(name) < 6:
        return f"{name}_SECONDS" == known
    if name[:3] != known[:3] and name[-3:] != known[-3:]:
        return False  # quickly, as for most names
    # The Levenshtein distance, row by row.
    row = list(range(len(known) + 1))
    for i, letter in enumerate(name, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(known, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (letter != other))
    return row[-1] <= 2


def fail(problems: str) -> NoReturn:
    """Ends the process with status 78 and one line per problem on standard error."""
    print("Invalid settings:", problems, sep="\n", file=sys.stderr)
    raise SystemExit(EX_CONFIG)


def _dotenv() -> dict[str, str]:
    path = Path(".env")
    if not path.exists():
        return {}
    # Imported only if it is needed.
    from dotenv import dotenv_values

    try:
        values = dotenv_values(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"  .env: {error}") from None
    return {name: value for name, value in values.items() if value}
