"""The service's own routes. Test yours the same way."""

import json

# {% filter replace("my_service", cookiecutter.__package) %}
from my_service import SERVICE, __version__

# {% endfilter %}
from .service import ServiceTest


class TestHandlers(ServiceTest):
    def test_root_tells_service_and_version(self) -> None:
        response = self.fetch("/")
        assert json.loads(response.body) == {"service": SERVICE, "version": __version__}

    def test_hello_greets_by_name(self) -> None:
        response = self.fetch("/hello/world")
        assert response.code == 200
        assert json.loads(response.body) == {"message": "Hello, world!"}

    def test_hello_greets_in_any_script(self) -> None:
        response = self.fetch("/hello/%E4%B8%96%E7%95%8C")
        assert json.loads(response.body) == {"message": "Hello, 世界!"}

    def test_unknown_path_is_a_problem(self) -> None:
        response = self.fetch("/nowhere")
        assert response.code == 404
        assert response.headers["Content-Type"] == "application/problem+json"
        problem = json.loads(response.body)
        assert problem["title"] == "Not Found"
        assert problem["status"] == 404
        assert problem["request_id"] == response.headers["X-Request-ID"]

    def test_wrong_method_is_a_problem(self) -> None:
        response = self.fetch("/", method="DELETE")
        assert response.code == 405
        assert json.loads(response.body)["title"] == "Method Not Allowed"
