"""`python -m benchmarks [COMMAND]`, from the root of the repository."""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from . import generation, instructions, processes, run, soak, start
from .machine import ROOT
from .workshop import Workshop

COMMANDS = {
    "run": run,
    "instructions": instructions,
    "start": start,
    "processes": processes,
    "generation": generation,
    "soak": soak,
}

# Options of the commands that have a default for them.
NUMBERS = {
    "rounds": "each variant is measured so many times, in turn",
    "seconds": "of load in each measurement",
}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(title="commands", required=True)
    for name, command in COMMANDS.items():
        add = commands.add_parser(name, help=command.__doc__, description=command.__doc__)
        for option, default in command.DEFAULTS.items():
            text = f"{NUMBERS[option]} (default: {default})"
            add.add_argument(f"--{option}", type=int, default=default, help=text)
        if hasattr(command, "add_arguments"):
            command.add_arguments(add)
        add.add_argument("--quick", action="store_true", help="only to see that it works")
        add.add_argument(
            "--output",
            type=Path,
            default=ROOT / "benchmarks" / "results",
            help="directory for the results (default: benchmarks/results)",
        )
        add.set_defaults(command=command)
    if not argv or argv[0] not in (*COMMANDS, "-h", "--help"):
        argv = ["run", *argv]
    options = parser.parse_args(argv)
    if options.quick:
        options.rounds = options.seconds = 1
    # So that servers end with this process.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as directory:
        options.command.main(options, Workshop(Path(directory)))


if __name__ == "__main__":
    main(sys.argv[1:])
