"""What is traced, how traces cross services, and where spans are sent."""

from collections.abc import Mapping
from typing import Literal

from .. import parsing
from ..setting import group, setting
from .backend import PROPAGATORS, BackendSettings


def _propagators(text: str) -> tuple[str, ...]:
    names = parsing.comma_separated(text)
    if not {*names} <= {"tracecontext", "baggage", "b3", "b3multi", "none"}:
        raise ValueError("should be one or more of tracecontext, baggage, b3 and b3multi, or none")
    return names


@group
class TracingSettings(BackendSettings):
    otel_service_name: str | None = None
    """The service's name in traces. Default: its own name."""

    otel_resource_attributes: Mapping[str, str] = setting(
        default_factory=dict, parse=parsing.key_values
    )
    """Additional attributes to send with spans: `key=value,key=value`."""

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

    otel_sdk_disabled: bool = False
    """Turns off the recording of spans."""

    otel_propagators: tuple[str, ...] = setting(PROPAGATORS, parse=_propagators)
    """How traces cross services: `tracecontext`, `baggage`, `b3`, `b3multi`, several of them,
    comma-separated, or `none`. With `baggage`, what a caller sends reaches every service that is
    called."""
