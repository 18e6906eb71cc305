"""What the console promises."""

import json
from typing import Any

from .service import ContractTest

TOKEN = "a-token-of-the-contract"  # noqa: S105 (made up)
BEARER = {"Authorization": f"Bearer {TOKEN}"}


class TestConsole(ContractTest):
    environ = {"CONSOLE_TOKEN": TOKEN}

    def shown(self, name: str) -> list[dict[str, Any]]:
        response = self.fetch_admin(f"/console/{name}.json", headers=BEARER)
        assert response.code == 200
        return [*json.loads(response.body)[name]]

    def test_the_admin_port_alone_has_the_page(self) -> None:
        page = self.fetch_admin("/", headers={"Accept": "text/html", **BEARER})
        assert page.headers["Content-Type"].startswith("text/html")
        assert self.fetch("/", headers={"Accept": "text/html"}).code == 404

    def test_a_failed_request_is_shown_with_its_exception(self) -> None:
        self.fetch("/fail", headers={"X-Request-ID": "caller.1"})
        (request,) = self.shown("requests")
        assert (request["route"], request["status"]) == ("/fail", 500)
        (error,) = self.shown("errors")
        assert (error["type"], error["message"]) == ("LookupError", "a detail")
        assert error["request_id"] == request["ids"]["request_id"] == "caller.1"

    def test_routes_are_described_as_an_openapi_document(self) -> None:
        described = json.loads(self.fetch_admin("/openapi.json", headers=BEARER).body)
        assert "get" in described["paths"]["/task/{name}"]

    def test_settings_are_shown_without_their_secrets(self) -> None:
        settings = {each["name"]: each["value"] for each in self.shown("settings")}
        assert settings["ENVIRONMENT"] == "development"
        assert settings["CONSOLE_TOKEN"] not in ("", TOKEN)

    def test_everybody_needs_the_token(self) -> None:
        assert self.fetch_admin("/").code == 401
        assert self.fetch_admin("/", headers=BEARER).code == 200


class TestWithoutToken(ContractTest):
    environ = {"ENVIRONMENT": "production"}

    def test_nobody_sees_it_outside_of_development(self) -> None:
        assert self.fetch_admin("/").code == 403
