"""What a team does to its project in the first week: each edit is a function beside its texts.

In the texts the package goes by `my_service`, as it does in the template's own.
"""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import uv
from ruff import find_ruff_bin

#: What a service needs to start after it.
SETTINGS = {"DATABASE_URL": "postgres://127.0.0.1/orders"}
RENAMED = "stock-keeper-of-the-warehouse"


class Team:
    """The people who own a project. After an edit they have their imports tidied."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self.tests = project / "tests"
        [self.source] = (path.parent for path in project.glob("src/*/__main__.py"))
        self._saved: set[Path] = set()

    def make(self, *edits: "Edit") -> None:
        for edit in edits:
            edit(self)
            modules = [path for path in self._saved if path.suffix == ".py" and path.exists()]
            if modules:
                ruff = (find_ruff_bin(), "check", "--quiet", "--no-cache", "--fix")
                self.run(*ruff, "--select=F401,I", *modules)
                self.run(find_ruff_bin(), "format", "--quiet", "--no-cache", *modules)
            self._saved.clear()

    def save(self, path: Path, text: str) -> None:
        path.write_text(text.replace("my_service", self.source.name), encoding="utf-8")
        self._saved.add(path)

    def append(self, path: Path, text: str) -> None:
        self.save(path, path.read_text(encoding="utf-8") + text)

    def replace(self, path: Path, old: str, new: str) -> None:
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{path} has {text.count(old)} times {old!r}"
        self.save(path, text.replace(old, new))

    def add_imports(self, name: str, *lines: str) -> None:
        text = (self.source / name).read_text(encoding="utf-8")
        first = re.search("^(import|from) ", text, re.MULTILINE)
        assert first
        added = "".join(f"{line}\n" for line in lines)
        self.save(self.source / name, text[: first.start()] + added + text[first.start() :])

    def add_handler(self, source: str, route: str, *imports: str) -> None:
        self.append(self.source / "handlers.py", f"\n\n{source}")
        self.add_imports("handlers.py", *imports)
        self.replace(self.source / "app.py", "    ])\n", f"        {route},\n    ])\n")

    def add_to_service(self, line: str, *imports: str) -> None:
        self.replace(self.source / "app.py", "    return service\n", f"{line}    return service\n")
        self.add_imports("app.py", *imports)

    def add_test(self, name: str, text: str) -> None:
        head = "from .testing import ServiceTest\n\n\n"
        imports, _, rest = text.rpartition("\n\n\n")
        self.save(self.tests / f"test_{name}.py", f"{imports}\n{head}{rest}")

    def run(self, *argv: str | Path) -> None:
        subprocess.run(argv, cwd=self.project, check=True, timeout=60)


Edit = Callable[[Team], None]


def example_deleted(team: Team) -> None:
    for path, first in (
        (team.source / "handlers.py", "\n\nclass Hello"),
        (team.tests / "test_handlers.py", "\n    def test_hello_greets_by_name"),
    ):
        kept, found, _ = path.read_text(encoding="utf-8").partition(first)
        assert found
        team.save(path, kept)
    team.replace(
        team.source / "app.py", '        (r"/hello/(?P<name>[^/]+)", handlers.Hello),\n', ""
    )


def failing_check_added(team: Team) -> None:
    team.save(
        team.source / "warehouse.py",
        '''\
"""The warehouse that orders leave from."""

import asyncio


async def ping() -> None:
    """Raises OSError where the warehouse can't be reached."""
    _, writer = await asyncio.open_connection("127.0.0.1", 9)
    writer.close()
''',
    )
    team.add_to_service(
        '    service.health.add("warehouse:connections", warehouse.ping)\n',
        "from . import warehouse",
    )
    team.add_test(
        "warehouse",
        """\
class TestWarehouse(ServiceTest):
    def test_service_lives_without_it(self) -> None:
        assert self.fetch("/readyz").code in (503, 404)
        assert self.fetch("/").code == 200
""",
    )


def required_setting_added(team: Team) -> None:
    team.append(
        team.source / "settings.py",
        '\n    database_url: str\n    """Where the orders are kept."""\n',
    )
    team.append(team.tests / "settings.env", "DATABASE_URL=postgres://127.0.0.1/orders\n")


def typed_body_added(team: Team) -> None:
    team.add_handler(
        '''\
@dataclass(frozen=True)
class NewOrder:
    """The body of an order."""

    item: str
    count: int


class Orders(JsonHandler):
    @operation(status=201)
    def post(self, body: NewOrder) -> NewOrder:
        """Place an order."""
        return body
''',
        r'(r"/orders", handlers.Orders)',
        "from dataclasses import dataclass",
        "from tornado_chassis.handlers import operation",
    )
    team.add_test(
        "orders",
        """\
import json


class TestOrders(ServiceTest):
    def test_order_is_made(self) -> None:
        order = {"item": "book", "count": 2}
        response = self.fetch("/orders", json=order)
        assert response.code == 201
        assert json.loads(response.body) == order

    def test_wrong_bodies_are_problems_of_the_client(self) -> None:
        for body, status in (([], 422), ({"item": "book"}, 422)):
            response = self.fetch("/orders", json=body)
            assert json.loads(response.body)["status"] == status
""",
    )


def failing_task_added(team: Team) -> None:
    team.save(
        team.source / "prices.py",
        '''\
