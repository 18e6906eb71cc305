"""Latency at half of bare Tornado's load, against bare Tornado's in the same seconds."""

import argparse
import sys
from contextlib import ExitStack
from operator import itemgetter
from random import sample
from statistics import median, quantiles

from . import machine, report
from .report import Sample, ratios, spread
from .run import WARM_UP_SECONDS, half_of_bare, keeps_up
from .variants import ALL_LIVE, BARE, ours
from .workshop import Workshop

VARIANTS = [BARE, ours("none"), ALL_LIVE]
FULL_LOAD_SECONDS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(rounds=30, seconds=1)


def main(options: argparse.Namespace, workshop: Workshop) -> None:
    machine.require_wrk()
    for variant in VARIANTS:
        workshop.prepare(variant)
    machine.pin()
    rate = half_of_bare(workshop, FULL_LOAD_SECONDS)
    results: dict[str, list[Sample]] = {variant.name: [] for variant in VARIANTS}
    with ExitStack() as stack:
        # All run at once, and those that nobody asks anything do next to nothing.
        servers = {each.name: stack.enter_context(workshop.start(each)) for each in VARIANTS}
        for server in servers.values():
            machine.wrk(server.port, WARM_UP_SECONDS)
        for number in range(1, options.rounds + 1):
            print(f"round {number} of {options.rounds}", file=sys.stderr)
            for name in sample(list(servers), len(servers)):
                results[name].append(machine.paced(servers[name].port, rate, options.seconds))
    table = as_table(results, rate)
    report.save(options.output, "half_load", {"rate": rate, "rounds": results}, table)


def as_table(results: dict[str, list[Sample]], rate: float) -> str:
    rows = []
    for name, samples in results.items():
        row = [
            name,
            middle_half([each["p50"] for each in samples], 1e3),
            middle_half([each["p99"] for each in samples], 1e3),
        ]
        for figure in (itemgetter("p50"), itemgetter("p99")):
            row.append(middle_half(ratios(samples, results[BARE.name], figure)))
        rows.append([*row, "yes" if all(map(keeps_up, samples)) else "no"])
    head = ["", f"p50 ms at {rate:.0f}/s", "p99 ms", "p50 of bare's", "p99 of bare's", "keeps up"]
    return report.table(head, rows)


def middle_half(values: list[float], factor: float = 1) -> str:
    """The median, and from where to where the middle half of the values goes."""
    scaled = [value * factor for value in values]
    if len(scaled) < 2:
        return spread(scaled)
    low, _, high = quantiles(scaled, n=4, method="inclusive")
    return f"{median(scaled):.2f} ({low:.2f} to {high:.2f})"
