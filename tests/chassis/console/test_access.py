"""Who passes the door of the admin port, and whom it obeys."""

import asyncio
import json
import logging
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from functools import partial
from typing import Any, cast
from unittest import mock
from urllib.parse import urlsplit

import pytest
from tornado.httpclient import HTTPResponse
from tornado_chassis import admin
from tornado_chassis.console import Console

from ..testing import STAND_IN, ChassisTest, inherited

TOKEN = "a" * 8 + "b" * 12
BEARER = {"Authorization": f"Bearer {TOKEN}"}
JSON = {"Content-Type": "application/json"}
LEVEL = json.dumps({"logger": "root", "level": "INFO", "seconds": 60})
GUARDED = ("/", "/console/", "/console/page.js", "/console/now.json", "/loglevel")
OPEN = ("/livez", "/readyz", "/health", "/metrics")
# What proxies, and what stands for them at hosting companies, are known to add.
OF_PROXIES = """
Forwarded Via X-Forwarded-For X-Forwarded-Host X-Forwarded-Proto X-Forwarded-Port
X-Forwarded-Server X-Forwarded-Prefix X-Forwarded-Scheme X-Forwarded-Ssl X-Real-Ip X-Client-Ip
Client-Ip True-Client-Ip X-Cluster-Client-Ip X-Original-Host X-Original-Forwarded-For
X-Envoy-External-Address CF-Connecting-IP CF-Ray Fastly-Client-IP Fly-Client-IP X-Azure-ClientIP
X-Amzn-Trace-Id X-Cloud-Trace-Context CDN-Loop Proxy-Connection X-ProxyUser-Ip X-Scheme X-Host
Front-End-Https X-Nobody-Knows-This-One
""".split()
# The header of a browser's request.
OF_CHROMIUM = {
    "Accept": "text/html,application/xhtml+xml,*/*;q=0.8",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-Language": "en",
    "Cache-Control": "max-age=0",
    "Connection": "keep-alive",
    "Cookie": "theme=dark",
    "Priority": "u=0, i",
    "Sec-Ch-Ua": '"Chromium";v="140"',
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Site": "none",
    "Upgrade-Insecure-Requests": "1",
    "User-Agent": "Mozilla/5.0",
}


