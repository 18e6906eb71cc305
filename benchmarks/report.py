"""Figures as people read them, and as files."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from . import machine

Sample = dict[str, Any]


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


def ratios(
    samples: Sequence[Sample], others: Sequence[Sample], figure: Callable[[Sample], float]
) -> list[float]:
    """Of a figure to the other's of the same round."""
    pairs = zip(samples, others, strict=True)
    return [figure(sample) / figure(other) for sample, other in pairs]


def save(directory: Path, name: str, results: Any, markdown: str) -> None:
    """Prints the table, and writes it and what it is made of to `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    data = {"machine": machine.description(), "results": results}
    (directory / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    (directory / f"{name}.md").write_text(markdown, encoding="utf-8")
    print(markdown)
