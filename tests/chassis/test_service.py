"""What a service of the team's gets from the chassis, in its tests too."""

import json
import tempfile
from pathlib import Path

from tornado.web import RequestHandler, UIModule
from tornado.websocket import websocket_connect
from tornado_chassis.handlers import JsonHandler
from tornado_chassis.service import Service
from tornado_chassis.testing import ServiceTest

from .routes import Echo
from .settings import Settings


class Pool:
    is_open = False

    async def open(self) -> None:
        self.is_open = True

    async def close(self) -> None:
        self.is_open = False


class Pooled(JsonHandler):
    def initialize(self, pool: Pool) -> None:
        self.pool = pool

    def get(self) -> None:
        self.finish({"open": self.pool.is_open})


class Long(RequestHandler):
    def get(self) -> None:
        self.finish("x" * 10_000)


class TestService(ServiceTest):
    def make_service(self) -> Service:
        self.pool = Pool()
        service = Service(self.read(Settings), [(r"/pooled", Pooled, {"pool": self.pool})])
        service.on_startup.append(self.pool.open)
        service.on_shutdown.append(self.pool.close)
        self.addCleanup(lambda: self.assertFalse(self.pool.is_open))
        return service

    def test_startup_has_run_and_shutdown_will(self) -> None:
        assert json.loads(self.fetch("/pooled").body) == {"open": True}


class Greeting(UIModule):
    def render(self) -> str:
        return "hello from a module"


class Page(RequestHandler):
    def get(self) -> None:
        self.finish(self.ui["modules"].Greeting() * 100)


class Nowhere(RequestHandler):
    def prepare(self) -> None:
        self.set_status(410)
        self.finish("gone")


class TestSettingsOfTornado(ServiceTest):
    def make_service(self) -> Service:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        Path(directory.name, "robots.txt").write_text("nobody")
        return Service(
            self.read(Settings),
            [(r"/page", Page), (r"/echo", Echo)],
            compress_response=True,
            static_path=directory.name,
            ui_modules={"Greeting": Greeting},
            default_handler_class=Nowhere,
            websocket_max_message_size=10,
        )

    def test_answers_are_compressed_and_use_the_modules(self) -> None:
        answer = self.fetch("/page", decompress_response=False, headers={"Accept-Encoding": "gzip"})
        assert answer.headers["Content-Encoding"] == "gzip"
        assert self.fetch("/page").body == b"hello from a module" * 100

    def test_files_are_served(self) -> None:
        assert self.fetch("/static/robots.txt").body == b"nobody"
        assert self.fetch("/robots.txt").body == b"nobody"

    def test_unknown_path_is_answered_by_the_default_handler(self) -> None:
        answer = self.fetch("/nowhere")
        assert (answer.code, answer.body) == (410, b"gone")

    def test_limit_of_messages_is_the_service_s_own(self) -> None:
        async def talk() -> int | None:
            client = await websocket_connect(self.get_url("/echo").replace("http", "ws", 1))
            for size, answer in ((10, "x" * 10), (11, None)):
                await client.write_message("x" * size)
                assert await client.read_message() == answer
            return client.close_code

        assert self.run_async(talk) == 1009


class Orders(Settings):
    service_name = "orders"
    service_version = "9.9"
    service_package = "shop.orders"


class TestNames(ServiceTest):
    environ = {"LOG_FORMAT": "json"}  # noqa: RUF012

    def make_service(self) -> Service:
        return Service(self.read(Orders), [(r"/long", Long)])

    def test_name_version_and_package_are_those_of_the_settings(self) -> None:
        self.fetch("/long")
        line = json.loads(self.lines()[-1])
        assert (line["service.name"], line["service.version"]) == ("orders", "9.9")
        assert line["logger"] == "shop.orders.access"
        now = json.loads(self.fetch_admin("/console/now.json").body)
        assert (now["service"], now["version"]) == ("orders", "9.9")
