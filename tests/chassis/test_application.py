"""What features are notified of, whichever handler serves the request."""

import asyncio
import gc
import json
import logging
import time
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar
from unittest import mock

import pytest
from tornado import web
from tornado.iostream import StreamClosedError
from tornado.routing import HostMatches, Rule
from tornado.web import FallbackHandler, HTTPError, RequestHandler
from tornado.wsgi import WSGIContainer
from tornado_chassis import hooks, rejections
from tornado_chassis.application import Application
from tornado_chassis.exchange import Exchange, correlation
from tornado_chassis.feature import Export, Feature, Runtime, Total
from tornado_chassis.handlers import JsonHandler, NotFound

from .routes import ROUTES, Boom, Slow, Upload, broken, named
from .testing import ChassisTest, RecordedTest, Recorder, http

mark: ContextVar[str] = ContextVar("mark", default="unset")


class Marking(Recorder):
    """Sets a context variable at the start, and keeps what it is at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.marks: list[str] = []

    def request_started(self, exchange: Exchange) -> None:
        super().request_started(exchange)
        mark.set(exchange.request.path)

    def request_ended(self, exchange: Exchange) -> None:
        super().request_ended(exchange)
        self.marks.append(mark.get())


Broken = broken(Feature, "request_started request_ended request_failed", RuntimeError)


class Marks(RequestHandler):
    """Answers with the context variable as each stage of a request sees it."""

    def prepare(self) -> None:
        self.seen = [mark.get()]

    async def get(self) -> None:
        self.seen.append(mark.get())
        mark.set("changed")
        await asyncio.sleep(0)
        self.finish({"seen": self.seen, "ids": dict(correlation.get())})


class Cleared(JsonHandler):
    """Clears its answer in both ways, and keeps what that leaves of it."""

    here: dict[str, Any]
    by_tornado: dict[str, Any]

    def get(self) -> None:
        self.set_status(404)
        self.set_header("X-Own", "dropped")
        self.write("not sent")
        self.clear()
        Cleared.here = {**vars(self), "_headers": dict(self._headers)}
        RequestHandler.clear(self)
        Cleared.by_tornado = {**vars(self), "_headers": dict(self._headers)}
        self.finish()


class Detached(RequestHandler):
    """Goes on with the connection in a protocol of its own."""

    async def get(self) -> None:
        stream = self.detach()
        await stream.write(b"something else")
        stream.close()


class Pieces(RequestHandler):
    async def get(self) -> None:
        for piece in ("one ", "two ", "three"):
            self.write(piece)
            await self.flush()


class Own(RequestHandler):
    """Overrides what the chassis relies on, too."""

    subclasses = 0
    logged: ClassVar[list[object]] = []

    def __init_subclass__(cls) -> None:
        Own.subclasses += 1

    def clear(self) -> None:
        super().clear()
        self.set_header("X-Own", "kept")

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        assert typ is type(value)
        assert tb is value.__traceback__
        Own.logged.append(value)

    def get(self, what: str = "") -> None:
        if what == "boom":
            raise ValueError("boom")
        if what:
            raise HTTPError(409, "a conflict")
        self.finish({"class": type(self).__name__})


class OfOwn(Own):
    pass


class OfItsOwn(Own):
    """Sets what the chassis relies on, in the instance."""

    def initialize(self) -> None:
        self.log_exception = self.keep  # type: ignore[method-assign]

    def keep(self, typ: Any, value: Any, tb: Any) -> None:
        Own.logged.append(typ.__name__)


class Chosen(FallbackHandler):
    """Finds what answers by itself, and keeps it under no name that Tornado knows."""

    def initialize(self, choices: dict[str, Any]) -> None:  # type: ignore[override]
        self.choices = choices

    def prepare(self) -> None:
        self.fallback = self.choices[self.request.path]
        super().prepare()


class Missing(NotFound):
    def initialize(self) -> None:
        """Calls no `super`, as in Tornado's own examples."""


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("418 I'm a Teapot", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"short"]


def failing_wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    raise LookupError("not yet")


