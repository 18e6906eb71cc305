"""How a service is described in whatever it exports, and what is common to all exporters."""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from . import parsing
from .proxy import ProxySettings
from .setting import group, setting


def key_values(text: str) -> dict[str, str]:
    """`key=value,key=value`, with percent-encoded values."""
    pairs = [item.partition("=") for item in parsing.comma_separated(text)]
    if not all(key.strip() and equals for key, equals, _ in pairs):
        raise ValueError("should look like key=value,key=value")
    return {key.strip(): unquote(value.strip()) for key, _, value in pairs}


def milliseconds(text: str) -> int:
    """How long to wait, where 0 stands for the longest: OpenTelemetry's kind of timeout."""
    return parsing.integer(0, 2**31 - 1)(text) or 2**31 - 1


def _flag(text: str) -> bool:
    """`true` or `false`, and not `1` or `0`, as OpenTelemetry demands."""
    return parsing.boolean(text if text not in ("1", "0") else "")


def endpoint() -> Any:
    """A URL to send to, unless it is None. It may contain a password by mistake, or a key in its
    query."""
    return setting(None, parse=parsing.http_url, secret=True)


def exporters(own: str) -> Callable[[str], str]:
    """`own` is the name of the one that there is."""

    def parse(text: str) -> str:
        names = {*parsing.comma_separated(text.lower())}
        if names in ({own}, {"none"}):
            return names.pop()
        problem = f"should be {own} or none"
        raise parsing.PartlyInvalid(own, problem) if own in names else ValueError(problem)

    return parse


@group
class ResourceSettings(ProxySettings):
    """What OpenTelemetry specifies for whatever is exported."""

    unread = {  # noqa: RUF012 (never changed)
        "OTEL_LOG_LEVEL": "OpenTelemetry logs like everything else",
        "OTEL_*CONFIG_FILE": "only variables are read",
        "OTEL_ENTITIES": "OTEL_RESOURCE_ATTRIBUTES describes the service",
        "OTEL_LOGS_EXPORTER=none": "",
        "OTEL_LOGS_EXPORTER": "logs are written to standard output",
        "OTEL_EXPORTER_OTLP_LOGS_*": "logs are written to standard output",
        "OTEL_BLRP_*": "logs are written to standard output",
        # Other libraries read these.
        "OTEL_PYTHON_*": "",
        "OTEL_INSTRUMENTATION_*": "",
        "OTEL_SEMCONV_*": "",
    }

    otel_service_name: str | None = setting(None, instead=lambda given: given.service_name)
    """The service's name in what is exported. Default: its own name."""

    otel_resource_attributes: Mapping[str, str] = setting(default_factory=dict, parse=key_values)
    """Additional attributes of the service in what is exported: `key=value,key=value`."""

    otel_sdk_disabled: bool = setting(False, parse=_flag)
    """Turns off the export that other `OTEL_` variables configure."""
