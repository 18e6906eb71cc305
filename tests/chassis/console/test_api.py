"""What the console knows of the service, as JSON."""

import asyncio
import contextlib
import gc
import json
import logging
import os
import tempfile
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from tornado import web
from tornado.httpclient import AsyncHTTPClient
from tornado.httputil import (
    HTTPHeaders,
    HTTPServerConnectionDelegate,
    HTTPServerRequest,
    ResponseStartLine,
)
from tornado.web import RequestHandler
from tornado_chassis import tracing
from tornado_chassis.application import Application
from tornado_chassis.background import Work
from tornado_chassis.console import Console
from tornado_chassis.console.recorder import REQUESTS
from tornado_chassis.exchange import correlation
from tornado_chassis.feature import Export, Feature
from tornado_chassis.settings import parsing, setting
from tornado_chassis.settings.setting import HIDDEN

from ..routes import Slow
from ..settings import Settings
from ..test_values import failing
from ..testing import ChassisTest, http

BUILD = {"BUILD_COMMIT": "abc123", "BUILD_TIME": "2030-01-31T12:00:00Z"}
HOSTILE = "<img src=x onerror=alert(1)>"
JSON = {"Content-Type": "application/json"}

log = logging.getLogger("shop.orders")


class Calling(RequestHandler):
    """Asks the service itself for something."""

    async def get(self) -> None:
        path = "hello/x"
        if self.get_query_argument("fails", ""):
            path = "nowhere"
            with suppress(ValueError), tracing.span("charge") as span:
                span.set_attribute("items", 3)
                span.set_attribute("card", failing(KeyError()))
                raise ValueError("declined")
        await AsyncHTTPClient().fetch(f"http://{self.request.host}/{path}", raise_error=False)


class Gathering(RequestHandler):
    """Waits for tasks of its own."""

    async def get(self) -> None:
        await asyncio.gather(*(Slow.release.wait() for _ in range(30)))


def answer(request: HTTPServerRequest) -> None:
    connection: Any = request.connection
    connection.write_headers(ResponseStartLine("", 204, "No Content"), HTTPHeaders())
    connection.finish()


class Exporter(Feature):
    """Has sent some, and logs what comes."""

    sent = 7

    def totals(self) -> Iterable[Any]:
        yield "parcels_sent", "Parcels that have left.", 7
        yield "parcels_lost", "Parcels that have not.", 1, {"reason": "rain"}

    def exports(self) -> Iterable[Export]:
        yield Export("Post", "parcels", self.sent, 1)
        yield Export("Pigeon", "letters")

    def request_started(self, exchange: Any) -> None:
        log.warning("Saw %s", exchange.request.path, extra={"order": 5})


class ConsoleTest(ChassisTest):
    def get_app(self) -> Application:
        super().get_app()
        self.exporter = Exporter()
        app = self.observed_by(self.exporter)
        app.add_handlers(".*", [(r"/calling", Calling), (r"/gathering", Gathering)])
        return app

    @property
    def console(self) -> Console:
        [console] = (each for each in self.app.runtime.features if isinstance(each, Console))
        return console

    @property
    def background(self) -> list[Work]:
        return self.service.app.runtime.background.works

    def ask(self, path: str) -> Any:
        answer = self.fetch_admin(f"/console/{path}")
        assert answer.code == 200, answer.body
        assert answer.headers["Content-Type"] == "application/json"
        return json.loads(answer.body)

    def send(self, path: str, method: str, body: object) -> tuple[int, Any]:
        answer = self.fetch_admin(
            f"/console/{path}", method=method, body=json.dumps(body), headers=JSON
        )
        return answer.code, json.loads(answer.body)

    def latest(self, **wanted: object) -> Any:
        """The last request that has these, with all that is known of it."""
        requests = self.ask("requests.json")["requests"]
        found = next(each for each in requests if wanted.items() <= each.items())
        return {**found, **self.ask(f"requests/{found['number']}.json"), "error": found["error"]}

    def paths(self, query: str = "") -> list[str]:
        """The paths of the requests that are kept, the last one first."""
        return [each["path"] for each in self.ask(f"requests.json?{query}")["requests"]]

    def in_trace(self, **ids: str) -> tuple[str, dict[str, str]]:
        """The page of a request that has no other ids of a trace than these, and its ids."""
        self.fetch("/hello/x")
        entry = self.console.recorder.requests[-1]
        own: dict[str, str] = entry[7]
        for name in ("trace_id", "span_id", "trace_flags"):
            own.pop(name, None)
        own.update(ids)
        return f"requests/{entry[0]}.json", own

    async def asked(self, path: str) -> Any:
        answer = await self.http_client.fetch(f"http://127.0.0.1:{self.admin_port}/console/{path}")
        return json.loads(answer.body)


