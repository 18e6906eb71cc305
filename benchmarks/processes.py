"""Two processes on one port by `SO_REUSEPORT`, against one, with a handler that works."""

import argparse
from contextlib import ExitStack
from functools import partial

from tests.backends import eventually, free_port

from . import machine, report
from .report import Sample, ratios, spread
from .variants import NOTHING, Variant, in_rounds
from .workshop import Workshop, get

# About two milliseconds of work.
WORK = """\
class Bench(JsonHandler):
    def get(self, name: str) -> None:
        sum(number * number for number in range(30_000))
        self.finish({"message": "hello"})
"""
SHARED = {"REUSE_PORT": "true", "PORT": "{shared}"}
CORES = {"one": [machine.SERVER_CORE], "two": [machine.SERVER_CORE, machine.LOAD_CORE]}
START_SECONDS = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(rounds=7, seconds=5)


def main(options: argparse.Namespace, workshop: Workshop) -> None:
    machine.require_wrk()
    answers = NOTHING | {"metrics": "prometheus"}
    variants = [Variant(name, answers, SHARED, handler=WORK) for name in CORES]
    for variant in variants:
        workshop.prepare(variant)
    results: dict[str, list[Sample]] = {name: [] for name in CORES}
    for variant in in_rounds(variants, options.rounds):
        with ExitStack() as stack:
            shared = {"shared": str(free_port())}
            for core in CORES[variant.name]:
                server = stack.enter_context(workshop.start(variant, core, shared))
                # The port may be the other's; the admin server listens after the main one.
                listens = partial(get, server.admin_port, "/metrics")
                eventually(listens, START_SECONDS, variant.name)
            results[variant.name].append(machine.wrk(server.port, options.seconds))
    rows = [
        [
            name,
            spread([each["throughput"] for each in samples], ".0f"),
            spread(ratios(samples, results["one"], lambda each: each["throughput"])),
        ]
        for name, samples in results.items()
    ]
    head = ["processes", "requests/s", "of one's"]
    report.save(options.output, "processes", results, report.table(head, rows))
