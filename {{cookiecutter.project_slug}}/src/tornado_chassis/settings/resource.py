"""How a service is described in whatever it exports, and what is common to all exporters."""

from collections.abc import Callable, Mapping
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

    otel_service_name: str | None = setting(
        None, shared=True, instead=lambda given: given.service_name
    )
    """The service's name in what is exported. Default: its own name."""

    otel_resource_attributes: Mapping[str, str] = setting(
        default_factory=dict, parse=key_values, shared=True
    )
    """Additional attributes of the service in what is exported: `key=value,key=value`."""

    otel_sdk_disabled: bool = setting(False, parse=parsing.flag, shared=True)
    """Turns off the export that other `OTEL_` variables configure."""
