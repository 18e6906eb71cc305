"""Where metrics are sent."""

import re

from . import parsing
from .server import ServerSettings
from .setting import group, setting


def _prefix(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", text):
        raise ValueError("should be names of letters, digits, _ and -, separated by dots")
    return text


@group
class StatsdSettings(ServerSettings):
    statsd_host: str | None = None
    """Host of the StatsD daemon. Without it, no metrics are sent."""

    # Shared, because Kubernetes sets it to `tcp://…` beside a service that is called `statsd`.
    statsd_port: int = setting(8125, parse=parsing.integer(1, 65535), shared=True)
    """UDP port of the StatsD daemon."""

    statsd_prefix: str | None = setting(None, parse=_prefix)
    """Prefix of all names, such as `shop.checkout`. Default: the service's name."""
