"""Where the service runs and listens, its limits, and how it stops."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, ClassVar

from . import parsing
from .setting import group, setting

if TYPE_CHECKING:
    from ..application import Endpoint
    from ..feature import Feature

MAX_CONNECTIONS = 1000
RESERVED_DESCRIPTORS = 100
"""For the admin port, files, and outgoing connections."""


def _max_connections() -> int:
    descriptors = _descriptors()
    reserved = min(RESERVED_DESCRIPTORS, descriptors // 2)
    return max(1, min(MAX_CONNECTIONS, descriptors - reserved))


def _descriptors() -> int:
    """How many files and sockets the process may open."""
    if sys.platform != "win32":
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        # Which is negative before Python 3.15.
        if limit >= 0 and limit != resource.RLIM_INFINITY:
            return limit
    return sys.maxsize


@group
class ServerSettings:
    """The settings of every service, and what it is called."""

    service_name: ClassVar[str] = "service"
    """Name of the service in logs and telemetry."""

    service_version: ClassVar[str] = "0"

    service_package: ClassVar[str] = "service"
    """The package with the service's own code. Its access lines have the logger
    `<package>.access`."""

    unread: ClassVar[Mapping[str, str]] = {}
    """Shared variables without a setting, and why they have none or what to set instead. A class
    adds its own to those of its bases.

    A name is a pattern such as `OTEL_BSP_*`, perhaps with a value: `OTEL_LOGS_EXPORTER=none`. The
    first that matches counts. Without a reason there is nothing to log: something else reads it."""

    warnings: ClassVar[Sequence[str]] = ()
    """What to log at the start about the variables that were read."""

    environment: str = "development"
    """Where the service runs, such as `production`."""

    host: str = "127.0.0.1"
    """Address to listen on, or `0.0.0.0` for all addresses."""

    port: int = setting(8000, parse=parsing.port)
    """Port to listen on, or 0 for any free port."""

    reuse_port: bool = False
    """Lets other processes listen on the same port, with `SO_REUSEPORT`."""

    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = setting((), parse=parsing.networks)
    """Addresses and networks of proxies, comma-separated, such as `10.0.0.0/8`. `X-Forwarded-For`
    and `X-Forwarded-Proto` are believed only from these."""

    max_requests_in_flight: int = setting(500, parse=parsing.integer(1, 1_000_000))
    """How many requests may be in flight at once. Further requests get 503."""

    max_connections: int = setting(
        default_factory=_max_connections, parse=parsing.integer(1, 1_000_000)
    )
    """How many connections may be open at once. For another one, the one that has been idle the
    longest is closed; if none is idle, it waits. Default: 1000, or less if the process may not open
    that many file descriptors."""

    request_timeout_seconds: float = setting(60.0, parse=parsing.seconds)
    """How long a request may take after its headers have arrived, before it gets 503. 0 means no
    limit."""

    drain_delay_seconds: float = setting(
        default_factory=lambda: 0.0 if sys.stdout and sys.stdout.isatty() else 5.0,
        parse=parsing.seconds,
    )
    """How long a stopping service goes on accepting requests, because load balancers notice late
    that it is stopping. Default: 0 on a terminal, otherwise 5."""

    drain_timeout_seconds: float = setting(20.0, parse=parsing.seconds)
    """How long a stopping service then waits for requests in flight."""

    loop_blocked_seconds: float | None = setting(None, parse=parsing.seconds)
    """How long code may block the event loop before the log names it. 0 turns this off. Default:
    0.1 if `ENVIRONMENT` is `development`, otherwise 1."""

    def prepare(self) -> None:
        """Prepares the process for these settings, before anything imports Tornado.

        Raises SystemExit with status 78 if a setting turns out to be invalid only now.
        """

    def conflicts(self) -> "Iterable[str]":
        """What to log about settings that don't go together."""
        return ()

    def admin_endpoints(self, features: "Sequence[Feature]") -> "list[Endpoint]":
        """Where the admin routes of these features are served: nowhere without `AdminSettings`."""
        return []

    def features(self) -> "list[Feature]":
        """The features of the service, in the order in which they are notified of a start."""
        return []
