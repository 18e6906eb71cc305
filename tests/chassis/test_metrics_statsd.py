"""What a StatsD daemon receives."""

import asyncio
import gc
import logging
import os
import re
import socket
import threading
from contextlib import suppress
from threading import Event
from typing import Any
from unittest import mock

from tornado_chassis import metrics
from tornado_chassis.application import Application
from tornado_chassis.metrics import meter, statsd
from tornado_chassis.service import Service
from tornado_chassis.settings import read

from ..backends import free_port
from .routes import Slow
from .settings import SERVICE, Settings
from .test_metrics import DURATION, Measured, MetricsTest, Shown, no_metrics
from .testing import SECONDS, ChassisTest, http

PAUSES = "python_gc_pause_seconds"
HOST = re.sub(r"[^A-Za-z0-9_-]+", "_", socket.gethostname())
INSTANCE = re.compile(rf"\.{HOST}_\d+$")


class Daemon:
    """A port of 127.0.0.1, and what has come to it."""

    def __init__(self, port: int = 0) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        # Not one that the system gives to whoever asks for any: even a socket that wants to send to
        # it may be given it, while nobody listens.
        self.socket.bind(("127.0.0.1", port or free_port(socket.SOCK_DGRAM)))
        self.socket.setblocking(False)
        self.port: int = self.socket.getsockname()[1]
        self.datagrams: list[bytes] = []

    def values(self, kind: str, pauses: bool = False) -> dict[str, list[float]]:
        """All values of a kind, `c`, `g` or `ms`, by names without the service and the instance:
        without the pauses of the garbage collection, which come as they like, or only these."""
        with suppress(BlockingIOError):
            while True:
                self.datagrams.append(self.socket.recv(65536))
        found: dict[str, list[float]] = {}
        for line in b"\n".join(self.datagrams).decode().splitlines():
            name, _, rest = line.partition(":")
            value, _, its_kind = rest.partition("|")
            name = INSTANCE.sub("", name.removeprefix(f"{SERVICE}."))
            if its_kind == kind and name.startswith(PAUSES) == pauses:
                found.setdefault(name, []).append(float(value))
        return found

    def requests(self) -> dict[str, int]:
        """How many requests there were, by the labels in their name."""
        return {
            name.removeprefix(f"{DURATION}."): len(values)
            for name, values in self.values("ms").items()
            if name.startswith(DURATION)
        }


class StatsDTest(MetricsTest):
    features = "statsd"
    backend = statsd.StatsD
    host = "127.0.0.1"
    probe_seconds = 0.01

    def setUp(self) -> None:
        self.daemon = Daemon()
        self.addCleanup(lambda: self.daemon.socket.close())
        port = str(self.daemon.port)
        self.environ = {"STATSD_HOST": self.host, "STATSD_PORT": port, **self.environ}
        self.patch("LAST_FLUSH_SECONDS", SECONDS)
        self.patch("RETRY_SECONDS", 0.001)
        self.patch("PROBE_SECONDS", self.probe_seconds)
        self.logged: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: self.logged.append(record.getMessage())  # type: ignore[method-assign]
        statsd.log.addHandler(handler)
        self.addCleanup(statsd.log.removeHandler, handler)
        super().setUp()

    def patch(self, name: str, value: object, module: object = statsd) -> None:
        self.enterContext(mock.patch.object(module, name, value))

    @property
    def outbox(self) -> Any:
        return self.metrics._outbox

    @property
    def counts(self) -> dict[str, list[float]]:
        return self.daemon.values("c")

    def shut_down(self) -> None:
        self.run_async(self.metrics.shutdown)

    def wait_until_sending(self) -> None:
        self.until(lambda: self.daemon.values("g"))

    def wait_for_flushes(self) -> None:
        ticks = self.metrics._ticks
        self.until(lambda: self.metrics._ticks > ticks + 3 * statsd.FLUSH_TICKS)

    def warnings(self) -> list[str]:
        return [line for line in self.logged if re.match(r"Sending metrics to .* failed: ", line)]

    def recoveries(self) -> list[str]:
        return [line for line in self.logged if line.endswith("works again")]

    def expect_requests(self, count: float) -> None:
        """That so many for `/` have come, and no others."""
        assert self.daemon.requests() == {"GET.http.200._.none": count}

    def restart_daemon(self) -> None:
        self.daemon = Daemon(self.daemon.port)


