"""The service's own routes, asked over a real socket."""

import json

from my_service.settings import Settings

from .testing import ServiceTest


class TestHandlers(ServiceTest):
    def test_root_shows_service_and_version(self) -> None:
        response = self.fetch("/")
        assert json.loads(response.body) == {
            "service": Settings.service_name,
            "version": Settings.service_version,
        }

    def test_hello_greets_by_name(self) -> None:
        response = self.fetch("/hello/world")
        assert response.code == 200
        assert json.loads(response.body) == {"message": "Hello, world!"}

    def test_hello_greets_in_any_script(self) -> None:
        response = self.fetch("/hello/%E4%B8%96%E7%95%8C")
        assert json.loads(response.body) == {"message": "Hello, 世界!"}