class TestConsole(ConsoleTest):
    def test_root_lists_what_there_is(self) -> None:
        answer = self.fetch_admin("/", headers={"Accept": "*/*"})
        assert answer.headers["Content-Type"].startswith("text/plain")
        paths = [word for word in answer.body.decode().split() if word.startswith("/console/")]
        assert len(paths) == 12
        for path in paths:
            if "NUMBER" not in path and "profile" not in path:
                self.ask(path.removeprefix("/console/"))

    def test_browser_gets_the_page(self) -> None:
        answer = self.fetch_admin("/", headers={"Accept": "text/html,*/*;q=0.8"})
        assert b"<!doctype html>" in answer.body
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        for name, kind in (("page.css", "text/css"), ("page.js", "text/javascript")):
            answer = self.fetch_admin(f"/console/{name}")
            assert answer.headers["Content-Type"].startswith(kind)
            assert len(answer.body) > 1000

    def test_request_shows_up(self) -> None:
        self.fetch("/hello/x?token=in-the-query", headers={"User-Agent": "curl"})
        latest = self.latest()
        shown = [latest[name] for name in ("method", "route", "path", "status")]
        assert shown == ["GET", "/hello/{name}", "/hello/x", 200]
        assert (latest["client"], latest["user_agent"]) == ("127.0.0.1", "curl")
        assert 0 < latest["duration"] < 10
        assert "in-the-query" not in json.dumps(latest)

    def test_failing_request_leads_to_its_stack_and_lines(self) -> None:
        self.fetch("/hello/another")
        request_id = self.fetch("/boom").headers["X-Request-ID"]
        found = self.latest()
        assert found["error"] == "ValueError: boom"
        assert found["ids"]["request_id"] == request_id
        [error] = found["errors"]
        assert 'raise ValueError("boom")' in error["stack"]
        messages = [line["message"] for line in found["logs"]]
        assert messages == ["Saw /boom", "Unhandled exception in GET /boom"]
        assert found["logs"][0]["fields"] == "order=5"

    def test_errors_are_grouped(self) -> None:
        for path in ("/boom", "/boom", "/status/503", "/status/404"):
            self.fetch(path)
        groups = self.ask("errors.json")["errors"]
        assert [(each["type"], each["where"], each["count"]) for each in groups] == [
            ("HTTPError", r"GET /status/{1}", 1),
            ("ValueError", "GET /boom", 2),
        ]
        assert groups[1]["first"] < groups[1]["last"]
        assert "routes.py" in groups[1]["place"]
        self.app.runtime.notify(Feature.background_failed, "mail", ValueError("no route"))
        group, *_ = self.ask("errors.json")["errors"]
        assert (group["where"], group["message"]) == ("background work mail", "no route")

    async def test_request_in_flight_shows_where_it_stands(self) -> None:
        async with self.busy():
            await self.connect(http("GET /gathering"))
            await self.until(lambda: self.app.runtime.in_flight == 2)
            slow, gathering = (await self.asked("requests.json"))["in_flight"]
            found = await self.asked(f"requests/{slow['number']}.json")
            waits = await self.asked(f"requests/{gathering['number']}.json")
        assert (slow["path"], slow["status"]) == ("/slow", 0)
        assert slow["has_latency_objective"] is True
        assert found["duration"] >= slow["duration"] > 0
        assert any("in Slow.get" in line for line in found["stack"])
        assert any("in Gathering.get" in line for line in waits["stack"])
        await self.until(lambda: not self.app.runtime.in_flight)
        assert (await self.asked("requests.json"))["in_flight"] == []

    async def test_response_that_is_long_by_design_says_so(self) -> None:
        with mock.patch.object(Slow, "has_latency_objective", False, create=True):
            async with self.busy():
                [slow] = (await self.asked("requests.json"))["in_flight"]
        assert slow["has_latency_objective"] is False

    def test_requests_are_filtered(self) -> None:
        for path in ("/hello/x", "/boom", "/status/404", "/nowhere"):
            self.fetch(path)
        paths: dict[str, list[str]] = {
            "status=4xx": ["/nowhere", "/status/404"],
            "status=500": ["/boom"],
            "route=/hello/%7Bname%7D": ["/hello/x"],
            "route=unmatched": ["/nowhere"],
            "text=BOOM": ["/boom"],
            "slower=60": [],
            "limit=1": ["/nowhere"],
        }
        for query, found in paths.items():
            assert self.paths(query) == found, query
        for query in ("limit=x", "limit=nan", "slower=1e999", "limit=-1", "status=%ff"):
            self.ask(f"requests.json?{query}")
        assert self.fetch_admin("/console/requests/12345.json").code == 404

    def test_timeline_has_the_spans_below_the_request(self) -> None:
        page, _ = self.in_trace(trace_id="a" * 32, span_id="b" * 16)
        for number, (parent, trace) in enumerate((("b", "a"), ("0", "a"), ("c", "a"), ("b", "f"))):
            span = SimpleNamespace(name=f"part {number}", kind="INTERNAL", trace_id=trace * 32)
            span.span_id, span.parent_id = str(number) * 16, parent * 16
            span.started, span.ended = 10**18 + number, 10**18 + number + 10**6
            self.console.span_ended(span)
        spans = self.ask(page)["spans"]
        assert [each["name"] for each in spans] == ["part 0", "part 1"]
        assert spans[0]["duration"] == 0.001

    def test_call_of_a_request_without_a_trace_is_in_its_timeline(self) -> None:
        page, ids = self.in_trace()
        call = SimpleNamespace(method="GET", server_address="a", server_port=80, duration=0.25)
        token = correlation.set(ids)
        self.console.call_ended(call)
        correlation.reset(token)
        [span] = self.ask(page)["spans"]
        assert (span["name"], round(span["duration"], 3)) == ("GET a:80", 0.25)

    def test_call_is_in_the_timeline_of_its_request(self) -> None:
        self.fetch("/calling")
        [span] = self.latest(route="/calling")["spans"]
        assert span["kind"] == "CLIENT"
        assert span["name"].startswith("GET")

    def test_now_has_what_blocked_the_loop_and_what_was_rejected(self) -> None:
        incident = SimpleNamespace(time=1.0, duration=2.0, file="orders.py", line=7, request_id="")
        incident.function, incident.route, incident.stack = "parse", "/orders", "a" * 10_000
        for _ in range(30):
            self.console.loop_blocked(incident)
            self.console.request_rejected("malformed")
        now = self.ask("now.json")
        assert now["refused"] == {"malformed": 30}
        assert len(now["blocked"]) == 20
        assert now["blocked"][0]["function"] == "parse"
        assert len(now["blocked"][0]["stack"]) < 5000

    def test_routes_have_handlers_and_figures(self) -> None:
        for path in ("/hello/x", "/hello/y", "/boom"):
            self.fetch(path)
        routes = {each["route"]: each for each in self.ask("routes.json")["routes"]}
        hello, boom = routes["/hello/{name}"], routes["/boom"]
        assert (hello["count"], hello["errors"], boom["errors"]) == (2, 0, 1)
        assert hello["handler"].endswith("routes.Hello")
        assert 0 < hello["p50"] <= hello["p99"] < 10
        assert routes["/upload"]["count"] == 0

    def test_routes_need_not_lead_to_handlers(self) -> None:
        inner = web.Application([("/inner/calling", Calling)])
        own = [
            ("/function", answer),
            ("/delegate", HTTPServerConnectionDelegate()),
            ("/inner/.*", inner),
        ]
        self.app.add_handlers(".*", own)
        assert self.fetch("/function").code == 204
        routes = {each["route"]: each for each in self.ask("routes.json")["routes"]}
        named = {route: routes[route]["handler"].rpartition(".")[2] for route in routes}
        expected = {"/function": "answer", "/delegate": "HTTPServerConnectionDelegate"}
        expected |= {"/inner/.*": "Application", "/inner/calling": "Calling"}
        assert expected.items() <= named.items()
        assert routes["/function"]["count"] == 1

    def test_seconds_are_summed_up(self) -> None:
        self.fetch("/hello/x")
        self.fetch("/boom")
        self.console.recorder.end_second(0.25)
        everything = self.ask("now.json")
        # Not the last of them: on a busy machine, another one has ended since.
        [second] = (each for each in everything["seconds"] if each["lag"] == 0.25)
        assert second["memory"] > 1024 * 1024
        assert sum(each["requests"] for each in everything["seconds"]) == 2
        assert sum(each["errors"] for each in everything["seconds"]) == 1
        assert everything["state"] == "ready"
        assert self.ask(f"now.json?since={second['time'] + 60}")["seconds"] == []

    def test_check_that_fails_makes_the_service_not_ready(self) -> None:
        async def ping() -> None:
            raise ConnectionError("no database")

        assert self.ask("now.json")["is_ready"] is True
        self.app.runtime.health.add("database:connections", ping)
        self.ask("checks.json")
        now = self.ask("now.json")
        assert (now["state"], now["is_ready"]) == ("ready", False)

    def test_lines_are_filtered(self) -> None:
        log.info("One")
        token = correlation.set({"request_id": "abc"})
        log.error("Two")
        correlation.reset(token)
        lines = self.ask("logs.json?level=WARNING")["lines"]
        assert [(line["message"], line["request_id"]) for line in lines] == [("Two", "abc")]
        lines = self.ask("logs.json?text=ONE")["lines"]
        assert [(line["message"], line["level"]) for line in lines] == [("One", "INFO")]

    def test_level_is_changed_and_changed_back_at_the_latest_by_a_stop(self) -> None:
        body = {"logger": "shop.orders", "level": "debug", "seconds": 60}
        assert self.send("levels.json", "PUT", body)[0] == 200
        assert log.getEffectiveLevel() == logging.DEBUG
        levels = {each["logger"]: each for each in self.ask("levels.json")["loggers"]}
        assert levels["shop.orders"]["level"] == "DEBUG"
        assert 0 < levels["shop.orders"]["seconds_left"] <= 60
        # Once more, as to go back to what was there before both.
        self.send("levels.json", "PUT", {**body, "level": "ERROR", "seconds": 0.01})
        self.until(lambda: log.level == logging.NOTSET)
        assert self.console.changed_levels == {}
        self.send("levels.json", "PUT", {**body, "level": "ERROR"})
        self.run_async(self.console.shutdown)
        assert log.level == logging.NOTSET

    def test_nonsense_changes_nothing(self) -> None:
        good = {"logger": "root", "level": "INFO", "seconds": 60}
        wrong: dict[str, list[object]] = {"logger": ["never.heard.of", 5], "level": ["LOUD", None]}
        wrong["seconds"] = [0, "60", True, 1e99]
        for name, values in wrong.items():
            for value in values:
                assert self.send("levels.json", "PUT", {**good, name: value})[0] == 400, value
        assert self.send("levels.json", "PUT", [good])[0] == 400
        assert self.console.changed_levels == {}

    async def test_work_shows_where_it_stands(self) -> None:
        async def wait() -> None:
            await asyncio.Event().wait()

        self.service.background("mail", wait)
        await asyncio.sleep(0)
        shown = await self.asked("work.json")
        [mail] = shown["work"]
        assert (mail["name"], mail["state"]) == ("mail", "running")
        assert (mail["last_failed"], mail["error"]) == (None, "")
        assert any("wait" in line for line in mail["stack"])
        assert 0 < mail["seconds"] < 60
        [task] = [task for task in shown["tasks"] if task["name"] == "mail"]
        [later] = (await self.asked("work.json"))["work"]
        assert 0 <= task["at_least_seconds"] <= later["seconds"]

    async def test_work_that_failed_does_not_run(self) -> None:
        async def fail() -> None:
            raise ValueError("no route")

        self.service.background("mail", fail)
        self.service.background("post", fail, restart=True)
        await self.until(lambda: all(each.failures for each in self.background))
        mail, post = (await self.asked("work.json"))["work"]
        assert (mail["state"], mail["seconds"]) == ("failed", None)
        assert (post["state"], post["seconds"]) == ("restarting", None)
        assert post["error"] == "ValueError: no route"
        assert post["last_failed"] > self.console.started
        mail, post = (await self.asked("now.json"))["failed_work"]
        assert (mail["name"], mail["failures"], mail["state"]) == ("mail", 1, "failed")
        assert (post["error"], post["state"]) == ("ValueError: no route", "restarting")
        # What runs again for some minutes is no longer among them; what does not run, is.
        for each in self.background:
            self.console.failed_work[each.name] = (0.0, "")
        self.background[1].state = "running"
        failed = (await self.asked("now.json"))["failed_work"]
        assert [each["name"] for each in failed] == ["mail"]

    async def test_age_of_a_task_counts_from_when_it_was_first_seen(self) -> None:
        async def age() -> float:
            tasks = (await self.asked("work.json"))["tasks"]
            [found] = [each for each in tasks if each["name"] == "forgotten"]
            return float(found["at_least_seconds"])

        task = asyncio.create_task(asyncio.Event().wait(), name="forgotten")
        first = await age()
        self.console.tasks[task] -= 60
        second = await age()
        task.cancel()
        assert 0 <= first < 60 <= second < 120

    def test_ended_tasks_are_not_kept(self) -> None:
        async def run() -> None:
            task = asyncio.create_task(asyncio.sleep(0))
            self.console.note_new_tasks()
            assert task in self.console.tasks
            await task

        self.run_async(run)
        gc.collect()
        assert all(not task.done() for task in self.console.tasks)

    def test_exports_say_when_they_last_sent_beside_other_totals(self) -> None:
        def shown() -> dict[str, Any]:
            self.console._note_exports()
            return {each["backend"]: each for each in self.ask("exports.json")["exports"]}

        post = shown()["Post"]
        assert (post["unit"], post["sent"], post["dropped"]) == ("parcels", 7, 1)
        assert shown()["Post"]["last_sent"] == post["last_sent"] > 0
        self.exporter.sent += 1
        assert shown()["Post"]["last_sent"] > post["last_sent"]
        pigeon = shown()["Pigeon"]
        assert (pigeon["sent"], pigeon["last_sent"]) == (None, None)
        totals = {each["name"]: each["total"] for each in self.ask("exports.json")["totals"]}
        assert (totals["parcels_sent"], totals["parcels_lost rain"]) == (7, 1)

    def test_trace_of_a_request_is_linked_to_where_it_was_sampled(self) -> None:
        self.console.trace_url = "http://a/{trace_id}"
        page, ids = self.in_trace(trace_id="b" * 32)
        assert self.ask(page)["trace_url"] is None
        for flags, link in (("01", f"http://a/{'b' * 32}"), ("00", None)):
            ids.update(trace_flags=flags)
            assert self.ask(page)["trace_url"] == link

    def test_profile_is_a_tree_and_a_file(self) -> None:
        assert self.fetch_admin("/console/profile.json").code == 404
        code, body = self.send("profile.json", "POST", {"seconds": 0.2})
        assert code == 200
        assert body["samples"] > 0
        assert body["tree"]["value"] >= body["samples"]
        assert "MainThread" in [each["name"] for each in body["tree"]["children"]]
        file = self.ask("profile.json")
        assert file["$schema"] == "https://www.speedscope.app/file-format-schema.json"
        [main] = (each for each in file["profiles"] if each["name"] == "MainThread")
        assert len(main["samples"]) == len(main["weights"])
        frames = file["shared"]["frames"]
        assert all(index < len(frames) for sample in main["samples"] for index in sample)

    async def test_profile_shows_a_thread_pool_that_is_full(self) -> None:
        let_go = threading.Event()
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1, thread_name_prefix="pool"))
        waiting = [loop.run_in_executor(None, let_go.wait) for _ in range(2)]
        # Not with a client that looks up the address in this pool.
        reader, writer = await asyncio.open_connection("127.0.0.1", self.admin_port)
        writer.write(
            b"POST /console/profile.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b'Content-Type: application/json\r\nContent-Length: 16\r\n\r\n{"seconds": 0.2}'
        )
        answer = await reader.read()
        writer.close()
        let_go.set()
        await asyncio.gather(*waiting)
        tree = json.loads(answer.partition(b"\r\n\r\n")[2])["tree"]
        assert "pool_0" in [each["name"] for each in tree["children"]]

    async def test_one_profile_at_a_time_and_none_beyond_a_stop(self) -> None:
        address = f"http://127.0.0.1:{self.admin_port}/console/profile.json"
        options: dict[str, Any] = {"method": "POST", "headers": JSON, "raise_error": False}

        async def sample() -> int:
            answer = await self.http_client.fetch(address, body='{"seconds": 60}', **options)
            return answer.code

        first = asyncio.ensure_future(sample())
        await self.until(lambda: self.console.profile)
        second = await sample()
        await self.console.shutdown()
        assert (await first, second) == (200, 409)

    def test_hostile_text_is_data(self) -> None:
        path = "/" + HOSTILE.replace(" ", "%20")
        self.raw(f"GET {path} HTTP/1.0\r\nUser-Agent: {HOSTILE}\r\n\r\n".encode())
        self.raw(b"GET /\xff\xfe HTTP/1.0\r\nUser-Agent: \xff\r\n\r\n")
        log.error("%s", HOSTILE)
        # Past the logger: pytest captures what that is given, and xdist cannot pass this on.
        self.console.tail.handle(
            log.makeRecord(log.name, logging.ERROR, "a.py", 1, "%s \ud800", (HOSTILE,), None)
        )
        self.app.runtime.notify(Feature.background_failed, HOSTILE, ValueError(HOSTILE))
        for view in ("requests", "errors", "logs", "now", "work"):
            answer = self.fetch_admin(f"/console/{view}.json")
            assert answer.headers["Content-Type"] == "application/json"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.body.isascii()
            json.loads(answer.body)

    def test_last_requests_are_kept(self) -> None:
        self.fetch("/hello/first")
        for number in range(REQUESTS):
            self.fetch(f"/hello/{number}")
        assert len(self.paths()) == REQUESTS
        assert "/hello/first" not in self.paths()


