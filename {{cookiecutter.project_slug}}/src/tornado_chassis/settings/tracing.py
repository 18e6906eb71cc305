"""What is traced, how traces cross services, and where spans are sent."""

import os
import sys
from collections.abc import Iterable
from typing import Literal

from . import parsing
from .resource import ResourceSettings, exporters
from .server import ServerSettings
from .setting import group, setting

FORMATS = "tracecontext", "baggage", "b3", "b3multi"


def propagators(text: str) -> tuple[str, ...]:
    """Names of formats in which traces cross services, comma-separated."""
    names = dict.fromkeys(parsing.comma_separated(text.lower()))
    known = tuple(each for each in names if each in (*FORMATS, "none"))
    if len(known) < len(names):
        problem = f"should be one or more of {', '.join(FORMATS)}, or none"
        raise parsing.PartlyInvalid(known, problem) if known else ValueError(problem)
    return known


@group
class TracingSettings(ResourceSettings):
    unread = {  # noqa: RUF012 (never changed)
        "OTEL_BSP_*": "up to 512 spans are sent at once, after a second, and up to 4 MiB wait",
        "OTEL_LOGRECORD_*": "logs are not sent with OTLP",
        "OTEL_*_LIMIT": "a span has up to 128 attributes, events and links",
        "OTEL_METRICS_EXPORTER=none": "",
    }

    otel_traces_exporter: str = setting("otlp", parse=exporters("otlp"))
    """`otlp`, or `none` to send no spans."""

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
