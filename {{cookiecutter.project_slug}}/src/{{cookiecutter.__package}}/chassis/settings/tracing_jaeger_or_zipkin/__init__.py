"""What is traced, how traces cross between services, and where spans go."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .. import parsing
from ..setting import setting
from .backend import PROPAGATORS, BackendSettings


def _propagators(text: str) -> tuple[str, ...]:
    names = parsing.comma_separated(text)
    if not {*names} <= {"tracecontext", "baggage", "b3", "b3multi", "none"}:
        raise ValueError("should be some of tracecontext, baggage, b3 and b3multi, or none")
    return names


@dataclass(frozen=True, kw_only=True)
class TracingSettings(BackendSettings):
    otel_service_name: str | None = None
    """The service's name in traces; by default its own name."""

    otel_resource_attributes: Mapping[str, str] = setting(
        default_factory=dict, parse=parsing.key_values
    )
    """Further attributes of the service, sent with its spans: `key=value,key=value`."""

    otel_traces_sampler: Literal[
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ] = "parentbased_always_on"
    """Which traces are recorded; with `parentbased_`, a caller's decision comes first."""

    otel_traces_sampler_arg: float = setting(1.0, parse=parsing.number(0, 1))
    """Ratio of traces to record by `traceidratio`, from 0 to 1."""

    otel_sdk_disabled: bool = False
    """Do not record spans."""

    otel_propagators: tuple[str, ...] = setting(PROPAGATORS, parse=_propagators)
    """How traces cross between services: `tracecontext`, `baggage`, `b3`, `b3multi`, or several of
    them, comma-separated; or `none`. With `baggage`, what a caller sends reaches whoever is
    called."""