#: Requests, and of each its route, its status and what of it failed.
EXCHANGES: list[tuple[bytes, str, int, str]] = [
    # The route is the template, not the path.
    (http("GET /hello/world"), "/hello/{name}", 200, ""),
    (http("GET /nowhere"), "", 404, ""),
    (http("GET /static/testing.py"), "/static/{path}", 200, ""),
    (http("GET /old"), "/old", 301, ""),
    (http("BREW /"), "/", 405, ""),
    (http("GET /detached"), "/detached", 0, ""),
    (http("PUT /upload", body=b"all of it"), "/upload", 200, ""),
    (http("GET /inner/pieces"), "/inner/.*", 200, ""),
    (http("GET /inner/boom"), "/inner/.*", 500, "ValueError"),
    (http("GET /boom"), "/boom", 500, "ValueError"),
    (http("GET /status/403"), "/status/{1}", 403, ""),
    (http("GET /status/500"), "/status/{1}", 500, "500"),
    (http("GET /status/503"), "/status/{1}", 503, "503"),
    (http("GET /upstream"), "/upstream", 500, "StreamClosedError"),  # lost to another server
    (http("GET /flushed"), "/flushed", 200, "ValueError"),
    (http("GET /finished"), "/finished", 200, "ValueError"),
    (http("GET /unmade"), "/unmade", 500, "LookupError"),
    (http("PUT /unmade/upload", body=b"all of it"), "/unmade/upload", 500, "LookupError"),
    (http("PUT /broken", body=b"half-rest"), "/broken", 500, "ValueError"),
    (http("PUT /broken/later", body=b"half-rest"), "/broken/later", 500, "ValueError"),
    (http("GET /wsgi"), "/wsgi", 418, ""),
    (http("GET /failing"), "/failing", 500, "LookupError"),
    (http("GET /chosen"), "/chosen", 200, ""),
    (http("GET /missing"), "/missing", 404, ""),
]


