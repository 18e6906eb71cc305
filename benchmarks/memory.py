"""Resident memory over many requests: it should stop to grow."""

import argparse
import sys

from . import machine, report
from .report import Sample
from .variants import ALL_IDLE, ALL_LIVE, BARE
from .workshop import Workshop

VARIANTS = [BARE, ALL_IDLE, ALL_LIVE]
STEPS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(seconds=2)
    parser.add_argument("--requests", type=int, default=200_000, help="(default: 200,000)")


def main(options: argparse.Namespace, workshop: Workshop) -> None:
    machine.require_wrk()
    if options.quick:
        options.requests = 3000
    for variant in VARIANTS:
        workshop.prepare(variant)
    machine.pin()
    results: dict[str, list[Sample]] = {}
    for variant in VARIANTS:
        samples = results[variant.name] = []
        requests = 0
        with workshop.start(variant) as server:
            while True:
                samples.append({"requests": requests, "memory": server.resident_mib()})
                if requests >= options.requests:
                    break
                requests += machine.wrk(server.port, options.seconds)["requests"]
                print(f"{variant.name}: {requests} requests", file=sys.stderr)
    marks = [options.requests * step // STEPS for step in range(STEPS + 1)]
    rows = [[name, *(f"{_at(mark, each):.1f}" for mark in marks)] for name, each in results.items()]
    head = ["MiB after requests", *(f"{mark:,}" for mark in marks)]
    report.save(options.output, "memory", results, report.table(head, rows))


def _at(requests: int, samples: list[Sample]) -> float:
    return next(float(each["memory"]) for each in samples if each["requests"] >= requests)
