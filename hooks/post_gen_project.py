"""Keeps the chosen variant of each feature, and prints the next steps.

If the answer to the prompt `metrics` is `prometheus`, then `metrics_prometheus.py`,
`test_metrics_prometheus.py` and `metrics_prometheus.md` become `metrics.py`, `test_metrics.py` and
`metrics.md`; otherwise they are removed. A folder `tracing_jaeger_or_zipkin` becomes `tracing` for
either choice. A file in such a folder may be for one of its choices only: `backend_zipkin.py`
becomes `backend.py`. There is no list of variants: a new one needs its files, its tests and a
choice in cookiecutter.json.

A file that its conditions leave empty, such as a `Dockerfile` wrapped in an `if` and its `endif`,
is removed.
"""

import json
import os
import re
import shutil
import sys
import tempfile
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
# The template's own folders. Files elsewhere are the team's, and may have any name.
CHASSIS = [
    Path("docs"),
    Path("src", ANSWERS["__package"], "chassis"),
    Path("tests", "chassis"),
]
# What tools write beside the sources that they read; in the template, they leave it, too.
CACHES = {"__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache"}
# Longest first, or `rate_limit` would be taken for a variant of `rate`.
FEATURES = "|".join(sorted(PROMPTS, key=len, reverse=True))
VARIANT = re.compile(rf"((?:test_)?({FEATURES}))_(\w+?)(\.\w+)?")


def main() -> None:
    project = Path.cwd()
    drop_caches(project)
    for folder in CHASSIS:
        keep_the_chosen(project / folder)
    check_what_is_there(project)
    name_the_package(project / "tests")
    drop_what_is_empty(project)
    if not is_for_an_update(project):
        # A path that the terminal cannot show is no reason to undo all this.
        sys.stdout.reconfigure(errors="backslashreplace")
        print(*next_steps(project), sep="\n")


def is_for_an_update(project: Path) -> bool:
    """Whether cruft generates only to compare, into a temporary directory that it then removes."""
    temporary = Path(tempfile.gettempdir()).resolve()
    return (
        "_output_dir" not in ANSWERS
        and project.parent.parent == temporary
        and project.parent.name.startswith(tempfile.gettempprefix())
    )


def next_steps(project: Path) -> "list[str]":
    slug = ANSWERS["project_slug"]
    # uv may be beside cookiecutter in a virtual environment, or run this as uvx, off the PATH.
    beside = shutil.which("uv", path=str(Path(sys.executable).parent)) or os.environ.get("UV")
    uv = "uv" if shutil.which("uv") or not beside else f'"{beside}"' if " " in beside else beside
    steps = [
        f"Made the service {slug} in {project}",
        f"Run it:   cd {project.name} && {uv} run {slug}",
        f"Test it:  {uv} run pytest",
    ]
    if not any((directory / ".git").exists() for directory in (project, *project.parents)):
        steps.append("Keep it:  git init && git add --all && git commit")
    if not shutil.which("uv") and not beside:
        steps.append("Get uv:   https://docs.astral.sh/uv/")
    return steps


def drop_caches(project: Path) -> None:
    for directory, directories, _ in os.walk(project):
        for name in CACHES.intersection(directories):
            shutil.rmtree(Path(directory, name))
        directories[:] = set(directories) - CACHES - {".git"}


def keep_the_chosen(folder: Path, prompt: str = "", choices: "tuple[str, ...]" = ()) -> None:
    """Keeps the chosen variants in a folder, deepest first.

    If the folder itself is a variant, `choices` are the choices of `prompt` that it is for.
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
            # One choice may end with another: `token_bucket` and `bucket`.
            choice = max(own, key=len)
            name = path.stem.removesuffix(f"_{choice}") + path.suffix
            settle(path, name, choice == ANSWERS[prompt])


def check_what_is_there(project: Path) -> None:
    """Raises SystemExit if a choice has no module."""
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
    """Renames the package in the tests, which in the template has a name that Python can parse."""
    for path in tests.rglob("*.py"):
        text = path.read_bytes()
        path.write_bytes(text.replace(b"my_service", ANSWERS["__package"].encode()))


def files(project: Path) -> "list[Path]":
    """Returns the project's files, without those of a repository that it was generated into."""
    found = []
    for directory, directories, names in os.walk(project):
        directories[:] = sorted(set(directories) - {".git"})
        found += [Path(directory, name) for name in sorted(names)]
    return found


def drop_what_is_empty(project: Path) -> None:
    for path in files(project):
        # An empty file marks a package.
        if path.name == "__init__.py" or path.read_bytes().strip():
            continue
        path.unlink()
        while not any((path := path.parent).iterdir()):
            path.rmdir()


main()