class TestApplication(RecordedTest):
    def get_app(self) -> Application:
        super().get_app()
        self.recorder = self.marking = Marking()
        failing = (r".*/failing", FallbackHandler, {"fallback": WSGIContainer(failing_wsgi)})
        deep = (r"/inner/deep", FallbackHandler, {"fallback": web.Application([(r".*", Boom)])})
        inner = web.Application(
            [
                *((r"/inner/slow", Slow), (r"/inner/boom", Boom), (r"/inner/pieces", Pieces)),
                *(failing, deep),
            ]
        )
        chosen = web.Application([(r"/chosen", Pieces)])
        own = [
            *named(Marks, Cleared, Detached),
            (r"/unmade/upload", broken(Upload, "set_default_headers", LookupError)),
            (r"/broken", broken(Upload, "data_received", ValueError)),
            (r"/broken/later", broken(Upload, "data_received", ValueError, later=True)),
            (r"/upstream", broken(RequestHandler, "get", StreamClosedError)),
            (r"/own", OfOwn),
            (r"/own/(\w+)", OfOwn),
            (r"/instance/(\w+)", OfItsOwn),
            (r"/wsgi", FallbackHandler, {"fallback": WSGIContainer(wsgi)}),
            (r"/failing", *failing[1:]),
            (r"/inner/.*", FallbackHandler, {"fallback": inner}),
            (r"/chosen", Chosen, {"choices": {"/chosen": chosen}}),
            (r"/missing", Missing),
        ]
        # Alone: what features are chosen makes no difference.
        self.app = Application(
            [*ROUTES, *own], [Broken(), self.recorder], default_handler_class=NotFound
        )
        return self.app

    def test_every_exchange_has_its_route_its_status_and_its_failure(self) -> None:
        for request, route, status, error_type in EXCHANGES:
            with self.subTest(request=request):
                self.recorder.clear()
                fields = b"\r\nX-Request-ID: r1\r\nConnection: close\r\n\r\n"
                answer = self.raw(request.replace(b"\r\n\r\n", fields, 1))
                exchange = self.one()
                if route == "/detached":
                    assert answer == b"something else"
                else:
                    assert answer.startswith(b"HTTP/1.1 %d " % status)
                    assert b"\r\nX-Request-Id: r1\r\n" in answer
                    assert exchange.status == status
                assert (exchange.route, exchange.error_type) == (route, error_type)
                assert exchange.method == ("_OTHER" if b"BREW" in request else request[:3].decode())
                assert (exchange.error is None) == (error_type == "")
                assert self.recorder.failed == ([exchange.error] if error_type else [])
                assert 0 < exchange.duration < 60

    def test_answers_arrive_whole(self) -> None:
        for path, body in (("/inner/pieces", b"one two three"), ("/wsgi", b"short")):
            assert self.fetch(path).body == body
        assert self.fetch("/upload", method="PUT", body="all of it").body == b"9 uploaded"
        failed = json.loads(self.fetch("/unmade", headers={"X-Request-ID": "r1"}).body)
        assert failed["request_id"] == "r1"

    def test_client_that_goes_away_reads_499(self) -> None:
        for path in ("/slow", "/inner/slow"):
            self.recorder.clear()
            Slow.entered.clear()
            Slow.release.clear()
            self.leave(path)
            assert self.one().status == 499
            assert self.recorder.failed == []

    async def test_upload_that_is_cut_off_ends(self) -> None:
        _, writer = await self.connect(http("PUT /upload", body=b"half", size=9))
        await self.until(lambda: self.recorder.started)
        writer.close()
        await self.until(lambda: self.recorder.ended)
        assert self.one().status == 499

    async def test_websocket_ends_when_it_is_open(self) -> None:
        socket = await self.websocket()
        await socket.write_message("hello")
        assert await socket.read_message() == "hello"
        await socket.write_message("boom")
        assert await socket.read_message() is None
        assert (self.one().route, self.one().status) == ("/ws", 101)
        assert [str(error) for error in self.recorder.failed] == ["boom in a message"]

    async def test_context_is_the_exchange_s_own(self) -> None:
        reader, writer = await self.connect(http("GET /marks"))
        await reader.readuntil(b"}}")
        # On the same connection; its log lines must not carry the ids of the one before.
        writer.write(http("GET /marks", "X-Request-ID: second"))
        answer = await reader.readuntil(b"}}")
        writer.write(b"nonsense\r\n\r\n")
        ids: list[dict[str, str]] = []

        def keep(record: logging.LogRecord) -> bool:
            ids.append(dict(correlation.get()))
            return True

        filters = mock.patch.object(rejections.log, "filters", [keep])
        with filters, self.assertLogs(rejections.log, "INFO"):
            await reader.read()
        assert ids == [{}]
        assert b'"seen": ["/marks", "/marks"], "ids": {"request_id": "second"}' in answer
        assert self.marking.marks == ["/marks", "/marks"]

    def test_harmless_request_id_is_taken_and_echoed(self) -> None:
        response = self.fetch("/boom", headers={"X-Request-ID": "a.B_9-"})
        assert response.headers["X-Request-ID"] == "a.B_9-"
        assert self.one().request_id == "a.B_9-"

    def test_hostile_request_id_is_replaced(self) -> None:
        for hostile in ("", "a b", "x" * 129, 'a"b', "a\x1b[31m", "ü"):
            response = self.raw(http("GET /", "Connection: close", f"X-Request-ID: {hostile}"))
            assert b" 200 " in response or b" 400 " in response
        ids = [exchange.request_id for exchange in self.recorder.ended]
        assert len(set(ids)) == len(ids) >= 5
        assert all(len(each) == 32 and each.isalnum() for each in ids)

    def test_answer_has_a_date_and_no_version_of_the_server(self) -> None:
        before = int(time.time())
        headers = self.fetch("/").headers
        date = parsedate_to_datetime(headers["Date"]).timestamp()
        assert before <= date <= time.time()
        assert "Server" not in headers

    def test_json_handler_clears_its_answer_as_tornado_does(self) -> None:
        assert self.fetch("/cleared").body == b""
        here, by_tornado = dict(Cleared.here), dict(Cleared.by_tornado)
        headers, theirs = here.pop("_headers"), by_tornado.pop("_headers")
        assert here == by_tornado
        del headers["Date"], theirs["Date"], theirs["Server"]
        assert headers == theirs

    async def test_requests_one_after_another_do_not_hold_others_up(self) -> None:
        await self.connect(http("GET /hello/many") * 100)
        await self.connect(http("GET /hello/one"))
        await self.until(lambda: len(self.recorder.ended) == 101)
        paths = [exchange.request.path for exchange in self.recorder.ended]
        assert paths.index("/hello/one") < 10

    def test_request_behind_the_last_one_of_a_connection_never_starts(self) -> None:
        server: Any = self.http_server
        old = http("GET /").replace(b"1.1", b"1.0")
        for last in (http("GET /", "Connection: close"), old):
            self.recorder.clear()
            assert self.raw(last + http("GET /") + http("GET /boom")).count(b"HTTP/1.1 ") == 1
            self.until(lambda: not server._connections)
            assert self.one().status == 200

    def test_nothing_is_left_to_the_garbage_collector(self) -> None:
        ended: list[weakref.ref[Exchange]] = []
        self.app.runtime._hooks["request_started"].clear()
        self.app.runtime._hooks["request_ended"][:] = [lambda each: ended.append(weakref.ref(each))]
        gc.disable()
        self.addCleanup(gc.enable)
        assert self.fetch("/hello/world").code == 200
        assert [exchange() for exchange in ended] == [None]

    def test_patterns_too_intricate_for_a_template_stand_as_they_are(self) -> None:
        routes = [
            (r"/v(\d+)/(?:a|b)", Marks),
            (r"/((\d+)-(\d+))", Marks),
            Rule(HostMatches("api.example"), [(r"/under/(\w+)/(\d+)$", Marks)]),
        ]
        self.app.add_handlers(".*", routes)
        self.fetch("/v1/b")
        self.fetch("/1-2")
        self.fetch("/under/x/1", headers={"Host": "api.example"})
        named = [each.route for each in self.recorder.ended]
        assert named == [r"/v(\d+)/(?:a|b)", r"/((\d+)-(\d+))", "/under/{1}/{2}"]

    def test_wsgi_application_answers_once_on_a_connection_that_stays_open(self) -> None:
        for path, status in (("/wsgi", b"418"), ("/failing", b"500")):
            last = http("GET /wsgi", "Connection: close")
            answers = self.raw(http(f"GET {path}") + last)
            assert answers[9:12] == status
            assert answers.count(b"HTTP/1.1 ") == 2
            assert answers.endswith(b"short")
        assert [each.status for each in self.recorder.ended] == [418, 418, 500, 418]

    def test_fallback_within_an_application_behind_one_is_answered_for(self) -> None:
        for path, kind in (("/inner/failing", LookupError), ("/inner/deep", ValueError)):
            self.recorder.clear()
            assert self.fetch(path).code == 500
            assert self.one().route == "/inner/.*"
            assert [type(each) for each in self.recorder.failed] == [kind]

    def test_clear_and_log_exception_of_the_class_or_the_instance_are_called(self) -> None:
        Own.logged.clear()
        for path, status in (("/own/boom", 500), ("/own/conflict", 409)):
            response = self.fetch(path, headers={"X-Request-ID": "r1"})
            assert response.code == status
            assert response.headers["X-Own"] == "kept"
            assert response.headers["X-Request-ID"] == "r1"
        assert [type(each) for each in Own.logged] == [ValueError, HTTPError]
        assert [str(each) for each in self.recorder.failed] == ["boom"]
        Own.logged.clear()
        assert self.fetch("/instance/boom").code == 500
        assert Own.logged == ["ValueError"]
        assert [str(each) for each in self.recorder.failed] == ["boom", "boom"]

    def test_class_of_a_handler_stays_one(self) -> None:
        self.fetch("/own")
        self.fetch("/own/boom")
        assert [each.route for each in self.recorder.ended] == ["/own", "/own/{1}"]
        assert Own.subclasses == 2  # those above, and nothing that was made of them since
        (rule,) = [each for each in self.app.wildcard_router.rules if each.target is OfOwn][:1]
        assert rule.target is OfOwn

    def test_errors_are_logged_without_the_query(self) -> None:
        with self.assertLogs(hooks.__name__, "WARNING") as logs:
            self.fetch("/boom?token=secret")
            self.fetch("/status/503?token=secret")
            kind = "Content-Type: multipart/form-data"
            self.raw(http("POST /?token=secret", "Connection: close", kind, body=b"-"))
        output = "".join(logs.output)
        assert "Unhandled exception in GET /boom" in output
        assert "400 POST /: Invalid body: " in output
        stacks = [each.exc_info[0] for each in logs.records if each.exc_info]
        assert [each for each in stacks if each is not RuntimeError] == [ValueError, HTTPError]
        assert "secret" not in output


