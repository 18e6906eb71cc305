"""What is reported to Sentry about an error, and what is not."""

import asyncio
import gzip
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest import mock

import pytest
import sentry_sdk
import sentry_sdk.scope as scope_module
from tornado.ioloop import IOLoop
from tornado.web import RequestHandler
from tornado_chassis.application import Application
from tornado_chassis.errors.sentry import Sentry as Feature
from tornado_chassis.exchange import correlation
from tornado_chassis.service import Service
from tornado_chassis.settings import read

from .settings import SERVICE, VERSION, Settings
from .test_values import Mute, Unnotable, uncaptured
from .testing import ChassisTest, process, reserved_port

SECRETS = {"Cookie": "session=hidden", "Authorization": "Bearer hidden"}


class Sentry(ThreadingHTTPServer):
    """Accepts envelopes as Sentry does, and keeps their events."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Ingest)
        self.events: list[dict[str, Any]] = []
        self.text = ""
        self.sizes: list[int] = []
        self.status = 200
        self.dsn = f"http://key@127.0.0.1:{self.server_port}/1"


class Ingest(BaseHTTPRequestHandler):
    server: Sentry

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        self.server.text += body.decode()
        self.server.sizes.append(len(body))
        _, *items = body.split(b"\n")
        for header, payload in zip(items[::2], items[1::2], strict=False):
            if json.loads(header)["type"] == "event":
                self.server.events.append(json.loads(payload))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def listening() -> Iterator[Sentry]:
    server = Sentry()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Ids(RequestHandler):
    """Fails with the ids of its request as the message."""

    def post(self) -> None:
        raise LookupError(json.dumps(dict(correlation.get())))


class Order(RequestHandler):
    """Fails with something in a local variable that nobody else may see."""

    def post(self) -> None:
        order = self.request.body.decode()
        raise LookupError(f"order of {len(order)} characters")


class Account(RequestHandler):
    """Sets what belongs to its request, then fails if asked to."""

    def initialize(self) -> None:
        sentry_sdk.set_context("handler", {"client": self.get_query_argument("user")})

    async def get(self) -> None:
        user = self.get_query_argument("user")
        assert sentry_sdk.get_isolation_scope()._user is None
        sentry_sdk.set_user({"id": user})
        sentry_sdk.set_tag("user", user)
        sentry_sdk.get_current_scope().set_tag("current", user)
        sentry_sdk.add_breadcrumb(message=f"came as {user}")
        await asyncio.sleep(0.001)
        if self.get_query_argument("fails", ""):
            raise LookupError(user)


class Large(RequestHandler):
    """Fails with a report of several MiB."""

    def get(self, what: str) -> None:
        error = LookupError("lost")
        match what:
            case "message":
                error = LookupError("x" * 3_000_000 + "\N{SNOWMAN}" * 1_000_000)
            case "breadcrumbs":
                for number in range(100):
                    sentry_sdk.add_breadcrumb(message=f"{number} " + "x" * 100_000)
            case "context":
                sentry_sdk.set_context("order", {f"{i}": "x" * 100_000 for i in range(100)})
            case "tags":
                sentry_sdk.set_tags({f"tag {i}": "x" * 1000 for i in range(5_000)})
            case "causes":
                for _ in range(80):
                    try:
                        raise LookupError("x" * 20_000) from error
                    except LookupError as raised:
                        error = raised
                    error.add_note("y" * 1000)
        raise error


class Detailed(Exception):
    detail = property(lambda self: 1 // 0)


class Raising(RequestHandler):
    error: Exception

    def get(self) -> None:
        sentry_sdk.set_tag("own", "\ud800")
        raise self.error


class SentryTest(ChassisTest):
    def setUp(self) -> None:
        listener = listening()
        self.sentry = listener.__enter__()
        self.addCleanup(listener.__exit__, None, None, None)
        self.environ = {"SENTRY_DSN": self.sentry.dsn, "ENVIRONMENT": "testing", **self.more()}
        super().setUp()

    def more(self) -> dict[str, str]:
        """Further settings."""
        return {}

    def get_app(self) -> Application:
        app = super().get_app()
        app.add_handlers(".*", [(r"/ids", Ids), (r"/order", Order), (r"/raising", Raising)])
        app.add_handlers(".*", [(r"/account", Account), (r"/large/(.*)", Large)])
        return app

    def tearDown(self) -> None:
        super().tearDown()
        sentry_sdk.get_global_scope().set_client(None)

    def events(self) -> list[dict[str, Any]]:
        sentry_sdk.flush()
        return self.sentry.events

    def one(self) -> dict[str, Any]:
        (event,) = self.events()
        return event

    def exception(self, event: dict[str, Any]) -> tuple[str, str]:
        last = event["exception"]["values"][-1]
        return last["type"], last["value"]


class TestSentry(SentryTest):
    def test_unhandled_exception(self) -> None:
        response = self.fetch("/boom")
        event = self.one()
        assert self.exception(event) == ("ValueError", "boom")
        assert event["transaction"] == "GET /boom"
        assert event["request"]["method"] == "GET"
        assert event["request"]["url"] == self.get_url("/boom")
        assert event["release"] == f"{SERVICE}@{VERSION}"
        assert event["environment"] == "testing"
        assert event["tags"]["http.route"] == "/boom"
        assert event["tags"]["request_id"] == response.headers["X-Request-ID"]

    def test_exception_that_cannot_be_shown_is_reported(self) -> None:
        uncaptured()
        raised = [Mute(), Unnotable(), Detailed(), ValueError("a\ud800b"), KeyError({5: "\udfff"})]
        for error in raised:
            Raising.error = error
            assert self.fetch("/raising").code == 500
        # As a reader in another language takes them.
        assert json.dumps(self.events(), ensure_ascii=False).encode()
        found = [self.exception(event) for event in self.events()]
        assert [kind for kind, _ in found] == [type(error).__name__ for error in raised]
        assert found[3][1] == "a?b"

    def test_ids_of_the_request_are_reported_and_secrets_are_not(self) -> None:
        path = "/ids?token=hidden"
        self.fetch(path, method="POST", headers=SECRETS, body="password=hidden")
        event = self.one()
        ids = json.loads(self.exception(event)[1])
        assert ids["request_id"]
        assert {name: event["tags"][name] for name in ids} == ids
        ids.pop("request_id")
        trace = event["contexts"]["trace"]
        assert {name: trace[name] for name in ids} == ids
        assert event["request"]["url"] == self.get_url("/ids")
        assert "hidden" not in self.sentry.text

    def test_local_variables_are_not_reported(self) -> None:
        self.fetch("/order", method="POST", body="hidden")
        assert self.exception(self.one()) == ("LookupError", "order of 6 characters")
        assert "hidden" not in self.sentry.text

    def test_http_error_is_reported_from_500_on(self) -> None:
        self.fetch("/status/404")
        self.fetch("/nowhere")
        assert self.events() == []
        self.fetch("/status/503")
        assert self.exception(self.one())[0] == "HTTPError"

    def test_exception_after_flush_and_after_finish(self) -> None:
        self.raw(b"GET /flushed HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        self.fetch("/finished")
        reported = [self.exception(event)[1] for event in self.events()]
        assert reported == ["after flush", "after finish"]

    async def test_exception_in_a_websocket_message(self) -> None:
        socket = await self.websocket()
        await socket.write_message("boom")
        assert await socket.read_message() is None
        socket.close()
        assert self.exception(self.one()) == ("ValueError", "boom in a message")

    def test_client_that_goes_away_is_not_an_error(self) -> None:
        self.leave()
        assert self.events() == []

    async def test_exception_outside_of_a_request(self) -> None:
        def fail() -> None:
            raise ValueError("in a callback")

        IOLoop.current().add_callback(fail)
        await asyncio.sleep(0.01)
        logging.getLogger("asyncio").error("no exception here")
        assert self.exception(self.one()) == ("ValueError", "in a callback")

    def test_errors_are_counted_as_sent_or_dropped(self) -> None:
        def exported() -> tuple[int | None, int | None]:
            [export] = (
                export for export in self.app.runtime.exports() if export.backend == "Sentry"
            )
            return export.sent, export.dropped

        self.fetch("/boom")
        self.one()
        assert exported() == (1, 0)
        self.sentry.status = 500
        self.fetch("/boom")
        sentry_sdk.flush()
        assert exported() == (1, 1)

    def test_stop_sends_what_is_left(self) -> None:
        self.fetch("/boom")
        for feature in self.app.runtime.features:
            self.run_async(feature.shutdown)
        assert len(self.sentry.events) == 1


class TestIsolation(SentryTest):
    def make_service(self) -> Service:
        # As `sentry_sdk` is when a module of a service imports it.
        with sentry_sdk.isolation_scope() as scope:
            scope.set_tag("region", "eu")
        for variable, made in (
            (scope_module._isolation_scope, scope),
            (scope_module._current_scope, None),
        ):
            self.addCleanup(variable.reset, variable.set(made))
        service = super().make_service()
        service.on_startup.append(self.begin)
        return service

    async def begin(self) -> None:
        """A callback of the start, and a task that goes on after it."""
        sentry_sdk.set_tag("shard", "7")
        sentry_sdk.get_current_scope().set_tag("pool", "open")
        self.is_listening = asyncio.Event()
        self.consumer = asyncio.create_task(self.consume())

    async def consume(self) -> None:
        await self.is_listening.wait()
        sentry_sdk.set_tag("message", "1")
        sentry_sdk.add_breadcrumb(message="took message 1")

    def set_by(self, user: str, event: dict[str, Any]) -> None:
        """Asserts that an event has what this user's request has set, and no other's."""
        assert event["user"] == {"id": user}
        assert (event["tags"]["user"], event["tags"]["current"]) == (user, user)
        assert [each["message"] for each in event["breadcrumbs"]["values"]] == [f"came as {user}"]
        assert event["contexts"]["handler"] == {"client": user}
        assert event["tags"]["region"] == "eu"

    def test_what_the_start_sets_is_in_every_report_and_what_goes_on_is_not(self) -> None:
        self.fetch("/boom")
        self.is_listening.set()
        self.until(self.consumer.done)
        self.fetch("/boom")
        for event in self.events():
            assert (event["tags"]["shard"], event["tags"]["pool"]) == ("7", "open")
            assert "message" not in event["tags"]
            assert not event.get("breadcrumbs", {}).get("values")

    def test_what_one_request_sets_is_in_no_other_s_report(self) -> None:
        self.fetch("/account?user=a")
        self.fetch("/account?user=b&fails=1")
        self.fetch("/boom")
        with_user, without = self.events()
        self.set_by("b", with_user)
        assert without["tags"]["region"] == "eu"
        assert "user" not in without
        assert "user" not in without["tags"]
        assert not without.get("breadcrumbs", {}).get("values")

    async def test_nor_on_a_connection_that_is_kept_or_at_the_same_time(self) -> None:
        async def talk(first: str, second: str) -> None:
            reader, writer = await self.connect()
            for query in (first, f"{second}&fails=1"):
                writer.write(f"GET /account?user={query} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
                if b"Content-Length: 0" not in head:
                    await reader.readuntil(b"</html>")
            writer.close()

        await asyncio.gather(talk("a", "b"), talk("c", "d"))
        one, other = sorted(self.events(), key=lambda event: str(event["tags"]["user"]))
        self.set_by("b", one)
        self.set_by("d", other)


class TestSize(SentryTest):
    def test_large_report_is_cut_and_arrives(self) -> None:
        for what in ("message", "breadcrumbs", "context", "tags", "causes"):
            self.sentry.events.clear()
            self.sentry.sizes.clear()
            self.fetch(f"/large/{what}")
            event = self.one()
            assert event["transaction"] == "GET /large/{1}"
            assert event["exception"]["values"][-1]["stacktrace"]["frames"], what
            assert max(self.sentry.sizes) < 1024 * 1024, what
            if what == "message":
                assert "x..." in self.exception(event)[1].replace(" ", "")
            elif what == "breadcrumbs":
                crumbs = event["breadcrumbs"]["values"]
                assert [crumb["message"][:2] for crumb in crumbs][-2:] == ["98", "99"]


class TestVariables(SentryTest):
    def more(self) -> dict[str, str]:
        proxy = f"127.0.0.1:{self.sentry.server_port}"
        own = {"SENTRY_RELEASE": "shop@9", "SENTRY_ENVIRONMENT": "staging"}
        return {"SENTRY_DSN": "http://key@sentry.test/1", "HTTP_PROXY": proxy, **own}

    def test_reports_go_through_the_proxy_with_sentry_s_own_names(self) -> None:
        self.fetch("/boom")
        event = self.one()
        assert self.exception(event) == ("ValueError", "boom")
        assert (event["release"], event["environment"]) == ("shop@9", "staging")


class TestBackgroundWork(SentryTest):
    def make_service(self) -> Service:
        async def refresh() -> None:
            raise ValueError("no prices")

        service = super().make_service()
        service.background("refresh prices", refresh)
        return service

    def test_exception_is_reported_with_the_name_of_the_work(self) -> None:
        self.run_async(lambda: asyncio.sleep(0))
        event = self.one()
        assert self.exception(event) == ("ValueError", "no prices")
        assert event["transaction"] == "refresh prices"
        assert event["transaction_info"] == {"source": "task"}


class TestEarlyError(SentryTest):
    def setUp(self) -> None:
        with mock.patch.object(Feature, "startup"):
            super().setUp()

    def test_error_before_the_sdk_is_loaded(self) -> None:
        assert not sentry_sdk.is_initialized()
        self.fetch("/boom")
        assert self.exception(self.one()) == ("ValueError", "boom")


class TestWithoutDsn(ChassisTest):
    def test_nothing_is_reported(self) -> None:
        assert not sentry_sdk.is_initialized()
        assert self.fetch("/boom").code == 500
        logging.getLogger("asyncio").error("failed", exc_info=ValueError())
        assert None in [each.sent for each in self.app.runtime.exports()]


@pytest.mark.parametrize(
    "dsn", ["nonsense", "http://127.0.0.1/1", "ftp://key@127.0.0.1/1", "http://key@a:b/1"]
)
def test_malformed_dsn_is_logged_and_ignored(dsn: str) -> None:
    settings = read(Settings, {"SENTRY_DSN": dsn})
    assert settings.sentry_dsn is None
    [warning] = settings.warnings
    assert "should look like https://key@host/project-number" in warning


def test_dsn_is_not_in_the_repr() -> None:
    assert "hidden" not in repr(read(Settings, {"SENTRY_DSN": "http://hidden@127.0.0.1/1"}))


@pytest.mark.parametrize("errors", [0, 3])
def test_reports_that_cannot_be_sent_are_logged_once_a_minute(errors: int) -> None:
    with reserved_port() as port, process(SENTRY_DSN=f"http://key@127.0.0.1:{port}/1") as service:
        service.wait_until_listening()
        service.wait_for_output("is running")
        for _ in range(errors):
            with service.get("/boom") as connection:
                assert connection.recv(4096)
        service.process.terminate()
        assert service.wait() == 0
        assert service.output().count("Connection refused") == bool(errors)
