"""What a team's tests see of metrics, spans and background work, whichever backend there is."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tornado_chassis import metrics, tracing
from tornado_chassis.handlers import JsonHandler
from tornado_chassis.service import Service
from tornado_chassis.testing import Process, ServiceTest

from .settings import Settings
from .testing import ChassisTest, does

sold = metrics.counter("testing_sold", "Items sold.", ["item"])
queue = metrics.gauge("testing_queue", "Orders that wait.")
packing = metrics.histogram("testing_packing_seconds", "How long packing takes.")
broken = metrics.gauge("testing_broken", "A gauge whose function raises.")

sold.labels("tea").inc(100)
packing.observe(7)


class Sale(JsonHandler):
    def post(self) -> None:
        sold.labels("tea").inc(2)
        queue.set(5)
        with packing.time(), tracing.span("pack"):
            current = tracing.current()
            if current:
                current.set_attribute("gift", True)
            with tracing.span("wrap") as inner:
                inner.set_attribute("paper", self.read_json())
                inner.record_exception(ValueError("torn"))
        try:
            with tracing.span("ship"):
                raise LookupError("no ship")
        except LookupError:
            self.finish({"ids": inner.ids()})


class TestWithoutBackends(ChassisTest):
    features = ""

    def make_service(self) -> Service:
        service = Service(self.settings(), [(r"/sale", Sale)])
        service.background("restock", self.restock)
        self.restocked, self.calls = 0, list[str]()
        service.on_startup.append(does(lambda: self.calls.append("startup")))
        service.on_shutdown.append(does(lambda: self.calls.append("shutdown")))
        return service

    async def restock(self) -> None:
        await asyncio.sleep(0.01)
        self.restocked += 1

    def test_startup_has_run_and_shutdown_will(self) -> None:
        assert self.calls == ["startup"]
        self.stop_service()
        assert self.calls == ["startup", "shutdown"]

    def test_metrics_of_this_test(self) -> None:
        for _ in range(2):  # as if there were two tests
            assert self.metric("testing_sold", item="tea") == 0
            assert self.metric("testing_packing_seconds") == 0
            self.fetch("/sale", json="red")
            self.fetch("/sale", json="red")
            assert self.metric("testing_sold", item="tea") == 4
            assert self.metric("testing_sold", item="coffee") == 0
            assert self.metric("testing_packing_seconds") == 2
            assert self.metric("testing_queue") == 5
            self.tearDown()
            self.setUp()

    def test_metric_that_cannot_be_read(self) -> None:
        with self.assertRaisesRegex(AssertionError, "testing_wrong is none of .*testing_sold"):
            self.metric("testing_wrong")
        with self.assertRaisesRegex(ValueError, "has the labels"):
            self.metric("testing_sold", country="nl")
        broken.set_function(lambda: 1 / 0)
        with self.assertRaisesRegex(AssertionError, "the function of testing_broken has raised"):
            self.metric("testing_broken")

    def test_spans_of_this_test(self) -> None:
        assert self.spans() == []
        self.fetch("/sale", json="red")
        wrap, pack, ship = self.spans()
        assert [each.name for each in (wrap, pack, ship)] == ["wrap", "pack", "ship"]
        assert wrap.attributes == {"paper": "red"}
        assert (wrap.parent, pack.parent, ship.parent) == (pack, None, None)
        assert (wrap.error, str(ship.error)) == (None, "no ship")

    def test_until(self) -> None:
        self.until(lambda: self.restocked)
        self.run_async(self.within)

    async def within(self) -> None:
        await self.until(lambda: self.restocked)

    def test_json_of_a_request(self) -> None:
        for given in ("red", None, {"a": [1]}):
            response = self.fetch("/sale", json=given, headers={"X-Request-ID": "r1"})
            assert (response.code, response.headers["X-Request-ID"]) == (200, "r1")
        assert [each.attributes.get("paper") for each in self.spans()[::3]] == [
            "red",
            None,
            {"a": [1]},
        ]
        assert self.fetch("/sale", method="PUT", json=1).code == 405


class TestWithBackends(TestWithoutBackends):
    features = "logs stub statsd"

    def test_spans_have_the_ids_of_the_backend(self) -> None:
        self.fetch("/sale", json="red")
        wrap, pack, _ = self.spans()
        assert (wrap.trace_id, wrap.parent_id) == (pack.trace_id, pack.span_id)
        assert pack.attributes == {"gift": True}


class TestWithJaeger(TestWithBackends):
    features = "jaeger prometheus"


class TestTracerIsGivenBack(ChassisTest):
    def test_tracer_of_the_service_is_there_again(self) -> None:
        recording: Any = tracing._tracer
        self.doCleanups()
        assert tracing._tracer is recording.inner


def test_setting_that_is_missing_names_the_file(tmp_path: Path) -> None:
    class Required(Settings):
        pass

    file = tmp_path / "tests" / "settings.env"
    file.parent.mkdir()
    file.write_text("PORT=x\n")
    with pytest.raises(ValueError, match=r"tests/settings\.env.*\n  PORT: should be"):
        ServiceTest().read(Required, file)


def test_busy_machine_gets_half_a_minute() -> None:
    code = "from tornado_chassis import testing\nprint(testing.get_async_test_timeout())"
    with Process("-c", code) as process:
        assert (process.end(), process.output) == (0, "30.0\n")
