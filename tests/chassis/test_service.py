"""What a service of the team's gets from the chassis, in its tests too."""

import json
import tempfile
from pathlib import Path

from tornado.web import RequestHandler, UIModule
from tornado_chassis.service import Service
from tornado_chassis.testing import ServiceTest

from .settings import Settings


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
            [(r"/page", Page)],
            compress_response=True,
            static_path=directory.name,
            ui_modules={"Greeting": Greeting},
            default_handler_class=Nowhere,
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


class Orders(Settings):
    service_name = "orders"
    service_version = "9.9"
    service_package = "shop.orders"


class TestNames(ServiceTest):
    environ = {"LOG_FORMAT": "json"}  # noqa: RUF012

    def make_service(self) -> Service:
        return Service(self.read(Orders), [])

    def test_name_version_and_package_are_those_of_the_settings(self) -> None:
        self.fetch("/")
        line = json.loads(self.lines()[-1])
        assert (line["service.name"], line["service.version"]) == ("orders", "9.9")
        assert line["logger"] == "shop.orders.access"
        now = json.loads(self.fetch_admin("/console/now.json").body)
        assert (now["service"], now["version"]) == ("orders", "9.9")
