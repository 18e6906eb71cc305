"""Which proxy telemetry is sent through."""

from urllib.parse import urlsplit

from . import parsing
from .server import ServerSettings
from .setting import group, setting


@group
class ProxySettings(ServerSettings):
    http_proxy: str | None = setting(None, parse=parsing.proxy_url, secret=True, shared=True)
    """The proxy that telemetry is sent through to an address with `http://`, such as
    `http://proxy:3128`."""

    https_proxy: str | None = setting(None, parse=parsing.proxy_url, secret=True, shared=True)
    """The same for `https://`."""

    no_proxy: str = setting("", shared=True)
    """Hosts and domains that are reached without a proxy, comma-separated, or `*` for all."""

    def proxy_for(self, url: str) -> str:
        """The URL of the proxy for this one; empty for none."""
        target = urlsplit(url)
        proxy = self.https_proxy if target.scheme == "https" else self.http_proxy
        hosts = f".{target.hostname}", f".{target.netloc.lower()}"
        for domain in parsing.comma_separated(self.no_proxy.lower()):
            if domain == "*" or any(host.endswith(f".{domain.lstrip('.')}") for host in hosts):
                return ""
        return proxy or ""