class TestParts(ConsoleTest):
    flags: tuple[str, ...] = "01", "00"

    def test_part_that_failed_is_shown_with_its_reason_and_its_attributes(self) -> None:
        for flags in self.flags:
            parent = f"00-{'a' * 32}-{'b' * 16}-{flags}"
            self.fetch("/calling?fails=1", headers={"traceparent": parent})
            charge, call = self.latest(route="/calling")["spans"]
            assert charge["error"] == "ValueError: declined"
            assert charge["attributes"] == "items=3 card=<Order whose text fails: KeyError>"
            assert (call["kind"], call["error"]) == ("CLIENT", "404")
            assert "http.response.status_code=404" in call["attributes"].split(" ")


class TestPartsOfAnIdleExporter(TestParts):
    features = "logs jaeger console"
    flags = ("01",)


class TestBlocked(ConsoleTest):
    environ = {"LOOP_BLOCKED_SECONDS": "0.05"}  # noqa: RUF012

    def test_request_that_blocked_the_loop_is_named_and_has_the_line(self) -> None:
        self.fetch("/blocking/call/400", headers={"X-Request-ID": "abc"})
        self.until(lambda: any(each["route"] for each in self.console.blocked))
        [blocked] = (each for each in self.ask("now.json")["blocked"] if each["route"])
        assert (blocked["function"], blocked["request_id"]) == ("block", "abc")
        assert blocked["file"].endswith("tests/chassis/routes.py")
        logs = self.latest(route=blocked["route"])["logs"]
        [line] = (each for each in logs if each["logger"].endswith(".watch"))
        assert line["message"].startswith("The event loop was blocked for 0.")
        assert "in block" in line["stack"]


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError


