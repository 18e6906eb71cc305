"""What each choice needs, and what still speaks of a choice that is not offered.

`problems()` has a sentence for each, which begins with the file to touch. So a choice is added or
removed by adding or removing it in `cookiecutter.json`, running the tests, and doing what they say;
`python -m tests.choices` prints the same.
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path

import jinja2
import yaml
from cookiecutter.generate import generate_context
from cookiecutter.prompt import prompt_for_config
from jinja2 import nodes

from . import combinations
from .project import TEMPLATE
from .test_render import SOURCE, WITHOUT_WORDS, WORDS, belongs, distributed, is_standard

PACKAGE = "src/{{cookiecutter.__package}}"
CHASSIS = f"{PACKAGE}/chassis"
# Prompts whose choices differ by conditions, and not by variants of a feature.
WITHOUT_A_FEATURE = {"license", "deployment", "ci"}
# A setting that says where a backend is, or lets a service in there. Without it, an exporter idles.
ADDRESS = re.compile(r"\w+_(host|endpoint|url|address|dsn|license_key)")
SECRET = re.compile(r"\w+_(dsn|license_key)")
# What was changed, and what was measured, may speak of what is no more.
HISTORY = {"CHANGELOG.md", "docs/benchmark.svg"}


@dataclass(frozen=True)
class Choice:
    feature: str
    prompt: str
    value: str

    def __str__(self) -> str:
        return f"{self.prompt}={self.value}"

    @property
    def answers(self) -> combinations.Answers:
        return {self.prompt: self.value, "deployment": "kubernetes"}

    def variant(self, folder: str, prefix: str = "", suffix: str = ".py") -> Path | None:
        """The file of this choice in a folder of the template, or that of a folder's package."""
        for path in sorted((SOURCE / folder).glob(f"{prefix}{self.feature}_*")):
            name = path.name.removesuffix(suffix)
            if (
                f"_or_{self.value}_or_"
                in f"_or_{name.removeprefix(f'{prefix}{self.feature}_')}_or_"
            ):
                return path / "__init__.py" if path.is_dir() else path
        return None

    def sources(self, folder: str) -> list[Path]:
        """The modules of the choice in a folder, and not those that are for its siblings alone."""
        path = self.variant(folder)
        if path is None or path.name != "__init__.py":
            return [path] if path else []
        others = [each for each in combinations.choices()[self.prompt] if each != self.value]
        return [
            module
            for module in sorted(path.parent.rglob("*.py"))
            if not module.stem.endswith(tuple(f"_{each}" for each in others))
        ]


def chosen() -> list[Choice]:
    """Each choice that a feature has variants for."""
    return [
        Choice(feature, prompt, value)
        for feature, prompt in combinations.features().items()
        for value in combinations.choices().get(prompt, ())
        if value != "none"
    ]


def problems() -> list[str]:
    found = [*prompts(), *table(), *presets(), *conditions(), *variants(), *words(), *backends()]
    for choice in chosen():
        found += missing(choice)
    return list(dict.fromkeys(found))


# What is missing


def prompts() -> Iterator[str]:
    template = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
    questions, features = template["__prompts__"], combinations.features()
    choices = combinations.choices()
    for prompt, values in choices.items():
        labels = questions.get(prompt, {})
        for value in values:
            if value not in labels:
                yield f'cookiecutter.json: add a label for "{value}" to "{prompt}" in "__prompts__"'
            if prompt in features.values() and not re.fullmatch(r"\w+", value):
                yield f'cookiecutter.json: "{value}" cannot be a part of a module\'s name'
        for label in labels.keys() - {"__prompt__", *values}:
            where = line_of(TEMPLATE / "cookiecutter.json", f'"{label}":')
            yield f'{where}: remove the label of "{label}", which {prompt} does not offer'
        if prompt not in features.values() and prompt not in WITHOUT_A_FEATURE:
            yield (
                "hooks/post_gen_project.py: add a line to PROMPTS, with the name that the modules "
                f'of the prompt "{prompt}" begin with'
            )
    for feature, prompt in features.items():
        if prompt not in choices:
            where = line_of(TEMPLATE / "hooks/post_gen_project.py", f'"{feature}":')
            yield f"{where}: remove {feature}, as there is no prompt {prompt}"


