"""What tracing promises."""

import json

from tornado_chassis import tracing

from .service import Call, ContractTest

TRACE_ID, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class LookUp(Call):
    @tracing.span("look up")
    async def get(self) -> None:
        await super().get()


class TestTracing(ContractTest):
    routes = ((r"/look-up", LookUp),)

    def passed_on(self, path: str, **headers: str) -> list[str]:
        """Trace, parent and flags as another service receives them."""
        received = json.loads(self.fetch(path, headers=headers).body)
        version, *ids = received["Traceparent"].split("-")
        assert version == "00"
        return [*ids]

    def test_the_trace_of_a_caller_goes_on_in_a_call(self) -> None:
        for path in ("/call", "/look-up"):
            trace_id, parent, flags = self.passed_on(path, traceparent=f"00-{TRACE_ID}-{CALLER}-00")
            assert (trace_id, flags) == (TRACE_ID, "00")
            assert parent != CALLER

    def test_without_a_caller_a_trace_begins(self) -> None:
        first, second = self.passed_on("/call"), self.passed_on("/call")
        assert first[0] != second[0]
        assert first[2] == second[2] == "01"

    def test_a_malformed_trace_is_not_passed_on(self) -> None:
        assert self.passed_on("/call", traceparent=f"00-{TRACE_ID}-0-01")[0] != TRACE_ID
