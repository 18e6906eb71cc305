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

import pytest
from tornado import web
from tornado.iostream import StreamClosedError
from tornado.routing import HostMatches, Rule
from tornado.web import FallbackHandler, HTTPError, RequestHandler, stream_request_body
from tornado.wsgi import WSGIContainer
from tornado_chassis import hooks, rejections
from tornado_chassis.application import Application
from tornado_chassis.exchange import Exchange, correlation
from tornado_chassis.feature import Export, Feature, Runtime, Total
from tornado_chassis.handlers import JsonHandler, NotFound

from .routes import ROUTES, Boom, Slow, Stream
from .testing import ChassisTest, Recorder

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


class Broken(Feature):
    def request_started(self, exchange: Exchange) -> None:
        raise RuntimeError("broken feature")

    request_ended = request_started

    def request_failed(self, exchange: Exchange, error: BaseException) -> None:
        raise RuntimeError("broken feature")


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


class Unmade(RequestHandler):
    def initialize(self) -> None:
        raise LookupError("no pool")


@stream_request_body
class UnmadeUpload(RequestHandler):
    def set_default_headers(self) -> None:
        raise LookupError("no headers")


@stream_request_body
class BrokenUpload(RequestHandler):
    def data_received(self, chunk: bytes) -> None:
        raise ValueError("no more")

    def put(self) -> None:
        self.finish("never")


@stream_request_body
class BrokenLaterUpload(RequestHandler):
    async def data_received(self, chunk: bytes) -> None:
        await asyncio.sleep(0)
        raise ValueError("no more")

    put = BrokenUpload.put


class Detached(RequestHandler):
    """Goes on with the connection in a protocol of its own."""

    async def get(self) -> None:
        stream = self.detach()
        await stream.write(b"something else")
        stream.close()


class Upstream(RequestHandler):
    """Loses another connection than its client's."""

    def get(self) -> None:
        raise StreamClosedError


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


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("418 I'm a Teapot", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"short"]


def failing_wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    raise LookupError("not yet")


