"""Trace context, taken from callers and passed on, and the spans that a backend receives."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncGenerator
from typing import Any, ClassVar
from unittest import mock

from opentelemetry import baggage, propagate, trace
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.web import Finish, HTTPError, RequestHandler
from tornado_chassis import __version__, export, tracing
from tornado_chassis.application import Application
from tornado_chassis.exchange import Exchange, correlation
from tornado_chassis.tracing import otel

from ..settings import SERVICE, VERSION, SettingsOfZipkin
from ..testing import ChassisTest, http, reserved_port
from . import PARENT, TRACE, TRACEPARENT, Headers, Parts
from .decode import Received
from .receiver import IMPATIENT, receiving

SDK = {
    "telemetry.sdk.name": "tornado-chassis",
    "telemetry.sdk.language": "python",
    "telemetry.sdk.version": __version__,
}
UNSAMPLED = f"00-{TRACE}-{PARENT}-00"


class Recorder(Parts):
    """What log lines, metrics and the console learn about each exchange."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[dict[str, str]] = []
        self.ids_of_failures: list[dict[str, str]] = []
        self.exemplars: list[dict[str, str] | None] = []
        self.parents: list[str] = []

    def request_failed(self, exchange: Exchange, error: BaseException) -> None:
        self.ids_of_failures.append(dict(correlation.get()))

    def request_ended(self, exchange: Exchange) -> None:
        self.ids.append(dict(correlation.get()))
        self.exemplars.append(exchange.exemplar)
        span = tracing.current()
        self.parents.append(span.parent_id if span else "none")


class Work(RequestHandler):
    """Does what it is asked for, in spans of its own."""

    async def get(self, work: str) -> None:
        answer = getattr(self, work)()
        answer = await answer if asyncio.iscoroutine(answer) else answer
        if not self._finished:
            self.finish({"answer": answer})

    def nested(self) -> list[str]:
        """The ids of the spans that it was in, one after the other."""
        ids = [correlation.get()["span_id"]]
        with tracing.span("outer") as outer:
            assert tracing.current() is outer
            outer.set_attribute("items", 3)
            ids += [correlation.get()["span_id"], self.inner(), self.inner()]
        return [*ids, correlation.get()["span_id"]]

    @tracing.span("inner")
    def inner(self) -> str:
        return correlation.get()["span_id"]

    @tracing.span("waits")
    async def waits(self) -> str:
        await asyncio.sleep(0)
        return self.inner()

    async def together(self) -> list[str]:
        with tracing.span("both") as both:
            return [both.span_id, *await asyncio.gather(self.waits(), self.waits())]

    async def calls(self) -> dict[str, Any]:
        """What it sends to another service: with Tornado's client, with another, and with one of
        which a library of OpenTelemetry's knows."""
        with tracing.span("call") as span:
            span.set_attribute("peer", "self")
            span.record_exception(ValueError("not really"))
            request = HTTPRequest(f"http://{self.request.host}/headers", headers={"A": "b"})
            response = await AsyncHTTPClient().fetch(request)
        sent: dict[str, dict[str, str]] = {"injected": {}, "library": {}}
        tracing.inject(sent["injected"])
        propagate.inject(sent["library"])
        return {**sent, "called": json.loads(response.body)}

    async def again(self) -> Any:
        """What it sends with a request that it has kept since the first time."""
        url = f"http://{self.request.host}/headers"
        request = self.application.settings.setdefault("kept", HTTPRequest(url, headers={"A": "b"}))
        return json.loads((await AsyncHTTPClient().fetch(request)).body)

    async def call(self) -> str:
        """What came of a call to the `url` of the query."""
        request = HTTPRequest(self.get_query_argument("url"), request_timeout=60)
        try:
            response = await AsyncHTTPClient().fetch(request, raise_error=False)
            return f"{response.code} {response.body!r}"
        except Exception as error:
            return f"No answer: {type(error).__name__}"

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
            await left.wait()
            trace.get_current_span().set_attribute("too", "late")
            with tracing.span("afterwards"):
                pass

        left = asyncio.Event()
        self.application.settings.update(left=left, task=asyncio.create_task(go_on()))

    def baggage(self) -> dict[str, Any]:
        headers: dict[str, str] = {}
        tracing.inject(headers)
        return {**baggage.get_all(), "passed on": headers.get("baggage")}


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
    handlers: ClassVar = [("/task/(.*)", Work), ("/headers", Headers), ("/probe", Probe)]

    def get_app(self) -> Application:
        self.receiver = self.enterContext(receiving())
        self.enterContext(mock.patch.multiple(export, **IMPATIENT))
        self.environ = {self.endpoint: self.receiver.url, **self.environ}
        super().get_app()
        self.recorder = Recorder()
        return self.observed_by(self.recorder)

    @property
    def tracing(self) -> otel.Exporting:
        features = self.app.runtime.features
        (feature,) = (each for each in features if isinstance(each, otel.Exporting))
        return feature

    def ids(self, path: str = "/headers", **headers: str) -> dict[str, str]:
        """The ids of a request with these headers."""
        self.recorder.ids.clear()
        self.fetch(path, headers=headers)
        (ids,) = self.recorder.ids
        return ids

    def work(self, name: str, **headers: str) -> Any:
        return json.loads(self.fetch(f"/task/{name}", headers=headers).body)["answer"]

    def spans(self) -> list[Received]:  # type: ignore[override]
        """All spans that there were, in the order of their ends; there are no more after this."""
        self.stop_service()
        return sorted(self.receiver.spans, key=lambda span: span.ended)

    def one(self) -> Received:
        (span,) = self.spans()
        return span


