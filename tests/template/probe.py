"""Run with a service's sources on the path: imports all of them, and prints what its settings are.

What the service does not depend on cannot be imported, wherever it may be installed: the arguments
are the names of these modules. Prints JSON: each field as a row of the table in `docs/settings.md`,
and each shared variable that is ignored as a row of the other one there.
"""

import ast
import importlib
import inspect
import json
import pkgutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import MISSING, fields
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from itertools import pairwise
from types import ModuleType


class Missing(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"{fullname} is no dependency", name=fullname)
        return None


def rows(kind: type) -> list[str]:
    meanings: dict[str, str] = {}
    for each in kind.__mro__[:-1]:
        [definition] = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        assert isinstance(definition, ast.ClassDef)
        for field, docstring in pairwise(definition.body):
            if isinstance(field, ast.AnnAssign) and isinstance(docstring, ast.Expr):
                text = " ".join(ast.literal_eval(docstring.value).split())
                meanings.setdefault(ast.unparse(field.target), text)
    found = []
    for each in fields(kind):  # type: ignore[arg-type]
        value = ",".join(each.default) if isinstance(each.default, tuple) else each.default
        default = "" if value in (MISSING, None, "") else f"`{value}`"
        found.append(f"| `{each.name.upper()}` | {default} | {meanings[each.name]} |")
    return found


def ignored(kind: type) -> list[str]:
    return [
        f"| `{name}` | {reason} |"
        for each in reversed(kind.__mro__)
        for name, reason in vars(each).get("unread", {}).items()
        if reason
    ]


sys.meta_path.insert(0, Missing())
features = importlib.import_module("my_service.features")
assert "tornado" not in sys.modules, "settings are read before Tornado is imported"
for package in ("my_service", "tornado_chassis"):
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(root.__path__, f"{package}."):
        importlib.import_module(module.name)
print(json.dumps([rows(features.Settings), ignored(features.Settings)]))