class TestMeasurements(Measured, StatsDTest):
    async def shown(self, name: str) -> Shown:
        counts = {**self.counts, **self.daemon.values("c", pauses=True)}
        found = {key: sum(values) for key, values in counts.items()}
        found |= {key: values[-1] for key, values in self.daemon.values("g").items()}
        found |= {key: len(values) for key, values in self.daemon.values("ms").items()}
        parts = {tuple(key.split(".")): value for key, value in found.items() if value}
        return {each[1:]: value for each, value in parts.items() if each[0] == name}

    def form(self, *labels: str) -> tuple[str, ...]:
        return tuple(re.sub(r"[^A-Za-z0-9_-]+", "_", label) or "none" for label in labels)

    async def reserved(self) -> set[str]:
        received = [*self.daemon.values("g"), *self.counts, *self.daemon.values("ms")]
        return {name.partition(".")[0] for name in received}

    async def test_duration_is_in_milliseconds(self) -> None:
        _, writer = await self.connect(http("GET /slow"))
        await Slow.entered.wait()
        await asyncio.sleep(0.02)
        Slow.release.set()
        await self.until(self.daemon.requests)
        writer.close()
        ((duration,),) = self.daemon.values("ms").values()
        assert 20 <= duration < 60_000

    def test_build_process_and_garbage_collection(self) -> None:
        self.until(lambda: self.daemon.values("g"))
        gauges = self.daemon.values("g")
        assert [gauges[name] for name in gauges if name.startswith(f"build_info.{SERVICE}.")]
        assert gauges["process_cpu_time_seconds"][0] > 0
        assert gauges["python_gc_collections.2"][0] <= gc.get_stats()[2]["collections"]
        assert gauges["process_memory_usage_bytes"][0] > 1_000_000

    def test_measurements_are_counted_as_sent(self) -> None:
        for _ in range(3):
            self.fetch("/")
        self.until(lambda: self.daemon.requests() and self.daemon.values("g"))
        received = [line for each in self.daemon.datagrams for line in each.splitlines()]
        assert (self.exported().sent or 0) >= len(received) > 3
        assert self.exported().dropped == 0


class TestNames(StatsDTest):
    prefix = SERVICE

    def test_each_has_the_prefix_and_a_gauge_the_instance(self) -> None:
        self.fetch("/")
        metrics.counter("greetings", "Greetings given.").inc()
        self.shut_down()
        assert self.daemon.values("ms")
        datagrams = filter(None, self.daemon.datagrams)  # an empty one is a probe
        lines = b"\n".join(datagrams).decode().splitlines()
        names = {line.partition("|")[2]: line.partition(":")[0] for line in lines}
        assert {*names} == {"c", "g", "ms"}
        assert f"{self.prefix}.greetings:1|c" in lines
        assert all(line.startswith(f"{self.prefix}.") for line in lines)
        assert re.fullmatch(rf"{self.prefix}\..*\.{HOST}_\d+", names["g"])


class TestPrefix(TestNames):
    environ = {"STATSD_PREFIX": "shop.checkout"}  # noqa: RUF012 (as its base)
    prefix = "shop.checkout"


