"""The admin server, and the door to what of it only operators may see and change.

Probes and metrics are outside of the door: who asks for them has no token.
"""

import asyncio
import hmac
import logging
import time
from collections.abc import Callable, Sequence, Set
from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import urlsplit

from tornado.httputil import HTTPServerRequest
from tornado.web import HTTPError

from .application import Application, Endpoint
from .exchange import Exchange, Rejection, address_of
from .feature import Feature
from .handlers import JsonHandler, NotFound

COOKIE = "console"
COOKIE_SECONDS = 12 * 60 * 60

WRONG_TOKEN_SECONDS = 0.5
"""How long the answer to a wrong token takes."""

MAX_WRONG_TOKENS = 10
"""How many of these answers may be due at once. Until then, no other token is looked at."""

# What browsers and curl send. Any other header may be a proxy's: there is no list of those.
_CLIENTS_OWN = frozenset(
    "accept accept-charset accept-encoding accept-language authorization cache-control connection "
    "content-length content-type cookie dnt expect host if-match if-modified-since if-none-match "
    "keep-alive origin pragma priority purpose range referer save-data te transfer-encoding "
    "upgrade-insecure-requests user-agent x-requested-with".split()
)

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

HOW_TO_LOG_IN = """\
This is only for whoever has the token that CONSOLE_TOKEN is set to: send the header
"Authorization: Bearer ...". In a browser, open the console once with ?token=... appended to its
address.
"""
HOW_TO_GET_IN = f"""\
{HOW_TO_LOG_IN}
It is not set. Without it, this is open in development, to the machine that the service runs on; but
{{why}}. Set it, or set ENVIRONMENT=development and ask from the same machine without a proxy; from
another one through a tunnel such as `ssh -L 8001:127.0.0.1:8001 HOST`.
"""

_PROBES = ("/livez", "/readyz", "/health")
_OTHER_HOST = Rejection(
    HTTPStatus.MISDIRECTED_REQUEST,
    title="Not one of ADMIN_ALLOWED_HOSTS",
    reason="host",
)

log = logging.getLogger(__name__)

Denial = tuple[int, str]
"""Status and text of the answer to whoever may not pass."""


class AllowedHosts(Feature):
    """Rejects requests whose `Host` is neither an IP address, nor `localhost`, nor one of these.

    Otherwise a page on the internet could point its own host name at this machine and read what is
    meant for operators only (DNS rebinding).
    """

    def __init__(self, hosts: Sequence[str]) -> None:
        self.hosts = {"localhost", *(host.lower() for host in hosts)}

    def reject(self, exchange: Exchange) -> Rejection | None:
        host = exchange.request.host_name
        return None if host in self.hosts or address_of(host) else _OTHER_HOST


class Door:
    """Decides who may pass.

    Once a token is set, everybody needs it. Without one, the door is open in development only, to
    clients on this machine, as far as nothing indicates a proxy between them and the service.
    `report` is called with the reason whenever a token was wrong.
    """

    def __init__(
        self,
        token: str | None,
        is_development: bool,
        hosts: Set[str],
        report: Callable[[str], None],
    ) -> None:
        self.has_token = bool(token)
        self._token = (token or "").encode()
        self._is_development = is_development
        self._hosts = hosts
        self._report = report
        self._wrong = 0  # answers to wrong tokens that are due

    async def denial(self, request: HTTPServerRequest) -> Denial | None:
        """None if the client may pass."""
        if not self.has_token:
            why = self._why_closed(request)
            return (HTTPStatus.FORBIDDEN, HOW_TO_GET_IN.format(why=why)) if why else None
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return await self.denial_of(given.strip(), request)
        cookie = request.cookies.get(COOKIE)
        if cookie and self._is_cookie(cookie.value):
            return None
        return HTTPStatus.UNAUTHORIZED, HOW_TO_LOG_IN

    async def denial_of(self, token: str, request: HTTPServerRequest) -> Denial | None:
        """None if this is the token. Otherwise, the answer takes its time: that bounds how many a
        client can try, without anything being kept about clients."""
        if self._wrong >= MAX_WRONG_TOKENS:
            return HTTPStatus.TOO_MANY_REQUESTS, "Too many wrong tokens. Try again in a second."
        if self.has_token and hmac.compare_digest(token.encode(), self._token):
            return None
        log.warning("Wrong token from %s", request.remote_ip)
        self._report("wrong_token")
        self._wrong += 1
        try:
            await asyncio.sleep(WRONG_TOKEN_SECONDS)
        finally:
            self._wrong -= 1
        return HTTPStatus.UNAUTHORIZED, HOW_TO_LOG_IN

    def cookie(self) -> str:
        """Lets a browser pass until it ends. The token, which does not end, is not in it."""
        end = str(int(time.time()) + COOKIE_SECONDS)
        return f"{end}.{self._signature(end)}"

    def _is_cookie(self, value: str) -> bool:
        end, _, signature = value.partition(".")
        is_ours = hmac.compare_digest(signature.encode(), self._signature(end).encode())
        return is_ours and time.time() < int(end)

    def _signature(self, end: str) -> str:
        return hmac.digest(self._token, f"console until {end}".encode(), "sha256").hex()

    def _why_closed(self, request: HTTPServerRequest) -> str:
        if not self._is_development:
            return "ENVIRONMENT does not say development"
        # Not `remote_ip`, which may be what a header says.
        context = getattr(request.connection, "context", None)
        address = getattr(context, "address", None)
        if not (isinstance(address, tuple) and _is_loopback(address[0])):
            return "this request comes from another machine"
        host = request.host_name
        if host not in self._hosts and not _is_loopback(address_of(host)):
            return f"this request was sent to the host {host}, so through a proxy"
        if request.version == "HTTP/1.0":
            return "this request is one of HTTP/1.0, as proxies send"
        for name in request.headers:
            if name.lower() not in _CLIENTS_OWN and not name.startswith("Sec-"):
                return f"this request has the header {name}, which may be that of a proxy"
        return ""


