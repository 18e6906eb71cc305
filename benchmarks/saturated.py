"""Probes and scrapes while the loop is saturated: they should be answered in time."""

import argparse
import time
from concurrent.futures import ThreadPoolExecutor

from . import machine, report
from .report import spread
from .variants import ALL_LIVE
from .workshop import Workshop, get

CONNECTIONS = (32, 256)
PAUSE_SECONDS = 0.05


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(seconds=10)


def main(options: argparse.Namespace, workshop: Workshop) -> None:
    machine.require_wrk()
    workshop.prepare(ALL_LIVE)
    machine.pin()
    results: dict[str, dict[str, list[float]]] = {}
    rows = []
    for connections in CONNECTIONS:
        with workshop.start(ALL_LIVE) as server, ThreadPoolExecutor(1) as pool:
            asked = [
                (server.port, "/livez"),
                (server.port, "/readyz"),
                (server.admin_port, "/health"),
                (server.admin_port, "/metrics"),
            ]
            server.wait_until_ready()
            load = pool.submit(machine.wrk, server.port, options.seconds, 0, connections)
            waits: dict[str, list[float]] = {path: [] for _, path in asked}
            while not load.done():
                for port, path in asked:
                    started = time.perf_counter()
                    get(port, path)
                    waits[path].append(time.perf_counter() - started)
                time.sleep(PAUSE_SECONDS)
        results[f"{connections} connections"] = waits
        row = [f"{connections} connections", f"{load.result()['throughput']:.0f}"]
        row.append(f"{load.result()['p50'] * 1e3:.1f}")
        rows.append(row + [spread(each, ".1f", 1e3) for each in waits.values()])
    head = ["all live", "requests/s", "their p50 ms", *(f"`{path}` ms" for path in waits)]
    report.save(options.output, "saturated", results, report.table(head, rows))
