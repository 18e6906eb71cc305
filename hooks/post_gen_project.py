"""Keeps what was chosen, and prints the next steps.

If the answer to the prompt `metrics` is `prometheus`, then `metrics_prometheus.md` and
`test_metrics_prometheus.py` become `metrics.md` and `test_metrics.py`; otherwise they are removed.
`tracing_jaeger_or_zipkin.md` becomes `tracing.md` for either choice. Of the chassis, what the
service imports is kept. There is no list of variants: a new one needs its files, its module, and a
choice in cookiecutter.json.

A file that its conditions leave empty, such as a `Dockerfile` wrapped in an `if` and its `endif`,
is removed.
"""

import json
import os
import re
import shlex
import shutil
import sys
from fnmatch import translate
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
OWN = [Path("docs"), Path("tests", "contract")]
CHASSIS = "tornado_chassis"
# What tools and editors leave in the template's folder as anywhere else.
LEFTOVERS = ["__pycache__", ".*_cache", ".venv", ".idea", ".vscode", ".env", ".coverage*"]
LEFTOVERS += ["uv.lock", ".DS_Store", "._*", "*~", "#*#", "*.sw?", "*.orig", "*.rej", "*.bak"]
LEFTOVERS += [".tox", ".nox", ".direnv", "venv", "htmlcov", "node_modules", "*.egg-info"]
LEFTOVER = re.compile("|".join(map(translate, LEFTOVERS)))
# Longest first, or `rate_limit` would be taken for a variant of `rate`.
FEATURES = "|".join(sorted(PROMPTS, key=len, reverse=True))
VARIANT = re.compile(rf"((?:test_)?({FEATURES}))_(\w+)")
# To parse whole modules would take twenty times as long. A line of a docstring may look like an
# import: then a module more is kept.
IMPORT = re.compile(
    r"^[ \t]*(?:from (\.*)([.\w]*) import (\([^)]*\)|.*)|import (.*))", re.MULTILINE
)
NAME = re.compile(r"[.\w]+")
# What conditions leave of a file that has no content: some blank lines.
BLANK_BYTES = 1024


def main() -> None:
    project = Path.cwd()
    make_writable(project)
    drop_leftovers(project)
    for folder in OWN:
        keep_the_chosen(project / folder)
    name_the_package(project / "tests")
    if ANSWERS["chassis"] == "package":
        depend_on_the_chassis(project)
    else:
        keep_what_is_imported(project)
    drop_what_is_empty(project)
    if not is_for_an_update(project):
        say(next_steps(project))


def is_for_an_update(project: Path) -> bool:
    """Whether cruft generates only to compare, into a temporary directory that it then removes."""
    if "_output_dir" in ANSWERS:
        return False
    # Imported here because it takes as long as all else.
    import tempfile

    temporary = Path(tempfile.gettempdir()).resolve()
    prefix = tempfile.gettempprefix()
    return project.parent.parent == temporary and project.parent.name.startswith(prefix)


def say(lines: "list[str]") -> None:
    """Prints the lines. If nobody can read them, that is no reason to undo all this."""
    if not sys.stdout:  # closed before the start
        return
    try:
        sys.stdout.reconfigure(errors="backslashreplace")
        print(*lines, sep="\n", flush=True)
    except OSError:
        # Otherwise, Python would try once more at its end, and fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def make_writable(project: Path) -> None:
    """The template may be read-only, as in a Nix store, and files have its modes."""
    for directory, _, names in os.walk(project):
        allow(directory, 0o700)
        for name in names:
            path = os.path.join(directory, name)
            if not os.path.islink(path):
                allow(path, 0o600)


def allow(path: str, mode: int) -> None:
    before = os.stat(path).st_mode
    if before & mode != mode:
        os.chmod(path, before | mode)


def next_steps(project: Path) -> "list[str]":
    slug = ANSWERS["project_slug"]
    # uv may be beside cookiecutter in a virtual environment, or run this as uvx, off the PATH.
    beside = shutil.which("uv", path=str(Path(sys.executable).parent)) or os.environ.get("UV")
    uv = "uv" if shutil.which("uv") or not beside else f'"{beside}"' if " " in beside else beside
    steps = [
        f"Made the service {slug} in {project}",
        f"Run it:   cd {shlex.quote(str(project))} && {uv} run {slug}",
        f"Test it:  {uv} run pytest",
    ]
    if not any((directory / ".git").exists() for directory in (project, *project.parents)):
        steps.append("Keep it:  git init && git add --all && git commit")
    if not shutil.which("uv") and not beside:
        steps.append("Get uv:   https://docs.astral.sh/uv/")
    return steps


