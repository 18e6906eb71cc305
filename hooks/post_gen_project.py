"""Keeps the chosen variant of each feature, and says what was made.

A file `metrics_prometheus.py` or `test_metrics_prometheus.py` is kept as `metrics.py` or
`test_metrics.py` where the answer to the prompt `metrics` is `prometheus`, and dropped otherwise.
A variant may have further files, and share them: `tracing_jaeger_or_zipkin_spans.py` is kept as
`tracing_spans.py` for both. Nothing else is known of the variants: a new one needs its files, its
tests and a choice in cookiecutter.json.

A file of which its conditions leave nothing, such as a `Dockerfile` that stands between an `if` and
an `endif` from its first line to its last, is dropped.
"""

import json
import os
import re
import sys
from pathlib import Path

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")

# The prompt that decides on each room of the house.
PROMPTS = {
    "health": "health",
    "logs": "logging",
    "metrics": "metrics",
    "errors": "error_tracking",
    "tracing": "tracing",
}
VARIANT = re.compile(
    rf"((?:test_)?({'|'.join(PROMPTS)}))_([a-z]+(?:_or_[a-z]+)*)((?:_[a-z]+)*\.\w+)"
)


def main() -> None:
    project = Path.cwd()
    keep_the_chosen(project)
    drop_what_is_empty(project)
    # A path that the terminal has no characters for is no reason to undo all this.
    sys.stdout.reconfigure(errors="backslashreplace")
    slug = ANSWERS["project_slug"]
    print(f"Made the service {slug} in {project}")
    print(f"Run it:   cd {project.name} && uv run {slug}")
    print("Test it:  uv run pytest")


def files(project: Path) -> "list[Path]":
    """The project's files, and not what is beside them where it is generated once more."""
    found = []
    for directory, directories, names in os.walk(project):
        directories[:] = sorted(set(directories) - {".git", ".venv"})
        found += [Path(directory, name) for name in sorted(names)]
    return found


def keep_the_chosen(project: Path) -> None:
    paths = files(project)
    # A second run finds nothing left to choose.
    decided = {path.stem.removeprefix("test_") for path in paths}
    for path in paths:
        match = VARIANT.fullmatch(path.name)
        if match is None or match[2] in decided:
            continue
        name, room, choices, rest = match.groups()
        if ANSWERS[PROMPTS[room]] in choices.split("_or_"):
            path.replace(path.with_name(name + rest))
        else:
            path.unlink()


def drop_what_is_empty(project: Path) -> None:
    for path in files(project):
        # A package is marked by a file that has nothing in it.
        if path.name == "__init__.py" or path.read_bytes().strip():
            continue
        path.unlink()
        while not any((path := path.parent).iterdir()):
            path.rmdir()


main()