class TestOwn(StatsDTest):
    """Metrics of one's own."""

    def make_service(self) -> Service:
        # They may be older than the service.
        self.greetings = metrics.counter("greetings", "Greetings given.", ["language"])
        self.greetings.labels("en").inc()
        queries = metrics.histogram("query_duration_seconds", "Duration of queries.", ["table"])
        self.queries = queries.labels("users")
        self.queries.observe(7)
        return super().make_service()

    def test_counter_is_sent_as_it_grows(self) -> None:
        self.until(lambda: self.counts == {"greetings.en": [1]})
        self.greetings.labels("en").inc(2.5)
        self.greetings.labels("de").inc(0)
        # The names of some are the same, and a name has no empty part.
        for language in ("d|e:f", "d/e f", "d|e:f", ""):
            self.greetings.labels(language).inc()
        self.until(lambda: sum(map(sum, self.counts.values())) == 7.5)
        self.wait_for_flushes()
        assert self.counts.keys() == {"greetings.en", "greetings.d_e_f", "greetings.none"}
        assert self.counts["greetings.en"] == [1, 2.5]
        assert sum(self.counts["greetings.d_e_f"]) == 3

    def test_gauge_is_sent_again_and_again_and_below_zero_as_no_difference(self) -> None:
        metrics.gauge("nonsense", "No number.").set(float("nan"))
        metrics.gauge("temperature", "Degrees.").set(-2.25)
        self.until(lambda: len(self.daemon.values("g").get("temperature", [])) >= 4)
        assert set(self.daemon.values("g")["temperature"]) == {0, -2.25}
        assert "nonsense" not in self.daemon.values("g")
        name = rf"{SERVICE}\.temperature\.{HOST}_\d+"
        lines = rf"(?m)^({name}):0\|g\n\1:-2\.250000\|g$"
        assert re.search(lines, b"\n".join(self.daemon.datagrams).decode())

    def test_each_duration_of_a_histogram_is_sent(self) -> None:
        for seconds in (0.2, float("nan"), 1):
            self.queries.observe(seconds)
        self.until(lambda: self.daemon.values("ms"))
        # But not what was before the service.
        assert self.daemon.values("ms") == {"query_duration_seconds.users": [200, 1000]}

    def test_nothing_is_kept_of_a_service_that_has_ended(self) -> None:
        assert len(metrics.subscribers) == 1
        self.shut_down()
        assert metrics.subscribers == []


class TestBounds(StatsDTest):
    def test_datagrams_are_full_but_fit_a_frame(self) -> None:
        histogram = metrics.histogram("query_duration_seconds", "Duration of queries.")
        for _ in range(1000):
            histogram.observe(0.001)
        self.until(lambda: sum(map(len, self.daemon.values("ms").values())) == 1000)
        sizes = [len(each) for each in self.daemon.datagrams if each.count(b"query_duration") > 10]
        assert 1350 < max(sizes) <= 1432
        line = len(f"{SERVICE}.query_duration_seconds:1.000|ms\n")
        assert len(sizes) < 1.3 * 1000 * line / 1432

    def test_a_line_that_fits_no_datagram_is_dropped(self) -> None:
        names = [f"name{number}" for number in range(20)]
        metrics.gauge("wordy", "Many words.", names).labels(*["a" * 100] * 20).set(1)
        self.until(lambda: "statsd_dropped" in self.counts)
        assert max(map(len, self.daemon.datagrams)) <= 1432
        assert self.warnings() == []

    def test_a_full_datagram_does_not_wait_for_the_timer(self) -> None:
        self.wait_until_sending()
        assert self.metrics.lag._timer
        self.metrics.lag._timer.cancel()
        requests = 0
        while not self.daemon.requests() and requests < 50:
            self.fetch("/")
            requests += 1
        # The last one begins the next datagram.
        self.expect_requests(requests - 1)
        assert 1350 < len(self.daemon.datagrams[-1]) <= 1432

    def test_series_are_bounded(self) -> None:
        self.patch("MAX_SERIES", 10, metrics)
        counter = metrics.counter("greetings", "Greetings given.", ["name"])
        for number in range(15):
            counter.labels(number).inc()
        self.until(lambda: "metrics_dropped" in self.counts)
        # One of the ten is for the count of what is dropped.
        assert self.counts["metrics_dropped"] == [self.exported().dropped] == [6]
        assert len(self.counts) == 10


