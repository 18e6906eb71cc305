"""Probes: what they answer, to whom, and what they never wait for."""

import asyncio
import json
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, Literal

import pytest
from tornado.httpclient import HTTPResponse
from tornado.httputil import HTTPServerRequest
from tornado.routing import PathMatches
from tornado.web import RequestHandler
from tornado_chassis.application import Application
from tornado_chassis.health import Degraded, Health
from tornado_chassis.health.checks import results

from .settings import SERVICE, VERSION
from .testing import ChassisTest, does, http, raises


class Textless(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class TextlessValue:
    __str__ = Textless.__str__


CIRCLE: list[object] = []
CIRCLE.append(CIRCLE)
JANUARY = datetime(2030, 1, 31, tzinfo=UTC)
#: What a check returns or raises, what that makes of it, and what is shown on the admin port.
OUTCOMES: list[tuple[object, str, object]] = [
    (
        ConnectionError("no route to db.internal"),
        "fail",
        "ConnectionError: no route to db.internal",
    ),
    (ConnectionError("x" * 5000), "fail", f"ConnectionError: {'x' * 5000}"[:1000]),
    (Degraded("replica lags"), "warn", "Degraded: replica lags"),
    (asyncio.CancelledError(), "fail", "cancelled"),
    (Textless(), "fail", "Textless: <Textless whose text fails: ValueError>"),
    (TextlessValue(), "fail", "ValueError: no text"),
    (42, "pass", 42),
    (JANUARY, "pass", "2030-01-31 00:00:00+00:00"),
    ({"at": JANUARY}, "pass", {"at": "2030-01-31 00:00:00+00:00"}),
    (float("nan"), "pass", "nan"),
    (CIRCLE, "pass", "[[...]]"),
    ({(1, 2): 3}, "pass", "{(1, 2): 3}"),
]


class TestProbes(ChassisTest):
    def get_app(self) -> Application:
        app = super().get_app()
        self.health = self.service.health
        return app

    def status(self, response: HTTPResponse) -> tuple[int, str]:
        return response.code, json.loads(response.body, parse_constant=self.fail)["status"]

    def add(self, outcome: object, name: str = "database", **options: Any) -> None:
        """Adds a check that returns this, or raises it if it is an exception."""
        check = raises(outcome) if isinstance(outcome, BaseException) else does(lambda: outcome)
        self.health.add(name, check, **options)

    def reported(self, name: str = "database") -> dict[str, Any]:
        """What the admin port shows of a check."""
        (check,) = json.loads(self.fetch_admin("/health").body)["checks"][name]
        return dict(check)

    def test_all_pass_without_checks(self) -> None:
        for fetch in (self.fetch, self.fetch_admin):
            for path in ("/livez", "/readyz", "/health"):
                assert self.status(fetch(path)) == (200, "pass")
                for method in ("GET", "HEAD"):
                    response = fetch(path, method=method)
                    assert response.code == 200
                    assert response.headers["Cache-Control"] == "no-store"
                    assert response.headers["Content-Type"] == "application/health+json"
                    assert int(response.headers["Content-Length"]) > 0

    def test_report_follows_the_draft(self) -> None:
        self.add(42, "database:connections", component_type="datastore")
        report = json.loads(self.fetch_admin("/health").body)
        (check,) = report.pop("checks")["database:connections"]
        assert report == {
            "status": "pass",
            "version": VERSION.partition(".")[0],
            "releaseId": VERSION,
            "serviceId": SERVICE,
        }
        assert check.pop("time").endswith("+00:00")
        assert check == {"componentType": "datastore", "status": "pass", "observedValue": 42}

    def test_check_without_a_value_shows_its_duration(self) -> None:
        async def ping() -> None:
            await asyncio.sleep(0.02)

        self.health.add("database", ping)
        started = perf_counter()
        check = self.reported()
        assert check["observedUnit"] == "ms"
        assert 10 <= check["observedValue"] <= 1000 * (perf_counter() - started)

    def test_outcome_of_a_check_is_shown_on_the_admin_port_alone(self) -> None:
        for outcome, status, shown in OUTCOMES:
            self.health.checks.clear()
            self.add(outcome)
            for fetch in (self.fetch, self.fetch_admin):
                assert self.status(fetch("/livez")) == (200, "pass")
                for path in ("/readyz", "/health"):
                    code = 503 if status == "fail" else 200
                    assert self.status(fetch(path)) == (code, status), shown
            assert self.reported()["observedValue" if status == "pass" else "output"] == shown
            (check,) = json.loads(self.fetch("/health").body)["checks"]["database"]
            assert set(check) == {"componentType", "status", "time"}
            assert "output" not in json.loads(self.fetch("/readyz").body)

    def test_changes_of_state_are_logged_once(self) -> None:
        gone = ConnectionError("no route")
        errors = [None, gone, gone, Degraded("slow"), Degraded("slower"), None, None]

        async def ping() -> None:
            if error := errors.pop(0):
                raise error

        self.health.add("database", ping, ttl=0)
        with self.assertLogs(logger="tornado_chassis", level="DEBUG") as logs:
            for status in (200, 503, 503, 200, 200, 200, 200):
                assert self.fetch("/readyz").code == status
        records = [(each.levelname, each.getMessage()) for each in logs.records]
        changes = [each for each in records if "Check " in each[1]]
        assert changes == [
            ("WARNING", "Check database: fail: ConnectionError: no route"),
            ("WARNING", "Check database: warn: Degraded: slow"),
            ("INFO", "Check database: pass"),
        ]
        assert "ERROR" not in dict(records)

    def test_hanging_check_fails_and_delays_no_other_probe(self) -> None:
        released = asyncio.Event()

        async def hang() -> None:
            while True:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    if released.is_set():  # set at the end of the test
                        raise

        self.health.add("database", hang, timeout=0.01)
        assert self.status(self.fetch("/livez")) == (200, "pass")
        assert self.status(self.fetch_admin("/health")) == (503, "fail")
        assert self.reported()["output"] == "no answer within 0.01 s"
        released.set()

    async def test_checks_run_concurrently_and_once_for_all_callers(self) -> None:
        asked = []
        both = asyncio.Event()

        def check(name: str) -> None:
            async def ping() -> None:
                asked.append(name)
                if len(asked) == 2:
                    both.set()
                await both.wait()

            self.health.add(name, ping)

        check("a")
        check("b")
        ask = http("GET /readyz", "Connection: close")
        connections = [await self.connect(ask) for _ in range(10)]
        answers = await asyncio.gather(*(reader.read() for reader, _ in connections))
        assert [answer[:13] for answer in answers] == [b"HTTP/1.1 200 "] * 10
        assert sorted(asked) == ["a", "b"]

    def test_result_is_kept_for_its_ttl(self) -> None:
        asked: list[str] = []
        self.health.add("kept", does(lambda: asked.append("kept")), ttl=3600)
        self.health.add("not kept", does(lambda: asked.append("not kept")), ttl=0)
        self.fetch("/readyz")
        self.fetch("/readyz")
        assert sorted(asked) == ["kept", "not kept", "not kept"]

    async def test_caller_that_goes_away_or_is_cancelled_does_not_cancel_the_check(self) -> None:
        entered, release = asyncio.Event(), asyncio.Event()

        async def slow() -> None:
            entered.set()
            await release.wait()

        self.health.add("slow", slow)
        _, gone = await self.connect(http("GET /readyz"))
        await entered.wait()
        cancelled, other = (asyncio.create_task(results(self.health)) for _ in range(2))
        reader, _ = await self.connect(http("GET /readyz"))
        gone.close()
        await self.until(lambda: self.app.runtime.in_flight == 1)
        cancelled.cancel()
        await asyncio.wait({cancelled})
        release.set()
        assert b" 200 " in await reader.readline()
        assert (await other)["slow"]["status"] == "pass"

    def test_readiness_shows_whether_it_is_starting_or_draining(self) -> None:
        states: list[Literal["starting", "draining"]] = ["starting", "draining"]
        for state in states:
            self.app.runtime.state = state
            for fetch in (self.fetch, self.fetch_admin):
                response = fetch("/readyz")
                assert response.code == 503
                assert json.loads(response.body) == {"status": "fail", "output": state}
                assert self.status(fetch("/livez")) == (200, "pass")
            report = self.fetch_admin("/health")
            assert self.status(report) == (503, "fail")
            assert json.loads(report.body)["output"] == state


class TestNoProbes(ChassisTest):
    features = "logs"

    def test_a_check_is_added_and_nothing_runs_it(self) -> None:
        asked: list[str] = []
        self.service.health.add("database", does(lambda: asked.append("database")))
        for path in ("/livez", "/readyz", "/health", "/hello/a"):
            assert self.fetch(path).code == (200 if path == "/hello/a" else 404)
        assert asked == []
        assert "database" in self.run_async(lambda: results(self.service.health))
        assert asked == ["database"]


class Compared(PathMatches):
    """Counts the requests that it is compared with."""

    count = 0

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        Compared.count += 1
        return super().match(request)


class TestRoutes(ChassisTest):
    handlers = [(Compared(rf"/own/{number}"), RequestHandler) for number in range(10)]  # noqa: RUF012

    def test_probes_are_not_compared_with_the_routes_of_the_service(self) -> None:
        Compared.count = 0
        for path in ("/livez", "/readyz", "/health"):
            assert self.fetch(path).code == 200
        assert Compared.count == 0
        self.fetch("/own/9")
        assert Compared.count == 10


def test_a_check_must_be_async() -> None:
    with pytest.raises(TypeError, match="must be an async function"):
        Health().add("database", lambda: None)  # type: ignore[arg-type, return-value]