class TestApplication(ChassisTest):
    def get_app(self) -> Application:
        super().get_app()
        self.recorder = Marking()
        inner = web.Application(
            [(r"/inner/slow", Slow), (r"/inner/boom", Boom), (r"/inner/pieces", Pieces)]
        )
        own = [
            (r"/marks", Marks),
            (r"/cleared", Cleared),
            (r"/unmade", Unmade),
            (r"/unmade/upload", UnmadeUpload),
            (r"/broken", BrokenUpload),
            (r"/broken/later", BrokenLaterUpload),
            (r"/detached", Detached),
            (r"/upstream", Upstream),
            (r"/own", OfOwn),
            (r"/own/(\w+)", OfOwn),
            (r"/instance/(\w+)", OfItsOwn),
            (r"/wsgi", FallbackHandler, {"fallback": WSGIContainer(wsgi)}),
            (r"/failing", FallbackHandler, {"fallback": WSGIContainer(failing_wsgi)}),
            (r"/inner/.*", FallbackHandler, {"fallback": inner}),
        ]
        # Alone: what features are chosen makes no difference.
        self.app = Application(
            [*ROUTES, *own], [Broken(), self.recorder], default_handler_class=NotFound
        )
        return self.app

    def one(self) -> Exchange:
        """The one exchange that there was: started once, ended once."""
        assert len(self.recorder.started) == 1
        assert self.recorder.ended == self.recorder.started
        assert self.app.runtime.in_flight == 0
        return self.recorder.ended[0]

    def test_route_is_the_template_not_the_path(self) -> None:
        self.fetch("/hello/world")
        exchange = self.one()
        assert exchange.route == "/hello/{name}"
        assert (exchange.method, exchange.status, exchange.error_type) == ("GET", 200, "")
        assert 0 < exchange.duration < 10

    def test_route_and_status_whatever_answers(self) -> None:
        for path, route, status in (
            ("/nowhere", "", 404),
            ("/static/testing.py", "/static/{path}", 200),
            ("/old", "/old", 301),
            ("/inner/boom", "/inner/.*", 500),
        ):
            self.recorder.clear()
            assert self.fetch(path, follow_redirects=False).code == status
            exchange = self.one()
            assert (exchange.route, exchange.status) == (route, status)
            assert (exchange.error is None) == (status != 500)

    def test_unknown_method_is_other(self) -> None:
        self.raw(b"BREW / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (self.one().method, self.one().status) == ("_OTHER", 405)

    def test_exception_and_http_error_of_500_and_up_is_a_failure(self) -> None:
        for path, status, error_type in (
            ("/boom", 500, "ValueError"),
            ("/status/500", 500, "500"),
            ("/status/503", 503, "503"),
            ("/upstream", 500, "StreamClosedError"),  # lost to another server
        ):
            self.recorder.clear()
            assert self.fetch(path).code == status
            exchange = self.one()
            assert (exchange.status, exchange.error_type) == (status, error_type)
            assert self.recorder.failed == [exchange.error]
        self.recorder.clear()
        assert self.fetch("/status/403").code == 403
        assert self.one().error_type == ""
        assert self.recorder.failed == []

    def test_exception_after_flush_is_remembered(self) -> None:
        self.raw(b"GET /flushed HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        exchange = self.one()
        assert exchange.status == 200
        assert exchange.error_type == "ValueError"

    def test_exception_after_finish_is_reported(self) -> None:
        assert self.fetch("/finished").code == 200
        assert self.one().status == 200
        assert [str(error) for error in self.recorder.failed] == ["after finish"]

    def test_client_that_goes_away_reads_499(self) -> None:
        for path in ("/slow", "/inner/slow"):
            self.recorder.clear()
            Slow.entered.clear()
            Slow.release.clear()
            self.leave(path)
            assert self.one().status == 499
            assert self.recorder.failed == []

    async def test_client_that_goes_away_from_a_stream_is_no_failure(self) -> None:
        with self.assertNoLogs("tornado.general", "ERROR"):
            reader, writer = await self.connect()
            writer.write(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
            await reader.readuntil(b"more")
            writer.close()
            await self.until(lambda: Stream.failed)
        assert self.one().status == 499
        assert self.recorder.failed == []

    async def test_upload_that_is_cut_off_ends(self) -> None:
        _, writer = await self.connect()
        writer.write(b"PUT /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
        await self.until(lambda: self.recorder.started)
        writer.close()
        await self.until(lambda: self.recorder.ended)
        assert self.one().status == 499

    def test_upload(self) -> None:
        assert self.fetch("/upload", method="PUT", body="all of it").body == b"9 uploaded"
        assert (self.one().route, self.one().status) == ("/upload", 200)

    async def test_websocket_ends_when_it_is_open(self) -> None:
        socket = await self.websocket()
        await socket.write_message("hello")
        assert await socket.read_message() == "hello"
        await socket.write_message("boom")
        assert await socket.read_message() is None
        socket.close()
        assert (self.one().route, self.one().status) == ("/ws", 101)
        assert [str(error) for error in self.recorder.failed] == ["boom in a message"]

    async def test_context_is_the_exchange_s_own(self) -> None:
        reader, writer = await self.connect()
        writer.write(b"GET /marks HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"}}")
        # On the same connection; its log lines must not carry the ids of the one before.
        writer.write(b"GET /marks HTTP/1.1\r\nHost: a\r\nX-Request-ID: second\r\n\r\n")
        answer = await reader.readuntil(b"}}")
        writer.write(b"nonsense\r\n\r\n")
        ids: list[dict[str, str]] = []

        def keep(record: logging.LogRecord) -> bool:
            ids.append(dict(correlation.get()))
            return True

        rejections.log.addFilter(keep)
        self.addCleanup(rejections.log.removeFilter, keep)
        with self.assertLogs(rejections.log, "INFO"):
            await reader.read()
        assert ids == [{}]
        writer.close()
        assert b'"seen": ["/marks", "/marks"], "ids": {"request_id": "second"}' in answer
        assert self.recorder.marks == ["/marks", "/marks"]

    def test_harmless_request_id_is_taken_and_echoed(self) -> None:
        response = self.fetch("/boom", headers={"X-Request-ID": "a.B_9-"})
        assert response.headers["X-Request-ID"] == "a.B_9-"
        assert self.one().request_id == "a.B_9-"

    def test_hostile_request_id_is_replaced(self) -> None:
        for hostile in ("", "a b", "x" * 129, 'a"b', "a\x1b[31m", "ü"):
            response = self.raw(
                b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                b"X-Request-ID: " + hostile.encode() + b"\r\n\r\n"
            )
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
        _, to_many = await self.connect()
        _, to_one = await self.connect()
        to_many.write(b"GET /hello/many HTTP/1.1\r\nHost: a\r\n\r\n" * 100)
        to_one.write(b"GET /hello/one HTTP/1.1\r\nHost: a\r\n\r\n")
        await self.until(lambda: len(self.recorder.ended) == 101)
        to_many.close()
        to_one.close()
        paths = [exchange.request.path for exchange in self.recorder.ended]
        assert paths.index("/hello/one") < 10

    def test_nothing_is_left_to_the_garbage_collector(self) -> None:
        ended: list[weakref.ref[Exchange]] = []

        class Ending(Feature):
            def request_ended(self, exchange: Exchange) -> None:
                ended.append(weakref.ref(exchange))

        self.app.runtime._hooks["request_started"].clear()
        self.app.runtime._hooks["request_ended"][:] = [Ending().request_ended]
        gc.disable()
        try:
            assert self.fetch("/hello/world").code == 200
            assert [exchange() for exchange in ended] == [None]
        finally:
            gc.enable()

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

    def test_handler_that_cannot_be_made_is_a_500(self) -> None:
        for method, route in (("GET", "/unmade"), ("PUT", "/unmade/upload")):
            self.recorder.clear()
            body = "all of it" if method == "PUT" else None
            response = self.fetch(route, method=method, body=body, headers={"X-Request-ID": "r1"})
            assert response.code == 500
            assert json.loads(response.body)["request_id"] == "r1"
            exchange = self.one()
            assert (exchange.route, exchange.status) == (route, 500)
            assert exchange.error_type == "LookupError"
            assert len(self.recorder.failed) == 1

    def test_exception_while_the_body_arrives_is_a_500(self) -> None:
        for path in ("/broken", "/broken/later"):
            self.recorder.clear()
            head = f"PUT {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n".encode()
            answer = self.raw(head + b"Content-Length: 9\r\n\r\nhalf-rest")
            assert answer.startswith(b"HTTP/1.1 500 ")
            assert (self.one().status, self.one().error_type) == (500, "ValueError")
            assert len(self.recorder.failed) == 1

    def test_detached_connection_ends_the_exchange(self) -> None:
        answer = self.raw(b"GET /detached HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer == b"something else"
        assert self.one().route == "/detached"

    def test_wsgi_application(self) -> None:
        response = self.fetch("/wsgi", headers={"X-Request-ID": "r1"})
        assert (response.code, response.body) == (418, b"short")
        assert response.headers["X-Request-ID"] == "r1"
        assert (self.one().route, self.one().status) == ("/wsgi", 418)

    def test_wsgi_application_answers_once_and_is_a_500_if_it_raises(self) -> None:
        request = b"GET /%s HTTP/1.1\r\nHost: a\r\n%s\r\n"
        last = request % (b"wsgi", b"Connection: close\r\n")
        answers = self.raw(request % (b"wsgi", b"") + last)
        assert answers.count(b"HTTP/1.1 ") == answers.count(b"short") == 2
        self.recorder.clear()
        answers = self.raw(request % (b"failing", b"") + last)
        assert [answers[:13], answers[-5:]] == [b"HTTP/1.1 500 ", b"short"]
        assert [each.status for each in self.recorder.ended] == [500, 418]
        assert [each.route for each in self.recorder.ended] == ["/failing", "/wsgi"]
        assert [str(each) for each in self.recorder.failed] == ["not yet"]
        assert self.app.runtime.in_flight == 0

    def test_application_behind_a_fallback_answers_in_pieces(self) -> None:
        assert self.fetch("/inner/pieces").body == b"one two three"
        assert self.one().status == 200

    def test_handler_s_own_clear_and_log_exception_are_called(self) -> None:
        Own.logged.clear()
        for path, status in (("/own/boom", 500), ("/own/conflict", 409)):
            response = self.fetch(path, headers={"X-Request-ID": "r1"})
            assert response.code == status
            assert response.headers["X-Own"] == "kept"
            assert response.headers["X-Request-ID"] == "r1"
        assert [type(each) for each in Own.logged] == [ValueError, HTTPError]
        assert [str(each) for each in self.recorder.failed] == ["boom"]

    def test_log_exception_that_initialize_sets_is_called(self) -> None:
        Own.logged.clear()
        assert self.fetch("/instance/boom").code == 500
        assert Own.logged == ["ValueError"]
        assert [str(each) for each in self.recorder.failed] == ["boom"]

    def test_class_of_a_handler_stays_one(self) -> None:
        self.fetch("/own")
        self.fetch("/own/boom")
        assert [each.route for each in self.recorder.ended] == ["/own", "/own/{1}"]
        assert Own.subclasses == 2  # those above, and nothing that was made of them since
        (rule,) = [each for each in self.app.wildcard_router.rules if each.target is OfOwn][:1]
        assert rule.target is OfOwn

    def test_exceptions_are_logged_without_the_query(self) -> None:
        with self.assertLogs(hooks.__name__, "ERROR") as logs:
            self.fetch("/boom?token=secret")
            self.fetch("/status/503?token=secret")
        assert "Unhandled exception in GET /boom" in "".join(logs.output)
        stacks = [each.exc_info[0] for each in logs.records if each.exc_info]
        assert [each for each in stacks if each is not RuntimeError] == [ValueError, HTTPError]
        assert "secret" not in "".join(logs.output)

    def test_message_of_a_client_error_is_logged_without_the_query(self) -> None:
        with self.assertLogs(hooks.__name__, "WARNING") as logs:
            self.raw(
                b"POST /?token=secret HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                b"Content-Type: multipart/form-data\r\nContent-Length: 1\r\n\r\n-"
            )
        assert any("400 POST /: Invalid body: " in line for line in logs.output)
        assert "secret" not in "".join(logs.output)


class Nested(Feature):
    order: ClassVar[list[str]] = []

    def __init__(self, name: str) -> None:
        self.name = name

    def request_started(self, exchange: Exchange) -> None:
        self.order.append(f"start {self.name}")

    def request_ended(self, exchange: Exchange) -> None:
        self.order.append(f"end {self.name}")


class TestOrder(ChassisTest):
    def get_app(self) -> Application:
        super().get_app()
        return self.observed_by(Nested("one"), Nested("two"))

    def test_last_to_see_the_start_is_the_first_to_see_the_end(self) -> None:
        Nested.order.clear()
        self.fetch("/")
        assert Nested.order == ["start one", "start two", "end two", "end one"]

    def test_application_starts_as_starting(self) -> None:
        assert Application([]).runtime.state == "starting"


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
        totals = runtime.totals()
        assert [next(totals)[0], next(totals)[0]] == ["before", "after"]
        with pytest.raises(LookupError):
            next(totals)
        assert [*runtime.exports()] == [Export("Backend", "lines", 3, 0)]
    assert [each.message for each in caplog.records] == [
        "Failing.totals failed",
        "Failing.exports failed",
    ]
