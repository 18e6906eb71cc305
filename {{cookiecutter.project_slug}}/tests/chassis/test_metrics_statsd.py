"""What a StatsD daemon receives."""

import asyncio
import gc
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from threading import Event
from typing import Any
from unittest import mock

from tornado.httpclient import AsyncHTTPClient
from tornado.websocket import websocket_connect

from my_service.chassis import SERVICE, metrics
from my_service.chassis.application import Application, Observer
from my_service.chassis.client import ObservedClient
from my_service.chassis.settings import Settings, read

from .routes import Slow
from .testing import ChassisTest

DURATION = "http_server_request_duration_seconds"
PAUSES = "python_gc_pause_seconds"


class Daemon:
    """A port of 127.0.0.1, and what has come to it."""

    def __init__(self, port: int = 0) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.port: int = self.socket.getsockname()[1]
        self.datagrams: list[bytes] = []

    def values(self, kind: str) -> dict[str, list[float]]:
        """All values of a kind, `c`, `g` or `ms`, by names without the service and the instance.

        Without the pauses of the garbage collection, which come as they like: see `pauses`.
        """
        values = self._received(kind)
        return {name: values[name] for name in values if not name.startswith(PAUSES)}

    def pauses(self) -> dict[str, list[float]]:
        values = self._received("c")
        return {name: values[name] for name in values if name.startswith(PAUSES)}

    def _received(self, kind: str) -> dict[str, list[float]]:
        try:
            while True:
                self.datagrams.append(self.socket.recv(65536))
        except BlockingIOError:
            pass
        found: dict[str, list[float]] = {}
        for line in b"\n".join(self.datagrams).decode().splitlines():
            name, _, rest = line.partition(":")
            value, _, its_kind = rest.partition("|")
            if its_kind == kind:
                name = name.removeprefix(f"{SERVICE}.").removesuffix(metrics._outbox.suffix)
                found.setdefault(name, []).append(float(value))
        return found

    def requests(self) -> dict[str, int]:
        """How many requests there were, by the labels in their name."""
        return {
            name.removeprefix(f"{DURATION}."): len(values)
            for name, values in self.values("ms").items()
            if name.startswith(DURATION)
        }

    def close(self) -> None:
        self.socket.close()


class Working(Observer):
    """Stands for what counts its own work."""

    total = 0

    def totals(self) -> list[tuple[str, str, int]]:
        return [("work_done", "Work done.", self.total)]


class StatsDTest(ChassisTest):
    host = "127.0.0.1"
    probe_seconds = 0.01

    def setUp(self) -> None:
        self.daemon = Daemon()
        self.addCleanup(lambda: self.daemon.close())
        self.environ = {"STATSD_HOST": self.host, "STATSD_PORT": str(self.daemon.port)}
        self.patch("TICK_SECONDS", 0.001)
        self.patch("RETRY_SECONDS", 0.001)
        self.patch("PROBE_SECONDS", self.probe_seconds)
        self.patch("_outbox", metrics._Outbox())
        self.logged: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: self.logged.append(record.getMessage())  # type: ignore[method-assign]
        metrics.log.addHandler(handler)
        self.addCleanup(metrics.log.removeHandler, handler)
        super().setUp()

    def patch(self, name: str, value: object) -> None:
        patch = mock.patch.object(metrics, name, value)
        patch.start()
        self.addCleanup(patch.stop)

    def get_app(self) -> Application:
        super().get_app()
        self.working = Working()
        app = self.observed_by(self.working)
        (self.metrics,) = (each for each in app.observers if isinstance(each, metrics.Metrics))
        assert self.metrics._connection
        self.connection = self.metrics._connection
        return app

    def wait_for(self, condition: Callable[[], object]) -> None:
        self.run_async(lambda: self.until(condition))

    def wait_until_sending(self) -> None:
        self.wait_for(lambda: self.daemon.values("g"))

    def wait_for_flushes(self) -> None:
        ticks = self.metrics._ticks
        self.wait_for(lambda: self.metrics._ticks > ticks + 3 * metrics.FLUSH_TICKS)

    def warnings(self) -> list[str]:
        return [line for line in self.logged if re.match(r"Sending metrics to .* failed: ", line)]

    def recoveries(self) -> list[str]:
        return [line for line in self.logged if line.endswith("works again")]

    def restart_daemon(self) -> None:
        self.daemon = Daemon(self.daemon.port)


