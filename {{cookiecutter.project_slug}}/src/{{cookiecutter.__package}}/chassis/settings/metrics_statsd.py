"""Where metrics are sent."""

import re
from dataclasses import dataclass

from . import parsing
from .server import ServerSettings
from .setting import setting


def _prefix(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", text):
        raise ValueError("should be letters, digits, _ and -, with dots between them")
    return text


@dataclass(frozen=True, kw_only=True)
class MetricSettings(ServerSettings):
    statsd_host: str | None = None
    """Where the StatsD daemon is; without it, no metrics are sent."""

    statsd_port: int = setting(8125, parse=parsing.integer(1, 65535))
    """The daemon's UDP port."""

    statsd_prefix: str | None = setting(None, parse=_prefix)
    """Put before each name with a dot, as in `shop.checkout`; by default the service's name."""
