"""Where the service runs, listens, and how it stops."""

import sys
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from . import parsing
from .setting import setting


def _addresses(text: str) -> tuple[IPv4Address | IPv6Address, ...]:
    try:
        return tuple(ip_address(item) for item in parsing.comma_separated(text))
    except ValueError:
        raise ValueError("should be IP addresses, comma-separated") from None


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    environment: str = "development"
    """Where the service runs, such as `production`."""

    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` for all."""

    port: int = setting(8000, parse=parsing.port)
    """Port to listen on; 0 for any free one."""

    reuse_port: bool = False
    """Share the port with other processes by `SO_REUSEPORT`."""

    trusted_proxies: tuple[IPv4Address | IPv6Address, ...] = setting((), parse=_addresses)
    """Addresses of proxies, comma-separated. With one set, the client's address and scheme are
    taken from `X-Forwarded-For` and its kin: set it only behind a proxy that overwrites them."""

    drain_delay_seconds: float = setting(
        default_factory=lambda: 0.0 if sys.stdout.isatty() else 5.0, parse=parsing.seconds
    )
    """How long a stopping service goes on accepting, as load balancers learn late that it stops;
    by default 0 on a terminal, else 5."""

    drain_timeout_seconds: float = setting(20.0, parse=parsing.seconds)
    """How long a stopping service then waits for the requests in flight."""

    loop_blocked_seconds: float | None = setting(None, parse=parsing.seconds)
    """How long one piece of code may block the event loop before it is named in the log; 0 turns
    that off. By default 0.1 where `ENVIRONMENT` is `development`, else 1."""

    def prepare(self) -> None:
        """Prepares the process for these settings, before anything imports Tornado.

        Raises SystemExit with status 78 for what turns out to be invalid only then.
        """
