"""What is traced, how traces cross services, and where spans are sent."""

from collections.abc import Mapping
from typing import Literal
from urllib.parse import unquote

from . import parsing
from .server import ServerSettings
from .setting import group, setting


def key_values(text: str) -> dict[str, str]:
    """`key=value,key=value`, with percent-encoded values."""
    pairs = [item.partition("=") for item in parsing.comma_separated(text)]
    if not all(key.strip() and equals for key, equals, _ in pairs):
        raise ValueError("should look like key=value,key=value")
    return {key.strip(): unquote(value.strip()) for key, _, value in pairs}


def propagators(text: str) -> tuple[str, ...]:
    """Names of formats in which traces cross services, comma-separated."""
    names = parsing.comma_separated(text)
    if not {*names} <= {"tracecontext", "baggage", "b3", "b3multi", "none"}:
        raise ValueError("should be one or more of tracecontext, baggage, b3 and b3multi, or none")
    return names


@group
class ResourceSettings(ServerSettings):
    otel_service_name: str | None = None
    """The service's name in what is exported. Default: its own name."""

    otel_resource_attributes: Mapping[str, str] = setting(default_factory=dict, parse=key_values)
    """Additional attributes of the service in what is exported: `key=value,key=value`."""

    otel_sdk_disabled: bool = False
    """Turns off the export that other `OTEL_` variables configure."""


@group
class TracingSettings(ResourceSettings):
    otel_traces_sampler: Literal[
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ] = "parentbased_always_on"
    """Which traces are recorded. With `parentbased_`, the caller's decision takes precedence."""

    otel_traces_sampler_arg: float = setting(1.0, parse=parsing.number(0, 1))
    """Ratio of traces that `traceidratio` records, from 0 to 1."""

    otel_propagators: tuple[str, ...] = setting(("tracecontext",), parse=propagators)
    """How traces cross services: `tracecontext`, `baggage`, `b3`, `b3multi`, several of them,
    comma-separated, or `none`. With `baggage`, what a caller sends reaches every service that is
    called."""


def _trace_url(text: str) -> str:
    if "{trace_id}" not in text:
        raise ValueError("should look like https://host:port/trace/{trace_id}")
    return parsing.http_url(text)


@group
class TraceLinkSettings(ServerSettings):
    trace_url: str | None = setting(None, parse=_trace_url)
    """Where a browser finds a trace, such as `https://traces.example.com/trace/{trace_id}`. The
    console links to it."""
