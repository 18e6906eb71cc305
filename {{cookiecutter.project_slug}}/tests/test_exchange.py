"""What observers are told, whichever handler serves the request."""

import asyncio
import gc
import logging
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from email.utils import parsedate_to_datetime
from typing import Any

from tornado.routing import HostMatches, Rule
from tornado.web import RequestHandler
from tornado.websocket import websocket_connect

# {% filter replace("my_service", cookiecutter.__package) %}
from my_service import exchange
from my_service.exchange import Application, Exchange, Observer, correlation

# {% endfilter %}
from .service import ServiceTest, Stream

mark: ContextVar[str] = ContextVar("mark", default="unset")


class Recorder(Observer):
    def __init__(self) -> None:
        self.started: list[Exchange] = []
        self.failed: list[BaseException] = []
        self.ended: list[Exchange] = []
        self.marks: list[str] = []

    def request_started(self, exchange: Exchange) -> None:
        self.started.append(exchange)
        mark.set(exchange.request.path)

    def request_failed(self, exchange: Exchange, error: BaseException) -> None:
        self.failed.append(error)

    def request_ended(self, exchange: Exchange) -> None:
        self.ended.append(exchange)
        self.marks.append(mark.get())


class Broken(Observer):
    def request_started(self, exchange: Exchange) -> None:
        raise RuntimeError("broken observer")

    request_ended = request_started

    def request_failed(self, exchange: Exchange, error: BaseException) -> None:
        raise RuntimeError("broken observer")


class Marks(RequestHandler):
    """Tells the context variable as each stage of a request sees it."""

    def prepare(self) -> None:
        self.seen = [mark.get()]

    async def get(self) -> None:
        self.seen.append(mark.get())
        mark.set("changed")
        await asyncio.sleep(0)
        self.finish({"seen": self.seen, "ids": dict(correlation.get())})


class Cleared(RequestHandler):
    """Clears its answer in both ways, and keeps what that leaves of it."""

    here: dict[str, Any]
    by_tornado: dict[str, Any]

    def get(self) -> None:
        self.set_status(404)
        self.set_header("X-Request-ID", "changed")
        self.write("not sent")
        self.clear()
        Cleared.here = {**vars(self), "_headers": dict(self._headers)}
        RequestHandler.clear(self)
        Cleared.by_tornado = {**vars(self), "_headers": dict(self._headers)}
        self.finish()