def table() -> Iterator[str]:
    """Where the README's table of prompts says other than what is offered."""
    readme = TEMPLATE / "README.md"
    text = readme.read_text(encoding="utf-8")
    for prompt, values in combinations.choices().items():
        row = re.search(rf"^\| `{prompt}` \|(.*)", text, re.MULTILINE)
        if not row:
            yield f"README.md: add a row for {prompt} to the table of prompts"
            continue
        where = line_of(readme, f"| `{prompt}` |")
        listed = re.findall("`(.+?)`", row[1])
        for value in values:
            if value not in listed:
                yield f"{where}: add `{value}` to the row of {prompt}"
        for value in listed:
            if value not in values:
                yield f"{where}: remove `{value}`, which {prompt} does not offer"


def missing(choice: Choice) -> Iterator[str]:
    """What the choice needs and does not have."""
    module = choice.variant(CHASSIS)
    if module is None:
        yield f"{CHASSIS}/{choice.feature}_{choice.value}.py: write the module of {choice}"
    else:
        yield from composition(choice, module)
    if not choice.variant("tests/chassis", "test_") and not choice.variant("tests/chassis"):
        name = f"test_{choice.feature}_{choice.value}.py"
        yield f"tests/chassis/{name}: write the tests of {choice}"
    yield from pages(choice)
    if choice.value not in WITHOUT_WORDS and (choice.prompt, choice.value) not in WORDS:
        yield (
            f'tests/test_render.py: add a row ("{choice.prompt}", "{choice.value}") to WORDS, with '
            "what must not stand in a project without it"
        )
    yield from deployment(choice)


def composition(choice: Choice, module: Path) -> Iterator[str]:
    """What is missing around a module, or in it."""
    where = module.relative_to(SOURCE)
    service = rendered("service.py", choice)
    needed = set(re.findall(rf"^from \.{choice.feature} import (\w+)", service, re.MULTILINE))
    others = {each.variant(CHASSIS) for each in chosen() if each.prompt == choice.prompt}
    shared = [public(path) for path in others if path and path != module]
    # One alone may have names for itself; what two have, both have for others.
    needed |= frozenset.intersection(*shared) if len(shared) > 1 else set()
    # What a library has under this name, a module may offer as it is.
    for name in sorted(needed - public(module) - imported(module.read_text(encoding="utf-8"))):
        yield f"{where}: define {name}, as the other choices of {choice.prompt} do"
    if not re.search(rf"^from \.{choice.feature} import", service, re.MULTILINE):
        yield (
            f"{CHASSIS}/service.py: import {choice.feature} and add its Observer to `features`, "
            f"under a condition that holds with {choice}"
        )
    own = choice.sources(f"{CHASSIS}/settings")
    known = fields(SOURCE / CHASSIS / "settings" / "server.py").keys() | {
        name for path in own for name in fields(path)
    }
    every = rendered("settings/__init__.py", choice)
    imports = re.search(rf"^from \.{choice.feature} import", every, re.MULTILINE)
    if own and not imports:
        yield (
            f"{CHASSIS}/settings/__init__.py: import the settings of {choice.feature} and make "
            f"them a base of Settings, under a condition that holds with {choice}"
        )
    if imports and not own:
        yield (
            f"{CHASSIS}/settings/{choice.feature}_{choice.value}.py: write the settings of "
            f"{choice}, which settings/__init__.py imports"
        )
    known |= {match[1] for match in re.finditer(r"^    (\w+): ", every, re.MULTILINE)}
    for path in choice.sources(CHASSIS):
        text = path.read_text(encoding="utf-8")
        for name in sorted({*re.findall(r"(?<![./\w])settings\.([a-z_]+)\b(?!\()", text)} - known):
            if not (path.parent / "settings.py").exists() and name not in imported(text):
                yield (
                    f"{CHASSIS}/settings/{choice.feature}_{choice.value}.py: add {name}, which "
                    f"{where} reads"
                )
    pyproject = rendered("pyproject.toml", choice)
    declared = {
        re.split(r"[\[<>=!~; ]", each)[0] for each in re.findall(r'^    "(.*)",', pyproject, re.M)
    }
    for path in [*choice.sources(CHASSIS), *own]:
        for name in distributed(path.read_text(encoding="utf-8")):
            if not (is_standard(name) or any(belongs(name, each) for each in declared)):
                yield (
                    f"pyproject.toml: add what has {name} to the dependencies with {choice}, since "
                    f"{path.relative_to(SOURCE)} imports it"
                )


