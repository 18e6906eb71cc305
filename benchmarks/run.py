"""The main table: what each feature costs, and all of them, beside bare Tornado."""

import argparse
from functools import partial

from . import machine, picture, report
from .report import Column, Results, Sample, in_rounds, shares
from .variants import BARE, EVERYTHING, VARIANTS, Variant, add_only
from .workshop import Server, Workshop, get

DEFAULTS = {"rounds": 7, "seconds": 8}

WARM_UP_SECONDS = 1

COLUMNS = (
    Column("requests/s", "throughput", ".0f"),
    Column("of bare's", "throughput", is_share=True),
    Column("CPU µs", "cpu", ".1f", 1e6),
    Column("+ µs", "cpu", ".1f", 1e6, is_more=True),
    Column("p50 ms", "p50", ".1f", 1e3),
    Column("p99 ms", "p99", ".1f", 1e3),
    Column("MiB", "memory", ".0f"),
)

add_arguments = add_only


def main(options: argparse.Namespace, workshop: Workshop) -> None:
    machine.require_wrk()
    chosen = [each for each in VARIANTS if each.name in {BARE.name, *options.only}]
    for variant in chosen:
        workshop.prepare(variant)
    machine.pin()
    measures = {each.name: partial(measure, workshop, each, options.seconds) for each in chosen}
    results = in_rounds(measures, options.rounds)
    report.save(options.output, "run", results, as_table(results))
    bars = {name: shares(results, name, "bare", "throughput") for name in results}
    (options.output / "run.svg").write_text(picture.bars(bars), encoding="utf-8")


def measure(workshop: Workshop, variant: Variant, seconds: int) -> Sample:
    traced = variant.source == EVERYTHING
    with workshop.start(variant) as server:
        machine.wrk(server.port, WARM_UP_SECONDS, variant.every)
        dropped = dropped_spans(server) if traced else 0.0
        cpu = server.cpu_seconds()
        sample = machine.wrk(server.port, seconds, variant.every)
        sample["cpu"] = (server.cpu_seconds() - cpu) / sample["requests"]
        if traced:
            sample["dropped"] = (dropped_spans(server) - dropped) / sample["requests"]
        sample["memory"] = server.resident_mib()
        if variant.exports:
            server.wait_for_exports()
    return sample


def dropped_spans(server: Server) -> float:
    """How many have found the queue full so far."""
    for line in get(server.admin_port, "/metrics").decode().splitlines():
        if line.startswith("otel_spans_dropped_total "):
            return float(line.split()[1])
    raise LookupError("otel_spans_dropped_total")


def as_table(results: Results) -> str:
    dropped = [
        f"{name} {Column('', 'dropped', '.0f', 100).cell(results, name)} %"
        for name, samples in results.items()
        if "dropped" in samples[0]
    ]
    notes = f"\nOf the requests at full load, the spans were dropped: {', '.join(dropped)}.\n"
    return report.compared(results, *COLUMNS) + (notes if dropped else "")
