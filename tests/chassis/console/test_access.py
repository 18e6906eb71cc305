"""Who sees the console, and whom it obeys."""

import json
from typing import Any
from urllib.parse import urlsplit

from tornado.httpclient import HTTPResponse
from tornado_chassis.console import Console

from ..testing import ChassisTest

TOKEN = "a" * 8 + "b" * 12
# From a proxy on this machine: its client may be anywhere.
ELSEWHERE = {"X-Forwarded-For": "192.0.2.1"}
JSON = {"Content-Type": "application/json"}
LEVEL = json.dumps({"logger": "root", "level": "INFO", "seconds": 60})
PAGES = ("/", "/console/page.js", "/console/now.json", "/console/requests/1.json")


class AccessTest(ChassisTest):
    def ask(self, path: str = "/console/now.json", **kwargs: Any) -> HTTPResponse:
        return self.fetch_admin(path, follow_redirects=False, **kwargs)


class TestWithoutToken(AccessTest):
    def test_the_machine_itself_sees_it(self) -> None:
        assert [self.ask(path).code for path in PAGES[:3]] == [200, 200, 200]

    def test_others_learn_how_to_get_in(self) -> None:
        for path in PAGES:
            answer = self.ask(path, headers=ELSEWHERE)
            assert answer.code == 403
            assert b"CONSOLE_TOKEN" in answer.body

    def test_no_header_makes_somebody_local(self) -> None:
        for header in ("X-Forwarded-For", "X-Real-Ip", "Forwarded"):
            assert self.ask(headers={header: "127.0.0.1"}).code == 403

    def test_no_token_opens_it(self) -> None:
        for token in ("", "None", TOKEN):
            headers = {
                **ELSEWHERE,
                "Authorization": f"Bearer {token}",
                "Cookie": f"console={token}",
            }
            assert self.ask(f"/?token={token}", headers=headers).code == 403

    def test_main_port_has_none_of_it(self) -> None:
        assert self.fetch("/console/now.json").code == 404

    def test_names_that_others_can_own_are_rejected(self) -> None:
        for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", ""):
            assert self.ask(headers={"Host": host}).code in (400, 421), host
        for host in ("localhost", "LOCALHOST:8001", "127.0.0.1:8001", "[::1]:8001"):
            assert self.ask(headers={"Host": host}).code == 200, host

    def test_pages_of_others_change_nothing(self) -> None:
        host = f"127.0.0.1:{self.admin_port}"
        rejected: list[tuple[dict[str, str], int]] = [
            ({**JSON, "Origin": "http://evil.example"}, 403),
            ({**JSON, "Origin": "null"}, 403),
            ({**JSON, "Origin": "http://127.0.0.1:1"}, 403),
            ({**JSON, "Sec-Fetch-Site": "cross-site"}, 403),
            ({**JSON, "Sec-Fetch-Site": "same-site"}, 403),
            ({**JSON, "Host": "evil.example"}, 421),
            ({"Content-Type": "text/plain"}, 415),
            ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ]
        for headers, code in rejected:
            for path, method in (("levels", "PUT"), ("profile", "POST")):
                answer = self.ask(
                    f"/console/{path}.json", method=method, body=LEVEL, headers=headers
                )
                assert answer.code == code, headers
        own = {**JSON, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
        for headers in (own, JSON):
            answer = self.ask("/console/levels.json", method="PUT", body=LEVEL, headers=headers)
            assert answer.code == 200

    def test_no_other_method_is_known(self) -> None:
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            body = None if method == "DELETE" else "{}"
            answer = self.ask("/console/now.json", method=method, body=body, headers=JSON)
            assert answer.code == 405


class TestWithToken(AccessTest):
    environ = {"CONSOLE_TOKEN": TOKEN, "ENVIRONMENT": "production"}  # noqa: RUF012 (as its base)

    def test_bearer_sees_it(self) -> None:
        headers = {**ELSEWHERE, "Authorization": f"Bearer {TOKEN}"}
        assert self.ask(headers=headers).code == 200

    def test_wrong_token_does_not(self) -> None:
        for token in ("", TOKEN[:-1], TOKEN + "x", "\xe9", TOKEN.upper()):
            answer = self.ask(headers={**ELSEWHERE, "Authorization": f"Bearer {token}"})
            assert answer.code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"

    def test_token_of_the_address_becomes_a_cookie(self) -> None:
        answer = self.ask(f"/?token={TOKEN}", headers=ELSEWHERE)
        assert answer.code == 303
        assert urlsplit(answer.headers["Location"]).query == ""
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert TOKEN not in cookie
        cookie = cookie.partition(";")[0]
        assert self.ask("/", headers={**ELSEWHERE, "Cookie": cookie}).code == 200
        assert self.ask("/", headers={**ELSEWHERE, "Cookie": cookie[:-1]}).code == 401

    def test_the_machine_itself_needs_none(self) -> None:
        assert self.ask().code == 200

    def test_token_is_not_logged_nor_shown(self) -> None:
        self.ask(f"/?token={TOKEN}", headers=ELSEWHERE)
        self.ask(headers={**ELSEWHERE, "Authorization": f"Bearer {TOKEN}"})
        assert TOKEN not in "\n".join(self.lines())
        for path in ("settings", "logs", "requests"):
            assert TOKEN not in self.ask(f"/console/{path}.json").body.decode()


class TestInDevelopment(AccessTest):
    environ = {"CONSOLE_TOKEN": TOKEN}  # noqa: RUF012 (as its base)

    def test_link_is_logged(self) -> None:
        [console] = (each for each in self.app.runtime.features if isinstance(each, Console))
        self.run_async(console.shutdown)
        with self.assertLogs("tornado_chassis.console") as logged:
            self.run_async(console.startup)
        assert f"http://127.0.0.1:8001/?token={TOKEN}" in logged.output[0]

    def test_link_is_not_on_the_page(self) -> None:
        lines = json.loads(self.ask("/console/logs.json").body)["lines"]
        assert any("Console: http://" in line["message"] for line in lines)
        assert TOKEN not in json.dumps(lines)
