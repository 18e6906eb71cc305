"""Which changes of the chassis its tests do not notice.

    .venv/bin/python -m tests.mutations observed tracing/export

mutates these modules of a generated project, one place at a time, runs the tests that reach that
place, and shows each change with which they pass. That takes one to four seconds for each of some
hundred changes a module. Many are harmless, such as another wording of a log message: judge each.
"""

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

from .project import Project, interpreter, reference, render

VERSION = "3.8.1"
HOURS = 4
CONFIGURATION = """
[tool.mutmut]
source_paths = ["src"]
only_mutate = [{modules}]
tests_dir = ["tests/chassis"]
also_copy = ["README.md", "Dockerfile", "compose.yaml", "deploy", "docs", "tests"]
pytest_add_cli_args = ["-x", "-pno:cacheprovider"]
track_dependencies = false
"""
RESULT = re.compile(r"^ *(\S+__mutmut_\d+): (\w+(?: \w+)*)$", re.MULTILINE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="+", help="within chassis/, such as tracing/export")
    parser.add_argument("--answers", nargs="*", default=["tracing=jaeger"], metavar="PROMPT=ANSWER")
    options = parser.parse_args()
    if wrong := [each for each in options.answers if "=" not in each]:
        parser.error(f"not PROMPT=ANSWER: {', '.join(wrong)}")
    answers = reference(**dict(each.split("=", 1) for each in options.answers))
    with tempfile.TemporaryDirectory() as directory:
        path = render(Path(directory), Path(directory, "home"), answers)
        project = Project(path, answers, path / ".venv", interpreter())
        chassis = path / "src" / project.package / "chassis"
        modules = [(chassis / each).with_suffix(".py") for each in options.modules]
        if unknown := [str(each) for each in modules if not each.exists()]:
            parser.error(f"no such module: {', '.join(unknown)}")
        project.sync()
        project.uv("pip", "install", "--quiet", f"--python={project.python}", f"mutmut=={VERSION}")
        names = ", ".join(f'"{each.relative_to(path).as_posix()}"' for each in modules)
        with (path / "pyproject.toml").open("a", encoding="utf-8") as settings:
            settings.write(CONFIGURATION.format(modules=names))
        project.run("mutmut", "run", f"--max-children={os.cpu_count()}", timeout=HOURS * 3600)
        results = RESULT.findall(project.run("mutmut", "results", "--all=true"))
        unnoticed = [name for name, result in results if result in ("survived", "no tests")]
        for name in unnoticed:
            shown = project.run("mutmut", "show", name)
            print(*re.findall(r"^(?:# .*|[-+](?![-+]).*)$", shown, re.MULTILINE), sep="\n")
    noticed = len(results) - len(unnoticed)
    print(f"{noticed} of {len(results)} changes noticed: {noticed / len(results):.0%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
