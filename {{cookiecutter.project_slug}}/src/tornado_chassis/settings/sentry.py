"""Where errors are reported to."""

from . import parsing
from .server import ServerSettings
from .setting import group, setting


def _dsn(text: str) -> str:
    url = parsing.split_http_url(text)
    if not (url and url.username and url.path.rpartition("/")[2].isdigit()):
        raise ValueError("should look like https://key@host/project-number")
    return text


@group
class SentrySettings(ServerSettings):
    sentry_dsn: str | None = setting(None, parse=_dsn, secret=True)
    """The Sentry project to report errors to. Without it, none are reported."""
