"""What tracing promises."""

import json
from typing import Any

from tornado.web import Application, RequestHandler
from tornado_chassis import tracing
from tornado_chassis.service import Service

from .service import Call, ContractTest

TRACE_ID, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(RequestHandler):
    """Takes OTLP over HTTP."""

    def initialize(self, spans: list[Any]) -> None:
        self.spans = spans

    def post(self) -> None:
        (resource,) = json.loads(self.request.body)["resourceSpans"]
        self.spans += [span for scope in resource["scopeSpans"] for span in scope["spans"]]


class LookUp(Call):
    @tracing.span("look up")
    async def get(self) -> None:
        await super().get()


class TestTracing(ContractTest):
    routes = ((r"/look-up", LookUp),)

    def make_service(self) -> Service:
        self.exported: list[dict[str, Any]] = []
        port = self.serve(Application([(r"/v1/traces", Collector, {"spans": self.exported})]))
        self.environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
        return super().make_service()

    def trace(self, path: str, flags: str = "01") -> bytes:
        """Calls the service in a trace, and stops it, which sends the spans that are left."""
        response = self.fetch(path, headers={"traceparent": f"00-{TRACE_ID}-{CALLER}-{flags}"})
        self.stop_service()
        return response.body

    def test_a_request_is_one_span_of_its_route_in_the_trace_of_its_caller(self) -> None:
        self.trace("/task/a?token=hidden")
        (span,) = self.exported
        assert (span["traceId"], span["parentSpanId"]) == (TRACE_ID, CALLER)
        assert span["name"] == "GET /task/{name}"
        assert "hidden" not in str(span)

    def test_a_failed_request_is_one_span_with_its_exception(self) -> None:
        self.trace("/fail")
        (span,) = self.exported
        assert span["status"]["code"] == 2
        assert [event["name"] for event in span["events"]] == ["exception"]

    def test_steps_and_calls_are_spans_and_the_trace_goes_on_in_a_call(self) -> None:
        received = json.loads(self.trace("/look-up"))
        children = {span["parentSpanId"]: span for span in self.exported}
        step = children[children[CALLER]["spanId"]]
        assert step["name"] == "look up"
        call = children[step["spanId"]]
        assert received["Traceparent"] == f"00-{TRACE_ID}-{call['spanId']}-01"

    def test_what_a_caller_does_not_record_is_passed_on_and_not_sent(self) -> None:
        received = json.loads(self.trace("/look-up", flags="00"))
        assert received["Traceparent"].split("-")[1::2] == [TRACE_ID, "00"]
        assert self.exported == []
