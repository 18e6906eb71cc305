"""How many requests are let in."""

from . import parsing
from .server import ServerSettings
from .setting import group, setting


@group
class RateLimitSettings(ServerSettings):
    rate_limit_per_second: float | None = setting(None, parse=parsing.number(0.001, 1_000_000))
    """Requests a second that are let in; without it, there is no limit."""

    rate_limit_burst: int = setting(100, parse=parsing.integer(1, 1_000_000))
    """Requests that are let in at once, after a time without any."""
