"""From the start of the process to the first answer, with bytecode compiled."""

import argparse
import time

from . import machine, report
from .report import Sample, ratios, spread
from .variants import ALL_LIVE, BARE, BY_HAND, FASTAPI, in_rounds, ours
from .workshop import Workshop

VARIANTS = [BARE, ours("none"), ALL_LIVE, BY_HAND, FASTAPI]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(rounds=21)


def main(options: argparse.Namespace, workshop: Workshop) -> None:
    for variant in VARIANTS:
        # The first start compiles the service's own modules.
        with workshop.start(variant):
            pass
    machine.pin()
    results: dict[str, list[Sample]] = {variant.name: [] for variant in VARIANTS}
    for variant in in_rounds(VARIANTS, options.rounds):
        with workshop.start(variant) as server:
            sample = {"seconds": server.start_seconds, "cpu": server.cpu_seconds()}
            if variant is ALL_LIVE:
                answered = time.perf_counter()
                server.wait_until_ready()
                sample["ready"] = server.start_seconds + time.perf_counter() - answered
            results[variant.name].append(sample)
    rows = [
        [
            name,
            spread([each["seconds"] for each in samples], ".0f", 1e3),
            spread(ratios(samples, results["bare"], lambda each: each["seconds"])),
            spread([each["cpu"] for each in samples], ".0f", 1e3),
            spread([each["ready"] for each in samples], ".0f", 1e3)
            if "ready" in samples[0]
            else "",
        ]
        for name, samples in results.items()
    ]
    head = ["", "ms to the first answer", "of bare's", "CPU ms", "ms until ready"]
    report.save(options.output, "start", results, report.table(head, rows))
