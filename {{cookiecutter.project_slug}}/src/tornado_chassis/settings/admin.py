"""Where the admin server listens, which shows and changes what only operators may."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import parsing
from .server import ServerSettings
from .setting import group, setting

if TYPE_CHECKING:
    from ..application import Endpoint
    from ..feature import Feature


@group
class AdminSettings(ServerSettings):
    admin_host: str = setting("127.0.0.1", parse=parsing.hosts)
    """Addresses that the admin server listens on, as for `HOST`. They must not be public."""

    admin_port: int = setting(8001, parse=parsing.port)
    """Port of the admin server, or 0 for any free port."""

    admin_allowed_hosts: tuple[str, ...] = setting((), parse=parsing.comma_separated)
    """Host names under which the admin server can be reached, comma-separated, in addition to
    `localhost` and IP addresses."""

    def admin_endpoints(self, features: "Sequence[Feature]") -> "list[Endpoint]":
        # Imported only now: settings are read before Tornado is loaded.
        from ..admin import endpoints

        address = self.admin_host, self.admin_port
        return endpoints(features, *address, self.admin_allowed_hosts)