class TestAbsent(StatsDTest):
    """Nobody listens yet."""

    def get_app(self) -> Application:
        self.daemon.socket.close()
        return super().get_app()

    def test_one_warning_then_what_was_kept_arrives(self) -> None:
        for _ in range(5):
            self.fetch("/")
            failures = self.outbox._failures
            self.until(lambda: self.outbox._failures > failures)  # noqa: B023
        metrics.counter("greetings", "Greetings given.").inc()
        self.restart_daemon()
        self.until(lambda: self.counts)
        self.expect_requests(5)
        assert self.counts == {"greetings": [1]}
        assert len(self.warnings()) == len(self.recoveries()) == 1

    def test_what_is_kept_is_bounded(self) -> None:
        self.patch("MAX_DATAGRAMS", 1)
        for _ in range(30):
            self.fetch("/")
        assert len(self.outbox.datagrams) == 1
        self.restart_daemon()
        self.until(lambda: "statsd_dropped" in self.counts)
        (dropped,) = self.counts["statsd_dropped"]
        assert 0 < dropped < 20
        self.expect_requests(30 - dropped)


class TestGone(StatsDTest):
    def test_a_daemon_that_restarts_is_found_again(self) -> None:
        self.wait_until_sending()
        for times in (1, 2):
            assert len(self.recoveries()) == times - 1
            self.daemon.socket.close()
            self.until(lambda: len(self.warnings()) == times)  # noqa: B023
            self.fetch("/")
            self.restart_daemon()
            self.until(self.daemon.requests)
            self.expect_requests(1)
            assert len(self.warnings()) == times

    def test_a_buffer_that_is_full_waits(self) -> None:
        self.wait_until_sending()
        with mock.patch.object(self.outbox, "_socket", Full()):
            self.fetch("/")
            self.wait_for_flushes()
            self.fetch("/")
            # Nor does it fill with gauges meanwhile.
            assert len(self.outbox.datagrams) == 1
        self.until(lambda: self.daemon.requests() == {"GET.http.200._.none": 2})
        assert self.warnings() == []

    def test_a_buffer_that_is_full_at_the_end_is_waited_for(self) -> None:
        async def stop() -> None:
            stopping = asyncio.create_task(self.metrics.shutdown())
            await self.until(lambda: not self.outbox._thread.is_alive())
            attempts = full.attempts
            await self.until(lambda: stopping.done() or full.attempts > attempts + 1)
            self.outbox._socket = real
            await stopping

        self.wait_until_sending()
        real, full = self.outbox._socket, Full()
        self.outbox._socket = full
        self.fetch("/")
        self.run_async(stop)
        self.expect_requests(1)


class Full:
    """A socket that takes nothing: the system's own takes what a test can send."""

    attempts = 0

    def send(self, datagram: bytes) -> None:
        self.attempts += 1
        raise BlockingIOError

    def close(self) -> None:
        pass


class TestMalformed(StatsDTest):
    """A host name that no resolver is asked for."""

    host = "a" * 64

    def test_one_warning_and_the_service_answers(self) -> None:
        self.until(lambda: self.outbox._failures >= 3)
        assert self.fetch("/").code == 200
        (warning,) = self.warnings()
        assert self.host in warning