class TestExchange(ServiceTest):
    def get_app(self) -> Application:
        app = super().get_app()
        self.recorder = Recorder()
        app.observers = [Broken(), self.recorder]
        app.add_handlers(".*", [(r"/marks", Marks), (r"/cleared", Cleared)])
        return app

    def one(self) -> Exchange:
        """The one exchange that there was: started once, ended once."""
        assert len(self.recorder.started) == 1
        assert self.recorder.ended == self.recorder.started
        assert self.app.in_flight == 0
        return self.recorder.ended[0]

    def test_route_is_the_template_not_the_path(self) -> None:
        self.fetch("/hello/world")
        told = self.one()
        assert told.route == "/hello/{name}"
        assert (told.method, told.status, told.error_type) == ("GET", 200, "")
        assert 0 < told.duration < 10

    def test_unmatched_path_has_no_route(self) -> None:
        self.fetch("/nowhere")
        told = self.one()
        assert (told.route, told.status) == ("", 404)
        assert told.error is None

    def test_static_file(self) -> None:
        self.fetch("/static/service.py")
        assert (self.one().route, self.one().status) == ("/static/{path}", 200)

    def test_redirect(self) -> None:
        self.fetch("/old", follow_redirects=False)
        assert (self.one().route, self.one().status) == ("/old", 301)

    def test_unknown_method_is_other(self) -> None:
        self.raw(b"BREW / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (self.one().method, self.one().status) == ("_OTHER", 405)

    def test_exception(self) -> None:
        assert self.fetch("/boom").code == 500
        told = self.one()
        assert told.status == 500
        assert told.error_type == "ValueError"
        assert self.recorder.failed == [told.error]

    def test_http_error_of_500_and_up_is_an_error(self) -> None:
        assert self.fetch("/status/503").code == 503
        assert self.one().error_type == "503"
        assert len(self.recorder.failed) == 1

    def test_http_error_below_500_is_none(self) -> None:
        assert self.fetch("/status/403").code == 403
        assert self.one().error_type == ""
        assert self.recorder.failed == []

    def test_exception_after_flush_is_remembered(self) -> None:
        self.raw(b"GET /flushed HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        told = self.one()
        assert told.status == 200
        assert told.error_type == "ValueError"

    def test_exception_after_finish_is_told(self) -> None:
        assert self.fetch("/finished").code == 200
        assert self.one().status == 200
        assert [str(error) for error in self.recorder.failed] == ["after finish"]

    def test_client_that_goes_away_reads_499(self) -> None:
        self.leave()
        assert self.one().status == 499
        assert self.recorder.failed == []

    def test_client_that_goes_away_from_a_stream_is_no_failure(self) -> None:
        async def leave() -> None:
            reader, writer = await self.connect()
            writer.write(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
            await reader.readuntil(b"more")
            writer.close()
            await self.until(lambda: Stream.failed)

        self.run_async(leave)
        assert self.one().status == 499
        assert self.recorder.failed == []

    def test_upload_that_is_cut_off_ends(self) -> None:
        async def leave() -> None:
            _, writer = await self.connect()
            writer.write(b"PUT /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
            await self.until(lambda: self.recorder.started)
            writer.close()
            await self.until(lambda: self.recorder.ended)

        self.run_async(leave)
        assert self.one().status == 499

    def test_upload(self) -> None:
        assert self.fetch("/upload", method="PUT", body="all of it").body == b"uploaded"
        assert (self.one().route, self.one().status) == ("/upload", 200)

    def test_websocket_ends_when_it_is_open(self) -> None:
        async def talk() -> None:
            socket = await websocket_connect(self.get_url("/ws").replace("http", "ws"))
            await socket.write_message("hello")
            assert await socket.read_message() == "hello"
            await socket.write_message("boom")
            assert await socket.read_message() is None
            socket.close()

        self.run_async(talk)
        assert (self.one().route, self.one().status) == ("/ws", 101)
        assert [str(error) for error in self.recorder.failed] == ["boom in a message"]

    def test_malformed_request_reaches_nobody(self) -> None:
        answer = self.raw(b"GET\x00/ HTTP/1.1\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert self.recorder.started == []
        assert self.fetch("/").code == 200

    def test_body_over_the_limit_reaches_nobody(self) -> None:
        answer = self.raw(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert self.recorder.started == []
        assert self.app.in_flight == 0

    def test_context_is_the_exchange_s_own(self) -> None:
        async def twice() -> bytes:
            reader, writer = await self.connect()
            writer.write(b"GET /marks HTTP/1.1\r\nHost: a\r\n\r\n")
            await reader.readuntil(b"}}")
            # On the same connection; its log lines must not carry the ids of the one before.
            writer.write(b"GET /marks HTTP/1.1\r\nHost: a\r\nX-Request-ID: second\r\n\r\n")
            answer = await reader.readuntil(b"}}")
            writer.write(b"nonsense\r\n\r\n")
            with self.assertLogs("tornado.general", "INFO"), ids_of_log_records() as ids:
                await reader.read()
            assert ids == [{}]
            writer.close()
            return answer

        answer = self.run_async(twice)
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

    def test_answer_is_cleared_as_by_tornado(self) -> None:
        assert self.fetch("/cleared").body == b""
        here, by_tornado = dict(Cleared.here), dict(Cleared.by_tornado)
        headers, theirs = here.pop("_headers"), by_tornado.pop("_headers")
        assert here == by_tornado
        assert headers.pop("X-Request-Id") == self.one().request_id
        del headers["Date"], theirs["Date"], theirs["Server"]
        assert headers == theirs

    def test_requests_one_after_another_do_not_hold_others_up(self) -> None:
        async def ask() -> None:
            _, to_many = await self.connect()
            _, to_one = await self.connect()
            to_many.write(b"GET /hello/many HTTP/1.1\r\nHost: a\r\n\r\n" * 100)
            to_one.write(b"GET /hello/one HTTP/1.1\r\nHost: a\r\n\r\n")
            await self.until(lambda: len(self.recorder.ended) == 101)
            to_many.close()
            to_one.close()

        self.run_async(ask)
        paths = [told.request.path for told in self.recorder.ended]
        assert paths.index("/hello/one") < 10

    def test_nothing_is_left_to_the_garbage_collector(self) -> None:
        ended: list[weakref.ref[Exchange]] = []

        class Observing(Observer):
            def request_ended(self, exchange: Exchange) -> None:
                ended.append(weakref.ref(exchange))

        self.app.observers = [Observing()]
        gc.disable()
        try:
            assert self.fetch("/hello/world").code == 200
            assert [exchange() for exchange in ended] == [None]
        finally:
            gc.enable()

    def test_patterns_too_intricate_for_a_template_stand_as_they_are(self) -> None:
        routes = [
            (r"/v(\d+)/(?:a|b)", Marks),
            Rule(HostMatches("api.example"), [(r"/under/(\w+)/(\d+)$", Marks)]),
        ]
        self.app.add_handlers(".*", routes)
        self.fetch("/v1/b")
        self.fetch("/under/x/1", headers={"Host": "api.example"})
        named = [each.route for each in self.recorder.ended]
        assert named == [r"/v(\d+)/(?:a|b)", "/under/{1}/{2}"]

    def test_exceptions_are_logged_without_the_query(self) -> None:
        with self.assertLogs(exchange.__name__, "ERROR") as logs:
            self.fetch("/boom?token=secret")
            self.fetch("/status/503?token=secret")
        assert "Unhandled exception in GET /boom" in "".join(logs.output)
        assert "secret" not in "".join(logs.output)

    def test_message_of_a_client_error_is_logged_without_the_query(self) -> None:
        with self.assertLogs(exchange.__name__, "WARNING") as logs:
            self.raw(
                b"POST /?token=secret HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                b"Content-Type: multipart/form-data\r\nContent-Length: 1\r\n\r\n-"
            )
        assert any("400 POST /: " in line for line in logs.output)
        assert "secret" not in "".join(logs.output)


@contextmanager
def ids_of_log_records() -> Iterator[list[dict[str, str]]]:
    """The ids that a log record made meanwhile would carry."""
    ids: list[dict[str, str]] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            ids.append(dict(correlation.get()))

    handler = Handler()
    logger = logging.getLogger("tornado.general")
    logger.addHandler(handler)
    try:
        yield ids
    finally:
        logger.removeHandler(handler)
