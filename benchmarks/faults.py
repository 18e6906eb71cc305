"""The p99 at half of bare Tornado's load, with a backend that is well, and with one that is not."""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from tests.backends import newrelic

from . import machine, report
from .report import Sample, ratios, spread
from .run import WARM_UP_SECONDS, half_of_bare, keeps_up
from .variants import BARE, Variant, in_rounds, ours
from .workshop import Workshop, backend

HEALTHY = "answers"
MANNERS = (HEALTHY, "refuses", "hangs", "does not resolve", "fails")
BACKENDS = {
    "jaeger": ours("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://{address}"}, tracing="jaeger"),
    "zipkin": ours("", {"ZIPKIN_ENDPOINT": "http://{address}/api/v2/spans"}, tracing="zipkin"),
    "statsd": ours("", {"STATSD_HOST": "{host}", "STATSD_PORT": "{port}"}, metrics="statsd"),
    "sentry": replace(
        ours("", {"SENTRY_DSN": "http://key@{address}/1"}, error_tracking="sentry"), every=100
    ),
    "newrelic": ours("", error_tracking="newrelic"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(rounds=5, seconds=8)
    parser.add_argument(
        "--only", nargs="+", choices=BACKENDS, default=list(BACKENDS), help="these backends"
    )


def main(options: argparse.Namespace, workshop: Workshop) -> None:
    machine.require_wrk()
    for variant in (BARE, *(BACKENDS[name] for name in options.only)):
        workshop.prepare(variant)
    machine.pin()
    rate = half_of_bare(workshop, options.seconds)
    results: dict[str, dict[str, list[Sample]]] = {}
    rows = []
    for name in options.only:
        # UDP has no answers.
        manners = [each for each in MANNERS if (name, each) != ("statsd", "fails")]
        samples = results[name] = {manner: [] for manner in manners}
        variants = [replace(BACKENDS[name], name=f"{name} {manner}") for manner in manners]
        for variant in in_rounds(variants, options.rounds):
            manner = variant.name.removeprefix(f"{name} ")
            samples[manner].append(measure(workshop, variant, manner, rate, options.seconds))
        for manner in manners:
            rows.append(
                [
                    f"{name} {manner}",
                    spread([each["p50"] for each in samples[manner]], ".2f", 1e3),
                    spread([each["p99"] for each in samples[manner]], ".2f", 1e3),
                    spread(ratios(samples[manner], samples[HEALTHY], lambda each: each["p99"])),
                    "yes" if all(map(keeps_up, samples[manner])) else "no",
                ]
            )
    head = ["the backend", f"p50 ms at {rate:.0f}/s", "p99 ms", "of the healthy one's", "keeps up"]
    report.save(options.output, "faults", {"rate": rate, **results}, report.table(head, rows))


def measure(workshop: Workshop, variant: Variant, manner: str, rate: float, seconds: int) -> Sample:
    with ExitStack() as stack:
        if variant.name.startswith("newrelic"):
            settings = stack.enter_context(_newrelic_settings(manner))
            variant = replace(variant, settings=settings)
            address = {}
        else:
            host, port = stack.enter_context(backend(manner))
            address = {"host": host, "port": port, "address": f"{host}:{port}"}
        server = stack.enter_context(workshop.start(variant, values=address))
        machine.paced(server.port, rate, WARM_UP_SECONDS, variant.every)
        return machine.paced(server.port, rate, seconds, variant.every)


@contextmanager
def _newrelic_settings(manner: str) -> Iterator[dict[str, str]]:
    """For an agent with a collector that does as `manner` says, in its own protocol over TLS."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        status = 500 if manner == "fails" else 200
        collector = stack.enter_context(newrelic.running(directory, 5.0, status=status))
        if manner not in (HEALTHY, "fails"):
            host, port = stack.enter_context(backend(manner))
            collector = replace(collector, host=host, port=port)
        yield collector.settings
