"""The spans of the service, as a backend receives them."""

import asyncio
import contextlib
import json
from typing import Any
from unittest import mock

from opentelemetry import baggage, trace
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.web import Finish, HTTPError, RequestHandler
from tornado.websocket import websocket_connect
from tornado_chassis import __version__, export, tracing
from tornado_chassis.application import Application
from tornado_chassis.exchange import Exchange, correlation
from tornado_chassis.feature import Feature
from tornado_chassis.tracing import otel

from ..settings import SERVICE, VERSION, Settings, SettingsOfZipkin
from ..testing import ChassisTest, reserved_port
from . import PARENT, TRACE, TRACEPARENT, Headers, settings_of
from .receiver import Received, receiving

SDK = {
    "telemetry.sdk.name": "tornado-chassis",
    "telemetry.sdk.language": "python",
    "telemetry.sdk.version": __version__,
}
UNSAMPLED = f"00-{TRACE}-{PARENT}-00"


class Recorder(Feature):
    """What log lines and metrics learn about each exchange."""

    def __init__(self) -> None:
        self.ids: list[dict[str, str]] = []
        self.exemplars: list[dict[str, str] | None] = []
        self.parts: list[str] = []

    def span_ended(self, part: Any) -> None:
        self.parts.append(f"{part.kind} {part.name}")

    def request_ended(self, exchange: Exchange) -> None:
        self.ids.append(dict(correlation.get()))
        self.exemplars.append(exchange.exemplar)


