"""From the start of the process to the first answer, with bytecode compiled."""

import argparse
import time
from functools import partial

from . import machine, report
from .report import Column, Sample, in_rounds
from .variants import ALL_LIVE, BARE, BY_HAND, FASTAPI, Variant, ours
from .workshop import Workshop

DEFAULTS = {"rounds": 21}

VARIANTS = [BARE, ours("none"), ALL_LIVE, BY_HAND, FASTAPI]


def main(options: argparse.Namespace, workshop: Workshop) -> None:
    for variant in VARIANTS:
        # The first start compiles the service's own modules.
        with workshop.start(variant):
            pass
    machine.pin()
    measures = {each.name: partial(measure, workshop, each) for each in VARIANTS}
    results = in_rounds(measures, options.rounds)
    columns = (
        Column("ms to the first answer", "seconds", ".0f", 1e3),
        Column("of bare's", "seconds", is_share=True),
        Column("CPU ms", "cpu", ".0f", 1e3),
        Column("ms until ready", "ready", ".0f", 1e3),
    )
    report.save(options.output, "start", results, report.compared(results, *columns))


def measure(workshop: Workshop, variant: Variant) -> Sample:
    with workshop.start(variant) as server:
        sample = {"seconds": server.start_seconds, "cpu": server.cpu_seconds()}
        if variant is ALL_LIVE:
            answered = time.perf_counter()
            server.wait_until_ready()
            sample["ready"] = server.start_seconds + time.perf_counter() - answered
    return sample
