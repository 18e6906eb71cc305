"""Trace context: taken from callers, seen by all that the request does, passed on.

With the stub, and with spans that OpenTelemetry's API finds.
"""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncGenerator
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.web import RequestHandler, StaticFileHandler
from tornado_chassis import tracing
from tornado_chassis.application import Application
from tornado_chassis.exchange import Exchange, correlation
from tornado_chassis.feature import Feature

from ..testing import ChassisTest
from . import PARENT, TRACE, TRACEPARENT, Headers, Parts


class Seen(Feature):
    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.ids: list[dict[str, str]] = []
        self.parents: list[str] = []
        self.ids_of_failures: list[dict[str, str]] = []

    def request_failed(self, exchange: Exchange, error: BaseException) -> None:
        self.ids_of_failures.append(dict(correlation.get()))

    def request_ended(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        self.ids.append(dict(correlation.get()))
        span = tracing.current()
        self.parents.append(span.parent_id if span else "none")


class Caller(RequestHandler):
    """Calls the service that it is a part of."""

    async def get(self) -> None:
        client = AsyncHTTPClient()
        with tracing.span("call") as span:
            span.set_attribute("peer", "self")
            span.record_exception(ValueError("not really"))
            inner = dict(correlation.get())
            response = await client.fetch(
                HTTPRequest(f"http://{self.request.host}/headers", headers={"A": "b"})
            )
        headers: dict[str, Any] = {}
        tracing.inject(headers)
        self.finish({"called": response.body.decode(), "inner": inner, "own": headers})


class TestStub(ChassisTest):
    features = "stub"

    def get_app(self) -> Application:
        super().get_app()
        self.seen = Seen()
        self.parts = Parts()
        app = self.observed_by(self.seen, self.parts)
        app.add_handlers(".*", [(r"/caller", Caller), (r"/headers", Headers)])
        return app

    def ids(self, **headers: str) -> dict[str, str]:
        """The ids of a request with these headers."""
        self.seen.ids.clear()
        self.fetch("/", headers=headers)
        (ids,) = self.seen.ids
        return ids

    def test_caller_s_trace_is_continued(self) -> None:
        ids = self.ids(traceparent=TRACEPARENT)
        assert (ids["trace_id"], ids["trace_flags"]) == (TRACE, "01")
        assert re.fullmatch("[0-9a-f]{16}", ids["span_id"])
        assert ids["span_id"] != PARENT
        assert self.seen.parents == [PARENT]
        assert self.seen.exchanges[0].exemplar == {"trace_id": TRACE, "span_id": ids["span_id"]}

    def test_without_a_caller_a_trace_begins(self) -> None:
        first, second = self.ids(), self.ids()
        assert re.fullmatch("[0-9a-f]{32}", first["trace_id"])
        assert first["trace_id"] != second["trace_id"]
        assert self.seen.parents == ["", ""]

    def test_invalid_context_begins_a_trace(self) -> None:
        assert self.ids(traceparent=TRACEPARENT.upper())["trace_id"] != TRACE

    def test_flags_are_bits(self) -> None:
        for given, kept in (("00", "00"), ("01", "01"), ("03", "03"), ("ff", "03"), ("fe", "02")):
            ids = self.ids(traceparent=f"00-{TRACE}-{PARENT}-{given}")
            assert ids["trace_flags"] == kept
            sampled = self.seen.exchanges[-1].exemplar is not None
            assert sampled == bool(int(kept, 16) & 1)

    def test_every_handler_has_a_span(self) -> None:
        for path in ("/nowhere", "/static/testing.py", "/boom", "/flushed", "/ws"):
            self.seen.ids.clear()
            self.raw(
                f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                f"traceparent: {TRACEPARENT}\r\n\r\n".encode()
            )
            (ids,) = self.seen.ids
            assert ids["trace_id"] == TRACE
        assert [ids["trace_id"] for ids in self.seen.ids_of_failures] == [TRACE, TRACE]

    def test_context_does_not_leak_into_the_next_request(self) -> None:
        async def twice() -> None:
            reader, writer = await self.connect()
            for header in (f"traceparent: {TRACEPARENT}\r\n", ""):
                writer.write(f"GET / HTTP/1.1\r\nHost: a\r\n{header}\r\n".encode())
                await reader.readuntil(b"}")
            writer.close()

        self.run_async(twice)
        first, second = self.seen.ids
        assert first["trace_id"] == TRACE
        assert second["trace_id"] != TRACE
        assert self.seen.parents == [PARENT, ""]

    def test_client_passes_the_current_span_on(self) -> None:
        response = self.fetch(
            "/caller", headers={"traceparent": TRACEPARENT, "tracestate": "a=1,b=2"}
        )
        answer = json_of(response.body)
        server, inner = self.seen.ids[-1], answer["inner"]
        assert inner["trace_id"] == server["trace_id"] == TRACE
        assert inner["span_id"] != server["span_id"]
        call = self.parts.parts[0]
        assert (call.trace_id, call.parent_id) == (TRACE, inner["span_id"])
        called = json_of(answer["called"])
        assert called["traceparent"] == f"00-{TRACE}-{call.span_id}-01"
        assert called["tracestate"] == "a=1,b=2"
        assert answer["own"] == {
            "traceparent": f"00-{TRACE}-{server['span_id']}-01",
            "tracestate": "a=1,b=2",
        }

    def test_probes_have_no_span(self) -> None:
        class Probe(StaticFileHandler):
            is_probe = True

        self.app.add_handlers(".*", [(r"/probe/(.*)", Probe, {"path": __file__})])
        self.fetch("/probe/")
        assert "trace_id" not in self.seen.ids[-1]
        assert self.seen.exchanges[-1].exemplar is None

    def test_outside_of_a_request_nothing_is_passed_on(self) -> None:
        headers: dict[str, str] = {}
        tracing.inject(headers)
        assert headers == {}

    def test_span_outside_of_a_request_begins_a_trace(self) -> None:
        with tracing.span("job") as job:
            assert correlation.get() == job.ids()
            assert job.parent_id == ""
            with tracing.span("step") as step:
                assert (step.trace_id, step.parent_id) == (job.trace_id, job.span_id)
            assert tracing.current() is job
        assert tracing.current() is None
        assert dict(correlation.get()) == {}

    def test_decorated_function_has_a_span_for_each_call(self) -> None:
        @tracing.span("step")
        def step() -> tracing.Span | None:
            return tracing.current()

        @tracing.span("wait")
        async def wait() -> tracing.Span | None:
            await asyncio.sleep(0)
            return step()

        async def work() -> None:
            with tracing.span("job") as job:
                first, second = step(), step()
                assert first
                assert second
                assert first.parent_id == second.parent_id == job.span_id
                assert first.span_id != second.span_id
                within = await wait()
                assert within
                assert within.trace_id == job.trace_id
                assert within.parent_id != job.span_id
                assert tracing.current() is job

        self.run_async(work)

    def test_span_ends_with_an_exception(self) -> None:
        with contextlib.suppress(ValueError), tracing.span("fails"):
            raise ValueError("lost")
        assert tracing.current() is None
        assert dict(correlation.get()) == {}

    def test_span_of_a_generator_that_is_closed_elsewhere(self) -> None:
        async def rows() -> AsyncGenerator[int, None]:
            with tracing.span("query"):
                yield 1

        async def begin(rows: AsyncGenerator[int, None]) -> int:
            return await anext(rows)

        async def close_elsewhere() -> None:
            generator = rows()
            assert await asyncio.create_task(begin(generator)) == 1
            with self.assertNoLogs(), tracing.span("elsewhere") as elsewhere:
                await generator.aclose()
                assert tracing.current() is elsewhere
                assert correlation.get() == elsewhere.ids()

        self.run_async(close_elsewhere)
        assert [part.name for part in self.parts.parts] == ["query", "elsewhere"]

    def test_observers_are_notified_of_spans_and_calls(self) -> None:
        self.fetch("/caller")
        call, step = self.parts.parts
        # With what was called: unlike a backend, the console compares nothing.
        assert (call.name, call.kind) == (f"GET 127.0.0.1:{self.get_http_port()}", "CLIENT")
        assert (step.name, step.kind) == ("call", "INTERNAL")
        assert (call.parent_id, call.trace_id) == (step.span_id, step.trace_id)
        assert step.parent_id == self.seen.ids[-1]["span_id"]
        assert step.started <= call.started <= call.ended <= step.ended

    def test_spans_at_the_same_time_keep_apart(self) -> None:
        async def work(name: str) -> str:
            with tracing.span(name) as span:
                await asyncio.sleep(0)
                assert tracing.current() is span
                return span.parent_id

        async def both() -> None:
            with tracing.span("both") as outer:
                parents = await asyncio.gather(work("a"), work("b"))
                assert set(parents) == {outer.span_id}

        self.run_async(both)


class TestExporting(TestStub):
    features = "jaeger"


def json_of(body: bytes | str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(body)
    return answer