class TestUnresolvable(TestMalformed):
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
            self.is_answering.wait(SECONDS)
            self.hanging -= 1
            if not self.answers:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return [(socket.AF_INET, 0, 0, "", answer) for answer in self.answers]

        self.patch("getaddrinfo", resolve, socket)
        super().setUp()

    def test_it_is_tried_for_as_long_as_it_takes(self) -> None:
        self.outbox._failures = 10_000
        self.until(lambda: self.outbox._failures > 10_002)

    def test_a_name_that_comes_later(self) -> None:
        self.fetch("/")
        self.until(lambda: self.outbox._failures >= 2)
        self.answers = [("127.0.0.1", self.daemon.port)]
        self.until(self.daemon.requests)
        self.expect_requests(1)

    def test_each_address_has_its_turn(self) -> None:
        nobody = Daemon()
        nobody.socket.close()
        self.answers = [("127.0.0.1", nobody.port), ("127.0.0.1", self.daemon.port)]
        self.wait_until_sending()

    def test_a_name_that_moves_is_followed(self) -> None:
        self.patch("RESOLVE_AGAIN_SECONDS", 0.01)
        other = Daemon()
        self.addCleanup(other.socket.close)
        self.answers = [("127.0.0.1", self.daemon.port)]
        self.wait_until_sending()
        self.answers = [("127.0.0.1", other.port)]
        self.until(lambda: other.values("g"))

    def test_a_name_that_is_lost_is_no_reason_to_stop(self) -> None:
        self.patch("RESOLVE_AGAIN_SECONDS", 0.001)
        self.answers = [("127.0.0.1", self.daemon.port)]
        self.wait_until_sending()
        self.answers = []
        lookups = self.lookups
        self.until(lambda: self.lookups >= lookups + 3)
        self.fetch("/")
        self.until(self.daemon.requests)
        assert self.warnings() == self.warnings()[:1]

    def test_a_resolver_that_hangs_holds_nothing(self) -> None:
        self.patch("LAST_FLUSH_SECONDS", 0.01)
        self.is_answering.clear()
        self.until(lambda: self.hanging)
        lookups = self.lookups
        assert self.fetch("/").code == 200
        self.wait_for_flushes()
        self.shut_down()
        assert self.hanging == 1
        assert self.lookups == lookups

    def test_a_stop_does_not_wait_for_the_resolver(self) -> None:
        async def stop() -> None:
            outbox = statsd._Outbox(self.host, 1)
            outbox.start()
            await self.until(lambda: self.hanging == 2)
            await outbox.stop()

        self.patch("LAST_FLUSH_SECONDS", 0.01)
        self.is_answering.clear()
        # At its end asyncio joins its executor's threads, and the interpreter all but daemons.
        asyncio.run(stop())
        assert self.hanging == 2
        assert all(each.daemon for each in threading.enumerate() if each.name == "StatsD")


class TestIdle(ChassisTest):
    features = "statsd"

    def test_without_a_host_nothing_is_kept_and_one_line_says_so(self) -> None:
        metrics.counter("greetings", "Greetings given.").inc()
        metrics.gauge("queue_length", "Jobs waiting.").inc()
        metrics.histogram("query_duration_seconds", "Duration of queries.").observe(1)
        assert self.fetch("/").code == 200
        (idle,) = [each for each in self.app.runtime.features if isinstance(each, statsd.StatsD)]
        assert not idle._outbox.datagrams
        assert metrics.subscribers == []
        assert None in [each.sent for each in self.app.runtime.exports()]

    def test_a_prefix_that_would_break_a_line_is_refused(self) -> None:
        for prefix in ("shop|c", "shop:1", "shop.", "a b"):
            with self.assertRaisesRegex(ValueError, "STATSD_PREFIX: should be names of letters"):
                read(Settings, {"STATSD_PREFIX": prefix})

    def get_app(self) -> Application:
        self.enterContext(no_metrics())
        with self.assertLogs(statsd.log, "INFO") as logs:
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
        self.shut_down()
        self.expect_requests(1)
        assert self.counts == {"greetings": [1]}


def test_processes_on_one_host_have_names_of_their_own() -> None:
    def instance(**environ: str) -> str:
        return meter.instance_of(read(Settings, environ))

    assert instance(PORT="8000") != instance(PORT="8001")
    # One port has several processes, the other none yet.
    for environ in ({"REUSE_PORT": "true"}, {"PORT": "0"}):
        assert instance(**environ).endswith(f":{os.getpid()}")