class WithZipkin(TracingTest):
    """The same with what Zipkin gets."""

    features = "logs zipkin prometheus sentry probes console"
    endpoint = "ZIPKIN_ENDPOINT"
    kind = SettingsOfZipkin


class TestContext(TracingTest):
    """What every variant does, whether or not it exports."""

    features = "logs stub"

    def test_caller_s_trace_is_continued(self) -> None:
        ids = self.ids(traceparent=TRACEPARENT)
        assert (ids["trace_id"], ids["trace_flags"]) == (TRACE, "01")
        assert re.fullmatch("[0-9a-f]{16}", ids["span_id"])
        assert ids["span_id"] != PARENT
        assert self.recorder.parents == [PARENT]
        assert self.recorder.exemplars == [{"trace_id": TRACE, "span_id": ids["span_id"]}]

    def test_without_a_valid_context_a_trace_begins(self) -> None:
        traces = [self.ids(traceparent=each)["trace_id"] for each in ("", "", TRACEPARENT.upper())]
        assert all(re.fullmatch("[0-9a-f]{32}", each) for each in traces)
        assert len({*traces, TRACE}) == 4
        assert self.recorder.parents == ["", "", ""]

    def test_flags_are_bits(self) -> None:
        for given, kept in (("00", "00"), ("01", "01"), ("03", "03"), ("ff", "03"), ("fe", "02")):
            ids = self.ids(traceparent=f"00-{TRACE}-{PARENT}-{given}")
            assert ids["trace_flags"] == kept
            assert (self.recorder.exemplars[-1] is not None) == bool(int(kept, 16) & 1)

    def test_every_handler_has_a_span(self) -> None:
        for path in ("/nowhere", "/static/testing.py", "/boom", "/flushed", "/ws"):
            self.raw(http(f"GET {path}", "Connection: close", f"traceparent: {TRACEPARENT}"))
        assert [ids["trace_id"] for ids in self.recorder.ids] == [TRACE] * 5
        assert [ids["trace_id"] for ids in self.recorder.ids_of_failures] == [TRACE] * 2

    async def test_context_does_not_leak_into_the_next_request(self) -> None:
        reader, writer = await self.connect()
        for header in (f"traceparent: {TRACEPARENT}\r\n", ""):
            writer.write(f"GET / HTTP/1.1\r\nHost: a\r\n{header}\r\n".encode())
            await reader.readuntil(b"}")
        writer.close()
        assert [ids["trace_id"] == TRACE for ids in self.recorder.ids] == [True, False]
        assert self.recorder.parents == [PARENT, ""]

    def test_probes_and_what_they_lead_to_are_not_traced(self) -> None:
        headers = json.loads(self.fetch("/probe").body)
        assert headers["traceparent"].endswith("-00")
        assert self.fetch("/probe", method="POST", body="").code == 500
        assert self.spans() == []
        assert self.recorder.exemplars == [None, None, None]
        assert "trace_id" not in self.recorder.ids[-1]

    def test_calls_carry_the_current_span(self) -> None:
        answer = self.work("calls", traceparent=TRACEPARENT, tracestate="a=1,b=2")
        call, around = self.recorder.parts
        own = self.recorder.ids[-1]["span_id"]
        for headers, span_id in ((answer["called"], call.span_id), (answer["injected"], own)):
            assert headers["traceparent"] == f"00-{TRACE}-{span_id}-01"
            assert headers["tracestate"] == "a=1,b=2"
        # With what was called: unlike a backend, the console compares nothing.
        assert (call.name, call.kind) == (f"GET 127.0.0.1:{self.get_http_port()}", "CLIENT")
        assert (around.name, around.kind) == ("call", "INTERNAL")
        assert (call.parent_id, around.parent_id) == (around.span_id, own)
        assert around.started <= call.started <= call.ended <= around.ended

    def test_spans_within_spans(self) -> None:
        ids = self.work("nested", traceparent=TRACEPARENT)
        inner, again, outer = self.recorder.parts
        assert [each.name for each in (inner, again, outer)] == ["inner", "inner", "outer"]
        server = self.recorder.ids[-1]["span_id"]
        assert ids == [server, outer.span_id, inner.span_id, again.span_id, server]
        assert len({*ids}) == 4
        assert [each.parent_id for each in (inner, again, outer)] == [ids[1], ids[1], server]
        assert {each.trace_id for each in (inner, again, outer)} == {TRACE}
        assert outer.attributes == {"items": 3}
        assert outer.started <= inner.started <= inner.ended <= outer.ended

    async def test_spans_at_the_same_time_keep_apart(self) -> None:
        url = self.get_url("/task/together")
        answers = await asyncio.gather(*(self.http_client.fetch(url) for _ in range(5)))
        parts = {each.span_id: each for each in self.recorder.parts}
        servers = {each["span_id"]: each["trace_id"] for each in self.recorder.ids}
        assert (len(parts), len(servers)) == (5 * 5, 5)
        for answer in answers:
            both, *inner = json.loads(answer.body)["answer"]
            assert servers[parts[both].parent_id] == parts[both].trace_id
            waits = [parts[parts[each].parent_id] for each in inner]
            assert {(each.name, each.parent_id) for each in waits} == {("waits", both)}
            assert len({each.span_id for each in waits}) == 2

    def test_outside_of_a_request_nothing_is_passed_on(self) -> None:
        headers: dict[str, str] = {}
        tracing.inject(headers)
        assert headers == {}

    def test_span_outside_of_a_request_begins_a_trace(self) -> None:
        with contextlib.suppress(ValueError), tracing.span("job") as job:
            assert correlation.get() == job.ids()
            assert job.parent_id == ""
            with tracing.span("step") as step:
                assert (step.trace_id, step.parent_id) == (job.trace_id, job.span_id)
            assert tracing.current() is job
            raise ValueError("lost")
        assert tracing.current() is None
        assert dict(correlation.get()) == {}

    async def test_span_of_a_generator_that_is_closed_elsewhere(self) -> None:
        async def rows() -> AsyncGenerator[int, None]:
            with tracing.span("query"):
                yield 1

        async def begin(rows: AsyncGenerator[int, None]) -> int:
            return await anext(rows)

        generator = rows()
        assert await asyncio.create_task(begin(generator)) == 1
        with self.assertNoLogs(), tracing.span("elsewhere") as elsewhere:
            await generator.aclose()
            assert tracing.current() is elsewhere
            assert correlation.get() == elsewhere.ids()
        assert [part.name for part in self.recorder.parts] == ["query", "elsewhere"]


