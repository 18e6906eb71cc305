"""What the console cannot find out by itself."""

from datetime import datetime

from .admin import TokenSettings
from .setting import group, setting


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = datetime.min
    if time.tzinfo is None:
        raise ValueError("should be a time like 2030-01-31T12:00:00Z")
    return time


@group
class ConsoleSettings(TokenSettings):
    build_commit: str | None = None
    """The commit that the service was built from, which the console shows."""

    build_time: datetime | None = setting(None, parse=_time)
    """When it was built, such as `2030-01-31T12:00:00Z`."""
