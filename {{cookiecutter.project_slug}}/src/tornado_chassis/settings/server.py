"""Where the service runs and listens, its limits, and how it stops."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, ClassVar

from . import parsing
from .setting import group, on_terminal, setting

if TYPE_CHECKING:
    from ..application import Endpoint
    from ..feature import Feature


def available_connections() -> tuple[int, int]:
    """How many connections the main port and the admin port can have open, with descriptors left
    for files and outgoing connections."""
    descriptors = sys.maxsize
    if sys.platform != "win32":
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        # Which is negative before Python 3.15.
        if limit >= 0 and limit != resource.RLIM_INFINITY:
            descriptors = limit
    reserved = min(100, descriptors // 2)
    return max(1, descriptors - reserved), max(1, reserved // 2)


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

    host: str = setting("127.0.0.1", parse=parsing.hosts)
    """Addresses to listen on, comma-separated: `::` for every address, `0.0.0.0` for every IPv4
    address."""

    port: int = setting(8000, parse=parsing.port)
    """Port to listen on, or 0 for any free port."""

    reuse_port: bool = False
    """Lets other processes listen on `PORT`, too, with `SO_REUSEPORT`."""

    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = setting((), parse=parsing.networks)
    """Addresses and networks of proxies, comma-separated, such as `10.0.0.0/8`. `X-Forwarded-For`
    and `X-Forwarded-Proto` are believed only from these."""

    max_requests_in_flight: int = setting(500, parse=parsing.integer(1, 1_000_000))
    """How many requests may be in flight at once. Further requests get 503."""

    max_connections: int = setting(
        default_factory=lambda: min(1000, available_connections()[0]),
        parse=parsing.integer(1, 1_000_000),
    )
    """How many connections may be open at once. For another one, the one that has been idle the
    longest is closed; if none is idle, it waits. Default: 1000, or less if the process may not open
    that many file descriptors."""

    max_body_bytes: int = setting(1024 * 1024, parse=parsing.integer(0, 2**40))
    """How long the body of a request may be. A longer one gets 413."""

    max_unread_bytes: int = setting(24 * 1024 * 1024, parse=parsing.integer(1, 2**40))
    """How much of all answers together may wait in memory for clients to read it. Beyond that, the
    connection whose client has read nothing for the longest is closed."""

    idle_timeout_seconds: float = setting(75.0, parse=parsing.seconds)
    """How long a connection may wait for its next request. It should be longer than the load
    balancer's, which otherwise sends requests on connections that are being closed. 0 means no
    limit."""

    receive_timeout_seconds: float = setting(30.0, parse=parsing.seconds)
    """How long the headers of a request may take to arrive, and how long its body. 0 means no
    limit."""

    stall_timeout_seconds: float = setting(10.0, parse=parsing.seconds)
    """How long a client may send nothing in the middle of a request, or read nothing of an answer,
    before its connection is closed. 0 means no limit."""

    request_timeout_seconds: float = setting(60.0, parse=parsing.seconds)
    """How long a request may take after its headers have arrived, before it gets 503. 0 means no
    limit."""

    drain_delay_seconds: float = setting(
        default_factory=lambda: 0.0 if on_terminal() else 5.0,
        parse=parsing.seconds,
    )
    """How long a stopping service goes on accepting requests, because load balancers notice late
    that it is stopping. Default: 0 on a terminal, otherwise 5."""

    drain_timeout_seconds: float = setting(20.0, parse=parsing.seconds)
    """How long a stopping service then waits for requests in flight."""

    loop_blocked_seconds: float | None = setting(
        None,
        parse=parsing.seconds,
        instead=lambda given: 0.1 if given.environment == "development" else 1.0,
    )
    """How long code may block the event loop before the log names it. 0 turns this off. Default:
    0.1 if `ENVIRONMENT` is `development`, otherwise 1."""

    def prepare(self) -> None:
        """Prepares the process for these settings, before anything imports Tornado."""

    def conflicts(self) -> "Iterable[str]":
        """What to log about settings that don't go together."""
        return ()

    def start_logging(self) -> None:
        """Called after `prepare`, before the service's own modules are imported: what they log, the
        warnings that they cause and what they raise has the format of all other lines."""

    def admin_endpoints(self, features: "Sequence[Feature]") -> "list[Endpoint]":
        """Where the admin routes of these features are served: nowhere without `AdminSettings`."""
        return []

    def features(self) -> "list[Feature]":
        """The features of the service, in the order in which they are notified of a start."""
        return []
