"""Who may see the console, and what it cannot find out by itself."""

import re
from datetime import datetime

from .admin import AdminSettings
from .setting import group, setting


def _token(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._~-]{16,256}", text):
        raise ValueError("should be 16 to 256 letters, digits, -, ., _ and ~")
    return text


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = datetime.min
    if time.tzinfo is None:
        raise ValueError("should be a time like 2030-01-31T12:00:00Z")
    return time


@group
class ConsoleSettings(AdminSettings):
    console_token: str | None = setting(None, parse=_token, secret=True)
    """Gives access to the console from other machines. Without it, only the machine that the
    service runs on has access."""

    build_commit: str | None = None
    """The commit that the service was built from, which the console shows."""

    build_time: datetime | None = setting(None, parse=_time)
    """When it was built, such as `2030-01-31T12:00:00Z`."""
