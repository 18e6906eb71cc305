"""Where spans are sent in Zipkin's format."""

from .. import parsing
from ..server import ServerSettings
from ..setting import group, setting

PROPAGATORS = ("tracecontext", "b3")


@group
class BackendSettings(ServerSettings):
    # It may contain a password by mistake, or a key in its query.
    zipkin_endpoint: str | None = setting(None, parse=parsing.http_url, secret=True)
    """Where spans are sent, such as `http://zipkin:9411/api/v2/spans`. Without it, none are
    sent."""
