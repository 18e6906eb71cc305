"""What is compared."""

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

BENCH = """\
class Bench(JsonHandler):
    def get(self, name: str) -> None:
        if name == "fail":
            raise RuntimeError("as it happens")
        self.finish({"message": "hello"})
"""
ROUTE = r'(r"/bench/(?P<name>[^/]+)", handlers.Bench)'

NOTHING = dict.fromkeys(
    "health logging metrics error_tracking tracing console deployment ci".split(), "none"
)
EVERYTHING = NOTHING | {
    "health": "probes",
    "logging": "structured",
    "metrics": "prometheus",
    "error_tracking": "sentry",
    "tracing": "jaeger",
    "console": "page",
}
SENTRY = {"SENTRY_DSN": "http://key@{answers}/1"}
OTLP = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://{answers}"}
LIVE = {**SENTRY, **OTLP}
IDLE = {**SENTRY, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://{hangs}"}
TENTH = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}


@dataclass(frozen=True)
class Variant:
    name: str
    #: Answers for the template, or the name of a program in `stacks`.
    source: Mapping[str, str] | str
    #: In the environment; `{answers}` and `{hangs}` are addresses of such backends.
    settings: Mapping[str, str] = field(default_factory=dict)
    #: Of so many requests one fails; 0 for none.
    every: int = 0
    #: That spans arrive at the backend is checked.
    exports: bool = False
    #: Added to a generated service, and where.
    handler: str = BENCH
    route: str = ROUTE


def ours(name: str, settings: Mapping[str, str] | None = None, **answers: str) -> Variant:
    """A service that has nothing but what `answers` add."""
    return Variant(name, NOTHING | answers, settings or {})


BARE = Variant("bare", "bare")
STATSD = {"STATSD_HOST": "127.0.0.1", "STATSD_PORT": "{answers_port}"}
ALL_IDLE = Variant("all idle", EVERYTHING, IDLE)
ALL_LIVE = Variant("all live", EVERYTHING, LIVE, exports=True)
BY_HAND = Variant("by hand", "by_hand", LIVE, exports=True)
FASTAPI = Variant("fastapi", "fastapi_stack", LIVE, exports=True)

VARIANTS = [
    BARE,
    ours("none"),
    ours("structured", logging="structured"),
    ours("prometheus", metrics="prometheus"),
    ours("otlp", OTLP, metrics="otlp"),
    ours("statsd", STATSD, metrics="statsd"),
    ours("sentry", SENTRY, error_tracking="sentry"),
    ours("newrelic", error_tracking="newrelic"),
    ours("stub", tracing="stub"),
    Variant("jaeger", NOTHING | {"tracing": "jaeger"}, OTLP, exports=True),
    ours("console", console="page"),
    ALL_IDLE,
    ALL_LIVE,
    Variant("all live, 10 % sampled", EVERYTHING, LIVE | TENTH, exports=True),
    Variant("all live, 1 % errors", EVERYTHING, LIVE, every=100, exports=True),
    BY_HAND,
    Variant("fastapi idle", "fastapi_stack", IDLE),
    FASTAPI,
]


def in_rounds(variants: Sequence[Variant], rounds: int) -> Iterator[Variant]:
    """Each variant once a round, in another order each time, so that what changes on the machine
    meets all of them alike."""
    for number in range(1, rounds + 1):
        for variant in random.sample(variants, len(variants)):
            print(f"round {number} of {rounds}: {variant.name}", file=sys.stderr)
            yield variant
