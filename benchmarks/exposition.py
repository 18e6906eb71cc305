"""A scrape of `/metrics`: how long it takes, and for how long it keeps others waiting."""

import argparse
import time
from concurrent.futures import ThreadPoolExecutor

from . import machine, report
from .report import Sample, spread
from .variants import BENCH, NOTHING, ROUTE, Variant, in_rounds
from .workshop import Server, Workshop, get

# Of one histogram: its buckets, its count and its sum.
SERIES = 17
HANDLER = (
    BENCH
    + """

class Other(JsonHandler):
    def get(self) -> None:
        self.finish({"message": "hello"})
"""
)
PAUSE_SECONDS = 0.1
# Requests a second on other connections: the longest wait of one shows how long the loop is held.
RATE = 500.0

FIGURES = {
    "scrape": "scrape, ms",
    "longest": "longest wait of a request, ms",
    "longest_without": "the same without scrapes, ms",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(rounds=5, seconds=5)
    parser.add_argument(
        "--series",
        nargs="+",
        type=int,
        default=[500, 5000],
        help="so many time series of request durations are scraped (default: 500 5000)",
    )


def main(options: argparse.Namespace, workshop: Workshop) -> None:
    numbers = {f"{series} series": -(-series // SERIES) for series in options.series}
    variants = []
    for name, number in numbers.items():
        route = f'{ROUTE},\n        *[(f"/other/{{n}}", handlers.Other) for n in range({number})]'
        answers = NOTHING | {"metrics": "prometheus"}
        variants.append(Variant(name, answers, handler=HANDLER, route=route))
        workshop.prepare(variants[-1])
    machine.pin()
    results: dict[str, list[Sample]] = {name: [] for name in numbers}
    for variant in in_rounds(variants, options.rounds):
        with workshop.start(variant) as server:
            for number in range(numbers[variant.name]):
                get(server.port, f"/other/{number}")
            results[variant.name].append(measure(server, options.seconds))
    rows = [
        [
            name,
            str(samples[0]["lines"]),
            *(spread([each[key] for each in samples], ".1f", 1e3) for key in FIGURES),
        ]
        for name, samples in results.items()
    ]
    head = ["", "lines", *FIGURES.values()]
    report.save(options.output, "exposition", results, report.table(head, rows))


def measure(server: Server, seconds: int) -> Sample:
    scrape = get(server.admin_port, "/metrics")
    lines = sum(not line.startswith(b"#") for line in scrape.splitlines())
    alone = []
    for _ in range(10):
        started = time.perf_counter()
        get(server.admin_port, "/metrics")
        alone.append(time.perf_counter() - started)
    without = machine.paced(server.port, RATE, seconds)
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(machine.paced, server.port, RATE, seconds)
        while not load.done():
            get(server.admin_port, "/metrics")
            time.sleep(PAUSE_SECONDS)
    return {
        "lines": lines,
        "scrape": sorted(alone)[len(alone) // 2],
        "longest": load.result()["max"],
        "longest_without": without["max"],
    }
