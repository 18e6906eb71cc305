"""The main table: what each feature costs, and all of them, beside bare Tornado."""

import argparse
from pathlib import Path

from . import machine, picture, report
from .report import Sample, ratios, spread
from .variants import EVERYTHING, VARIANTS, Variant, in_rounds
from .workshop import Server, Workshop, get

WARM_UP_SECONDS = 1

Results = dict[str, list[Sample]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(rounds=7, seconds=8)
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        choices=[variant.name for variant in VARIANTS],
        help="these variants, beside bare Tornado",
    )


def main(options: argparse.Namespace, workshop: Workshop) -> None:
    machine.require_wrk()
    chosen = [each for each in VARIANTS if not options.only or each.name in {*options.only, "bare"}]
    for variant in chosen:
        workshop.prepare(variant)
    machine.pin()
    results: Results = {variant.name: [] for variant in chosen}
    for variant in in_rounds(chosen, options.rounds):
        results[variant.name].append(measure(workshop, variant, options.seconds))
    report.save(options.output, "run", results, as_table(results))
    draw(options.output, results)


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
    bare = results["bare"]
    head = ["", "requests/s", "of bare's", "CPU µs", "+ µs", "p50 ms", "p99 ms", "MiB"]
    rows = []
    for name, samples in results.items():
        row = [
            name,
            spread([each["throughput"] for each in samples], ".0f"),
            spread(throughput_ratios(results, name)),
            spread([each["cpu"] for each in samples], ".1f", 1e6),
            spread(
                [each["cpu"] - other["cpu"] for each, other in zip(samples, bare, strict=True)],
                ".1f",
                1e6,
            ),
            spread([each["p50"] for each in samples], ".1f", 1e3),
            spread([each["p99"] for each in samples], ".1f", 1e3),
        ]
        rows.append([*row, spread([each["memory"] for each in samples], ".0f")])
    dropped = [
        f"{name} {spread([each['dropped'] for each in samples], '.0f', 100)} %"
        for name, samples in results.items()
        if "dropped" in samples[0]
    ]
    notes = (
        f"\nOf the requests at full load, the spans were dropped: {', '.join(dropped)}.\n"
        if dropped
        else ""
    )
    return report.table(head, rows) + notes


def throughput_ratios(results: Results, name: str) -> list[float]:
    return ratios(results[name], results["bare"], lambda each: float(each["throughput"]))


def draw(directory: Path, results: Results) -> None:
    bars = {name: throughput_ratios(results, name) for name in results}
    (directory / "run.svg").write_text(picture.bars(bars), encoding="utf-8")