class Guarded(JsonHandler):
    """A handler behind the door."""

    async def prepare(self) -> None:
        door: Door = self.settings["door"]
        if denial := await door.denial(self.request):
            self.deny(*denial)
        elif self.request.method not in ("GET", "HEAD") and not _is_own_page(self.request):
            self.deny(HTTPStatus.FORBIDDEN, "Another site's page must not ask for this.")

    def deny(self, status: int, text: str) -> None:
        self.set_status(status)
        if status == HTTPStatus.UNAUTHORIZED:
            self.set_header("WWW-Authenticate", "Bearer")
        elif status == HTTPStatus.TOO_MANY_REQUESTS:
            self.set_header("Retry-After", "1")
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.finish(text.rstrip("\n") + "\n")


def level_of(body: object) -> int:
    """The level of a logger that the body of a request names; raises `HTTPError` if it is none."""
    level = str(body.get("level")).upper() if isinstance(body, dict) else ""
    if level not in LEVELS:
        reason = f"level must be one of {', '.join(LEVELS)}"
        raise HTTPError(HTTPStatus.BAD_REQUEST, reason=reason)
    return logging.getLevelNamesMapping()[level]


def change_level(logger: logging.Logger, level: int, who: str) -> None:
    """Sets a logger's level, and logs who did, whatever the level is now."""
    before, after = (logging.getLevelName(each) for each in (logger.level, level))
    logger.setLevel(level)
    message, args = "Level of %s changed from %s to %s by %s", (logger.name, before, after, who)
    log.handle(log.makeRecord(log.name, logging.INFO, __file__, 0, message, args, None))


class Measured(Feature):
    """Has probes measured here as on the main port, for dashboards and alerts to show, and counts
    who is rejected."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self._features = features
        self._measuring = [each for each in features if each.measures_requests]

    def request_rejected(self, reason: str) -> None:
        for each in self._features:
            each.request_rejected(reason)

    def request_started(self, exchange: Exchange) -> None:
        if exchange.route in _PROBES:
            for each in self._measuring:
                each.request_started(exchange)

    def request_ended(self, exchange: Exchange) -> None:
        if exchange.route in _PROBES:
            for each in self._measuring:
                each.request_ended(exchange)


def endpoints(
    features: Sequence[Feature],
    host: str,
    port: int,
    allowed_hosts: Sequence[str],
    token: str | None,
    is_development: bool,
) -> list[Endpoint]:
    """Serves the admin routes of these features on this address, if there are any."""
    routes = [route for each in features for route in each.admin_routes()]
    allowed = AllowedHosts(allowed_hosts)
    logs = [each for each in features if each.logs_requests]
    measured = Measured(features)
    notified = [allowed, measured, *logs]
    door = Door(token, is_development, allowed.hosts, measured.request_rejected)
    app = Application(routes, notified, default_handler_class=NotFound, door=door)
    return [Endpoint(app, host, port)] if routes else []


def _is_own_page(request: HTTPServerRequest) -> bool:
    """Whether the request does not come from a page of another site."""
    origin = request.headers.get("Origin")
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    return site == "same-origin" and (not origin or urlsplit(origin).netloc == request.host)


def _is_loopback(text: str) -> bool:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