"""Prices, whose source is down."""


async def refresh() -> None:
    raise ConnectionError("no prices today")
''',
    )
    team.add_to_service(
        '    service.background("refresh prices", prices.refresh)\n', "from . import prices"
    )
    team.add_test(
        "prices",
        """\
class TestPrices(ServiceTest):
    def test_service_goes_on_without_them(self) -> None:
        assert self.fetch("/").code == 200
""",
    )


def websocket_added(team: Team) -> None:
    team.add_handler(
        """\
class Chat(WebSocketHandler):
    def on_message(self, message: str | bytes) -> None:
        self.write_message(f"You said: {message!r}")
""",
        r'(r"/chat", handlers.Chat)',
        "from tornado.websocket import WebSocketHandler",
    )
    team.add_test(
        "chat",
        """\
from tornado.websocket import websocket_connect


class TestChat(ServiceTest):
    def test_chat_answers(self) -> None:
        async def talk() -> object:
            connection = await websocket_connect(f"ws://127.0.0.1:{self.get_http_port()}/chat")
            await connection.write_message("hello")
            answer = await connection.read_message()
            connection.close()
            return answer

        assert self.run_async(talk) == "You said: 'hello'"
""",
    )


def call_added(team: Team) -> None:
    team.add_handler(
        """\
class Rate(JsonHandler):
    async def get(self) -> None:
        try:
            response = await AsyncHTTPClient().fetch("http://127.0.0.1:9/rate")
        except OSError:
            raise HTTPError(502) from None
        self.finish(response.body)
""",
        r'(r"/rate", handlers.Rate)',
        "from tornado.httpclient import AsyncHTTPClient",
        "from tornado.web import HTTPError",
    )
    team.add_test(
        "rates",
        """\
class TestRates(ServiceTest):
    def test_errors_of_the_other_service_are_not_ours(self) -> None:
        assert self.fetch("/rate").code == 502
""",
    )


def metric_and_span_added(team: Team) -> None:
    team.save(
        team.source / "measured.py",
        '''\
"""What the service measures of itself."""

from tornado_chassis import metrics

visits = metrics.counter("visits", "Visits to the shop.", ["country"])
open_shops = metrics.gauge("open_shops", "Shops that are open.")
queueing = metrics.histogram("queueing_seconds", "How long a visitor has queued.")
''',
    )
    team.add_handler(
        """\
class Visits(JsonHandler):
    def post(self) -> None:
        with span("let in") as current:
            current.set_attribute("visitor.country", "nl")
            measured.visits.labels("nl").inc()
            measured.open_shops.set(1)
            measured.queueing.observe(0.2)
        self.finish({})
""",
        r'(r"/visits", handlers.Visits)',
        "from tornado_chassis.tracing import span",
        "from . import measured",
    )
    team.add_test(
        "visits",
        """\
class TestVisits(ServiceTest):
    def test_visits_are_counted(self) -> None:
        assert self.fetch("/visits", method="POST", body="").code == 200
        assert self.metric("visits", country="nl") == 1
        assert self.metric("open_shops") == 1
        assert self.metric("queueing_seconds") == 1
        assert self.spans()[0].attributes == {"visitor.country": "nl"}
""",
    )


def dependency_added(team: Team) -> None:
    # Without a lock, which would need every package's metadata.
    add = (uv.find_uv_bin(), "add", "--quiet", "--frozen")
    team.run(*add, "iniconfig")
    team.run(*add, "--dev", "pathspec")


def readme_edited(team: Team) -> None:
    readme = team.project / "README.md"
    title, line, rest = readme.read_text(encoding="utf-8").partition("\n")
    text = f"{title}{line}\nOwned by the warehouse's team, who answer in #warehouse.\n{rest}"
    team.save(readme, f"{text}\n## Who to call at night\n\nThe warehouse has a telephone.\n")


#: In the order of the week. Whatever was chosen, each can be made.
WEEK: tuple[Edit, ...] = (
    example_deleted,
    failing_check_added,
    required_setting_added,
    typed_body_added,
    failing_task_added,
    websocket_added,
    call_added,
    metric_and_span_added,
    dependency_added,
    readme_edited,
)


def renamed(team: Team) -> None:
    """What `git mv` and `sed` do to the files that git knows. Not of the week."""
    names = {team.source.name: RENAMED.replace("-", "_")}
    names[team.source.name.replace("_", "-")] = RENAMED
    for path in sorted(team.project.rglob("*")):
        if path.is_file() and path.relative_to(team.project).parts[0] != ".git":
            content, name = path.read_bytes(), path.name
            for old, new in names.items():
                content = content.replace(old.encode(), new.encode())
                name = name.replace(old, new)
            path.write_bytes(content)
            path.rename(path.with_name(name))
    team.source = team.source.rename(team.source.with_name(names[team.source.name]))
