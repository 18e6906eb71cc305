"""Who may see the console: the machine itself, and everybody who has the token."""

import hmac
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from tornado.httputil import HTTPServerRequest

COOKIE = "console"
# Headers that a proxy adds: the connection is from the machine itself, but the client is not.
_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip")

HOW_TO_GET_IN = """\
The console is only shown on the machine that the service runs on, or with a token.

- From another machine, use a tunnel to the admin port: `ssh -L 8001:127.0.0.1:8001 HOST`.
- Or set CONSOLE_TOKEN, and open this page once with ?token=... appended to its address.
"""
HOW_TO_LOG_IN = """\
The console is only shown with the token that CONSOLE_TOKEN is set to: open this page once with
?token=... appended to its address, or send the header "Authorization: Bearer ...".
"""


class Access:
    """`token` is that of the setting."""

    def __init__(self, token: str | None) -> None:
        self._token = token.encode() if token else None
        #: Does not contain the token, which would give access to more than this browser.
        self.cookie = hmac.digest(self._token, b"console", "sha256").hex() if self._token else ""

    def is_own_page(self, request: HTTPServerRequest) -> bool:
        """Whether the request does not come from a page of another site."""
        origin = request.headers.get("Origin")
        site = request.headers.get("Sec-Fetch-Site", "same-origin")
        return site == "same-origin" and (not origin or urlsplit(origin).netloc == request.host)

    def rejection(self, request: HTTPServerRequest) -> tuple[int, str] | None:
        """Status and text if the client may not see the console; None if it may."""
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
