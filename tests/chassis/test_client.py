"""What is known of outgoing calls."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from time import perf_counter
from typing import Any, ClassVar

from tornado.httpclient import AsyncHTTPClient, HTTPError, HTTPRequest, HTTPResponse
from tornado.simple_httpclient import SimpleAsyncHTTPClient
from tornado.web import RequestHandler
from tornado_chassis import client
from tornado_chassis.application import Application
from tornado_chassis.client import Calls
from tornado_chassis.exchange import correlation
from tornado_chassis.feature import Call, Feature

from .testing import ChassisTest, reserved_port


class Seen(Feature):
    def __init__(self) -> None:
        self.seen: list[Call] = []
        self.ids: list[str] = []

    def call_ended(self, call: Call) -> None:
        self.seen.append(call)
        self.ids.append(correlation.get().get("request_id", ""))


class Outward(RequestHandler):
    async def get(self, path: str) -> None:
        client = AsyncHTTPClient()
        assert isinstance(client, SimpleAsyncHTTPClient)
        # A second call waits for its turn, and is begun by what ends the first.
        client.max_clients = 1
        await client.fetch(f"http://{self.request.host}/{path}")


class CallsTest(ChassisTest):
    def get_app(self) -> Application:
        Calls.servers.clear()
        super().get_app()
        self.calls = Seen()
        return self.observed_by(self.calls)


class TestClient(CallsTest):
    handlers: ClassVar = [(r"/outward/(.*)", Outward)]

    def call(self, url: str, **kwargs: Any) -> Call:
        async def fetch() -> None:
            request = HTTPRequest(self.get_url(url) if url.startswith("/") else url, **kwargs)
            with contextlib.suppress(HTTPError, OSError, ValueError):
                await AsyncHTTPClient().fetch(request)

        started = perf_counter()
        self.run_async(fetch)
        [call] = self.calls.seen
        self.calls.seen.clear()
        assert 0 < call.duration < perf_counter() - started
        return call

    def test_call(self) -> None:
        *described, _ = self.call("/hello/a?secret")
        assert described == ["GET", "127.0.0.1", self.get_http_port(), "http", 200, ""]

    def test_status_and_error(self) -> None:
        made_up = {"method": "BREW", "allow_nonstandard_methods": True}
        for url, options, method, status, error_type in (
            ("/status/503", {}, "GET", 503, "503"),
            ("/nowhere", {}, "GET", 404, "404"),
            ("/status/400", {}, "GET", 400, "400"),
            ("/slow", {"request_timeout": 0.05}, "GET", 0, "HTTPTimeoutError"),
            ("/old", {}, "GET", 200, ""),  # a redirect is one call
            ("/", made_up, "_OTHER", 405, "405"),
            ("http://[", {}, "GET", 0, "ValueError"),
            ("gopher://a/", {}, "GET", 0, "ValueError"),
        ):
            call = self.call(url, **options)
            assert (call.method, call.status, call.error_type) == (method, status, error_type), url
            assert call.scheme != "gopher"

    def test_refused_connection(self) -> None:
        with reserved_port() as port:
            call = self.call(f"http://127.0.0.1:{port}/")
        assert (call.status, call.error_type) == (0, "ConnectionRefusedError")
        assert call.server_port == port

    async def test_it_is_known_whose_call_it_was(self) -> None:
        async def ask(name: str) -> None:
            url = self.get_url("/outward/hello/a")
            await self.http_client.fetch(url, headers={"X-Request-ID": name})

        await asyncio.gather(ask("first"), ask("second"))
        assert sorted(self.calls.ids) == ["first", "second"]

    def test_servers_beyond_the_first_hundred_are_one(self) -> None:
        Calls.servers.update((f"{number}.test", 80) for number in range(99))
        self.call("/")
        with reserved_port() as port:
            call = self.call(f"http://127.0.0.1:{port}/")
        assert (call.server_address, call.server_port) == ("_OTHER", 0)
        assert len(Calls.servers) == client.MAX_SERVERS
        assert self.call("/").server_port == self.get_http_port()


class TeamsClient(SimpleAsyncHTTPClient):
    def fetch_impl(self, request: HTTPRequest, callback: Callable[[HTTPResponse], None]) -> None:
        super().fetch_impl(request, callback)  # in a way of its own, as the client of libcurl does


OPTIONS: dict[str, Any] = {"max_clients": 50, "defaults": {"user_agent": "shop"}}


class Sent(RequestHandler):
    def get(self) -> None:
        headers = self.request.headers
        self.finish({name: headers.get(name) for name in ("User-Agent", "Traceparent")})


class TestClientsOfTheTeam(CallsTest):
    handlers: ClassVar = [("/sent", Sent)]

    def get_app(self) -> Application:
        saved = AsyncHTTPClient._save_configuration()
        self.addCleanup(AsyncHTTPClient._restore_configuration, saved)
        # Before the service is made.
        AsyncHTTPClient.configure(TeamsClient, **OPTIONS)
        return super().get_app()

    def check(self, make: Callable[[], AsyncHTTPClient], kind: type[AsyncHTTPClient]) -> None:
        async def fetch() -> dict[str, str]:
            client = make()
            assert type(client) is kind
            response = await client.fetch(self.get_url("/sent"))
            sent: dict[str, str] = json.loads(response.body)
            return sent

        sent = self.run_async(fetch)
        assert (sent["User-Agent"], sent["Traceparent"][:3]) == ("shop", "00-")
        (call,) = self.calls.seen
        assert (call.status, call.server_port) == (200, self.get_http_port())

    def test_what_was_configured_before_stays_and_is_observed(self) -> None:
        self.check(AsyncHTTPClient, TeamsClient)

    def test_what_is_configured_afterwards_is_observed(self) -> None:
        AsyncHTTPClient.configure(None, **OPTIONS)
        self.check(AsyncHTTPClient, SimpleAsyncHTTPClient)

    def test_instance_of_its_own_is_observed(self) -> None:
        def make() -> AsyncHTTPClient:
            return TeamsClient(force_instance=True, **OPTIONS)

        self.check(make, TeamsClient)
