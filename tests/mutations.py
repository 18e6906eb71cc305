"""Which changes of the chassis its tests do not notice.

    .venv/bin/python -m tests.mutations limits metrics/statsd

changes these modules in a copy, one place at a time: a comparison, a constant, a condition, what is
returned, a call that is left out. For each it runs the tests named after the module, then those
that import it, until one fails, and shows each change with which all pass. That takes one to ten
seconds for each of some hundred changes a module; `--lines 40 80` changes these lines alone, and
`--tests` names other tests. Many changes are harmless, such as another wording of a log message:
judge each.
"""

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).parents[1]
CHASSIS = ROOT / "{{cookiecutter.project_slug}}" / "src" / "tornado_chassis"
TESTS = Path("tests", "chassis")
CONFIGURATION = """
[tool.pytest.ini_options]
pythonpath = ["src"]
filterwarnings = ["error", "ignore::ResourceWarning"]
"""
# What has not ended by then hangs, which is noticed, too.
SECONDS = 300
OTHER = {
    (ast.Eq, ast.NotEq),
    (ast.Lt, ast.LtE),
    (ast.Gt, ast.GtE),
    (ast.Is, ast.IsNot),
    (ast.In, ast.NotIn),
    (ast.And, ast.Or),
    (ast.Add, ast.Sub),
    (ast.Mult, ast.Div),
}
OPPOSITE = {**dict(OTHER), **{b: a for a, b in OTHER}}


def alternatives(node: ast.AST) -> Iterator[tuple[str, object]]:
    """Fields of a node, and what else could stand there."""
    match node:
        case ast.Compare(ops=[op, *others]):
            yield "ops", [OPPOSITE[type(op)](), *others]
        case ast.BoolOp(op=op) | ast.BinOp(op=op) if type(op) in OPPOSITE:
            yield "op", OPPOSITE[type(op)]()
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            yield "test", ast.UnaryOp(ast.Not(), test)
        case ast.Constant(value=bool(value)):
            yield "value", not value
        case ast.Constant(value=int(value) | float(value)):
            yield "value", value + 1
        case ast.Constant(value=str(value)):
            yield "value", f"{value}x"
        case ast.Constant(value=bytes(value)):
            yield "value", value + b"x"
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            yield "value", ast.Constant(None)
        case ast.Expr(value=ast.Call() | ast.Await()):
            yield "value", ast.Constant(None)


def changed(source: str, lines: range) -> Iterator[tuple[str, str]]:
    """Each change within these lines, and the source with it."""
    tree = ast.parse(source)
    unchanged: set[int] = set()
    for node in ast.walk(tree):
        # Annotations, what only they need, and docstrings.
        parts = [getattr(node, name, None) for name in ("annotation", "returns")]
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            parts.append(node)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            parts.append(node)
        unchanged |= {id(each) for part in parts if part for each in ast.walk(part)}
    for node in list(ast.walk(tree)):
        if id(node) in unchanged or getattr(node, "lineno", -1) not in lines:
            continue
        for field, value in alternatives(node):
            # Of a block, the line that has the condition.
            kept, before = getattr(node, field), ast.unparse(node).split("\n")[0]
            setattr(node, field, value)
            ast.fix_missing_locations(tree)
            yield (
                f"{node.lineno}: {before}  →  {ast.unparse(node).split(chr(10))[0]}",
                ast.unparse(tree),
            )
            setattr(node, field, kept)


def tests_of(module: str) -> list[str]:
    """The tests named after a module, then those that import it; all where there are none."""
    module = module.removesuffix("/__init__")
    parent, _, name = module.rpartition("/")
    package = f"tornado_chassis.{parent}".rstrip(".").replace("/", ".")
    imports = re.compile(rf"\b{package}\.{name}\b|from {package} import [^\n]*\b{name}\b")
    named, importing = [], []
    for path in sorted((ROOT / TESTS).rglob("test_*.py")):
        relative = path.relative_to(ROOT / TESTS).as_posix().replace("test_", "")[:-3]
        if relative.replace("/", "_").startswith(module.replace("/", "_")):
            named.append(str(path.relative_to(ROOT)))
        elif imports.search(path.read_text(encoding="utf-8")):
            importing.append(str(path.relative_to(ROOT)))
    return named + importing or [str(TESTS)]


def passes(directory: Path, tests: list[str]) -> bool:
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    try:
        done = subprocess.run(
            [sys.executable, "-B", "-m", "pytest", *options, *tests],
            cwd=directory,
            stdout=subprocess.DEVNULL,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="+", help="such as limits, metrics/statsd")
    parser.add_argument("--tests", nargs="+", help="files of tests/chassis to run instead")
    parser.add_argument("--lines", nargs=2, type=int, default=(1, sys.maxsize))
    options = parser.parse_args()
    modules = {each: CHASSIS / f"{each}.py" for each in options.modules}
    if unknown := [each for each, path in modules.items() if not path.exists()]:
        parser.error(f"no such module: {', '.join(unknown)}")
    with tempfile.TemporaryDirectory() as name:
        idle: SimpleQueue[Path] = SimpleQueue()
        ignore = shutil.ignore_patterns("__pycache__")
        for number in range(os.cpu_count() or 1):
            copy = Path(name, str(number))
            shutil.copytree(CHASSIS, copy / "src/tornado_chassis", ignore=ignore)
            shutil.copytree(ROOT / TESTS, copy / TESTS, ignore=ignore)
            (copy / "tests/__init__.py").touch()
            (copy / "pyproject.toml").write_text(CONFIGURATION, encoding="utf-8")
            idle.put(copy)

        def is_unnoticed(module: str, text: str, tests: list[str]) -> bool:
            copy = idle.get()
            path = copy / "src/tornado_chassis" / f"{module}.py"
            kept = path.read_bytes()
            path.write_text(text, encoding="utf-8")
            try:
                return passes(copy, tests)
            finally:
                path.write_bytes(kept)
                idle.put(copy)

        count = unnoticed = 0
        for module, path in modules.items():
            source = path.read_text(encoding="utf-8")
            tests = options.tests or tests_of(module)
            if not is_unnoticed(module, ast.unparse(ast.parse(source)), tests):
                parser.error(f"{' '.join(tests)}: they fail without a change")
            start, end = options.lines
            changes = list(changed(source, range(start, end)))
            with ThreadPoolExecutor() as pool:
                texts = [text for _, text in changes]
                results = pool.map(is_unnoticed, repeat(module), texts, repeat(tests))
                for (change, _), passed in zip(changes, results, strict=True):
                    if passed:
                        print(f"{module}:{change}", flush=True)
                        unnoticed += 1
            count += len(changes)
    print(f"{count - unnoticed} of {count} changes noticed: {(count - unnoticed) / count:.0%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
