"""Which module of a generated project imports which other one of it."""

import ast
import symtable
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from . import combinations

# What a feature may import of the chassis, beside its own modules.
KNOWN_TO_FEATURES = {"application", "client", "handlers", "observed", "settings"}
# The modules that put the features together.
COMPOSITION = {Path("service.py"), Path("settings", "__init__.py")}
# It serves the team's own tests, too, and so imports the team's `make_service`.
SHARED_TESTS = Path("testing.py")


@dataclass(frozen=True)
class Import:
    """An import statement whose target is in the project."""

    #: The module that it stands in.
    path: Path
    #: The module or package that it names, without a suffix.
    target: Path
    #: What is taken from there; empty where it is the target itself.
    names: tuple[str, ...] = ()

    def missing(self) -> Iterator[str]:
        """What is imported, but is not there."""
        file = _file(self.target)
        if file is None:
            yield self.target.name
            return
        names = _names(file.read_text(encoding="utf-8"))
        for name in self.names:
            if name not in names and not _file(self.target / name):
                yield f"{self.target.name}.{name}"

    def files(self) -> set[Path]:
        """The modules that are imported."""
        itself = _file(self.target)
        files = {_file(self.target / name) or itself for name in self.names} or {itself}
        return {file for file in files if file}


def problems(project: Path) -> Iterator[str]:
    """Imports that lead nowhere, or to what the importing module should not know."""
    chassis, tests = _package(project) / "chassis", project / "tests" / "chassis"
    for each in _imports(project):
        where = each.path.relative_to(project)
        for name in each.missing():
            yield f"{where}: imports {name}, which is not there"
        for file in each.files():
            problem = ""
            if each.path.is_relative_to(chassis):
                problem = _problem(each.path.relative_to(chassis), _relative(file, chassis))
            elif each.path.is_relative_to(tests) and each.path != tests / SHARED_TESTS:
                is_templates = any(map(file.is_relative_to, (chassis, tests)))
                problem = "" if is_templates else "which is the team's"
            if problem:
                yield f"{where}: imports {file.relative_to(project)}, {problem}"


def _problem(importer: Path, imported: Path | None) -> str:
    """What is wrong with an import by a module of the chassis; empty where nothing is."""
    if imported is None:
        return "which is the team's"
    if imported == Path("__init__.py"):
        return ""
    # They are read before Tornado is imported.
    if importer.parts[0] == "settings" and imported.parts[0] != "settings":
        return "which is not one of the settings"
    if importer in COMPOSITION:
        return ""
    own, other = _feature(importer), _feature(imported)
    if other and other != own:
        return f"which is for {other} alone"
    if own and _name(imported) not in {own, *KNOWN_TO_FEATURES}:
        return "which features do not know"
    return ""


def _feature(path: Path) -> str:
    """The feature of a module of the chassis, or of its settings; empty for what all share."""
    name = _name(path.relative_to("settings") if path.parts[0] == "settings" else path)
    return name if name in combinations.features() else ""


def _relative(path: Path, directory: Path) -> Path | None:
    return path.relative_to(directory) if path.is_relative_to(directory) else None


def _name(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


def _package(project: Path) -> Path:
    [main] = project.glob("src/*/__main__.py")
    return main.parent


def _imports(project: Path) -> Iterator[Import]:
    """Every import of the project's own modules, in its source and its tests."""
    package = _package(project)
    roots = {package.name: package, "tests": project / "tests"}
    for path in (path for root in roots.values() for path in sorted(root.rglob("*.py"))):
        for level, module, names in _statements(path.read_text(encoding="utf-8")):
            parts = module.split(".") if module else []
            if level:
                yield Import(path, path.parents[level - 1].joinpath(*parts), names)
            elif parts[0] in roots:
                yield Import(path, roots[parts[0]].joinpath(*parts[1:]), names)


# By their text: most modules are the same in many combinations.
@cache
def _statements(source: str) -> list[tuple[int, str, tuple[str, ...]]]:
    """Level, module and names of each import."""
    found: list[tuple[int, str, tuple[str, ...]]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            found.append((node.level, node.module or "", names))
        elif isinstance(node, ast.Import):
            found += [(0, alias.name, ()) for alias in node.names]
    return found


@cache
def _names(source: str) -> set[str]:
    """What a module defines or imports."""
    symbols = symtable.symtable(source, "", "exec").get_symbols()
    return {each.get_name() for each in symbols if each.is_assigned() or each.is_imported()}


def _file(module: Path) -> Path | None:
    """The file of a module or a package."""
    candidates = (module.with_name(f"{module.name}.py"), module / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)
