"""What is reported to Sentry about an error, and what is not."""

import asyncio
import json
import logging
from contextlib import suppress
from typing import Any, ClassVar
from unittest import mock

import pytest
import sentry_sdk
import sentry_sdk.scope as scope_module
from tornado.httpclient import HTTPError
from tornado.web import RequestHandler
from tornado_chassis.errors.sentry import Sentry as Feature
from tornado_chassis.exchange import correlation
from tornado_chassis.service import Service
from tornado_chassis.settings import read

from .settings import SERVICE, VERSION, Settings
from .test_values import Mute, Unnotable, uncaptured
from .testing import SECONDS, ChassisTest, does, listening, reserved_port
from .tracing.receiver import Request, receiving

SECRETS = {"Cookie": "session=hidden", "Authorization": "Bearer hidden"}


def events_of(request: Request) -> list[dict[str, Any]]:
    """Those in an envelope."""
    _, *items = request.body.split(b"\n")
    pairs = zip(items[::2], items[1::2], strict=False)
    return [json.loads(event) for head, event in pairs if json.loads(head)["type"] == "event"]


class Telling(RequestHandler):
    """Fails with the ids of its request as the message, and something in a local variable that
    nobody else may see."""

    def post(self) -> None:
        order = self.request.body.decode()
        assert order
        raise LookupError(json.dumps(dict(correlation.get())))


class Account(RequestHandler):
    """Sets what belongs to its request, then fails if asked to."""

    def initialize(self) -> None:
        self.user = self.get_query_argument("user")
        sentry_sdk.set_context("handler", {"client": self.user})

    async def get(self) -> None:
        user = self.user
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
    handlers: ClassVar = [
        ("/telling", Telling),
        ("/raising", Raising),
        ("/account", Account),
        ("/large/(.*)", Large),
    ]

    def setUp(self) -> None:
        self.sentry = self.enterContext(receiving())
        dsn = f"http://key@127.0.0.1:{self.sentry.server_port}/1"
        self.environ = {"SENTRY_DSN": dsn, "ENVIRONMENT": "testing", **self.more()}
        self.addCleanup(sentry_sdk.get_global_scope().set_client, None)
        self.enterContext(mock.patch("tornado_chassis.errors.sentry_sdk.FLUSH_SECONDS", SECONDS))
        super().setUp()

    def more(self) -> dict[str, str]:
        """Further settings."""
        return {}

    def received(self) -> list[dict[str, Any]]:
        return [event for request in self.sentry.requests for event in events_of(request)]

    def events(self) -> list[dict[str, Any]]:
        """What has been received once all is sent."""
        sentry_sdk.flush(SECONDS)
        return self.received()

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
        path = "/telling?token=hidden"
        self.fetch(path, method="POST", headers=SECRETS, body="password=hidden")
        event = self.one()
        ids = json.loads(self.exception(event)[1])
        assert ids["request_id"]
        assert {name: event["tags"][name] for name in ids} == ids
        ids.pop("request_id")
        trace = event["contexts"]["trace"]
        assert {name: trace[name] for name in ids} == ids
        assert event["request"]["url"] == self.get_url("/telling")
        # Nor are local variables, in which it was.
        assert b"hidden" not in b"".join(request.body for request in self.sentry.requests)

    async def test_each_error_is_reported_once_and_nothing_else(self) -> None:
        def fail() -> None:
            raise ValueError("in a callback")

        for path in ("/status/404", "/nowhere", "/status/503", "/flushed", "/finished"):
            with suppress(HTTPError):
                await self.http_client.fetch(self.get_url(path))
        socket = await self.websocket()
        await socket.write_message("boom")
        assert await socket.read_message() is None
        asyncio.get_running_loop().call_soon(fail)
        await asyncio.sleep(0)
        logging.getLogger("asyncio").error("no exception here")
        assert [self.exception(event) for event in self.events()] == [
            ("HTTPError", "HTTP 503: Service Unavailable"),
            ("ValueError", "after flush"),
            ("ValueError", "after finish"),
            ("ValueError", "boom in a message"),
            ("ValueError", "in a callback"),
        ]

    def test_client_that_goes_away_is_not_an_error(self) -> None:
        self.leave()
        assert self.events() == []

    def test_errors_are_counted_as_sent_or_dropped(self) -> None:
        for status, counted in ((200, (1, 0)), (500, (1, 1))):
            self.sentry.statuses.append(status)
            self.fetch("/boom")
            sentry_sdk.flush(SECONDS)
            exports = {
                each.backend: (each.sent, each.dropped) for each in self.app.runtime.exports()
            }
            assert exports["Sentry"] == counted

    def test_stop_sends_what_is_left(self) -> None:
        self.fetch("/boom")
        self.stop_service()
        assert len(self.received()) == 1


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
            self.sentry.requests.clear()
            self.fetch(f"/large/{what}")
            event = self.one()
            assert event["transaction"] == "GET /large/{1}"
            assert event["exception"]["values"][-1]["stacktrace"]["frames"], what
            assert max(len(request.body) for request in self.sentry.requests) < 1024 * 1024, what
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


class TestInitialised(SentryTest):
    """A team's own `sentry_sdk.init`, such as one that hides what its messages hold."""

    def make_service(self) -> Service:
        self.initialise()
        return super().make_service()

    def initialise(self) -> None:
        def hide(event: Any, hint: object) -> Any:
            event["exception"]["values"][-1]["value"] = "hidden"
            return event

        off: Any = {"default_integrations": False, "auto_enabling_integrations": False}
        sentry_sdk.init(self.environ["SENTRY_DSN"], release="own", before_send=hide, **off)

    def test_it_stays_as_it_was_set(self) -> None:
        self.fetch("/boom")
        event = self.one()
        assert (event["release"], event["transaction"]) == ("own", "GET /boom")
        assert self.exception(event) == ("ValueError", "hidden")
        [export] = [each for each in self.app.runtime.exports() if each.backend == "Sentry"]
        assert export[1:] == ("errors given to the SDK", 1, None)


class TestInitialisedLater(TestInitialised):
    def make_service(self) -> Service:
        service = SentryTest.make_service(self)
        service.on_startup.append(does(self.initialise))
        return service


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
    with reserved_port() as port, listening(SENTRY_DSN=f"http://key@127.0.0.1:{port}/1") as service:
        for _ in range(errors):
            with service.get("/boom") as connection:
                assert connection.recv(4096)
        if errors:  # which a stop waits for only briefly
            service.wait_for_output("Connection refused")
        assert service.stop() == 0
        assert service.output().count("Connection refused") == bool(errors)