class Work(RequestHandler):
    """Does what it is asked for, in spans of its own."""

    async def get(self, work: str) -> None:
        answer = getattr(self, work)()
        answer = await answer if asyncio.iscoroutine(answer) else answer
        if not self._finished:
            self.finish({"answer": answer})

    def nested(self) -> list[dict[str, str]]:
        ids = [dict(correlation.get())]
        with tracing.span("outer") as outer:
            assert tracing.current() is outer
            outer.set_attribute("items", 3)
            ids += [dict(correlation.get()), self.inner()]
        return [*ids, dict(correlation.get())]

    @tracing.span("inner")
    def inner(self) -> dict[str, str]:
        """Its ids."""
        return dict(correlation.get())

    @tracing.span("waits")
    async def waits(self) -> str:
        await asyncio.sleep(0)
        return self.inner()["span_id"]

    def fails(self) -> None:
        for error in (KeyError("lost"), HTTPError(500), HTTPError(404), Finish()):
            with contextlib.suppress(Exception), tracing.span(type(error).__name__):
                raise error

    def api(self) -> None:
        span = trace.get_current_span()
        assert span.is_recording()
        span.set_attribute("order.number", 7)
        span.set_attributes({"order.paid": True, "http.route": "/its/own"})
        span.add_event("paid", {"by": "card"})
        span.record_exception(ValueError("late"), {"more": "of it"})
        span.set_status(trace.Status(trace.StatusCode.ERROR, "out of stock"))
        span.set_status(trace.StatusCode.UNSET)
        span.update_name("order")

    def fine(self) -> None:
        trace.get_current_span().set_status(trace.StatusCode.OK)
        raise ValueError("nothing much")

    def floods(self) -> None:
        span = trace.get_current_span()
        for number in range(1000):
            span.set_attribute(f"key {number}", number)
            span.add_event(f"event {number}")
            span.add_link(span.get_span_context())
        span.set_attribute("key 0", "again")

    def library(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        own: Any = trace.get_current_span()
        with trace.get_tracer("library", "1.2.3").start_as_current_span(
            "query",
            kind=trace.SpanKind.PRODUCER,
            links=[trace.Link(own.get_span_context())],
            attributes={"rows": 3},
        ) as span:
            assert tracing.current() is own
            span.add_event("slow", {"by": 1.5})
            tracing.inject(headers)
            with tracing.span("within"):
                pass
            span.set_status(trace.StatusCode.ERROR, "too slow")
        return headers

    def leaves(self) -> None:
        async def go_on() -> None:
            await asyncio.sleep(0.001)
            trace.get_current_span().set_attribute("too", "late")
            with tracing.span("afterwards"):
                pass

        self.application.settings["task"] = asyncio.create_task(go_on())

    def baggage(self) -> dict[str, Any]:
        headers: dict[str, str] = {}
        tracing.inject(headers)
        return {**baggage.get_all(), "passed on": headers.get("baggage")}


class Call(RequestHandler):
    """Calls, and answers with what came of it."""

    async def get(self) -> None:
        request = HTTPRequest(self.get_query_argument("url"), request_timeout=5)
        try:
            response = await AsyncHTTPClient().fetch(request, raise_error=False)
            self.finish(f"{response.code} {response.body!r}")
        except Exception as error:
            self.finish(f"No answer: {type(error).__name__}")


class Away(RequestHandler):
    def get(self) -> None:
        self.redirect("/headers")


class Probe(RequestHandler):
    is_probe = True

    async def get(self) -> None:
        with tracing.span("look"):
            url = f"http://{self.request.host}/headers"
            response = await AsyncHTTPClient().fetch(url)
        self.finish(response.body)

    def post(self) -> None:
        raise ValueError("unwell")


class TracingTest(ChassisTest):
    features = "logs jaeger prometheus sentry probes console"
    endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT"

    def get_app(self) -> Application:
        self.receiver = self.enterContext(receiving())
        self.enterContext(mock.patch.object(export, "STOP_SECONDS", 10.0))
        self.environ = {self.endpoint: self.receiver.url, **self.environ}
        super().get_app()
        self.recorder = Recorder()
        app = self.observed_by(self.recorder)
        app.add_handlers(
            ".*",
            [
                (r"/task/(.*)", Work),
                (r"/call", Call),
                (r"/headers", Headers),
                (r"/away", Away),
                (r"/probe", Probe),
            ],
        )
        return app

    @property
    def tracing(self) -> otel.Exporting:
        features = self.app.runtime.features
        (feature,) = (each for each in features if isinstance(each, otel.Exporting))
        return feature

    def work(self, name: str, **headers: str) -> Any:
        return json.loads(self.fetch(f"/task/{name}", headers=headers).body)["answer"]

    def spans(self) -> list[Received]:  # type: ignore[override]
        """All spans that there were, in the order of their ends; there are no more after this."""
        self.run_async(self.tracing.shutdown)
        return sorted(self.receiver.spans, key=lambda span: span.ended)

    def one(self) -> Received:
        (span,) = self.spans()
        return span

    def named(self, name: str) -> Received:
        (span,) = (span for span in self.spans() if span.name == name)
        return span


class WithZipkin(TracingTest):
    """The same with what Zipkin gets."""

    features = "logs zipkin prometheus sentry probes console"
    endpoint = "ZIPKIN_ENDPOINT"

    def settings(self) -> Settings:
        return settings_of(SettingsOfZipkin, self.features, self.read)


class TestServerSpans(TracingTest):
    def test_span_of_a_request(self) -> None:
        self.fetch("/headers?secret=hidden", headers={"User-Agent": "me", "X-Request-ID": "r"})
        span = self.one()
        assert (span.name, span.kind, span.status) == ("GET /headers", "SERVER", "UNSET")
        assert span.attributes == {
            "http.request.method": "GET",
            "http.response.status_code": "200",
            "http.route": "/headers",
            "url.scheme": "http",
            "url.path": "/headers",
            "server.address": "127.0.0.1",
            "server.port": str(self.get_http_port()),
            "client.address": "127.0.0.1",
            "network.protocol.version": "1.1",
            "user_agent.original": "me",
        }
        assert (span.events, span.parent_id, span.scope) == ([], "", SERVICE)
        assert 0 < span.ended - span.started < 10e9
        assert self.recorder.ids == [
            {
                "request_id": "r",
                "trace_id": span.trace_id,
                "span_id": span.span_id,
                "trace_flags": "01",
            }
        ]
        ids = {"trace_id": span.trace_id, "span_id": span.span_id}
        assert self.recorder.exemplars == [ids]

    def test_unmatched_path_has_no_route(self) -> None:
        self.fetch("/nowhere")
        span = self.one()
        assert (span.name, span.status) == ("GET", "UNSET")
        assert span.attributes["http.response.status_code"] == "404"
        assert span.attributes["url.path"] == "/nowhere"
        assert "http.route" not in span.attributes

    def test_handlers_of_tornado_s_own(self) -> None:
        self.fetch("/static/testing.py")
        self.fetch("/old", follow_redirects=False)
        assert [span.name for span in self.spans()] == ["GET /static/{path}", "GET /old"]

    def test_exception(self) -> None:
        self.fetch("/boom?token=hidden")
        span = self.one()
        assert (span.name, span.status) == ("GET /boom", "ERROR")
        assert span.attributes["error.type"] == "ValueError"
        ((name, attributes),) = span.events
        assert name == "exception"
        assert attributes["exception.type"] == "ValueError"
        assert attributes["exception.message"] == "boom"
        assert 'raise ValueError("boom")' in attributes["exception.stacktrace"]
        assert "hidden" not in str(span)

    def test_http_error_of_500_and_up(self) -> None:
        self.fetch("/status/503")
        span = self.one()
        assert (span.status, span.attributes["error.type"]) == ("ERROR", "503")
        assert span.events[0][1]["exception.type"] == "tornado.web.HTTPError"

    def test_http_error_below_500_is_the_client_s(self) -> None:
        self.fetch("/status/403")
        span = self.one()
        assert (span.status, span.events) == ("UNSET", [])
        assert "error.type" not in span.attributes

    def test_exception_after_flush(self) -> None:
        self.raw(b"GET /flushed HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        span = self.one()
        assert (span.status, span.attributes["error.type"]) == ("ERROR", "ValueError")
        assert span.attributes["http.response.status_code"] == "200"
        assert (span.attributes["server.address"], span.attributes["server.port"]) == ("a", "80")

    def test_exception_after_the_end_comes_too_late(self) -> None:
        self.fetch("/finished")
        assert (self.one().status, self.one().events) == ("UNSET", [])

    def test_client_that_goes_away(self) -> None:
        self.leave()
        span = self.one()
        assert (span.attributes["http.response.status_code"], span.status) == ("499", "UNSET")

    def test_websocket(self) -> None:
        async def talk() -> None:
            connection = await websocket_connect(self.get_url("/ws").replace("http", "ws"))
            await connection.write_message("boom")
            assert await connection.read_message() is None

        self.run_async(talk)
        span = self.one()
        assert (span.name, span.attributes["http.response.status_code"]) == ("GET /ws", "101")

    def test_malformed_and_oversized_requests_make_none(self) -> None:
        self.raw(b"GET\x00/ HTTP/1.1\r\n\r\n")
        self.raw(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\n")
        assert self.spans() == []

    def test_unknown_method(self) -> None:
        self.raw(b"BREW / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        span = self.one()
        assert (span.name, span.attributes["http.request.method"]) == ("HTTP /", "_OTHER")
        assert span.attributes["http.request.method_original"] == "BREW"

    def test_probes_and_what_they_lead_to_are_not_traced(self) -> None:
        headers = json.loads(self.fetch("/probe").body)
        assert headers["traceparent"].endswith("-00")
        assert self.fetch("/probe", method="POST", body="").code == 500
        assert self.spans() == []
        assert self.recorder.exemplars == [None, None, None]

    def test_caller_s_trace_is_continued(self) -> None:
        self.fetch("/headers", headers={"traceparent": TRACEPARENT})
        span = self.one()
        assert (span.trace_id, span.parent_id) == (TRACE, PARENT)
        assert self.recorder.ids[0]["trace_id"] == TRACE
        assert self.recorder.ids[0]["span_id"] == span.span_id != PARENT

    def test_trace_that_the_caller_does_not_sample_is_passed_on_unrecorded(self) -> None:
        ids = self.work("nested", traceparent=UNSAMPLED)
        assert [each["trace_id"] for each in ids] == [TRACE] * 4
        assert {each["trace_flags"] for each in ids} == {"00"}
        assert self.work("library", traceparent=UNSAMPLED)["traceparent"].startswith(f"00-{TRACE}")
        assert self.spans() == []
        assert self.recorder.exemplars == [None, None]

    def test_two_requests_at_once_do_not_mix(self) -> None:
        async def together() -> None:
            client = self.get_http_client()
            urls = [self.get_url("/task/waits")] * 5
            await asyncio.gather(*(client.fetch(url) for url in urls))

        self.run_async(together)
        spans = self.spans()
        servers = {span.span_id: span for span in spans if span.kind == "SERVER"}
        waits = {span.span_id: span for span in spans if span.name == "waits"}
        inner = [span for span in spans if span.name == "inner"]
        assert len(servers) == len(waits) == len(inner) == 5
        for span in inner:
            parent = waits[span.parent_id]
            assert span.trace_id == parent.trace_id == servers[parent.parent_id].trace_id

    def test_service_is_described(self) -> None:
        self.fetch("/")
        assert self.one().resource == {
            "service.name": SERVICE,
            "service.version": VERSION,
            "deployment.environment.name": "development",
            **SDK,
        }

    def test_nothing_that_a_client_makes_up_is_kept(self) -> None:
        method, host = "M" * 2000, "h" * 60_000
        request = f"{method} / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        self.raw(request.encode())
        span = self.one()
        assert span.attributes["server.address"] == "h" * 255
        assert span.attributes["http.request.method_original"] == "M" * 255


class TestServerSpansWithZipkin(WithZipkin, TestServerSpans):
    pass


class TestChildren(TracingTest):
    def test_spans_within_spans(self) -> None:
        before, outer_ids, inner_ids, after = self.work("nested")
        inner, outer, server = self.spans()
        assert [inner.name, outer.name] == ["inner", "outer"]
        assert inner.kind == outer.kind == "INTERNAL"
        assert (inner.parent_id, outer.parent_id) == (outer.span_id, server.span_id)
        assert inner.trace_id == outer.trace_id == server.trace_id
        assert outer.attributes == {"items": "3"}
        ids = [each["span_id"] for each in (before, outer_ids, inner_ids, after)]
        assert ids == [server.span_id, outer.span_id, inner.span_id, server.span_id]
        assert before["request_id"] == inner_ids["request_id"]
        assert server.started <= outer.started <= inner.started
        assert inner.ended <= outer.ended <= server.ended

    def test_span_of_an_async_function_lasts_until_it_returns(self) -> None:
        span_id = self.work("waits")
        inner, waits, _ = self.spans()
        assert (inner.parent_id, inner.span_id) == (waits.span_id, span_id)

    def test_exception_that_leaves_a_span(self) -> None:
        self.work("fails")
        failed, internal, missing, finished, server = self.spans()
        assert (failed.status, failed.message) == ("ERROR", "KeyError: 'lost'")
        assert failed.events[0][1]["exception.type"] == "KeyError"
        assert internal.status == "ERROR"
        for span in (missing, finished, server):
            assert (span.status, span.events) == ("UNSET", [])

    def test_span_ends_once(self) -> None:
        with tracing.span("once"):
            once = trace.get_current_span()
            once.end()
            assert not once.is_recording()
        assert self.one().name == "once"

    def test_span_after_the_end_of_its_request(self) -> None:
        async def wait() -> None:
            await self.app.settings["task"]

        self.work("leaves")
        self.run_async(wait)
        server, afterwards = self.spans()
        assert afterwards.parent_id == server.span_id
        assert "too" not in server.attributes

    def test_observers_are_not_notified_of_what_is_not_sampled(self) -> None:
        self.work("nested", traceparent=UNSAMPLED)
        assert self.recorder.parts == []


class TestApi(TracingTest):
    """What libraries do through OpenTelemetry's API."""

    def test_current_span_takes_all_that_a_span_takes(self) -> None:
        self.work("api")
        span = self.one()
        assert span.name == "order"
        assert (span.status, span.message) == ("ERROR", "out of stock")
        assert span.attributes["order.number"] == "7"
        assert span.attributes["order.paid"] == "true"
        assert span.attributes["http.route"] == "/its/own"
        assert span.attributes["http.request.method"] == "GET"
        paid, late = span.events
        assert paid == ("paid", {"by": "card"})
        assert late[1]["exception.message"] == "late"
        assert late[1]["more"] == "of it"

    def test_status_ok_is_final(self) -> None:
        self.fetch("/task/fine")
        assert (self.one().status, self.one().message) == ("OK", "")

    def test_span_does_not_grow_for_ever(self) -> None:
        self.work("floods")
        span = self.one()
        assert len([key for key in span.attributes if key.startswith("key")]) == 128
        assert span.attributes["key 0"] == "again"
        assert len(span.events) == 128

    def test_spans_of_a_library_join_the_trace(self) -> None:
        headers = self.work("library", traceparent=TRACEPARENT, tracestate="a=b")
        within, query, server = self.spans()
        assert (query.name, query.kind) == ("query", "PRODUCER")
        assert (query.scope, query.scope_version) == ("library", "1.2.3")
        assert (query.status, query.message) == ("ERROR", "too slow")
        assert query.attributes == {"rows": "3"}
        assert query.events == [("slow", {"by": "1.5"})]
        assert (query.trace_id, query.parent_id) == (TRACE, server.span_id)
        assert (within.trace_id, within.parent_id) == (TRACE, query.span_id)
        assert headers["traceparent"] == f"00-{TRACE}-{query.span_id}-01"
        assert headers["tracestate"] == "a=b"

    def test_tracestate_that_a_caller_makes_up_is_not_logged(self) -> None:
        with self.assertNoLogs("opentelemetry"):
            self.work("library", traceparent=TRACEPARENT, tracestate="made up")

    def test_baggage_is_not_passed_on(self) -> None:
        assert self.work("baggage", baggage="tenant=a%20b") == {"passed on": None}


class TestApiWithZipkin(WithZipkin, TestApi):
    pass


class TestCalls(TracingTest):
    def call(self, url: str) -> str:
        return self.fetch("/call?url=" + url).body.decode()

    def test_call_carries_its_span(self) -> None:
        answer = self.call(self.get_url("/headers") + "%3Ftoken=hidden%23here")
        headers, call, caller = self.spans()
        assert (call.name, call.kind, call.status) == ("GET", "CLIENT", "UNSET")
        assert call.attributes == {
            "http.request.method": "GET",
            "http.response.status_code": "200",
            "url.full": self.get_url("/headers"),
            "server.address": "127.0.0.1",
            "server.port": str(self.get_http_port()),
        }
        assert headers.parent_id == call.span_id
        assert call.parent_id == caller.span_id
        assert headers.trace_id == call.trace_id == caller.trace_id
        assert f"00-{call.trace_id}-{call.span_id}-01" in answer
        assert caller.started <= call.started <= headers.started
        assert call.ended <= caller.ended

    def test_url_has_no_password(self) -> None:
        self.call(self.get_url("/headers").replace("//", "//user:hidden@"))
        span = self.named("GET")
        assert span.attributes["url.full"] == self.get_url("/headers")
        assert "hidden" not in str(span)

    def test_calls_that_fail(self) -> None:
        with reserved_port() as port:
            failing = {
                self.get_url("/status/404"): ("404 b", "404"),
                f"http://127.0.0.1:{port}/": ("No answer: Conn", "ConnectionRefusedError"),
                "http://[half": ("No answer: V", "ValueError"),
            }
            for url, (answer, _) in failing.items():
                assert self.call(url).startswith(answer)
        calls = [span for span in self.spans() if span.kind == "CLIENT"]
        for call, (_, error) in zip(calls, failing.values(), strict=True):
            assert (call.status, call.attributes["error.type"]) == ("ERROR", error)
            has_answer = "http.response.status_code" in call.attributes
            assert has_answer == (error == "404")
            assert [name for name, _ in call.events] == ([] if has_answer else ["exception"])

    def test_unknown_method_of_a_call(self) -> None:
        async def brew() -> None:
            request = HTTPRequest(
                self.get_url("/headers"), method="BREW", allow_nonstandard_methods=True
            )
            await AsyncHTTPClient().fetch(request, raise_error=False)

        self.run_async(brew)
        call = next(span for span in self.spans() if span.kind == "CLIENT")
        assert (call.name, call.attributes["http.request.method"]) == ("HTTP", "_OTHER")
        assert call.attributes["http.request.method_original"] == "BREW"

    def test_redirect_belongs_to_the_call(self) -> None:
        self.call(self.get_url("/away"))
        away, headers, call, _ = self.spans()
        assert (away.name, headers.name, call.kind) == ("GET /away", "GET /headers", "CLIENT")
        assert away.parent_id == headers.parent_id == call.span_id

    def test_call_outside_of_a_request_begins_a_trace(self) -> None:
        self.run_async(lambda: self.outside())
        call, server = sorted(self.spans(), key=lambda span: span.kind)
        assert (call.kind, call.parent_id) == ("CLIENT", "")
        assert server.parent_id == call.span_id

    async def outside(self) -> None:
        await AsyncHTTPClient().fetch(self.get_url("/headers"))


class TestSettings(TracingTest):
    def setUp(self) -> None:
        """Does nothing: each test calls `configure`."""

    def configure(self, **environ: str) -> None:
        """Starts the service with these settings."""
        self.environ = environ
        super().setUp()

    def flags(self, **headers: str) -> str:
        """The trace flags that a request gets."""
        self.recorder.ids.clear()
        self.fetch("/headers", headers=headers)
        return self.recorder.ids[0]["trace_flags"]

    def test_always_off(self) -> None:
        self.configure(OTEL_TRACES_SAMPLER="always_off")
        assert self.flags() == self.flags(traceparent=TRACEPARENT) == "00"
        assert self.spans() == []

    def test_always_on_ignores_the_parent(self) -> None:
        self.configure(OTEL_TRACES_SAMPLER="always_on")
        assert self.flags() == self.flags(traceparent=UNSAMPLED) == "01"
        assert [span.trace_id for span in self.spans()][1] == TRACE

    def test_parent_based_off_records_what_callers_record(self) -> None:
        self.configure(OTEL_TRACES_SAMPLER="parentbased_always_off")
        assert self.flags() == self.flags(traceparent=UNSAMPLED) == "00"
        assert self.flags(traceparent=TRACEPARENT) == "01"
        assert self.one().trace_id == TRACE

    def test_ratio_of_traces_is_decided_by_their_id(self) -> None:
        self.configure(OTEL_TRACES_SAMPLER="traceidratio", OTEL_TRACES_SAMPLER_ARG="0.25")
        low, high = "0" * 16 + "3fffffffffffffff", "0" * 16 + "4000000000000000"
        assert self.flags(traceparent=f"00-{low}-{PARENT}-00") == "01"
        assert self.flags(traceparent=f"00-{high}-{PARENT}-03") == "02"
        assert self.one().trace_id == low

    def test_parent_based_ratio_follows_the_parent(self) -> None:
        self.configure(OTEL_TRACES_SAMPLER="parentbased_traceidratio", OTEL_TRACES_SAMPLER_ARG="0")
        assert self.flags() == "00"
        assert self.flags(traceparent=TRACEPARENT) == "01"

    def spans_of_a_library(self) -> list[Received]:
        """What is recorded of two spans: one with a parent that is not sampled, one without."""
        elsewhere = trace.SpanContext(int(TRACE, 16), int(PARENT, 16), is_remote=True)
        with trace.use_span(trace.NonRecordingSpan(elsewhere)):
            trace.get_tracer("library").start_span("alone").end()
        trace.get_tracer("library").start_span("alone").end()
        return self.spans()

    def test_always_on_samples_spans_of_libraries(self) -> None:
        self.configure(OTEL_TRACES_SAMPLER="always_on")
        assert len(self.spans_of_a_library()) == 2

    def test_parent_based_off_samples_no_spans_of_libraries(self) -> None:
        self.configure(OTEL_TRACES_SAMPLER="parentbased_always_off")
        assert self.spans_of_a_library() == []

    def test_baggage_is_passed_on(self) -> None:
        self.configure(OTEL_PROPAGATORS="tracecontext,baggage")
        assert self.work("baggage", baggage="tenant=a%20b") == {
            "tenant": "a b",
            "passed on": "tenant=a+b",
        }
        assert self.work("baggage") == {"passed on": None}

    def test_disabled(self) -> None:
        self.configure(OTEL_SDK_DISABLED="true")
        headers = self.work("library", traceparent=TRACEPARENT)
        assert headers["traceparent"].startswith(f"00-{TRACE}")
        assert len({ids["span_id"] for ids in self.work("nested")}) == 3
        assert self.spans() == []
        assert list(self.tracing.totals()) == []
        assert [each.sent for each in self.tracing.exports()] == [None]

    def test_without_an_endpoint_ids_are_made_and_nothing_is_sent(self) -> None:
        with self.assertLogs(export.log, "INFO") as logs:
            self.configure(**{self.endpoint: ""})
        assert logs.output[0].endswith(f"Spans are not exported: {self.endpoint} is not set")
        assert self.flags() == "01"
        assert self.spans() == []

    def test_description_of_the_service(self) -> None:
        self.configure(
            ENVIRONMENT="production",
            OTEL_RESOURCE_ATTRIBUTES="team=a%20b, service.version=7,service.name=other",
            OTEL_SERVICE_NAME="shop",
        )
        self.fetch("/")
        assert self.one().resource == {
            "service.name": "shop",
            "service.version": "7",
            "deployment.environment.name": "production",
            "team": "a b",
            **SDK,
        }

    def test_description_that_is_no_unicode(self) -> None:
        # As bytes of the environment are read that are none.
        self.configure(OTEL_SERVICE_NAME="shop\udcff")
        self.fetch("/")
        assert self.one().resource["service.name"] == "shop?"

    def test_service_name_among_the_attributes(self) -> None:
        self.configure(OTEL_RESOURCE_ATTRIBUTES="service.name=other")
        self.fetch("/")
        assert self.one().resource["service.name"] == "other"

    def test_totals(self) -> None:
        self.configure()
        self.receiver.statuses.extend([400])
        self.fetch("/")
        self.spans()
        assert {name: total for name, _, total in self.tracing.totals()} == {
            "otel_spans_exported": 0,
            "otel_spans_failed": 1,
            "otel_spans_dropped": 0,
            "otel_attributes_dropped": 0,
        }
        [export] = self.tracing.exports()
        assert (export.unit, export.sent, export.dropped) == ("spans", 0, 1)

    def test_spans_are_counted_as_sent(self) -> None:
        self.configure()
        self.fetch("/")
        self.spans()
        [export] = self.tracing.exports()
        assert (export.sent, export.dropped) == (1, 0)


class TestSettingsWithZipkin(WithZipkin, TestSettings):
    pass
