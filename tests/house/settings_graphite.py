"""Where metrics are sent."""

from . import parsing
from .server import ServerSettings
from .setting import group, setting


@group
class MetricSettings(ServerSettings):
    graphite_host: str | None = None
    """Where Graphite is; without it, no metrics are sent."""

    graphite_port: int = setting(2003, parse=parsing.integer(1, 65535))
    """Graphite's TCP port for lines of plain text."""
