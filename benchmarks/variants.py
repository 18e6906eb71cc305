"""What is compared."""

import argparse
from collections.abc import Mapping
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


def add_only(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        choices=[each.name for each in VARIANTS],
        default=[each.name for each in VARIANTS],
        help="these variants, beside bare Tornado",
    )
