"""Which proxy telemetry is sent through."""

from contextlib import suppress
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from . import parsing
from .server import ServerSettings
from .setting import group, setting


def _proxy_url(text: str) -> str:
    """The URL of an HTTP proxy, with or without a scheme, and a user name and password."""
    text = text if "://" in text else f"http://{text}"
    url = parsing.split_http_url(text)
    if url is None or url.scheme != "http":
        raise ValueError("should look like http://host:port")
    return text


@group
class ProxySettings(ServerSettings):
    http_proxy: str | None = setting(None, parse=_proxy_url, secret=True, shared=True)
    """The proxy that telemetry is sent through to an address with `http://`, such as
    `http://proxy:3128`."""

    https_proxy: str | None = setting(None, parse=_proxy_url, secret=True, shared=True)
    """The same for `https://`."""

    no_proxy: str = setting("", shared=True)
    """Hosts, domains and networks such as `10.0.0.0/8` that are reached without a proxy,
    comma-separated, or `*` for all."""

    def proxy_for(self, url: str) -> str:
        """The URL of the proxy for this one; empty for none."""
        target = urlsplit(url)
        proxy = self.https_proxy if target.scheme == "https" else self.http_proxy
        hosts = f".{target.hostname}", f".{target.netloc.lower()}"
        for near in parsing.comma_separated(self.no_proxy.lower()):
            ending = f".{near.lstrip('*.')}"
            if near == "*" or any(host.endswith(ending) for host in hosts):
                return ""
            with suppress(ValueError):  # names and not addresses
                if ip_address(target.hostname or "") in ip_network(near, strict=False):
                    return ""
        return proxy or ""
