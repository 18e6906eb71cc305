"""What a team does to its project in the first week.

In the texts the package goes by `my_service`, as it does in the template's own.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import uv
from ruff import find_ruff_bin

from .project import tool

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

    def run(self, *argv: str | Path) -> None:
        tool(*argv, cwd=self.project)


Edit = Callable[[Team], None]


@dataclass(frozen=True)
class Addition:
    """What is added for a purpose, with its test."""

    name: str
    #: The source of a module of that name.
    module: str = ""
    #: A line for `make_service`.
    service: str = ""
    handler: str = ""
    route: str = ""
    #: What the handler imports.
    imports: tuple[str, ...] = ()
    test: str = ""
    #: Without a test, the statuses that each path may be answered with.
    statuses: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __call__(self, team: Team) -> None:
        app = team.source / "app.py"
        if self.module:
            team.save(team.source / f"{self.name}.py", self.module)
        if self.service:
            end = "    return service\n"
            team.replace(app, end, f"    {self.service}\n{end}")
            team.add_imports("app.py", f"from . import {self.name}")
        if self.handler:
            team.append(team.source / "handlers.py", f"\n\n{self.handler}")
            team.add_imports("handlers.py", *self.imports)
            team.replace(app, "    ])\n", f"        {self.route},\n    ])\n")
        test = self.test or STATUSES.format(name=self.name.title(), statuses=self.statuses)
        imports, _, rest = test.rpartition("\n\n\n")
        head = "from .testing import ServiceTest\n\n\n"
        team.save(team.tests / f"test_{self.name}.py", f"{imports}\n{head}{rest}")


STATUSES = """\
class Test{name}(ServiceTest):
    def test_statuses(self) -> None:
        for path, statuses in {statuses}.items():
            assert self.fetch(path).code in statuses
"""


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


FAILING_CHECK = Addition(
    "warehouse",
    module='''\
"""The warehouse that orders leave from."""

import asyncio


async def ping() -> None:
    """Raises OSError where the warehouse can't be reached."""
    _, writer = await asyncio.open_connection("127.0.0.1", 9)
    writer.close()
''',
    service='service.health.add("warehouse:connections", warehouse.ping)',
    statuses={"/readyz": (503, 404), "/": (200,)},
)


def required_setting_added(team: Team) -> None:
    team.append(
        team.source / "settings.py",
        '\n    database_url: str\n    """Where the orders are kept."""\n',
    )
    team.append(team.tests / "settings.env", "DATABASE_URL=postgres://127.0.0.1/orders\n")


TYPED_BODY = Addition(
    "orders",
    handler='''\
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
    route='(r"/orders", handlers.Orders)',
    imports=(
        "from dataclasses import dataclass",
        "from tornado_chassis.handlers import operation",
    ),
    test="""\
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
FAILING_TASK = Addition(
    "prices",
    module='''\
"""Prices, whose source is down."""


async def refresh() -> None:
    raise ConnectionError("no prices today")
''',
    service='service.background("refresh prices", prices.refresh)',
    statuses={"/": (200,)},
)
WEBSOCKET = Addition(
    "chat",
    handler="""\
class Chat(WebSocketHandler):
    def on_message(self, message: str | bytes) -> None:
        self.write_message(f"You said: {message!r}")
""",
    route='(r"/chat", handlers.Chat)',
    imports=("from tornado.websocket import WebSocketHandler",),
    test="""\
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
CALL = Addition(
    "rates",
    handler="""\
class Rate(JsonHandler):
    async def get(self) -> None:
        try:
            response = await AsyncHTTPClient().fetch("http://127.0.0.1:9/rate")
        except OSError:
            raise HTTPError(502) from None
        self.finish(response.body)
""",
    route='(r"/rate", handlers.Rate)',
    imports=(
        "from tornado.httpclient import AsyncHTTPClient",
        "from tornado.web import HTTPError",
    ),
    statuses={"/rate": (502,)},
)
METRIC_AND_SPAN = Addition(
    "measured",
    module='''\
"""What the service measures of itself."""

from tornado_chassis import metrics

visits = metrics.counter("visits", "Visits to the shop.", ["country"])
open_shops = metrics.gauge("open_shops", "Shops that are open.")
queueing = metrics.histogram("queueing_seconds", "How long a visitor has queued.")
''',
    handler="""\
class Visits(JsonHandler):
    def post(self) -> None:
        with span("let in") as current:
            current.set_attribute("visitor.country", "nl")
            measured.visits.labels("nl").inc()
            measured.open_shops.set(1)
            measured.queueing.observe(0.2)
        self.finish({})
""",
    route='(r"/visits", handlers.Visits)',
    imports=("from tornado_chassis.tracing import span", "from . import measured"),
    test="""\
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
    FAILING_CHECK,
    required_setting_added,
    TYPED_BODY,
    FAILING_TASK,
    WEBSOCKET,
    CALL,
    METRIC_AND_SPAN,
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
