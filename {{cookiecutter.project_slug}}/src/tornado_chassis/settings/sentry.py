"""Where errors are reported to, and as whose."""

from . import parsing
from .proxy import ProxySettings
from .setting import group, setting


def _dsn(text: str) -> str:
    url = parsing.split_http_url(text)
    if not (url and url.username and url.path.rpartition("/")[2].isdigit()):
        raise ValueError("should look like https://key@host/project-number")
    return text


@group
class SentrySettings(ProxySettings):
    unread = {  # noqa: RUF012 (never changed)
        "SENTRY_*SAMPLE_RATE": "all errors are reported, and traces are not",
        # The SDK reads these.
        **dict.fromkeys(("SENTRY_DEBUG", "SENTRY_KEEP_ALIVE", "SENTRY_SPOTLIGHT*"), ""),
        **dict.fromkeys(("SENTRY_TRACE", "SENTRY_BAGGAGE", "SENTRY_USE_ENVIRONMENT"), ""),
    }

    sentry_dsn: str | None = setting(None, parse=_dsn, secret=True)
    """The Sentry project to report errors to. Without it, none are reported."""

    sentry_environment: str | None = None
    """Where the service runs, for Sentry. Default: `ENVIRONMENT`."""

    sentry_release: str | None = None
    """The release that Sentry shows. Default: the service's name and version, such as
    `shop@1.2.3`."""
