"""The admin server: what only operators may reach."""

from collections.abc import Sequence
from http import HTTPStatus

from .application import Application, Endpoint
from .exchange import Exchange, Rejection, is_address
from .feature import Feature
from .handlers import NotFound

_PROBES = ("/livez", "/readyz", "/health")
_OTHER_HOST = Rejection(
    HTTPStatus.MISDIRECTED_REQUEST,
    title="Not one of ADMIN_ALLOWED_HOSTS",
    reason="host",
)


class AllowedHosts(Feature):
    """Rejects requests whose `Host` is neither an IP address, nor `localhost`, nor one of these.

    Otherwise a page on the internet could point its own host name at this machine and read what is
    meant for operators only (DNS rebinding).
    """

    def __init__(self, hosts: Sequence[str]) -> None:
        self._hosts = {"localhost", *(host.lower() for host in hosts)}

    def reject(self, exchange: Exchange) -> Rejection | None:
        host = exchange.request.host_name
        if host in self._hosts or is_address(host.removeprefix("[").removesuffix("]")):
            return None
        return _OTHER_HOST


class MeasuredProbes(Feature):
    """Has probes measured here as on the main port, for dashboards and alerts to show."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self._features = [each for each in features if each.measures_requests]

    def request_started(self, exchange: Exchange) -> None:
        if exchange.route in _PROBES:
            for each in self._features:
                each.request_started(exchange)

    def request_ended(self, exchange: Exchange) -> None:
        if exchange.route in _PROBES:
            for each in self._features:
                each.request_ended(exchange)


def endpoints(
    features: Sequence[Feature], host: str, port: int, allowed_hosts: Sequence[str]
) -> list[Endpoint]:
    """Serves the admin routes of these features on this address, if there are any."""
    routes = [route for each in features for route in each.admin_routes()]
    notified = [
        AllowedHosts(allowed_hosts),
        MeasuredProbes(features),
        *(each for each in features if each.logs_requests),
    ]
    app = Application(routes, notified, default_handler_class=NotFound)
    return [Endpoint(app, host, port)] if routes else []
