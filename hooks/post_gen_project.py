"""Keeps the chosen variant of each feature, and says what was made.

A file `metrics_prometheus.py`, `test_metrics_prometheus.py` or `metrics_prometheus.md` is kept as
`metrics.py`, `test_metrics.py` or `metrics.md` where the answer to the prompt `metrics` is
`prometheus`, and dropped otherwise; a folder `tracing_jaeger_or_zipkin` is kept as `tracing` for
both. Within such a folder a file may be for one of its choices alone: `backend_zipkin.py` is kept
as `backend.py`. Nothing else is known of the variants: a new one needs its files, its tests and a
choice in cookiecutter.json.

A file of which its conditions leave nothing, such as a `Dockerfile` that stands between an `if` and
an `endif` from its first line to its last, is dropped.
"""

import json
import os
import re
import shutil
import sys
from pathlib import Path

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")

# The prompt that decides on each feature.
PROMPTS = {
    "health": "health",
    "logs": "logging",
    "metrics": "metrics",
    "errors": "error_tracking",
    "tracing": "tracing",
    "console": "console",
}
# The folders of the template's own. What stands elsewhere is the team's, and may have any name.
CHASSIS = [
    Path("docs"),
    Path("src", ANSWERS["__package"], "chassis"),
    Path("tests", "chassis"),
]
# The longest first, or `rate_limit` would be taken for a variant of `rate`.
FEATURES = "|".join(sorted(PROMPTS, key=len, reverse=True))
VARIANT = re.compile(rf"((?:test_)?({FEATURES}))_(\w+?)(\.\w+)?")


def main() -> None:
    project = Path.cwd()
    for folder in CHASSIS:
        keep_the_chosen(project / folder)
    check_what_is_there(project)
    name_the_package(project / "tests")
    drop_what_is_empty(project)
    # A path that the terminal has no characters for is no reason to undo all this.
    sys.stdout.reconfigure(errors="backslashreplace")
    slug = ANSWERS["project_slug"]
    print(f"Made the service {slug} in {project}")
    print(f"Run it:   cd {project.name} && uv run {slug}")
    print("Test it:  uv run pytest")


def keep_the_chosen(folder: Path, prompt: str = "", choices: "tuple[str, ...]" = ()) -> None:
    """Keeps what is chosen in a folder, deepest first.

    Where the folder itself is a variant, `choices` are those of `prompt` that it is for.
    """
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = VARIANT.fullmatch(path.name)
        inner = (PROMPTS[match[2]], tuple(match[3].split("_or_"))) if match else (prompt, choices)
        if path.is_dir():
            keep_the_chosen(path, *inner)
        if match:
            is_chosen = f"_or_{ANSWERS[inner[0]]}_or_" in f"_or_{match[3]}_or_"
            settle(path, match[1] + (match[4] or ""), is_chosen)
            continue
        own = [choice for choice in choices if path.stem.endswith(f"_{choice}")]
        if own:
            # One choice may end as another does: `bucket` and `token_bucket`.
            choice = max(own, key=len)
            name = path.stem.removesuffix(f"_{choice}") + path.suffix
            settle(path, name, choice == ANSWERS[prompt])


def check_what_is_there(project: Path) -> None:
    """Raises SystemExit where a choice has no module."""
    chassis = Path("src", ANSWERS["__package"], "chassis")
    missing = []
    for feature, prompt in PROMPTS.items():
        choice = ANSWERS[prompt]
        module = project / chassis / feature
        if choice != "none" and not (module.with_suffix(".py").exists() or module.is_dir()):
            missing.append(
                f"  {prompt}={choice}: the template has no chassis/{feature}_{choice}.py, "
                f"and no folder chassis/{feature}_{choice}"
            )
    if missing:
        print("Nothing was generated:", *missing, sep="\n", file=sys.stderr)
        raise SystemExit(1)


def settle(path: Path, name: str, is_chosen: bool) -> None:
    if is_chosen:
        path.replace(path.with_name(name))
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def name_the_package(tests: Path) -> None:
    """In the template's own tests the package goes by a name that Python can parse."""
    for path in tests.rglob("*.py"):
        text = path.read_bytes()
        path.write_bytes(text.replace(b"my_service", ANSWERS["__package"].encode()))


def files(project: Path) -> "list[Path]":
    """The project's files, and not those of the repository that it was generated into."""
    found = []
    for directory, directories, names in os.walk(project):
        directories[:] = sorted(set(directories) - {".git"})
        found += [Path(directory, name) for name in sorted(names)]
    return found


def drop_what_is_empty(project: Path) -> None:
    for path in files(project):
        # A package is marked by a file that has nothing in it.
        if path.name == "__init__.py" or path.read_bytes().strip():
            continue
        path.unlink()
        while not any((path := path.parent).iterdir()):
            path.rmdir()


main()
