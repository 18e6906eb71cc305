"""Keeps the chosen variant of each feature.

A file `metrics_prometheus.py` or `test_metrics_prometheus.py` is kept as `metrics.py` or
`test_metrics.py` where the answer to the prompt `metrics` is `prometheus`, and dropped otherwise.
Nothing else is known of the variants: a new one needs a file, its test and a choice in
cookiecutter.json.
"""

import json
import re
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
VARIANT = re.compile(rf"((?:test_)?({'|'.join(PROMPTS)}))_([a-z]+)(\.\w+)")


def main() -> None:
    for path in sorted(Path.cwd().rglob("*")):
        match = VARIANT.fullmatch(path.name)
        if match is None:
            continue
        name, room, choice, suffix = match.groups()
        if ANSWERS[PROMPTS[room]] == choice:
            path.replace(path.with_name(name + suffix))
        else:
            path.unlink()


main()