def drop_leftovers(project: Path) -> None:
    for directory, directories, names in os.walk(project):
        directories[:] = set(directories) - {".git"}
        for name in [*directories, *names]:
            if LEFTOVER.fullmatch(name):
                settle(Path(directory, name), name, False)
        directories[:] = [each for each in directories if not LEFTOVER.fullmatch(each)]


def keep_the_chosen(folder: Path) -> None:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = VARIANT.fullmatch(path.stem)
        if match:
            is_chosen = f"_or_{ANSWERS[PROMPTS[match[2]]]}_or_" in f"_or_{match[3]}_or_"
            settle(path, match[1] + path.suffix, is_chosen)


def depend_on_the_chassis(project: Path) -> None:
    """Removes the copy of the chassis, and writes its version where the service names it."""
    chassis = project / "src" / CHASSIS
    version = re.search(r'__version__ = "(.+)"', (chassis / "__init__.py").read_text())[1]
    source = ANSWERS["__chassis_source"]
    if "{version}" in source and "dev" in version:
        print(
            f"Nothing was generated: chassis=package needs a release, and this is {version}.",
            "Generate from a release with --checkout, or let __chassis_source name one wheel,",
            "without {version}.",
            sep="\n",
            file=sys.stderr,
        )
        raise SystemExit(1)
    shutil.rmtree(chassis)
    pyproject, features = project / "pyproject.toml", own_package(project) / "features.py"
    replace(pyproject, source, source.replace("{version}", version))
    replace(features, "{chassis_version}", version)


def replace(path: Path, old: str, new: str) -> None:
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))


def own_package(project: Path) -> Path:
    return project / "src" / ANSWERS["__package"]


def keep_what_is_imported(project: Path) -> None:
    """Keeps the modules of the chassis that the service reaches, and the data beside them."""
    source = project / "src"
    found = files(source / CHASSIS)
    modules = {}
    for path in found:
        if path.suffix == ".py":
            parts = path.parts[len(source.parts) : -1]
            modules[".".join(parts if path.name == "__init__.py" else (*parts, path.stem))] = path
    # What a team may import, whatever was chosen.
    reached = {f"{CHASSIS}.{name}" for name in ("metrics", "tracing", "testing")}
    for path in [*files(own_package(project)), *files(project / "tests")]:
        if path.suffix == ".py":
            reached |= imported(path, "", modules)
    waiting = list(reached)
    while waiting:
        name = waiting.pop()
        more = imported(modules[name], name, modules) | {name.rpartition(".")[0]} - {""}
        waiting += more - reached
        reached |= more
    kept = {modules[name] for name in reached}
    for path in found:
        if path not in kept and (path.suffix == ".py" or path.parent / "__init__.py" not in kept):
            remove(path)


def imported(path: Path, module: str, modules: "dict[str, Path]") -> "set[str]":
    """Returns those of these modules that a file imports, also within functions."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names = set()
    for dots, base, imported_from, whole in IMPORT.findall(path.read_text("utf-8")):
        if dots:
            above = package.split(".")[: len(package.split(".")) - len(dots) + 1]
            base = ".".join([*above, *([base] if base else [])])
        names |= {base, *(f"{base}.{name}" for name in NAME.findall(imported_from))}
        names |= {*NAME.findall(whole)}
    return names & modules.keys()


def settle(path: Path, name: str, is_chosen: bool) -> None:
    if is_chosen:
        path.replace(path.with_name(name))
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def name_the_package(tests: Path) -> None:
    """Renames the package in the tests, which in the template has a name that Python can parse."""
    for path in files(tests):
        text = path.read_bytes()
        if path.suffix == ".py" and b"my_service" in text:
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
        # An empty file marks a package, or one with types.
        if path.name in ("__init__.py", "py.typed") or path.stat().st_size > BLANK_BYTES:
            continue
        if not path.read_bytes().strip():
            remove(path)


def remove(path: Path) -> None:
    """Removes a file, and the directories that are empty without it."""
    path.unlink()
    while not os.listdir(path.parent):
        path = path.parent
        path.rmdir()


main()