class Nested(Feature):
    def __init__(self, name: str, order: list[str]) -> None:
        self.name, self.order = name, order

    def request_started(self, exchange: Exchange) -> None:
        self.order.append(f"start {self.name}")

    def request_ended(self, exchange: Exchange) -> None:
        self.order.append(f"end {self.name}")


class TestOrder(ChassisTest):
    def test_last_to_see_the_start_is_the_first_to_see_the_end(self) -> None:
        order: list[str] = []
        self.observed_by(Nested("one", order), Nested("two", order))
        assert self.app.runtime.state == "starting"
        self.fetch("/")
        assert order == ["start one", "start two", "end two", "end one"]


class TestRequestLines(ChassisTest):
    def test_tornado_writes_lines_if_no_feature_does(self) -> None:
        logging_feature = Feature()
        logging_feature.logs_requests = True
        for features, count in (([], 1), ([logging_feature], 0)):
            logged: list[RequestHandler] = []
            port = self.serve(Application(ROUTES, features, log_function=logged.append))
            self.fetch(f"http://127.0.0.1:{port}/hello/a")
            assert len(logged) == count


class Failing(Feature):
    """Fails when it is asked what it has counted and sent."""

    def totals(self) -> Iterator[Total]:
        yield "before", "Counted before.", 1
        raise LookupError("totals")

    def exports(self) -> Iterator[Export]:
        raise LookupError("exports")


class Counting(Feature):
    def totals(self) -> Iterator[Total]:
        yield "after", "Counted after.", 2

    def exports(self) -> Iterator[Export]:
        yield Export("Backend", "lines", 3, 0)


def test_feature_that_cannot_count_costs_itself_only_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runtime = Runtime([Failing(), Counting()])
    for _ in range(2):
        assert [name for name, *_ in runtime.totals()] == ["before", "after"]
        assert [*runtime.exports()] == [Export("Backend", "lines", 3, 0)]
    assert [each.message for each in caplog.records] == [
        "Failing.totals failed",
        "Failing.exports failed",
    ]