class AccessTest(ChassisTest):
    @property
    def door(self) -> admin.Door:
        return cast(admin.Door, self.service.endpoints[1].app.settings["door"])

    def ask(self, path: str = "/console/now.json", **kwargs: Any) -> HTTPResponse:
        return self.fetch_admin(path, follow_redirects=False, **kwargs)

    def codes(self, *paths: str, **headers: str) -> set[int]:
        return {self.ask(path, headers=headers).code for path in paths}

    def expect_closed(self, code: int) -> None:
        assert self.codes(*GUARDED) == {code}
        assert self.ask("/loglevel", method="PUT", body='{"level": "DEBUG"}').code == code
        assert logging.getLogger().level == logging.INFO
        assert self.codes(*OPEN) == {200}

    def scraped(self, name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (.+)$", self.ask("/metrics").body.decode(), re.M)
        return float(found[1]) if found else 0.0

    def logs_link(self, link: str) -> None:
        """Expects the console to log this at its start."""
        [console] = (each for each in self.app.runtime.features if isinstance(each, Console))
        self.run_async(console.shutdown)
        with self.assertLogs("tornado_chassis.console") as logged:
            self.run_async(console.startup)
        assert logged.output[0].endswith(link)


class TestWithoutToken(AccessTest):
    def test_machine_itself_passes_in_development(self) -> None:
        assert self.codes(*GUARDED) == {200}
        assert self.codes(*GUARDED, **OF_CHROMIUM) == {200}

    def test_what_a_proxy_adds_closes_it_and_the_answer_says_so(self) -> None:
        answer = self.ask(headers={"Via": "1.1 proxy"})
        assert b"CONSOLE_TOKEN" in answer.body
        assert b"has the header Via" in answer.body
        for header in OF_PROXIES:
            assert self.codes("/console/now.json", "/loglevel", **{header: "127.0.0.1"}) == {403}

    def test_what_a_proxy_rewrites_closes_it(self) -> None:
        # nginx's `proxy_pass` with nothing else.
        host = f"Host: 127.0.0.1:{self.admin_port}"
        for path in GUARDED:
            with socket.create_connection(("127.0.0.1", self.admin_port)) as client:
                request = f"GET {path} HTTP/1.0\r\n{host}\r\nConnection: close\r\n\r\n"
                client.sendall(request.encode())
                answer = self.run_async(partial(asyncio.to_thread, client.recv, 100))
                assert b" 403 " in answer.partition(b"\r\n")[0]
        for host in ("192.0.2.1", "[2001:db8::1]:80", "0.0.0.0"):
            assert self.codes("/", "/loglevel", Host=host) == {403}, host

    def test_names_that_others_can_own_are_rejected(self) -> None:
        for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", ""):
            assert self.codes("/", "/loglevel", Host=host) <= {400, 421}, host
        assert self.scraped('http_server_refused_requests_total{reason="host"}') == 8
        for host in ("localhost", "LOCALHOST:8001", "127.0.0.1:8001", "[::1]:8001"):
            assert self.codes("/", "/loglevel", Host=host) == {200}, host

    def test_no_token_opens_it(self) -> None:
        for token in ("", "None", TOKEN):
            sent = {"Authorization": f"Bearer {token}", "Cookie": f"console={token}"}
            assert self.codes(f"/?token={token}", "/loglevel", **sent, Via="1.1 a") == {403}

    def test_probes_and_metrics_are_outside_of_it_and_none_of_it_is_on_the_main_port(self) -> None:
        assert self.codes(*OPEN, Via="1.1 proxy") == {200}
        assert {self.fetch(path).code for path in GUARDED[1:]} == {404}

    def test_pages_of_others_change_nothing(self) -> None:
        host = f"127.0.0.1:{self.admin_port}"
        changes = [("/console/levels.json", "PUT"), ("/console/profile.json", "POST")]

        def codes(changes: list[tuple[str, str]], **headers: str) -> set[int]:
            return {
                self.ask(path, method=method, body=LEVEL, headers=headers).code
                for path, method in changes
            }

        origins = [
            {"Origin": each} for each in ("http://evil.example", "null", "http://127.0.0.1:1")
        ]
        sites = [{"Sec-Fetch-Site": each} for each in ("cross-site", "same-site")]
        for headers in (*origins, *sites):
            assert codes([*changes, ("/loglevel", "PUT")], **JSON, **headers) == {403}, headers
        assert codes([*changes, ("/loglevel", "PUT")], **JSON, Host="evil.example") == {421}
        for kind in ("text/plain", "application/x-www-form-urlencoded"):
            assert codes(changes, **{"Content-Type": kind}) == {415}, kind
        own = {**JSON, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
        for headers in (own, JSON):
            assert codes(changes[:1], **headers) == {200}

    def test_no_other_method_is_known(self) -> None:
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            body = None if method == "DELETE" else "{}"
            answer = self.ask("/console/now.json", method=method, body=body, headers=JSON)
            assert answer.code == 405


class TestAllowedHost(AccessTest):
    environ = {"ADMIN_ALLOWED_HOSTS": "Console.local"}  # noqa: RUF012 (as its base)

    def test_allowed_name_is_no_sign_of_a_proxy(self) -> None:
        assert self.codes(*GUARDED, Host="console.local:8001") == {200}


class TestInProduction(AccessTest):
    environ = {"ENVIRONMENT": "production"}  # noqa: RUF012 (as its base)

    def test_nobody_passes_without_a_token(self) -> None:
        self.expect_closed(403)


class TestNowhere(TestInProduction):
    """Nobody says that this is development, and there is no terminal."""

    environ = {"ENVIRONMENT": ""}  # noqa: RUF012 (as its base)


@pytest.mark.parametrize("token", ["", TOKEN])
def test_on_a_terminal_nobody_has_to_say_that_it_is_development(token: str) -> None:
    if sys.platform == "win32":
        pytest.skip("Windows has no pseudo-terminals")
    ours, its = os.openpty()
    environ = {"PORT": "0", "ADMIN_PORT": "0", "CONSOLE_TOKEN": token}
    command = [sys.executable, "-m", STAND_IN]
    with (
        subprocess.Popen(command, stdout=its, env={**inherited(), **environ}) as service,
        open(ours, encoding="utf-8") as terminal,
    ):
        os.close(its)
        try:
            ports: list[str] = []
            while len(ports) < 2:
                ports += re.findall(r"Listening on http://127\.0\.0\.1:(\d+)", terminal.readline())
            url = f"http://127.0.0.1:{ports[1]}/loglevel"
            if token:
                with pytest.raises(urllib.error.HTTPError, match="401"):
                    urllib.request.urlopen(url, timeout=30)
            else:
                with urllib.request.urlopen(url, timeout=30) as answer:
                    assert answer.status == 200
        finally:
            service.kill()


class TestWithToken(AccessTest):
    environ = {"CONSOLE_TOKEN": TOKEN}  # noqa: RUF012 (as its base)

    def setUp(self) -> None:
        self.enterContext(mock.patch.object(admin, "WRONG_TOKEN_SECONDS", 0.01))
        super().setUp()

    def test_everybody_needs_it_on_the_machine_too_and_passes_with_it_from_anywhere(self) -> None:
        self.expect_closed(401)
        assert self.codes(*GUARDED, **BEARER) == {200}
        assert self.codes(*GUARDED, **BEARER, Via="1.1 proxy") == {200}

    def test_wrong_token_is_counted_and_logged_without_it(self) -> None:
        before = len(self.lines())
        wrong = ("", TOKEN[:-1], TOKEN + "x", "\xe9", TOKEN.upper())
        for token in wrong:
            answer = self.ask(headers={"Authorization": f"Bearer {token}"})
            assert answer.code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert self.ask(f"/?token={TOKEN}x").code == 401
        counted = self.scraped('http_server_refused_requests_total{reason="wrong_token"}')
        assert counted == len(wrong) + 1
        lines = "\n".join(self.lines()[before:])
        assert lines.count("Wrong token from 127.0.0.1") == len(wrong) + 1
        assert TOKEN[:-1] not in lines
        assert self.ask(headers=BEARER).code == 200

    async def test_tokens_cannot_be_tried_all_at_once(self) -> None:
        url = f"http://127.0.0.1:{self.admin_port}/loglevel"

        async def try_out(token: str) -> int:
            headers = {"Authorization": f"Bearer {token}"}
            return (await self.http_client.fetch(url, headers=headers, raise_error=False)).code

        most = admin.MAX_WRONG_TOKENS
        with mock.patch.object(admin, "WRONG_TOKEN_SECONDS", 60.0):
            self.http_client.max_clients = 2 * most  # type: ignore[attr-defined]
            tries = [asyncio.create_task(try_out(f"wrong{n}")) for n in range(most)]
            await self.until(lambda: self.door._wrong == most)
            # From here on, even the right one is not looked at: this is no way to find it.
            assert await try_out(TOKEN) == await try_out("wrong") == 429
        for each in tries:
            each.cancel()

    def test_token_of_the_address_becomes_a_cookie_for_the_console_only(self) -> None:
        answer = self.ask(f"/?token={TOKEN}")
        assert answer.code == 303
        location = urlsplit(answer.headers["Location"])
        assert location.query == ""
        cookie = answer.headers["Set-Cookie"]
        assert {"HttpOnly", "SameSite=Strict", "Path=/console/"} <= set(cookie.split("; "))
        assert TOKEN not in cookie
        cookie = cookie.partition(";")[0]
        assert self.codes(*GUARDED, Cookie=cookie) == {200}
        assert self.codes(*GUARDED, Cookie=cookie[:-1]) == {401}
        # Browsers send cookies of one port to all others of its host.
        assert self.fetch("/console/").code == 404
        # Without it, the root leads there, from which it comes.
        answer = self.ask("/", headers={"Accept": "text/html"})
        assert (answer.code, answer.headers["Location"]) == (303, "/console/")

    def test_cookie_ends(self) -> None:
        cookie = self.ask(f"/?token={TOKEN}").headers["Set-Cookie"]
        assert f"Max-Age={admin.COOKIE_SECONDS}" in cookie.split("; ")
        with mock.patch.object(admin, "COOKIE_SECONDS", -1):
            ended = self.door.cookie()
        later = f"9{ended}"
        for value in (ended, later, "", ".", "x" * 5000, f"1e9.{ended.partition('.')[2]}"):
            assert self.codes("/loglevel", Cookie=f"console={value}") == {401}
        assert self.codes("/loglevel", Cookie=f"console={self.door.cookie()}") == {200}

    def test_token_is_not_logged_nor_shown(self) -> None:
        self.ask(f"/?token={TOKEN}")
        before = len(self.lines())
        for path in ("settings", "logs", "requests"):
            answer = self.ask(f"/console/{path}.json", headers=BEARER)
            assert answer.code == 200
            assert TOKEN not in answer.body.decode()
        assert TOKEN not in "\n".join(self.lines()[before:])


class TestInDevelopment(AccessTest):
    environ = {"CONSOLE_TOKEN": TOKEN}  # noqa: RUF012 (as its base)
    logged = f"http://127.0.0.1:8001/?token={TOKEN}"

    def test_link_is_logged_and_is_not_on_the_page(self) -> None:
        lines = json.loads(self.ask("/console/logs.json", headers=BEARER).body)["lines"]
        assert any("Console: http://" in line["message"] for line in lines)
        assert TOKEN not in json.dumps(lines)
        self.logs_link(self.logged)


class TestWhereNobodySaysSo(TestInDevelopment):
    """The link is logged without the token."""

    environ = {"CONSOLE_TOKEN": TOKEN, "ENVIRONMENT": ""}  # noqa: RUF012 (as its base)
    logged = "http://127.0.0.1:8001/"


class TestWhereItIsClosed(AccessTest):
    environ = {"ENVIRONMENT": ""}  # noqa: RUF012 (as its base)

    def test_link_is_logged_with_what_opens_it(self) -> None:
        assert self.ask("/").code == 403
        self.logs_link("http://127.0.0.1:8001/, once ENVIRONMENT=development is set")


class TestLevels(AccessTest):
    def put(self, path: str, **body: object) -> None:
        assert self.ask(path, method="PUT", body=json.dumps(body), headers=JSON).code == 200

    def level(self) -> str:
        return logging.getLevelName(logging.getLogger().level)

    def test_change_leaves_a_line_whatever_the_levels(self) -> None:
        self.put("/loglevel", level="CRITICAL")
        self.put("/loglevel", level="ERROR")
        self.put("/console/levels.json", logger="root", level="CRITICAL", seconds=60)
        text = "\n".join(self.lines())
        assert "Level of root changed from INFO to CRITICAL by 127.0.0.1" in text
        assert "Level of root changed from CRITICAL to ERROR by 127.0.0.1" in text
        assert "Level of root changed from ERROR to CRITICAL by 127.0.0.1 for 60 s" in text

    def test_what_is_found_is_given_back(self) -> None:
        change = {"logger": "root", "level": "DEBUG"}
        self.put("/console/levels.json", **change, seconds=60)
        self.put("/loglevel", level="ERROR")
        self.put("/console/levels.json", **change, seconds=0.01)
        self.until(lambda: self.level() != "DEBUG")
        assert self.level() == "ERROR"
        assert "changed from DEBUG to ERROR by the console, as before" in "\n".join(self.lines())

    def test_what_somebody_else_has_set_since_stays(self) -> None:
        self.put("/console/levels.json", logger="root", level="DEBUG", seconds=60)
        self.put("/loglevel", level="ERROR")
        self.stop_service()
        assert self.level() == "ERROR"
