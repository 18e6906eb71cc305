"""The generated README and docs: their links lead somewhere, and their code works."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruff import find_ruff_bin

from ..backends import tool
from . import combinations
from .conftest import Generate
from .project import Project
from .test_render import FENCED, SOURCE, without_fenced

NOTHING = {
    prompt: "none" for prompt, choices in combinations.choices().items() if "none" in choices
}
COMBINATIONS = [*combinations.each_choice(), NOTHING]
FEATURES = combinations.features()
VARIANT = re.compile(rf"({'|'.join(FEATURES)})_(\w+?)\.md")
# The first line of a sample, a comment of its language.
PATH = re.compile(r"(?:# |/\* |<!-- )([\w./]+)(?: \*/| -->)?")

# What samples take for granted: a class of one's own around a pool, its setting, and the handler of
# this section.
ORDERS = '''\
"""Orders, of which there is one."""

from typing import Any


class Orders:
    def __init__(self, url: str) -> None:
        self.url = url
        self.is_open = False

    async def open(self) -> None:
        self.is_open = True

    async def close(self) -> None:
        self.is_open = False

    async def ping(self) -> None:
        assert self.is_open

    async def find(self, number: int) -> dict[str, Any] | None:
        assert self.is_open
        return {"number": 7, "item": "tea"} if number == 7 else None
'''
DATABASE_URL = "\n    database_url: str\n"
POOL = "A handler with a connection pool\n"
STARTS = """\
from .testing import ServiceTest


class TestStart(ServiceTest):
    def test_starts(self) -> None:
        assert self.app.runtime.state == "ready"
"""


def pages() -> list[str]:
    """The pages with samples, by the names that they have in the template."""
    found = [
        path.name for path in sorted(SOURCE.glob("docs/*.md")) if "```python" in path.read_text()
    ]
    assert found
    return found


@pytest.mark.parametrize("answers", COMBINATIONS, ids=combinations.name)
def test_links_lead_somewhere(generate: Generate, answers: combinations.Answers) -> None:
    project = generate(**answers).path
    docs = sorted(project.glob("docs/*.md"))
    linked = set()
    for page in [project / "README.md", *docs]:
        for link in re.findall(r"\]\(([^)\s]+)\)", without_fenced(page)):
            if link.startswith("https://"):
                continue
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            assert target.is_file(), f"{page.name}: {link}"
            assert not anchor or anchor in anchors(target), f"{page.name}: {link}"
            if page.name == "README.md":
                linked.add(target)
    assert set(docs) - linked == set(), "not in the list of pages"


@pytest.mark.parametrize("page", pages())
def test_samples_pass_the_linter(generate: Generate, page: str) -> None:
    """With the project's own settings of ruff, as they do once they are pasted."""
    project = generate(**answers_for(page))
    take_for_granted(project)
    for section in sections_of(project, generated_name(page)):
        for path, code in samples(section):
            if not path.endswith(".py"):
                continue
            name = path if path.startswith("tests/") else f"src/{project.package}/{path}"
            # Names of the file that a sample is added to are not its own.
            check = ["check", "--no-cache", "--quiet", "--ignore=F821", f"--stdin-filename={name}"]
            tool(find_ruff_bin(), *check, "-", input=code, cwd=project.path)


@pytest.mark.full
@pytest.mark.parametrize("page", pages())
def test_samples_work(generate: Generate, page: str) -> None:
    """Types and tests pass when a person has followed the page from section to section."""
    project = generate(**answers_for(page))
    project.sync()
    take_for_granted(project)
    sections = sections_of(project, generated_name(page))
    assert sections
    for section in sections:
        for dependency in re.findall(r"`uv add (\S+)`", section):
            project.uv("add", "--quiet", dependency)
        for path, code in samples(section):
            paste(project, path, code)
        own = [str(path.relative_to(project.path)) for path in project.path.glob("tests/test_*.py")]
        project.run(project.python, "-m", "mypy", f"src/{project.package}", *own)
        project.run(project.python, "-m", "pytest", "--quiet", *own)
        for path, _ in samples(section):
            # The next section has other routes.
            if path.startswith("tests/test_"):
                (project.path / path).unlink()


def answers_for(page: str) -> combinations.Answers:
    """The defaults, and the choice that the page is about."""
    match = VARIANT.fullmatch(page)
    return {FEATURES[match[1]]: match[2].split("_or_")[0]} if match else {}


def generated_name(page: str) -> str:
    match = VARIANT.fullmatch(page)
    return f"{match[1]}.md" if match else page


def anchors(page: Path) -> set[str]:
    """By which GitHub and GitLab lead to the headings of a page."""
    headings = re.findall(r"^##* (.*)", without_fenced(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def sections_of(project: Project, page: str) -> list[str]:
    """Those that have samples."""
    document = (project.path / "docs" / page).read_text(encoding="utf-8")
    return [each for each in re.split(r"^##+ ", document, flags=re.MULTILINE) if samples(each)]


def samples(section: str) -> list[tuple[str, str]]:
    """The path that each sample begins with, and its code."""
    found = [code.partition("\n") for kind, code in FENCED.findall(section) if kind != "json"]
    matched = [(PATH.fullmatch(first), code) for first, _, code in found]
    return [(match[1], code) for match, code in matched if match]


def take_for_granted(project: Project) -> None:
    [pool] = (each for each in sections_of(project, "handlers.md") if each.startswith(POOL))
    paste(project, *samples(pool)[0])
    package = project.path / "src" / project.package
    (package / "orders.py").write_text(ORDERS, encoding="utf-8")
    with (package / "settings.py").open("a", encoding="utf-8") as settings:
        settings.write(DATABASE_URL)
    with (project.path / "tests/settings.env").open("a", encoding="utf-8") as environ:
        environ.write("DATABASE_URL=postgresql://127.0.0.1/test\n")
    # The example that it tests is what samples are put in the place of.
    (project.path / "tests/test_handlers.py").write_text(STARTS, encoding="utf-8")


def paste(project: Project, name: str, code: str) -> None:
    """Does with a sample what a person does: what has the name of one of its definitions gives way
    to that, imports come first, and all else is added."""
    path = project.path / name
    if not name.startswith("tests/"):
        path = project.path / "src" / project.package / name
    path.parent.mkdir(exist_ok=True)
    if path.suffix != ".py" or not path.exists():
        with path.open("a", encoding="utf-8") as file:
            file.write(code)
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    replaced = {definition.name for definition in definitions(code)}
    for definition in reversed(list(definitions("\n".join(lines)))):
        if definition.name in replaced:
            decorators = definition.decorator_list
            start = min([definition.lineno, *(each.lineno for each in decorators)])
            del lines[start - 1 : definition.end_lineno]
    imports = [
        line
        for node in ast.parse(code).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for line in code.splitlines()[node.lineno - 1 : node.end_lineno]
    ]
    rest = [line for line in code.splitlines() if line not in imports]
    # After the docstring, which is the first line of each of these files.
    path.write_text("\n".join([lines[0], *imports, *lines[1:], *rest, ""]), encoding="utf-8")


def definitions(code: str) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    for node in ast.parse(code).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node
