"""What is traced, how traces cross services, and where spans are sent."""

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Literal
from urllib.parse import unquote

from . import parsing
from .proxy import ProxySettings
from .server import ServerSettings
from .setting import group, setting

FORMATS = "tracecontext", "baggage", "b3", "b3multi"


def key_values(text: str) -> dict[str, str]:
    """`key=value,key=value`, with percent-encoded values."""
    pairs = [item.partition("=") for item in parsing.comma_separated(text)]
    if not all(key.strip() and equals for key, equals, _ in pairs):
        raise ValueError("should look like key=value,key=value")
    return {key.strip(): unquote(value.strip()) for key, _, value in pairs}


def propagators(text: str) -> tuple[str, ...]:
    """Names of formats in which traces cross services, comma-separated."""
    names = dict.fromkeys(parsing.comma_separated(text.lower()))
    known = tuple(each for each in names if each in (*FORMATS, "none"))
    if len(known) < len(names):
        problem = f"should be one or more of {', '.join(FORMATS)}, or none"
        raise parsing.PartlyInvalid(known, problem) if known else ValueError(problem)
    return known


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

    otel_service_name: str | None = setting(None, shared=True)
    """The service's name in what is exported. Default: its own name."""

    otel_resource_attributes: Mapping[str, str] = setting(
        default_factory=dict, parse=key_values, shared=True
    )
    """Additional attributes of the service in what is exported: `key=value,key=value`."""

    otel_sdk_disabled: bool = setting(False, parse=parsing.flag, shared=True)
    """Turns off the export that other `OTEL_` variables configure."""


@group
class TracingSettings(ResourceSettings):
    unread = {  # noqa: RUF012 (never changed)
        "OTEL_BSP_*": "up to 512 spans are sent at once, after a second, and up to 4 MiB wait",
        "OTEL_LOGRECORD_*": "logs are not sent with OTLP",
        "OTEL_*_LIMIT": "a span has up to 128 attributes, events and links",
        "OTEL_METRICS_EXPORTER=none": "",
    }

    otel_traces_exporter: str = setting("otlp", parse=exporters("otlp"), shared=True)
    """`otlp`, or `none` to send no spans."""

    otel_traces_sampler: Literal[
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ] = setting("parentbased_always_on", shared=True)
    """Which traces are recorded. With `parentbased_`, the caller's decision takes precedence."""

    otel_traces_sampler_arg: float = setting(1.0, parse=parsing.number(0, 1), shared=True)
    """Ratio of traces that `traceidratio` records, from 0 to 1."""

    otel_propagators: tuple[str, ...] = setting(("tracecontext",), parse=propagators, shared=True)
    """How traces cross services: `tracecontext`, `baggage`, `b3`, `b3multi`, several of them,
    comma-separated, or `none`. With `baggage`, what a caller sends reaches every service that is
    called."""

    def prepare(self) -> None:
        super().prepare()
        load_propagate()

    def conflicts(self) -> Iterable[str]:
        yield from super().conflicts()
        if self.otel_traces_sampler_arg != 1 and "ratio" not in self.otel_traces_sampler:
            yield (
                "OTEL_TRACES_SAMPLER_ARG: ignored, because OTEL_TRACES_SAMPLER is not "
                "parentbased_traceidratio or traceidratio"
            )


def load_propagate() -> None:
    """Loads `opentelemetry.propagate`, which otherwise fails if OTEL_PROPAGATORS names a format
    whose package is not installed."""
    if "opentelemetry.propagate" in sys.modules:
        return
    hidden = os.environ.pop("OTEL_PROPAGATORS", None)
    try:
        import opentelemetry.propagate  # noqa: F401
    finally:
        if hidden is not None:
            os.environ["OTEL_PROPAGATORS"] = hidden


def _trace_url(text: str) -> str:
    if "{trace_id}" not in text:
        raise ValueError("should look like https://host:port/trace/{trace_id}")
    return parsing.http_url(text)


@group
class TraceLinkSettings(ServerSettings):
    trace_url: str | None = setting(None, parse=_trace_url)
    """Where a browser finds a trace, such as `https://traces.example.com/trace/{trace_id}`. The
    console links to it."""