class TestContextOfAnExporter(TestContext):
    features = "logs jaeger"


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
        ids = {"trace_id": span.trace_id, "span_id": span.span_id}
        assert self.recorder.ids == [{"request_id": "r", **ids, "trace_flags": "01"}]
        assert self.recorder.exemplars == [ids]

    def test_each_request_has_one_span_with_its_outcome(self) -> None:
        outcomes = {
            # Name and status of the span, status of the answer, and error.
            "/nowhere": ("GET", "UNSET", "404", None),
            "/static/testing.py": ("GET /static/{path}", "UNSET", "200", None),
            "/old": ("GET /old", "UNSET", "301", None),
            "/status/403": ("GET /status/{1}", "UNSET", "403", None),
            "/status/503": ("GET /status/{1}", "ERROR", "503", "503"),
            "/flushed": ("GET /flushed", "ERROR", "200", "ValueError"),
            "/finished": ("GET /finished", "UNSET", "200", None),  # as the failure came too late
        }
        for path in outcomes:
            self.raw(http(f"GET {path}", "Connection: close"))
        spans = {span.attributes["url.path"]: span for span in self.spans()}
        for path, (name, status, code, error) in outcomes.items():
            span = spans.pop(path)
            assert (span.name, span.status) == (name, status)
            assert span.attributes["http.response.status_code"] == code
            assert span.attributes.get("error.type") == error
            assert ("http.route" in span.attributes) == (path != "/nowhere")
            assert span.attributes["server.address"] == "a"
            assert span.attributes["server.port"] == "80"
            raised = [attributes["exception.type"] for _, attributes in span.events]
            assert raised == {"503": ["tornado.web.HTTPError"], None: []}.get(error, ["ValueError"])
        assert spans == {}

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

    def test_client_that_goes_away_and_websocket(self) -> None:
        async def talk() -> None:
            connection = await self.websocket()
            await connection.write_message("boom")
            assert await connection.read_message() is None

        self.leave()
        self.run_async(talk)
        left, talked = self.spans()
        assert (left.attributes["http.response.status_code"], left.status) == ("499", "UNSET")
        assert (talked.name, talked.attributes["http.response.status_code"]) == ("GET /ws", "101")

    def test_malformed_and_oversized_requests_make_none(self) -> None:
        self.raw(b"GET\x00/ HTTP/1.1\r\n\r\n")
        self.raw(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\n")
        assert self.spans() == []

    def test_nothing_that_a_client_makes_up_is_kept(self) -> None:
        for method, host in (("BREW", "a"), ("M" * 2000, "h" * 60_000)):
            request = f"{method} / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
            self.raw(request.encode())
        for span, method, host in zip(self.spans(), ("BREW", "M" * 255), "ah", strict=True):
            assert (span.name, span.attributes["http.request.method"]) == ("HTTP /", "_OTHER")
            assert span.attributes["http.request.method_original"] == method
            assert span.attributes["server.address"] == (host if host == "a" else host * 255)

    def test_caller_s_trace_is_continued(self) -> None:
        ids = self.ids(traceparent=TRACEPARENT)
        span = self.one()
        assert (span.trace_id, span.parent_id, span.span_id) == (TRACE, PARENT, ids["span_id"])

    def test_trace_that_the_caller_does_not_sample_is_passed_on_unrecorded(self) -> None:
        called = self.work("calls", traceparent=UNSAMPLED)["called"]["traceparent"]
        assert (called[:35], called[-2:]) == (f"00-{TRACE}", "00")
        assert self.work("library", traceparent=UNSAMPLED)["traceparent"].startswith(f"00-{TRACE}")
        assert self.spans() == self.recorder.parts == []
        assert {ids["trace_flags"] for ids in self.recorder.ids} == {"00"}
        assert {*self.recorder.exemplars} == {None}

    def test_service_is_described(self) -> None:
        self.fetch("/")
        assert self.one().resource == {
            "service.name": SERVICE,
            "service.version": VERSION,
            "deployment.environment.name": "development",
            **SDK,
        }


class TestServerSpansWithZipkin(WithZipkin, TestServerSpans):
    pass


class TestChildren(TracingTest):
    def test_spans_within_spans(self) -> None:
        self.work("nested")
        spans = self.spans()
        assert [span.name for span in spans] == ["inner", "inner", "outer", "GET /task/{1}"]
        inner, _, outer, server = spans
        assert inner.kind == outer.kind == "INTERNAL"
        assert (inner.parent_id, outer.parent_id) == (outer.span_id, server.span_id)
        assert outer.attributes == {"items": "3"}
        assert server.started <= outer.started <= inner.started
        assert inner.ended <= outer.ended <= server.ended

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
            self.app.settings["left"].set()
            await self.app.settings["task"]

        self.work("leaves")
        self.run_async(wait)
        server, afterwards = self.spans()
        assert afterwards.parent_id == server.span_id
        assert "too" not in server.attributes


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
        return str(self.work(f"call?url={url}"))

    def test_span_of_a_call(self) -> None:
        url = self.get_url("/headers").replace("//", "//user:hidden@")
        answer = self.call(f"{url}%3Ftoken=hidden%23here")
        headers, call, caller = self.spans()
        assert (call.name, call.kind, call.status) == ("GET", "CLIENT", "UNSET")
        assert call.attributes == {
            "http.request.method": "GET",
            "http.response.status_code": "200",
            "url.full": self.get_url("/headers"),
            "server.address": "127.0.0.1",
            "server.port": str(self.get_http_port()),
        }
        assert (headers.parent_id, call.parent_id) == (call.span_id, caller.span_id)
        assert headers.trace_id == call.trace_id == caller.trace_id
        assert f"00-{call.trace_id}-{call.span_id}-01" in answer
        assert caller.started <= call.started <= headers.started
        assert call.ended <= caller.ended
        assert "hidden" not in str(call)

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
        request = HTTPRequest(self.get_url("/headers"), "BREW", allow_nonstandard_methods=True)
        self.run_async(lambda: AsyncHTTPClient().fetch(request, raise_error=False))
        call = next(span for span in self.spans() if span.kind == "CLIENT")
        assert (call.name, call.attributes["http.request.method"]) == ("HTTP", "_OTHER")
        assert call.attributes["http.request.method_original"] == "BREW"

    def test_redirect_belongs_to_the_call(self) -> None:
        self.call(self.get_url("/old"))
        old, root, call, _ = self.spans()
        assert (old.name, root.name, call.kind) == ("GET /old", "GET /", "CLIENT")
        assert old.parent_id == root.parent_id == call.span_id

    def test_call_outside_of_a_request_begins_a_trace(self) -> None:
        self.run_async(lambda: AsyncHTTPClient().fetch(self.get_url("/headers")))
        call, server = sorted(self.spans(), key=lambda span: span.kind)
        assert (call.kind, call.parent_id) == ("CLIENT", "")
        assert server.parent_id == call.span_id


class TestSettings(TracingTest):
    def setUp(self) -> None:
        """Does nothing: each test calls `configure`."""

    def configure(self, **environ: str) -> None:
        """Starts the service with these settings."""
        self.environ = environ
        super().setUp()

    def flags(self, traceparent: str = "") -> str:
        """The trace flags that a request gets."""
        return self.ids(traceparent=traceparent)["trace_flags"]

    def flags_with(self, sampler: str) -> list[str]:
        """Of a request that begins a trace, and of those whose callers record it or do not."""
        self.configure(OTEL_TRACES_SAMPLER=sampler, OTEL_TRACES_SAMPLER_ARG="0")
        return [self.flags(each) for each in ("", TRACEPARENT, UNSAMPLED)]

    def make_spans_of_a_library(self) -> None:
        """One with a parent that is not sampled, one without."""
        elsewhere = trace.SpanContext(int(TRACE, 16), int(PARENT, 16), is_remote=True)
        with trace.use_span(trace.NonRecordingSpan(elsewhere)):
            trace.get_tracer("library").start_span("alone").end()
        trace.get_tracer("library").start_span("alone").end()

    def test_always_off(self) -> None:
        assert self.flags_with("always_off") == ["00", "00", "00"]
        self.make_spans_of_a_library()
        assert self.spans() == []

    def test_always_on_ignores_the_parent(self) -> None:
        assert self.flags_with("always_on") == ["01", "01", "01"]
        self.make_spans_of_a_library()
        assert len(self.spans()) == 5

    def test_parent_based_off_records_what_callers_record(self) -> None:
        assert self.flags_with("parentbased_always_off") == ["00", "01", "00"]
        self.make_spans_of_a_library()
        assert self.one().trace_id == TRACE

    def test_parent_based_ratio_follows_the_parent(self) -> None:
        assert self.flags_with("parentbased_traceidratio") == ["00", "01", "00"]

    def test_ratio_of_traces_is_decided_by_their_id(self) -> None:
        self.configure(OTEL_TRACES_SAMPLER="traceidratio", OTEL_TRACES_SAMPLER_ARG="0.25")
        low, high = "0" * 16 + "3fffffffffffffff", "0" * 16 + "4000000000000000"
        assert self.flags(traceparent=f"00-{low}-{PARENT}-00") == "01"
        assert self.flags(traceparent=f"00-{high}-{PARENT}-03") == "02"
        assert self.one().trace_id == low

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
        assert len({*self.work("nested")}) == 4
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
            # As bytes of the environment are read that are no Unicode.
            OTEL_SERVICE_NAME="shop\udcff",
        )
        self.fetch("/")
        assert self.one().resource == {
            "service.name": "shop?",
            "service.version": "7",
            "deployment.environment.name": "production",
            "team": "a b",
            **SDK,
        }

    def test_service_name_among_the_attributes(self) -> None:
        self.configure(OTEL_RESOURCE_ATTRIBUTES="service.name=other")
        self.fetch("/")
        assert self.one().resource["service.name"] == "other"

    def test_totals(self) -> None:
        self.configure()
        for status in (200, 400):
            self.receiver.statuses.append(status)
            self.fetch("/")
            self.until(lambda: len(self.receiver.statuses) == 0)
        self.spans()
        assert {name: total for name, _, total in self.tracing.totals()} == {
            "otel_spans_exported": 1,
            "otel_spans_failed": 1,
            "otel_spans_dropped": 0,
            "otel_attributes_dropped": 0,
        }
        [export] = self.tracing.exports()
        assert (export.unit, export.sent, export.dropped) == ("spans", 1, 1)


class TestSettingsWithZipkin(WithZipkin, TestSettings):
    pass
