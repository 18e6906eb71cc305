"""Where the admin server listens, which is for operators only, and its token."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import parsing, source
from .server import ServerSettings
from .setting import group, on_terminal, setting

if TYPE_CHECKING:
    from ..application import Endpoint
    from ..feature import Feature


def _names(text: str) -> tuple[str, ...]:
    if not re.fullmatch(r"[A-Za-z0-9._,\s-]+", text):
        raise ValueError("should be host names without a port, comma-separated")
    return parsing.comma_separated(text)


@group
class AdminSettings(ServerSettings):
    admin_host: str = setting("127.0.0.1", parse=parsing.hosts)
    """Addresses that the admin server listens on, as for `HOST`. They must not be public."""

    admin_port: int = setting(8001, parse=parsing.port)
    """Port of the admin server, or 0 for any free port."""

    admin_allowed_hosts: tuple[str, ...] = setting((), parse=_names)
    """Host names under which the admin server can be reached, comma-separated, in addition to
    `localhost` and IP addresses."""

    def admin_endpoints(self, features: "Sequence[Feature]") -> "list[Endpoint]":
        # Imported only now: settings are read before Tornado is loaded.
        from ..admin import endpoints

        # Whatever is behind the door brings the setting.
        token = getattr(self, "console_token", None)
        address, opens = (self.admin_host, self.admin_port), self.opens_without_token()
        return endpoints(features, *address, self.admin_allowed_hosts, token, opens)

    def opens_without_token(self) -> bool:
        """Whether this is development: somebody has said so, or whoever has started the service
        sees its output."""
        is_said = bool(source(self, "environment")) or on_terminal()
        return is_said and self.environment == "development"


def _token(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._~-]{16,256}", text):
        raise ValueError("should be 16 to 256 letters, digits, -, ., _ and ~")
    return text


@group
class TokenSettings(AdminSettings):
    console_token: str | None = setting(None, parse=_token, secret=True)
    """The token that everything on the admin port asks for, except probes and metrics. Without it,
    all of that is for development only, and only for the machine itself."""
