"""Two processes on one port by `SO_REUSEPORT`, against one, with a handler that works."""

import argparse
from contextlib import ExitStack
from functools import partial

from tests.backends import eventually, free_port

from . import machine, report
from .report import Column, Sample, in_rounds
from .variants import NOTHING, Variant
from .workshop import Workshop, get

DEFAULTS = {"rounds": 7, "seconds": 5}

# About two milliseconds of work.
WORK = """\
class Bench(JsonHandler):
    def get(self, name: str) -> None:
        sum(number * number for number in range(30_000))
        self.finish({"message": "hello"})
"""
SHARED = {"REUSE_PORT": "true", "PORT": "{shared}"}
CORES = {"one": [machine.SERVER_CORE], "two": [machine.SERVER_CORE, machine.LOAD_CORE]}


def main(options: argparse.Namespace, workshop: Workshop) -> None:
    machine.require_wrk()
    answers = NOTHING | {"metrics": "prometheus"}
    variants = [Variant(name, answers, SHARED, handler=WORK) for name in CORES]
    for variant in variants:
        workshop.prepare(variant)
    measures = {each.name: partial(measure, workshop, each, options.seconds) for each in variants}
    results = in_rounds(measures, options.rounds)
    columns = (
        Column("requests/s", "throughput", ".0f"),
        Column("of one's", "throughput", is_share=True),
    )
    report.save(options.output, "processes", results, report.compared(results, *columns))


def measure(workshop: Workshop, variant: Variant, seconds: int) -> Sample:
    with ExitStack() as stack:
        shared = {"shared": str(free_port())}
        for core in CORES[variant.name]:
            server = stack.enter_context(workshop.start(variant, core, shared))
            # The port may be the other's; the admin server listens after the main one.
            eventually(partial(get, server.admin_port, "/metrics"), variant.name)
        return machine.wrk(server.port, seconds)