class TestMeasurements(StatsDTest):
    def test_outgoing_calls(self) -> None:
        async def call() -> None:
            await AsyncHTTPClient().fetch(self.get_url("/hello/a"))
            await AsyncHTTPClient().fetch(self.get_url("/status/503"), raise_error=False)
            await self.until(lambda: len(calls()) == 2)

        def calls() -> list[str]:
            timers = self.daemon.values("ms")
            return [each for each in timers if each.startswith("http_client_")]

        ObservedClient._servers.clear()
        self.run_async(call)
        server = f"http_client_request_duration_seconds.GET.127_0_0_1.{self.get_http_port()}.http"
        assert sorted(calls()) == [f"{server}.200.none", f"{server}.503.503"]

    def test_what_is_counted_beside_the_requests(self) -> None:
        self.raw(b"nonsense\r\n\r\n")

        async def talk() -> None:
            websocket = await websocket_connect(self.get_url("/ws").replace("http", "ws"))
            await websocket.write_message("hello")
            await websocket.read_message()
            await self.until(lambda: 1 in self.daemon.values("g").get("websocket_connections", []))
            websocket.close(1001)

        self.run_async(talk)
        counted = {
            "http_server_refused_requests.malformed": [1],
            "websocket_messages.received": [1],
            "websocket_messages.sent": [1],
            "websocket_closes.1001": [1],
        }
        self.wait_for(lambda: counted.items() <= self.daemon.values("c").items())
        gc.collect()
        self.wait_for(lambda: "python_gc_pause_seconds.2" in self.daemon.pauses())

    def test_request(self) -> None:
        self.fetch("/hello/a")
        self.fetch("/hello/b")
        # They may come in two flushes.
        self.wait_for(lambda: sum(self.daemon.requests().values()) >= 2)
        assert self.daemon.requests() == {"GET.http.200._hello_name_.none": 2}

    def test_duration_is_in_milliseconds(self) -> None:
        async def slow() -> None:
            _, writer = await self.connect()
            writer.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            await Slow.entered.wait()
            await asyncio.sleep(0.02)
            Slow.release.set()
            await self.until(self.daemon.requests)
            writer.close()

        self.run_async(slow)
        ((duration,),) = self.daemon.values("ms").values()
        assert 20 <= duration < 10_000

    def test_every_handler_is_measured_once(self) -> None:
        self.fetch("/nowhere")
        self.fetch("/static/testing.py")
        self.fetch("/old", follow_redirects=False)
        self.fetch("/boom")
        self.fetch("/status/503")
        self.raw(b"GET /flushed HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        self.raw(b"BREW / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        self.raw(b"nonsense\r\n\r\n")
        self.wait_for(lambda: len(self.daemon.requests()) == 7)
        assert self.daemon.requests() == {
            "GET.http.404.unmatched.none": 1,
            "GET.http.200._static_path_.none": 1,
            "GET.http.301._old.none": 1,
            "GET.http.500._boom.ValueError": 1,
            "GET.http.503._status_1_.503": 1,
            "GET.http.200._flushed.ValueError": 1,
            "_OTHER.http.405._.none": 1,
        }

    def test_websocket_is_measured_once(self) -> None:
        async def talk() -> None:
            websocket = await websocket_connect(self.get_url("/ws").replace("http", "ws"))
            await websocket.write_message("hello")
            await websocket.read_message()
            websocket.close()
            await self.until(self.daemon.requests)

        self.run_async(talk)
        assert self.daemon.requests() == {"GET.http.101._ws.none": 1}

    def test_active_requests_and_a_client_that_goes_away(self) -> None:
        def active() -> float:
            values = self.daemon.values("g").get("http_server_active_requests.GET.http", [0])
            return values[-1]

        async def leave() -> None:
            _, writer = await self.connect()
            writer.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            await self.until(lambda: active() == 1)
            writer.close()
            await self.until(lambda: active() == 0)
            Slow.release.set()

        self.run_async(leave)
        self.wait_for(self.daemon.requests)
        assert self.daemon.requests() == {"GET.http.499._slow.none": 1}

    def test_event_loop_lag(self) -> None:
        async def block() -> None:
            await asyncio.sleep(0.002)
            time.sleep(0.05)  # noqa: ASYNC251 (that is the point)
            await asyncio.sleep(0.002)

        def worst() -> float:
            return max(self.daemon.values("g").get("event_loop_lag_seconds", [0]))

        self.run_async(block)
        self.wait_for(lambda: worst() >= 0.03)
        assert worst() < 10

    def test_the_worst_lag_is_sent_for_15_seconds(self) -> None:
        def lags() -> list[float]:
            return self.daemon.values("g").get("event_loop_lag_seconds", [])

        clock = mock.Mock(return_value=time.monotonic())
        self.patch("monotonic", clock)
        self.wait_for(lags)
        clock.return_value += 5
        self.wait_for(lambda: max(lags()) > 4 and lags()[-1] == 0)
        # Once a second.
        assert len([lag for lag in lags() if lag > 4]) == 15

    def test_build_process_and_garbage_collection(self) -> None:
        self.wait_for(lambda: self.daemon.values("g"))
        gauges = self.daemon.values("g")
        assert [gauges[name] for name in gauges if name.startswith(f"build_info.{SERVICE}.")]
        assert gauges["process_cpu_time_seconds"][0] > 0
        assert gauges["python_gc_collections.2"][0] <= gc.get_stats()[2]["collections"]
        assert gauges["process_memory_usage_bytes"][0] > 1_000_000

    def test_totals_of_other_features_are_sent_as_they_grow(self) -> None:
        def done() -> float:
            return sum(self.daemon.values("c").get("work_done", []))

        self.working.total = 7
        self.wait_for(lambda: done() == 7)
        self.working.total = 9
        self.wait_for(lambda: done() == 9)
        assert self.daemon.values("c")["work_done"] == [7, 2]

    def test_measurements_are_counted_as_sent(self) -> None:
        for _ in range(3):
            self.fetch("/")
        self.wait_for(lambda: self.daemon.requests() and self.daemon.values("g"))
        [export] = self.metrics.exports()
        received = [line for each in self.daemon.datagrams for line in each.splitlines()]
        assert export.sent
        assert export.sent >= len(received) > 3
        assert export.dropped == 0


class TestNames(StatsDTest):
    def test_each_has_the_service_and_a_gauge_the_instance(self) -> None:
        metrics.counter("greetings", "Greetings given.").inc()
        self.wait_for(lambda: self.daemon.values("c"))
        datagrams = filter(None, self.daemon.datagrams)  # an empty one is a probe
        lines = b"\n".join(datagrams).decode().splitlines()
        names = {line.partition("|")[2]: line.partition(":")[0] for line in lines}
        assert names["c"] == f"{SERVICE}.greetings"
        host = re.sub(r"[^A-Za-z0-9_-]+", "_", socket.gethostname())
        assert all(line.startswith(f"{SERVICE}.") for line in lines)
        assert re.fullmatch(rf"{SERVICE}\..*\.{host}_\d+", names["g"])

    def test_processes_on_one_host_differ(self) -> None:
        def instance(**environ: str) -> str:
            return metrics._instance(read(Settings, environ))

        assert instance(PORT="8000") != instance(PORT="8001")
        # One port has several processes, the other none yet.
        for environ in ({"REUSE_PORT": "true"}, {"PORT": "0"}):
            assert instance(**environ).endswith(f"_{os.getpid()}")


class TestOwn(StatsDTest):
    """Metrics of one's own."""

    def test_counter(self) -> None:
        counter = metrics.counter("greetings", "Greetings given.", ["language"])
        counter.labels("en").inc()
        counter.labels("en").inc(2.5)
        counter.labels("d|e:f").inc()
        self.wait_for(lambda: len(self.daemon.values("c")) == 2)
        self.wait_for_flushes()
        assert self.daemon.values("c") == {"greetings.en": [3.5], "greetings.d_e_f": [1]}
        with self.assertRaisesRegex(ValueError, "only grows"):
            counter.labels("en").inc(-1)

    def test_gauge_is_sent_again_and_again(self) -> None:
        gauge = metrics.gauge("queue_length", "Jobs waiting.")
        gauge.set(3)
        gauge.inc()
        gauge.dec(2)
        self.wait_for(lambda: len(self.daemon.values("g").get("queue_length", [])) >= 2)
        assert set(self.daemon.values("g")["queue_length"]) == {2}

    def test_gauge_below_zero_is_no_difference(self) -> None:
        metrics.gauge("temperature", "Degrees.").set(-2.25)
        self.wait_for(lambda: "temperature" in self.daemon.values("g"))
        name = f"temperature{metrics._outbox.suffix}"
        lines = f"{SERVICE}.{name}:0|g\n{SERVICE}.{name}:-2.250000|g".encode()
        assert any(lines in datagram for datagram in self.daemon.datagrams)

    def test_histogram(self) -> None:
        metrics.histogram("query_duration_seconds", "Duration of queries.").observe(0.2)
        self.wait_for(lambda: self.daemon.values("ms"))
        assert self.daemon.values("ms") == {"query_duration_seconds": [200]}

    def test_labels_must_fit(self) -> None:
        counter = metrics.counter("greetings", "Greetings given.", ["language"])
        with self.assertRaisesRegex(ValueError, "language"):
            counter.labels("en", "polite")
        with self.assertRaisesRegex(ValueError, "labels"):
            counter.inc()

    def test_what_is_no_number_is_not_sent(self) -> None:
        metrics.gauge("nonsense", "No number.").set(float("nan"))
        metrics.histogram("endless_seconds", "No number either.").observe(float("inf"))
        counter = metrics.counter("sense", "A number.")
        counter.inc(float("nan"))
        counter.inc()
        self.wait_for(lambda: self.daemon.values("c"))
        assert "nonsense" not in self.daemon.values("g")
        assert self.daemon.values("ms") == {}


class TestBounds(StatsDTest):
    def test_datagrams_are_full_but_fit_a_frame(self) -> None:
        histogram = metrics.histogram("query_duration_seconds", "Duration of queries.")
        for _ in range(1000):
            histogram.observe(0.001)
        self.wait_for(lambda: sum(map(len, self.daemon.values("ms").values())) == 1000)
        sizes = [len(each) for each in self.daemon.datagrams if each.count(b"query_duration") > 10]
        assert 1350 < max(sizes) <= 1432
        line = len(f"{SERVICE}.query_duration_seconds:1.000|ms\n")
        assert len(sizes) < 1.3 * 1000 * line / 1432

    def test_a_line_that_fits_no_datagram_is_dropped(self) -> None:
        names = [f"name{number}" for number in range(20)]
        metrics.gauge("wordy", "Many words.", names).labels(*["a" * 100] * 20).set(1)
        self.wait_for(lambda: "statsd_dropped" in self.daemon.values("c"))
        assert max(map(len, self.daemon.datagrams)) <= 1432
        assert self.warnings() == []

    def test_a_full_datagram_does_not_wait_for_the_timer(self) -> None:
        self.wait_until_sending()
        assert self.metrics._timer
        self.metrics._timer.cancel()
        requests = 0
        while not self.daemon.requests() and requests < 50:
            self.fetch("/")
            requests += 1
        # The last one begins the next datagram.
        assert self.daemon.requests() == {"GET.http.200._.none": requests - 1}
        assert 1350 < len(self.daemon.datagrams[-1]) <= 1432

    def test_any_number_of_paths_adds_one_name(self) -> None:
        async def flood() -> None:
            reader, writer = await self.connect()
            for path in range(3000):
                writer.write(b"HEAD /%x HTTP/1.1\r\nHost: a\r\n\r\n" % path)
                await reader.readuntil(b"\r\n\r\n")
            writer.close()

        self.run_async(flood)
        self.wait_for(self.daemon.requests)
        assert list(self.daemon.requests()) == ["HEAD.http.404.unmatched.none"]

    def test_series_are_bounded(self) -> None:
        self.patch("MAX_SERIES", 10)
        counter = metrics.counter("greetings", "Greetings given.", ["name"])
        for number in range(15):
            counter.labels(number).inc()
        assert len(metrics._outbox.values) == 10
        self.wait_for(lambda: "statsd_dropped" in self.daemon.values("c"))
        assert self.daemon.values("c")["statsd_dropped"] == [5]
        [export] = self.metrics.exports()
        assert export.dropped == 5
        assert len(self.daemon.values("c")) == 11


class TestAbsent(StatsDTest):
    """Nobody listens yet."""

    def get_app(self) -> Application:
        self.daemon.close()
        return super().get_app()

    def test_one_warning_then_what_was_kept_arrives(self) -> None:
        async def requests() -> None:
            for _ in range(5):
                await self.http_client.fetch(self.get_url("/"))
                failures = self.connection._failures
                await self.until(lambda: self.connection._failures > failures)  # noqa: B023

        self.run_async(requests)
        metrics.counter("greetings", "Greetings given.").inc()
        self.restart_daemon()
        self.wait_for(lambda: self.daemon.values("c"))
        assert self.daemon.requests() == {"GET.http.200._.none": 5}
        assert self.daemon.values("c") == {"greetings": [1]}
        assert len(self.warnings()) == 1
        assert len(self.recoveries()) == 1

    def test_what_is_kept_is_bounded(self) -> None:
        self.patch("MAX_DATAGRAMS", 1)
        for _ in range(30):
            self.fetch("/")
        assert len(metrics._outbox.datagrams) == 1
        self.restart_daemon()
        self.wait_for(lambda: "statsd_dropped" in self.daemon.values("c"))
        (dropped,) = self.daemon.values("c")["statsd_dropped"]
        assert 0 < dropped < 20
        assert self.daemon.requests() == {"GET.http.200._.none": 30 - dropped}


class TestGone(StatsDTest):
    def test_a_daemon_that_restarts_is_found_again(self) -> None:
        self.wait_until_sending()
        for times in (1, 2):
            assert len(self.recoveries()) == times - 1
            self.daemon.close()
            self.wait_for(lambda: len(self.warnings()) == times)  # noqa: B023
            self.fetch("/")
            self.restart_daemon()
            self.wait_for(self.daemon.requests)
            assert self.daemon.requests() == {"GET.http.200._.none": 1}
            assert len(self.warnings()) == times

    def test_a_buffer_that_is_full_waits(self) -> None:
        self.wait_until_sending()
        with mock.patch.object(self.connection, "_socket", Full()):
            self.fetch("/")
            self.wait_for_flushes()
            self.fetch("/")
            # Nor does it fill with gauges meanwhile.
            assert len(metrics._outbox.datagrams) == 1
        self.wait_for(lambda: self.daemon.requests() == {"GET.http.200._.none": 2})
        assert self.warnings() == []

    def test_a_buffer_that_is_full_at_the_end_is_waited_for(self) -> None:
        async def stop() -> None:
            stopping = asyncio.create_task(self.metrics.shutdown())
            await self.until(lambda: not self.connection._thread.is_alive())
            attempts = full.attempts
            await self.until(lambda: stopping.done() or full.attempts > attempts + 1)
            self.connection._socket = real
            await stopping

        self.wait_until_sending()
        real, full = self.connection._socket, Full()
        self.connection._socket = full  # type: ignore[assignment]
        self.fetch("/")
        self.run_async(stop)
        assert self.daemon.requests() == {"GET.http.200._.none": 1}


class Full:
    """A socket that takes nothing: the system's own takes what a test can send."""

    attempts = 0

    def send(self, datagram: bytes) -> None:
        self.attempts += 1
        raise BlockingIOError

    def close(self) -> None:
        pass


class TestUnresolvable(StatsDTest):
    host = "nowhere.invalid"

    def setUp(self) -> None:
        self.answers: list[tuple[str, int]] = []
        self.lookups = 0
        self.hanging = 0
        #: Cleared, the resolver hangs.
        self.is_answering = Event()
        self.is_answering.set()
        self.addCleanup(self.is_answering.set)
        real = socket.getaddrinfo

        def resolve(host: Any, *args: Any, **kwargs: Any) -> list[Any]:
            if host != self.host:
                return real(host, *args, **kwargs)
            self.lookups += 1
            self.hanging += 1
            self.is_answering.wait(20)
            self.hanging -= 1
            if not self.answers:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return [(socket.AF_INET, 0, 0, "", answer) for answer in self.answers]

        patch = mock.patch.object(socket, "getaddrinfo", resolve)
        patch.start()
        self.addCleanup(patch.stop)
        super().setUp()

    def test_one_warning_and_the_service_answers(self) -> None:
        self.wait_for(lambda: self.connection._failures >= 3)
        assert self.fetch("/").code == 200
        (warning,) = self.warnings()
        assert "nowhere.invalid" in warning

    def test_it_is_tried_for_as_long_as_it_takes(self) -> None:
        self.connection._failures = 10_000
        self.wait_for(lambda: self.connection._failures > 10_002)

    def test_a_name_that_comes_later(self) -> None:
        self.fetch("/")
        self.wait_for(lambda: self.connection._failures >= 2)
        self.answers = [("127.0.0.1", self.daemon.port)]
        self.wait_for(self.daemon.requests)
        assert self.daemon.requests() == {"GET.http.200._.none": 1}

    def test_each_address_has_its_turn(self) -> None:
        nobody = Daemon()
        nobody.close()
        self.answers = [("127.0.0.1", nobody.port), ("127.0.0.1", self.daemon.port)]
        self.wait_until_sending()

    def test_a_name_that_moves_is_followed(self) -> None:
        self.patch("RESOLVE_AGAIN_SECONDS", 0.01)
        other = Daemon()
        self.addCleanup(other.close)
        self.answers = [("127.0.0.1", self.daemon.port)]
        self.wait_until_sending()
        self.answers = [("127.0.0.1", other.port)]
        self.wait_for(lambda: other.values("g"))

    def test_a_name_that_is_lost_is_no_reason_to_stop(self) -> None:
        self.patch("RESOLVE_AGAIN_SECONDS", 0.001)
        self.answers = [("127.0.0.1", self.daemon.port)]
        self.wait_until_sending()
        self.answers = []
        lookups = self.lookups
        self.wait_for(lambda: self.lookups >= lookups + 3)
        self.fetch("/")
        self.wait_for(self.daemon.requests)
        assert self.warnings() == self.warnings()[:1]

    def test_a_resolver_that_hangs_holds_nothing(self) -> None:
        self.patch("LAST_FLUSH_SECONDS", 0.01)
        self.is_answering.clear()
        self.wait_for(lambda: self.hanging)
        lookups = self.lookups
        assert self.fetch("/").code == 200
        self.wait_for_flushes()
        self.run_async(self.metrics.shutdown)
        assert self.hanging == 1
        assert self.lookups == lookups

    def test_a_stop_does_not_wait_for_the_resolver(self) -> None:
        async def stop() -> None:
            connection = metrics._Connection(self.host, 1)
            connection.start()
            await self.until(lambda: self.hanging == 2)
            await connection.stop()

        self.patch("LAST_FLUSH_SECONDS", 0.01)
        self.is_answering.clear()
        # At its end asyncio joins its executor's threads, and the interpreter all but daemons.
        asyncio.run(stop())
        assert self.hanging == 2
        assert all(each.daemon for each in threading.enumerate() if each.name == "StatsD")


class TestMalformed(StatsDTest):
    """A host name that no resolver is asked for."""

    host = "a" * 64

    def test_one_warning_and_the_service_answers(self) -> None:
        self.wait_for(lambda: self.connection._failures >= 3)
        assert self.fetch("/").code == 200
        assert len(self.warnings()) == 1


class TestIdle(ChassisTest):
    def test_without_a_host_nothing_is_kept_and_one_line_says_so(self) -> None:
        metrics.counter("greetings", "Greetings given.").inc()
        metrics.gauge("queue_length", "Jobs waiting.").inc()
        metrics.histogram("query_duration_seconds", "Duration of queries.").observe(1)
        assert self.fetch("/").code == 200
        assert not metrics._outbox.values
        assert not metrics._outbox.datagrams
        assert None in [each.sent for each in self.app.exports()]

    def test_a_prefix_that_would_break_a_line_is_refused(self) -> None:
        for prefix in ("shop|c", "shop:1", "shop.", "a b"):
            with self.assertRaisesRegex(ValueError, "STATSD_PREFIX: should be names of letters"):
                read(Settings, {"STATSD_PREFIX": prefix})

    def get_app(self) -> Application:
        with self.assertLogs(metrics.log, "INFO") as logs:
            app = super().get_app()
        assert len(logs.output) == 1
        assert "STATSD_HOST is not set" in logs.output[0]
        return app


class TestStop(StatsDTest):
    """Nothing is known of the host yet."""

    probe_seconds = 60

    def test_what_is_left_is_sent(self) -> None:
        self.fetch("/")
        metrics.counter("greetings", "Greetings given.").inc()
        self.run_async(self.metrics.shutdown)
        assert self.daemon.requests() == {"GET.http.200._.none": 1}
        assert self.daemon.values("c") == {"greetings": [1]}

    def test_prefix(self) -> None:
        self.fetch("/")
        metrics.counter("greetings", "Greetings given.").inc()
        self.run_async(self.metrics.shutdown)
        names = {name for kind in ("ms", "g", "c") for name in self.daemon.values(kind)}
        assert len(names) > 5
        assert all(name.startswith("shop.checkout.") for name in names)

    def get_app(self) -> Application:
        if "prefix" in self._testMethodName:
            self.environ = {**self.environ, "STATSD_PREFIX": "shop.checkout"}
        return super().get_app()
