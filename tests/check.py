"""Says in seconds whether a change of the template is good: `python -m tests.check FILE...`.

Each FILE is one of the template. It renders the fewest combinations in which the file has each of
its forms, checks them as `tests/test_render.py` does, and runs the file's own tests in one of
them; a file of `tests/` is run by pytest. Without FILE, it takes what git says has changed.

Environments are kept in the user's cache, so that the first time takes longer.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from . import choices, combinations
from .backends import CACHE
from .project import TEMPLATE, Project, interpreter, reference, render
from .test_render import SOURCE, problems

KEPT = CACHE / "tornado-service-template" / "check"
# Where tests of the template read these files, and take seconds.
READ_BY = {
    "docs": ("tests/test_docs.py", "links"),
    "README.md": ("tests/test_docs.py", "links"),
    ".github": ("tests/test_pipelines.py", "linters or schema or commands"),
    ".gitlab-ci.yml": ("tests/test_pipelines.py", "linters or schema or commands"),
    "hooks": ("tests/test_variants.py", ""),
    "cookiecutter.json": ("tests/test_template.py", ""),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.check", description=__doc__)
    parser.add_argument("files", nargs="*", metavar="FILE", type=Path)
    started = time.monotonic()
    # What hooks and tools print of each project is not for the reader of this.
    report = os.fdopen(os.dup(1), "w")
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    paths = [path.absolute() for path in parser.parse_args().files] or changed()
    for path in paths:
        if not path.is_file() or not path.is_relative_to(TEMPLATE):
            parser.error(f"{path} is no file of the template")
    found = choices.problems()
    rendered = combined(paths)
    if not found:
        with TemporaryDirectory() as directory:
            found = checked(rendered, Path(directory))
    ran = []
    if not found:
        for what, output, status in tested(paths, rendered):
            ran.append(what)
            if status:
                found += [f"{what}:", output]
    print(*found, sep="\n", file=report)
    seconds = f"{time.monotonic() - started:.1f} s"
    names = ", ".join(map(combinations.name, rendered)) or "none"
    print(f"Rendered: {names}", *(f"Ran: {what}" for what in ran), sep="\n", file=report)
    print(f"Found {len(found)} problems" if found else "All is well", f"in {seconds}", file=report)
    return bool(found)


def changed() -> list[Path]:
    listed = ["git", "ls-files", "--modified", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(listed, cwd=TEMPLATE, capture_output=True, text=True, check=True)
    paths = {TEMPLATE / name for name in done.stdout.split("\0") if name}
    return sorted(path for path in paths if path.is_file())


def combined(paths: list[Path]) -> list[combinations.Answers]:
    """The fewest combinations in which each file has each of its forms."""
    found: list[combinations.Answers] = []
    for path in paths:
        if path.is_relative_to(SOURCE):
            found += forms(path)
        elif path.parent.name == "presets":
            found.append(defaults() | yaml.safe_load(path.read_text())["default_context"])
        elif path.parent.name == "hooks" or path.name in ("cookiecutter.json", "test_render.py"):
            found += combinations.each_choice()
    return [each for number, each in enumerate(found) if each not in found[:number]]


def forms(path: Path) -> Iterator[combinations.Answers]:
    """Each choice that the file speaks of once, and all else as by default."""
    all_choices, decided = combinations.choices(), combinations.features()
    axes: dict[str, list[str]] = {}
    own = {}
    for part in path.relative_to(SOURCE).parts:
        match = re.fullmatch(rf"(?:test_)?({'|'.join(decided)})_(\w+?)(\.\w+)?", part)
        if match and decided[match[1]] in all_choices:
            prompt = decided[match[1]]
            own[prompt] = [
                each for each in all_choices[prompt] if f"_or_{each}_or_" in f"_or_{match[2]}_or_"
            ]
        for prompt, values in own.items():
            alone = [each for each in values if Path(part).stem.endswith(f"_{each}")]
            own[prompt] = alone[-1:] or values
    for _, prompt, value in choices.comparisons(path.read_text(encoding="utf-8")):
        # What the condition is not about, it is without.
        other = [each for each in all_choices.get(prompt, ()) if each != value][-1:]
        axes[prompt] = list(dict.fromkeys([*axes.get(prompt, ()), value, *other]))
    axes |= own
    for number in range(max(map(len, axes.values()), default=1)):
        chosen = {prompt: values[number % len(values)] for prompt, values in axes.items()}
        yield defaults() | chosen


def features(answers: combinations.Answers) -> int:
    return len([answer for answer in answers.values() if answer != "none"])


def defaults() -> combinations.Answers:
    return {prompt: values[0] for prompt, values in combinations.choices().items()}


def checked(rendered: list[combinations.Answers], directory: Path) -> list[str]:
    """What is wrong with each combination."""
    if not rendered:
        return []
    try:
        by_default = render(directory / "default", directory / "home", reference())
        with ProcessPoolExecutor() as pool:
            jobs = [
                pool.submit(check, directory / str(number), answers, by_default)
                for number, answers in enumerate(rendered)
            ]
            return list(dict.fromkeys(problem for job in jobs for problem in job.result()))
    except AssertionError as error:
        return [str(error)]


def check(directory: Path, answers: combinations.Answers, by_default: Path) -> list[str]:
    project = render(directory / "project", directory / "home", reference(**answers))
    return problems(project, answers, by_default)


def tested(
    paths: list[Path], rendered: list[combinations.Answers]
) -> Iterator[tuple[str, str, int]]:
    """Each command of tests, what it printed, and its exit status."""
    for path in paths:
        where = path.relative_to(TEMPLATE)
        if path.is_relative_to(SOURCE):
            where = path.relative_to(SOURCE)
            most = max(
                forms(path), key=lambda each: sum(value != "none" for value in each.values())
            )
            yield from tested_in_a_project(where, most)
        elif where.parts[0] == "tests" and where.name.startswith("test_"):
            yield pytest(TEMPLATE, sys.executable, where.as_posix())
        if where.parts[0] in READ_BY:
            name, of = READ_BY[where.parts[0]]
            # They take less than to start workers for them.
            yield pytest(TEMPLATE, sys.executable, "-n0", name, *(["-k", of] if of else []))


def tested_in_a_project(
    where: Path, answers: combinations.Answers
) -> Iterator[tuple[str, str, int]]:
    if where.parts[0] not in ("src", "tests", "pyproject.toml"):
        return
    name = "-".join(each for each in answers.values() if re.fullmatch(r"\w+", each))
    slot = KEPT / sha256(f"{TEMPLATE} {name}".encode()).hexdigest()[:12]
    lock = slot / "uv.lock"
    shutil.rmtree(slot / "project", ignore_errors=True)
    path = render(slot / "project", slot / "home", reference(**answers))
    if lock.exists():
        shutil.copy2(lock, path)
    project = Project(path, answers, slot / "venv", interpreter())
    project.uv("sync", "--quiet", f"--python={project.interpreter}")
    shutil.copy2(path / "uv.lock", lock)
    names = own_tests(path, where)
    if names:
        # Types beside tests: they take about as long.
        mypy = subprocess.Popen(
            [project.python, "-m", "mypy"],
            cwd=path,
            env=project.variables(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        yield pytest(path, str(project.python), *names, variables=project.variables())
        output = mypy.communicate()[0]
        yield f"mypy ({name})", output, mypy.returncode


def own_tests(project: Path, where: Path) -> list[str]:
    """The tests of a module of the template, by the name that it has in the project."""
    parts = [
        re.sub(rf"((?:test_)?({'|'.join(combinations.features())}))_\w+", r"\1", part)
        for part in where.with_suffix("").parts
    ]
    named = "_".join(re.sub(r"_(backend)_.*", r"_\1", part) for part in parts[-1:])
    named = re.sub(r"^(backend|decode)_\w+", r"\1", named)
    if where.parts[0] == "tests" and named.startswith("test_"):
        wanted = {f"{named}.py"}
    elif "chassis" in parts:
        inner = [each for each in parts[parts.index("chassis") + 1 :] if each != "__init__"]
        wanted = {f"test_{each}.py" for each in (*inner, named) if each != "__init__"}
        wanted |= {"test_service.py"} if named in ("service", "__init__") else set()
    else:
        wanted = {"test_handlers.py", "test_service.py"}
    every = sorted((project / "tests").rglob("test_*.py"))
    tests = [path for path in every if path.name in wanted]
    # What has no tests of its name has those that import it.
    imported = re.compile(rf"(?m)^from \S+(\.{named} import|chassis import .*\b{named}\b)")
    tests = tests or [path for path in every if imported.search(path.read_text(encoding="utf-8"))]
    tests = tests or [project / "tests" / "chassis" / "test_service.py"]
    return [path.relative_to(project).as_posix() for path in tests]


def pytest(
    directory: Path, python: str, *argv: str, variables: "dict[str, str] | None" = None
) -> tuple[str, str, int]:
    done = subprocess.run(
        [python, "-m", "pytest", "--quiet", "-x", *argv],
        cwd=directory,
        env=variables or dict(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return f"pytest {' '.join(argv)}", done.stdout, done.returncode


if __name__ == "__main__":
    sys.exit(main())