@dataclass(frozen=True, kw_only=True)
class Own(Settings):
    """A team's settings, with another default of one of the chassis."""

    drain_timeout_seconds: float = 7.0

    smtp_pass: str = "hunter2"
    db_pwd: str = "hunter2"
    dsn_of_cache: str = "redis://:hunter2@cache/0"
    repository: str = "https://hunter2@git.example/orders"
    database: str = "postgres://app:hun/hunter2@db/orders"
    libpq: str = "host=db user=app password='hunter2 hunter2' dbname=orders"
    brokers: tuple[str, ...] = setting(("amqp://a:hunter2@b1", "amqp://a:hunter2@b2"), parse=str)
    queue: str = "Endpoint=sb://queue/;SharedAccessKey=hunter2"
    go: str = "app:hunter2@tcp(db:3306)/orders"
    passengers: int = setting(4, parse=parsing.integer(1, 9))
    plan: object = setting(Unprintable(), parse=str)
    nothing: int = setting(0, parse=parsing.integer(0, 9))


class TestSettings(ConsoleTest):
    environ = {"MAX_CONNECTIONS": "7", "LOOP_BLOCKED_SECONDS": ""} | BUILD
    kind = Own

    @property
    def shown(self) -> dict[str, Any]:
        return {each["name"]: each for each in self.ask("settings.json")["settings"]}

    def test_source_and_meaning(self) -> None:
        port = self.shown["PORT"]
        assert port["meaning"] == "Port to listen on, or 0 for any free port."
        assert self.shown["MAX_CONNECTIONS"]["source"] == "environment"

    def test_what_is_read_once_is_not_read_again(self) -> None:
        with contextlib.chdir(tempfile.mkdtemp()):
            Path(".env").write_text("PORT=9000\nMAX_CONNECTIONS=9\n")
            self.enterContext(mock.patch.dict(os.environ, {"HOST": "0.0.0.0"}))
            shown = self.shown
        found = {name: (shown[name]["value"], shown[name]["source"]) for name in ("HOST", "PORT")}
        assert found == {"HOST": ("127.0.0.1", "default"), "PORT": ("8000", "default")}

    def test_value_in_force_is_shown(self) -> None:
        assert self.shown["PLAN"]["value"].startswith("<Unprintable")
        names = "LOOP_BLOCKED_SECONDS", "STATSD_PREFIX", "OTEL_SERVICE_NAME", "NOTHING"
        values = [self.shown[name]["value"] for name in names]
        assert values == ["0.1", "my-service", "my-service", "0"]

    def test_own_settings_are_first(self) -> None:
        settings = self.ask("settings.json")["settings"]
        own = [each["name"] for each in settings if each["is_own"]]
        assert own[0] == "DRAIN_TIMEOUT_SECONDS"  # which it has declared again
        assert len(own) == 13
        assert [each["is_own"] for each in settings[:14]] == [True] * 13 + [False]

    def test_secrets_are_hidden_however_they_are_called(self) -> None:
        answer = self.fetch_admin("/console/settings.json").body.decode()
        assert "hunter2" not in answer
        assert self.shown["PASSENGERS"]["value"] == "4"
        assert self.shown["SMTP_PASS"]["value"] == HIDDEN
        assert self.shown["LIBPQ"]["value"] == f"host=db user=app password={HIDDEN} dbname=orders"

    def test_now_says_what_was_built_and_when(self) -> None:
        now = self.ask("now.json")
        assert (now["commit"], now["built"]) == ("abc123", 1896091200)
