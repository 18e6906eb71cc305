"""Carbon, which receives for Graphite."""

from pathlib import Path

from . import home


def executable() -> Path:
    return home("graphite") / "venv" / "bin" / "carbon-cache.py"
