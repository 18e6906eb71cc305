"""Who may see the console: the machine itself, and whoever has the token."""

import hmac
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from tornado.httputil import HTTPServerRequest

COOKIE = "console"
# What a proxy adds: then the connection is from the machine itself, but its client is not.
_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip")

HOW_TO_GET_IN = """\
The console is shown to the machine that the service runs on, and to whoever has a token.

- From another machine, tunnel to the admin port, such as by `ssh -L 8001:127.0.0.1:8001 HOST`.
- Or set CONSOLE_TOKEN, and open this page once with ?token=... appended to its address.
"""
HOW_TO_LOG_IN = """\
The console is shown to whoever has the token that CONSOLE_TOKEN is set to: open this page once with
?token=... appended to its address, or send the header "Authorization: Bearer ...".
"""


class Access:
    """`token` is that of the setting."""

    def __init__(self, token: str | None) -> None:
        self._token = token.encode() if token else None
        #: Does not hold the token, which opens more than this browser.
        self.cookie = hmac.digest(self._token, b"console", "sha256").hex() if self._token else ""

    def is_own_page(self, request: HTTPServerRequest) -> bool:
        """Whether no other site's page made the browser send this."""
        origin = request.headers.get("Origin")
        site = request.headers.get("Sec-Fetch-Site", "same-origin")
        return site == "same-origin" and (not origin or urlsplit(origin).netloc == request.host)

    def refusal(self, request: HTTPServerRequest) -> tuple[int, str] | None:
        """Status and text for who may not see the console; None for who may."""
        if _is_local(request):
            return None
        if self._token is None:
            return 403, HOW_TO_GET_IN
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(given.strip()):
            return None
        cookie = request.cookies.get(COOKIE)
        if cookie and hmac.compare_digest(cookie.value.encode(), self.cookie.encode()):
            return None
        return 401, HOW_TO_LOG_IN

    def is_token(self, given: str) -> bool:
        return self._token is not None and hmac.compare_digest(given.encode(), self._token)


def _is_local(request: HTTPServerRequest) -> bool:
    # Not `remote_ip`, which is what a header says.
    context = getattr(request.connection, "context", None)
    address = getattr(context, "address", None)
    peer = _address(address[0]) if isinstance(address, tuple) else None
    is_forwarded = any(name in request.headers for name in _FORWARDED)
    return peer is not None and peer.is_loopback and not is_forwarded


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