def pages(choice: Choice) -> Iterator[str]:
    """What no document says."""
    if not choice.variant("docs", suffix=".md"):
        yield f"docs/{choice.feature}_{choice.value}.md: write the page of {choice}"
    if f"({choice.feature}.md)" not in rendered("docs/README.md", choice):
        yield f"docs/README.md: add a row for {choice.feature}.md, the page of {choice}"
    settings = rendered("docs/settings.md", choice)
    for path in choice.sources(f"{CHASSIS}/settings"):
        for name in fields(path):
            if f"`{name.upper()}`" not in settings:
                yield f"docs/settings.md: add a row for {name.upper()} if {choice}"
    pattern = WORDS.get((choice.prompt, choice.value), choice.value)
    if len(combinations.choices()[choice.prompt]) == 2:  # this one and `none`
        pattern += f"|`{choice.prompt}`"
    changes = (TEMPLATE / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.search(pattern, changes, re.IGNORECASE):
        yield f"CHANGELOG.md: say what a service gets with {choice}"


def deployment(choice: Choice) -> Iterator[str]:
    """Where a backend runs, and what it is tested against."""
    addresses = {
        name.upper()
        for path in choice.sources(f"{CHASSIS}/settings")
        for name, default in fields(path).items()
        if ADDRESS.fullmatch(name) and default == "None"
    }
    if not addresses:
        return
    names = " or ".join(sorted(addresses))
    if not any(name in rendered("compose.yaml", choice) for name in addresses):
        yield f"compose.yaml: set {names}, and add a server for the local stack, with {choice}"
    open_to_all = {name for name in addresses if not SECRET.fullmatch(name.lower())}
    overlay = "deploy/kubernetes/overlays/production/settings.env"
    if open_to_all and not any(name in rendered(overlay, choice) for name in open_to_all):
        yield f"{overlay}: set {' or '.join(sorted(open_to_all))} with {choice}"
    policy = "deploy/kubernetes/base/networkpolicy.yaml"
    if rendered(policy, choice) == rendered(policy, replace(choice, value="none")):
        yield f"{policy}: let the pods connect to the backend of {choice}"
    for path, what in (
        (f".ci/backends/{choice.value}.sh", "install a real server"),
        (f"tests/backends/{choice.value}.py", "start that server"),
        (f"tests/test_{choice.value}.py", "read back from it what has arrived"),
    ):
        if not (TEMPLATE / path).exists():
            yield f"{path}: {what}, for {choice}"


# What is left


def presets() -> Iterator[str]:
    """Presets that Cookiecutter would not understand, which it does not say."""
    prompts = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
    choices = combinations.choices()
    for path in sorted((TEMPLATE / "presets").glob("*.yaml")):
        where = path.relative_to(TEMPLATE)
        root = yaml.compose(path.read_text(encoding="utf-8"))
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.keys() != {"default_context"}:
            yield f"{where}:1: should have `default_context:`, and nothing beside it"
            continue
        for key, value in root.value[0][1].value:
            line = f"{where}:{key.start_mark.line + 1}"
            if key.value not in prompts:
                yield f"{line}: there is no prompt {key.value}; {instead(key.value, prompts)}"
            elif key.value in choices and value.value not in choices[key.value]:
                better = instead(value.value, choices[key.value])
                yield f"{line}: {key.value} does not offer {value.value}; {better}"
        for prompt in choices.keys() - {"license"} - content["default_context"].keys():
            # So that a preset stays what it is when a default changes.
            yield f"{where}: answer {prompt} with one of {', '.join(choices[prompt])}"


def instead(name: str, known: "dict[str, object] | list[str]") -> str:
    shown = [each for each in known if not each.startswith("_")]
    close = get_close_matches(name, shown, 1)
    return f"write {close[0]}" if close else f"remove it, or write one of {', '.join(shown)}"


def conditions() -> Iterator[str]:
    """Variables that there are not, and comparisons that can never hold."""
    choices = combinations.choices()
    variables = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
    for path in template_files():
        text = path.read_text(encoding="utf-8")
        if "cookiecutter" not in text or not path.is_relative_to(SOURCE):
            continue
        where = path.relative_to(TEMPLATE)
        try:
            tree = environment().parse(text)
        except jinja2.TemplateSyntaxError as error:
            yield f"{where}:{error.lineno}: {error.message}"
            continue
        for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
            name = asked(node)
            if name and name not in variables:
                better = instead(name, variables)
                yield f"{where}:{node.lineno}: there is no cookiecutter.{name}; {better}"
        for line, prompt, value in comparisons(text):
            if prompt in choices and value not in choices[prompt]:
                yield (
                    f"{where}:{line}: {prompt} does not offer {value}; remove it from the "
                    "condition, and what is for it alone"
                )
    private = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
    for name, text in private.items():
        if name.startswith("__") and isinstance(text, str):
            for _, prompt, value in comparisons(text):
                if prompt in choices and value not in choices[prompt]:
                    where = line_of(TEMPLATE / "cookiecutter.json", f'"{name}"')
                    yield f"{where}: {prompt} does not offer {value}; remove it from {name}"


def comparisons(text: str) -> Iterator[tuple[int, str, str]]:
    """Line, prompt and value of each comparison of an answer."""
    for compare in environment().parse(text).find_all(nodes.Compare):
        prompt = asked(compare.expr)
        for operand in compare.ops:
            each = operand.expr
            values = each.items if isinstance(each, nodes.Tuple | nodes.List) else [each]
            for value in values:
                if prompt and isinstance(value, nodes.Const) and isinstance(value.value, str):
                    yield value.lineno, prompt, value.value


def asked(expression: nodes.Node) -> str:
    """`metrics` for `cookiecutter.metrics`; empty for anything else."""
    if not isinstance(expression, nodes.Getattr | nodes.Getitem):
        return ""
    if not (isinstance(expression.node, nodes.Name) and expression.node.name == "cookiecutter"):
        return ""
    if isinstance(expression, nodes.Getattr):
        return expression.attr
    return expression.arg.value if isinstance(expression.arg, nodes.Const) else ""


def variants() -> Iterator[str]:
    """Files of choices that there are not: the hook would drop them always."""
    features, choices = combinations.features(), combinations.choices()
    names = "|".join(sorted(features, key=len, reverse=True))
    for folder in (CHASSIS, f"{CHASSIS}/settings", "tests/chassis", "docs"):
        for path in sorted((SOURCE / folder).glob("*_*")):
            match = re.fullmatch(rf"(?:test_)?({names})_(\w+?)(\.\w+)?", path.name)
            if not match:
                continue
            prompt = features[match[1]]
            offered = [each for each in choices.get(prompt, ()) if each != "none"]
            known = "|".join(map(re.escape, offered))
            where = path.relative_to(SOURCE)
            if not re.fullmatch(rf"({known})(_or_({known}))*", match[2]):
                yield f"{where}: remove it or its part, since {prompt} offers {', '.join(offered)}"


def words() -> Iterator[str]:
    """Whatever has words of a choice that is not offered; last, the row of these words."""
    choices = combinations.choices()
    for (prompt, value), pattern in WORDS.items():
        if prompt in choices and (not value or value in choices[prompt]):
            continue
        of = f"{prompt} does not offer {value}" if prompt in choices else f"no prompt {prompt}"
        row = line_of(TEMPLATE / "tests/test_render.py", f'("{prompt}", "{value}")')
        left = False
        for path in template_files():
            where = path.relative_to(TEMPLATE).as_posix()
            if where in HISTORY:
                continue
            text = path.read_text(encoding="utf-8", errors="replace")
            lines = [
                number
                for number, line in enumerate(text.splitlines(), 1)
                if re.search(pattern, line, re.IGNORECASE) and f"{where}:{number}" != row
            ]
            if lines or re.search(pattern, path.name, re.IGNORECASE):
                left = True
                more = f" (and in {len(lines) - 1} more lines)" if len(lines) > 1 else ""
                line = lines[0] if lines else 1
                yield f"{where}:{line}: speaks of {value or prompt}{more}, but {of}"
        if not left:
            yield f"{row}: remove the row, as {of} and nothing speaks of it any more"


def backends() -> Iterator[str]:
    """Servers that are installed for nobody."""
    used = {
        name
        for folder in ("tests", "benchmarks")
        for path in (TEMPLATE / folder).rglob("*.py")
        for name in re.findall(
            r'(?:(?:home|NotInstalled)\("|install-backends )(\w+)', path.read_text(encoding="utf-8")
        )
    }
    for path in sorted((TEMPLATE / ".ci" / "backends").glob("*.sh")):
        if path.stem not in used:
            yield f".ci/backends/{path.name}: remove it, or start it in tests/backends/"


# How the template is read


@cache
def template_files() -> list[Path]:
    """The template's files, but for those that git ignores."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(listed, cwd=TEMPLATE, capture_output=True, text=True, check=True)
    paths = [TEMPLATE / name for name in sorted({*filter(None, done.stdout.split("\0"))})]
    return [path for path in paths if path.is_file() and path.suffix != ".png"]


def line_of(path: Path, text: str) -> str:
    """Where a text stands, such as `README.md:7`; the file alone where it does not."""
    where = path.relative_to(TEMPLATE).as_posix()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if text in line:
            return f"{where}:{number}"
    return where


@cache
def environment() -> jinja2.Environment:
    options = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
    return jinja2.Environment(
        **options["_jinja2_env_vars"],
        extensions=["cookiecutter.extensions.SlugifyExtension"],
        # `conditions` reports what is not defined.
        undefined=jinja2.ChainableUndefined,
    )


def rendered(name: str, choice: Choice) -> str:
    """A file of the template as it is with the choice; modules by their name within the chassis."""
    path = SOURCE / name if (SOURCE / name).exists() else SOURCE / CHASSIS / name
    return _compiled(path).render(_context(tuple(choice.answers.items())))


@cache
def _compiled(path: Path) -> jinja2.Template:
    return environment().from_string(path.read_text(encoding="utf-8"))


@cache
def _context(answers: tuple[tuple[str, str], ...]) -> dict[str, object]:
    context = generate_context(str(TEMPLATE / "cookiecutter.json"))
    context["cookiecutter"].update(answers)
    context["cookiecutter"] = prompt_for_config(context, no_input=True)
    return context


@cache
def public(path: Path) -> frozenset[str]:
    """What a module defines for others."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
    return frozenset(name for name in names if not name.startswith("_"))


@cache
def fields(path: Path) -> dict[str, str]:
    """The settings of a module, and their defaults as they are written."""
    found = {}
    for model in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(model, ast.ClassDef):
            continue
        for node in model.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                value = node.value
                if isinstance(value, ast.Call) and value.args:
                    value = value.args[0]
                found[node.target.id] = ast.unparse(value) if value else ""
    return found


def imported(text: str) -> set[str]:
    """The names that a module imports from others."""
    return {
        alias.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


if __name__ == "__main__":
    found = problems()
    sys.stdout.writelines(f"{each}\n" for each in found)
    sys.exit(bool(found))
