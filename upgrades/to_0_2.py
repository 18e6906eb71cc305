"""Brings a service from 0.1 to 0.2, in which `my_service.chassis` became `tornado_chassis`.

    python3 TEMPLATE/upgrades/to_0_2.py [cruft's own options, such as --checkout 0.2.0]

Run it in the service, in a clean checkout. It runs `cruft update`, keeps the team's version of what
both have changed, and changes the imports of the team's files. It prints what is left to do.
"""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

# Where names are now that were in `application`.
MOVED = {
    "Application": "application",
    "Exchange": "exchange",
    "METHODS": "exchange",
    "Refusal": "exchange",
    "correlation": "exchange",
    "Export": "feature",
    "Observer": "feature",
    "Total": "feature",
}
RENAMED = {"Observer": "Feature", "Refusal": "Rejection"}
MODULES = {"admission": "limits", "observed": "hooks", "refusals": "rejections"}
NAMES = {"SERVICE": "Settings.service_name", "__version__": "Settings.service_version"}
TEMPLATE = Path(__file__).parents[1] / "{{cookiecutter.project_slug}}"


def main(options: "list[str]") -> None:
    if not Path(".cruft.json").exists():
        raise SystemExit("There is no .cruft.json here: run this in a service that cruft made.")
    if git("status", "--porcelain", "--untracked-files=no"):
        raise SystemExit("Commit your work first.")
    [package] = [path.parent.name for path in Path("src").glob("*/__main__.py")]
    if not Path("src", package, "chassis").exists():
        raise SystemExit("There is no chassis of 0.1 here.")
    cruft = ["cruft"] if shutil.which("cruft") else ["uvx", "cruft"]
    subprocess.run([*cruft, "update", "--skip-apply-ask", *options], check=True)
    team = sorted(
        path
        for folder in (Path("src", package), Path("tests"))
        for path in folder.rglob("*.py")
        if not {"chassis", "contract"}.intersection(path.parts)
        and path.name not in ("features.py", "testing.py")
    )
    for path in [*team, Path("README.md")]:
        keep_the_team_s(path)
    # The update may have taken over a file that the team had not changed.
    for path in team:
        text = path.read_text(encoding="utf-8")
        changed = rewritten(text, path, package)
        if changed != text:
            path.write_text(changed, encoding="utf-8")
    readme = Path("README.md")
    text = readme.read_text(encoding="utf-8")
    owners = re.compile(r"^## What is where, and who.*?(?=^## )", re.M | re.S)
    [section] = owners.findall((TEMPLATE / readme).read_text(encoding="utf-8"))
    section = section.replace("{{ cookiecutter.__package }}", package)
    text = owners.sub(lambda match: section, text)
    readme.write_text(text, encoding="utf-8")
    for old in (Path("src", package, "chassis"), Path("tests", "chassis")):
        if old.exists() and not git("ls-files", str(old)):
            shutil.rmtree(old)  # only what Python has compiled
    report(team)


def keep_the_team_s(path: Path) -> None:
    """Undoes what the update did to a file if that conflicts with what the team did to it."""
    rejected = path.with_name(path.name + ".rej")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if rejected.exists() or re.search(r"^<<<<<<< ", text, re.MULTILINE):
        git("checkout", "HEAD", "--", str(path))
        rejected.unlink(missing_ok=True)


def rewritten(text: str, path: Path, package: str) -> str:
    """The source with its imports of the chassis as they are in 0.2."""
    lines = text.splitlines(keepends=True)
    names_of_the_service = False
    for node in reversed(list(ast.walk(ast.parse(text)))):
        if not isinstance(node, ast.ImportFrom):
            continue
        module = ("." * node.level) + (node.module or "")
        match = re.fullmatch(rf"(\.*)({package}\.|tests\.)?chassis(?:\.(.+))?", module)
        if not match:
            continue
        dots, inner = match[1], match[3] or ""
        indent = " " * node.col_offset
        new = []
        for alias in node.names:
            name = alias.name
            as_name = f" as {alias.asname}" if alias.asname else ""
            if inner == "testing" and ("tests" in path.parts):
                new.append(
                    f"from {dots or 'tests'}{'' if dots else '.'}testing import {name}{as_name}"
                )
            elif not inner and name in NAMES:
                names_of_the_service = True
            elif not inner and name == "settings" and path.name == "settings.py":
                new.append("from . import features")
            elif inner == "application":
                moved = MOVED.get(name, "application")
                new.append(
                    f"from tornado_chassis.{moved} import {RENAMED.get(name, name)}{as_name}"
                )
            else:
                where = ".".join(
                    ["tornado_chassis", *([MODULES.get(inner, inner)] if inner else [])]
                )
                new.append(f"from {where} import {name}{as_name}")
        end = node.end_lineno or node.lineno
        lines[node.lineno - 1 : end] = [f"{indent}{line}\n" for line in dict.fromkeys(new)]
    text = "".join(lines)
    if names_of_the_service:
        for old, new_name in NAMES.items():
            text = re.sub(rf"\b{old}\b", new_name, text)
        if not re.search(r"import .*\bSettings\b", text):
            own = f"from {package}.settings" if "tests" in path.parts else "from .settings"
            text = after_the_imports(text, f"{own} import Settings\n")
    for old, new_name in RENAMED.items():
        text = re.sub(rf"\b{old}\b", new_name, text) if f"import {new_name}" in text else text
    if path.name == "settings.py":
        text = text.replace("(settings.Settings)", "(features.Settings)")
        text = text.replace(
            "beside those of the chassis.", "beside those that come with its features."
        )
    return text


def after_the_imports(text: str, line: str) -> str:
    last = [node for node in ast.parse(text).body if isinstance(node, ast.Import | ast.ImportFrom)][
        -1
    ]
    lines = text.splitlines(keepends=True)
    lines.insert(last.end_lineno or last.lineno, line)
    return "".join(lines)


def report(team: "list[Path]") -> None:
    old = re.compile(r"import .*\bchassis\b|\.chassis\b|process\.configure")
    left = [path for path in team if old.search(path.read_text("utf-8"))]
    left += [Path(line) for line in git("diff", "--name-only", "--diff-filter=U").splitlines()]
    left += sorted(Path().rglob("*.rej"))
    if left:
        print("Look at these yourself:", *map(str, left), sep="\n  ")
    print("Then: uv lock && uv run ruff check --fix && uv run ruff format && uv run pytest")


def git(*argv: str) -> str:
    done = subprocess.run(["git", *argv], capture_output=True, text=True, check=True)
    return done.stdout.strip()


main(sys.argv[1:])
