"""A service of 0.1, with a week's edits, comes to 0.2 by the command that CHANGELOG.md shows."""

import os
import sys
from pathlib import Path

import pytest
import uv

from .project import TEMPLATE, Project, copy_checkout, git, interpreter, tool

# The last commit before the chassis became a package.
BEFORE = "a5c7c27"
HANDLER = """

orders = metrics.counter("orders", "Orders placed.", ["country"])


class Order(JsonHandler):
    @tracing.span("order")
    def post(self, number: str) -> None:
        orders.labels("nl").inc()
        self.finish({"number": number, "id": correlation.get()["request_id"]})
"""
SETTINGS = '''
    database_url: str
    """Where orders are."""

    api_key: str | None = setting(None, secret=True)
    """Never shown."""
'''
TEST = """\
from my_service.chassis import SERVICE

from .chassis.testing import ServiceTest


class TestOrder(ServiceTest):
    def test_order(self) -> None:
        assert SERVICE in self.fetch("/").body.decode()
        assert self.fetch("/orders/7", method="POST", body="").code == 200
"""


@pytest.mark.full
def test_upgrade(tmp_path: Path, slots: Path) -> None:
    template = tmp_path / "template"
    git(tmp_path, "clone", "--quiet", str(TEMPLATE), str(template))
    git(template, "rm", "-r", "--quiet", ".")
    copy_checkout(template)
    git(template, "add", "--all")
    git(template, "commit", "--quiet", "--allow-empty", "--message=What is here now")
    cruft = str(Path(sys.executable).with_name("cruft"))
    tool(
        cruft, "create", "--no-input", f"--checkout={BEFORE}", f"--output-dir={tmp_path}", template
    )
    path = tmp_path / "my-service"
    project = Project(path, {}, slots / "0" / "venv", interpreter())
    edit(path)
    git(path, "init", "--quiet")
    git(path, "add", "--all")
    git(path, "commit", "--quiet", "--message=The first week")

    project.run(sys.executable, template / "upgrades" / "to_0_2.py", env={"PATH": path_with(cruft)})
    assert not list(path.rglob("*.rej"))
    assert not git(path, "diff", "--name-only", "--diff-filter=U")
    project.sync()
    project.run("ruff", "check", "--quiet", "--fix")
    project.run("ruff", "format", "--quiet")
    project.run("ruff", "check")
    project.run("mypy")
    project.run("pytest", "--quiet")
    assert "chassis'" not in (path / "README.md").read_text(encoding="utf-8")
    assert "Orders of the shop." in (path / "README.md").read_text(encoding="utf-8")


def path_with(program: str) -> str:
    return os.pathsep.join(
        [str(Path(program).parent), str(Path(uv.find_uv_bin()).parent), os.environ["PATH"]]
    )


def edit(path: Path) -> None:
    source = path / "src" / "my_service"
    change(
        source / "handlers.py",
        "from .chassis import SERVICE, __version__\n",
        "from .chassis import SERVICE, __version__, metrics, tracing\n"
        "from .chassis.application import correlation\n",
    )
    add(source / "handlers.py", HANDLER)
    hello = "handlers.Hello),\n"
    change(
        source / "app.py", hello, f'{hello}        (r"/orders/(?P<number>\\d+)", handlers.Order),\n'
    )
    change(
        source / "app.py", "from . import handlers\n", "import asyncio\n\nfrom . import handlers\n"
    )
    work = '    service.background("wait", lambda: asyncio.sleep(1))\n'
    change(source / "app.py", "    return service\n", f"{work}    return service\n")
    own = "from .chassis import settings\n"
    change(source / "settings.py", own, f"{own}from .chassis.settings import setting\n")
    add(source / "settings.py", SETTINGS)
    add(path / "tests" / "settings.env", "DATABASE_URL=postgresql://127.0.0.1/test\n")
    (path / "tests" / "test_order.py").write_text(TEST, encoding="utf-8")
    change(path / "README.md", "## Run\n", "Orders of the shop.\n\n## Run\n")


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


def add(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
