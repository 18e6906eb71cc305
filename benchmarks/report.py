"""Figures as people read them, and as files."""

import json
import random
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from . import machine

Sample = dict[str, Any]
# By the name of what was measured.
Results = dict[str, list[Sample]]


def in_rounds(measure: Mapping[str, Callable[[], Sample]], rounds: int) -> Results:
    """Measures each once a round, in another order each time, so that what changes on the machine
    meets all of them alike."""
    results: Results = {name: [] for name in measure}
    for number in range(1, rounds + 1):
        for name in random.sample(list(measure), len(measure)):
            print(f"round {number} of {rounds}: {name}", file=sys.stderr)
            results[name].append(measure[name]())
    return results


@dataclass(frozen=True)
class Column:
    """What stands in a table of a figure of the samples, or nothing where they lack it."""

    head: str
    figure: str
    form: str = ".2f"
    factor: float = 1
    #: The figure is a share of that of the first name in the same round.
    is_share: bool = False
    #: It is what it has more than that.
    is_more: bool = False

    def cell(self, results: Results, name: str) -> str:
        if self.figure not in results[name][0]:
            return ""
        values: Sequence[float] = [each[self.figure] for each in results[name]]
        first = next(iter(results))
        if self.is_share:
            values = shares(results, name, first, self.figure)
        elif self.is_more:
            pairs = zip(values, results[first], strict=True)
            values = [value - other[self.figure] for value, other in pairs]
        return spread(values, self.form, self.factor)


def compared(results: Results, *columns: Column) -> str:
    """A table with a row for each name."""
    rows = [[name, *(column.cell(results, name) for column in columns)] for name in results]
    return table(["", *(column.head for column in columns)], rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def spread(values: Sequence[float], form: str = ".2f", factor: float = 1) -> str:
    """The median, and from where to where the values go where they are several."""
    scaled = sorted(value * factor for value in values)
    middle = f"{median(scaled):{form}}"
    low, high = f"{scaled[0]:{form}}", f"{scaled[-1]:{form}}"
    return middle if low == high else f"{middle} ({low} to {high})"


def shares(results: Results, name: str, of: str, figure: str) -> list[float]:
    """Of a figure in the other's of the same round."""
    pairs = zip(results[name], results[of], strict=True)
    return [float(sample[figure]) / other[figure] for sample, other in pairs]


def save(directory: Path, name: str, results: Any, markdown: str) -> None:
    """Prints the table, and writes it and what it is made of to `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    data = {"machine": machine.description(), "results": results}
    (directory / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    (directory / f"{name}.md").write_text(markdown, encoding="utf-8")
    print(markdown)
