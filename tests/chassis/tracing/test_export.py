"""What becomes of spans while the backend fails."""

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from unittest import mock

import pytest
from tornado_chassis import export
from tornado_chassis.export import Sender
from tornado_chassis.tracing.spans import Span, SpanBackend

from ..testing import listening, reserved_port
from . import OTLP, TRACE, each_backend
from .receiver import IMPATIENT, Receiver, drip, hanging, receiving, serving, sip, unanswering


class Log(logging.Handler):
    """The sender's log, to wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._changed = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._changed:
            self.lines.append(record.getMessage())
            self._changed.notify_all()

    def wait_for(self, text: str) -> None:
        with self._changed:
            logged = self._changed.wait_for(lambda: any(text in line for line in self.lines), 60)
        assert logged, self.lines


@pytest.fixture(autouse=True)
def log() -> Iterator[Log]:
    handler = Log()
    export.log.setLevel(logging.INFO)
    export.log.addHandler(handler)
    with mock.patch.multiple(export, **IMPATIENT):
        yield handler
    export.log.removeHandler(handler)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def refusing_port() -> Iterator[int]:
    with reserved_port() as port:
        yield port


def url_of(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def make_sender(url: str, timeout: float = 60.0, backend: SpanBackend = OTLP) -> Sender:
    backend = copy(backend)
    backend.url, backend.timeout = url, timeout
    return Sender(backend)


def stop(sender: Sender) -> None:
    asyncio.run(sender.stop())


@contextmanager
def sending(url: str, timeout: float = 60.0, backend: SpanBackend = OTLP) -> Iterator[Sender]:
    """A sender that has started, and that stops at the end of the block at the latest."""
    sender = make_sender(url, timeout, backend)
    sender.start()
    yield sender
    if not sender._stopping.is_set():
        stop(sender)


def make_span(name: str, sender: Sender) -> Span:
    return Span(name, "INTERNAL", TRACE, "", 1, "", sender.put)


def end(sender: Sender, name: str = "work", spans: int = 1) -> None:
    """Ends spans."""
    for _ in range(spans):
        make_span(name, sender).end()


def send(
    receiver: Receiver, times: int = 1, wait: Callable[[float], object] | None = None
) -> Sender:
    """Sends one span after the other, and stops. `wait` takes the place of waiting between two
    attempts."""
    sender = make_sender(receiver.url)
    if wait:
        sender._stopping.wait = wait  # type: ignore[assignment]
    sender.start()
    for number in range(times):
        end(sender)
        receiver.wait_for(spans=number + 1)
    stop(sender)
    return sender


def test_spans_are_sent_in_batches(receiver: Receiver) -> None:
    sender = make_sender(receiver.url)
    end(sender, spans=export.BATCH + 44)
    sender.start()
    stop(sender)
    assert [len(request.spans) for request in receiver.requests] == [export.BATCH, 44]
    assert (sender.sent, sender.dropped) == (export.BATCH + 44, 0)


def test_full_batch_does_not_wait(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "BATCH_SECONDS", 3600.0)
    with sending(receiver.url) as sender:
        end(sender, spans=export.BATCH)
        receiver.wait_for(spans=export.BATCH)


def test_spans_arrive_when_a_backend_that_refused_comes_back(log: Log, refusing_port: int) -> None:
    with sending(url_of(refusing_port)) as sender:
        end(sender)
        log.wait_for("failed: [Errno")
        end(sender)
        with receiving(refusing_port) as receiver:
            receiver.wait_for(spans=2)
            stop(sender)
    assert sender.sent == 2
    failed, works = log.lines
    assert failed.startswith(f"Span export to {receiver.url} failed: [Errno")
    assert works == f"Span export to {receiver.url} works again"


def test_wait_between_attempts_doubles_up_to_a_limit(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "FIRST_DELAY_SECONDS", 1.0)
    monkeypatch.setattr(export, "MAX_DELAY_SECONDS", 4.0)
    waits: list[float] = []
    receiver.statuses.extend([503] * 5)
    send(receiver, wait=waits.append)
    ratios = [wait / limit for wait, limit in zip(waits, [1, 2, 4, 4, 4], strict=True)]
    assert all(0.5 <= ratio <= 1 for ratio in ratios)
    # Jittered: instances that fail together must not all try again together.
    assert len(set(ratios)) == 5


def test_stop_tries_once_more(
    log: Log, monkeypatch: pytest.MonkeyPatch, refusing_port: int
) -> None:
    monkeypatch.setattr(export, "FIRST_DELAY_SECONDS", 3600.0)
    with sending(url_of(refusing_port)) as sender:
        end(sender)
        log.wait_for("failed")
        with receiving(refusing_port) as receiver:
            stop(sender)
            assert len(receiver.spans) == 1


def test_stop_does_not_wait_for_a_backend_that_refuses(log: Log, refusing_port: int) -> None:
    with sending(url_of(refusing_port)) as sender:
        end(sender, spans=3)
    assert sender.dropped == 3
    assert log.lines[-1].startswith("3 spans were lost")
    assert not sender._thread.is_alive()


def test_stop_does_not_wait_for_a_backend_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "STOP_SECONDS", 0.01)
    with hanging() as url, sending(url) as sender:
        end(sender, spans=3)
        stop(sender)
        assert sender._thread.is_alive()
    assert sender.dropped == 3


def test_stop_that_is_cut_short_counts_what_it_loses(log: Log) -> None:
    async def stop_and_cancel(sender: Sender) -> None:
        task = asyncio.create_task(sender.stop())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})

    with hanging() as url, sending(url, timeout=0.5) as sender:
        end(sender)
        asyncio.run(stop_and_cancel(sender))
    assert sender.dropped == 1
    assert "1 spans were lost: they could not be sent before the stop" in log.lines


def test_backend_that_hangs_is_tried_again(log: Log, refusing_port: int) -> None:
    with sending(url_of(refusing_port), timeout=0.01) as sender:
        with hanging(refusing_port):
            end(sender)
            log.wait_for("failed: timed out")
        with receiving(refusing_port) as receiver:
            receiver.wait_for(spans=1)
            stop(sender)


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Has each name resolve to these."""
    kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
    found = [(*kind, address) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found.copy())


@contextmanager
def many_addresses() -> Iterator[str]:
    """The URL of a backend none of whose many addresses answers."""
    with unanswering() as address, pytest.MonkeyPatch.context() as monkeypatch:
        resolve_to(monkeypatch, *[address] * 100)
        yield "http://collector.invalid"


@pytest.mark.parametrize(
    ("slow", "size"),
    # Of those that read too slowly, more than the buffers of a socket take.
    [
        (partial(serving, drip), 1),
        (many_addresses, 1),
        (hanging, 100_000),
        (partial(serving, sip), 100_000),
    ],
    ids=["drips", "many addresses", "reads nothing", "sips"],
)
def test_backend_that_takes_too_long_is_given_up(
    slow: Callable[[], AbstractContextManager[str]],
    size: int,
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(export, "QUEUE_CHARACTERS", 100_000_000)
    with slow() as url:
        sender = make_sender(url, timeout=0.5)
        end(sender, name="n" * size, spans=100)
        sender.start()
        log.wait_for("failed: timed out")
        stop(sender)
    assert sender.dropped == 100


def test_address_that_does_not_answer_leaves_time_for_the_next(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with unanswering() as address:
        # The first has a thirtieth of a minute.
        resolve_to(monkeypatch, address, *[("127.0.0.1", receiver.server_port)] * 29)
        with sending("http://collector.invalid") as sender:
            end(sender)
            receiver.wait_for(spans=1)
    assert (sender.sent, len(receiver.requests)) == (1, 1)


@pytest.mark.parametrize(
    ("method", "line"), [("body", "Could not send 1 spans"), ("encode", "Could not encode a span")]
)
def test_what_cannot_be_encoded_harms_no_other(
    method: str, line: str, log: Log, receiver: Receiver
) -> None:
    with sending(receiver.url) as sender:
        with mock.patch.object(sender._backend, method, side_effect=ZeroDivisionError):
            end(sender)
            log.wait_for(line)
        end(sender)
        receiver.wait_for(spans=1)
    assert (sender.sent, sender.failed) == (1, 1)
    assert log.lines == [line]


def test_backend_that_does_not_resolve(log: Log) -> None:
    unresolvable = mock.patch("socket.getaddrinfo", side_effect=OSError("no such name"))
    with unresolvable, sending("http://nowhere.invalid:9999") as sender:
        end(sender)
        log.wait_for("failed: no such name")
    assert sender.dropped == 1


def test_backend_with_an_impossible_name(log: Log) -> None:
    with sending(f"http://{'a' * 64}.invalid/v1?key=hidden") as sender:
        end(sender)
        log.wait_for(f"Span export to http://{'a' * 64}.invalid failed: ")
    assert "hidden" not in "".join(log.lines)


def test_exporter_that_never_started_can_be_stopped() -> None:
    stop(make_sender("http://127.0.0.1:9"))


def in_seconds(seconds: float) -> str:
    """A date of HTTP."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("20", 20, 21),
        # As a date has no fractions, and time passes until it is read.
        (lambda: in_seconds(600), 300, 601),
        ("99999999999999999999", 3600, 3601),
        ("0", 0, 1),
        ("-5", 0, 1),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 1),
        ("Wed, 21 Oct 2015 07:28:00", 0, 1),
        ("soon", 0, 1),
        ("nan", 0, 1),
        ("٣", 0, 1),
    ],
)
def test_retry_after_is_heeded(
    receiver: Receiver, status: int, header: str | Callable[[], str], least: float, most: float
) -> None:
    waits: list[float] = []
    receiver.headers["Retry-After"] = header if isinstance(header, str) else header()
    receiver.statuses.append(status)
    send(receiver, wait=waits.append)
    [wait] = waits
    assert least <= wait <= most


def test_backend_that_says_when_to_come_back_is_not_given_up(receiver: Receiver) -> None:
    receiver.headers["Retry-After"] = "20"
    receiver.statuses.extend([429] * (2 * export.MAX_REFUSALS))
    sender = send(receiver, wait=lambda seconds: None)
    assert (sender.sent, sender.failed) == (1, 0)


@pytest.mark.parametrize("count", ["2", 2])
def test_partial_success_counts_what_was_rejected(
    count: str | int, log: Log, receiver: Receiver
) -> None:
    success = {"rejectedSpans": count, "errorMessage": "too old\n" + "x" * 10_000}
    receiver.answer = json.dumps({"partialSuccess": success}).encode()
    sender = make_sender(receiver.url)
    end(sender, spans=3)
    sender.start()
    log.wait_for("failed")
    receiver.answer = b"{}"
    end(sender)
    receiver.wait_for(spans=4)
    stop(sender)
    assert (sender.sent, sender.failed, sender.dropped) == (2, 2, 0)
    failed, works = log.lines
    assert failed.startswith(f"Span export to {receiver.url} failed: 2 of 3 were rejected: too old")
    assert len(failed) < 500
    assert works == f"Span export to {receiver.url} works again"


@pytest.mark.parametrize(
    ("answer", "sent", "failed"),
    [
        ("", 1, 0),
        ("[" * 60_000, 1, 0),
        ("[]", 1, 0),
        ("\xff", 1, 0),
        *((f'{{"partialSuccess": {value}}}', 1, 0) for value in ("null", "7", "{}")),
        *(
            (f'{{"partialSuccess": {{"rejectedSpans": {count}}}}}', 1, 0)
            for count in ("null", '"many"', "NaN", "Infinity", '"-1"')
        ),
        ('{"partialSuccess": {"rejectedSpans": "999", "errorMessage": 3}}', 0, 1),
        ('{"partialSuccess": {"rejectedDataPoints": 1}}', 0, 1),
    ],
)
def test_any_answer_of_success_is_one(
    answer: str, sent: int, failed: int, log: Log, receiver: Receiver
) -> None:
    receiver.answer = answer.encode("latin-1")
    sender = send(receiver)
    assert (sender.sent, sender.failed, sender.dropped) == (sent, failed, 0)
    assert len(log.lines) == failed


def test_warning_of_a_backend_that_took_everything_is_logged(log: Log, receiver: Receiver) -> None:
    receiver.answer = b'{"partialSuccess": {"errorMessage": "use https"}}'
    with sending(receiver.url) as sender:
        end(sender)
        log.wait_for("use https")
    assert (sender.sent, sender.failed) == (1, 0)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_refusal_that_may_pass_is_no_loss(status: int, log: Log, receiver: Receiver) -> None:
    receiver.statuses.extend([status] * (export.MAX_REFUSALS - 1))
    sender = send(receiver)
    assert (sender.sent, sender.failed) == (1, 0)
    failed, works = log.lines
    assert failed.startswith(f"Span export to {receiver.url} failed: {status} ")
    assert works == f"Span export to {receiver.url} works again"


@pytest.mark.parametrize(
    ("status", "times"), [(400, 1), (500, export.MAX_REFUSALS)], ids=["for good", "too often"]
)
def test_batch_that_is_refused_is_a_failure_and_what_follows_is_sent(
    status: int, times: int, log: Log, receiver: Receiver
) -> None:
    receiver.statuses.extend([status] * times)
    sender = make_sender(receiver.url)
    end(sender, spans=2)
    sender.start()
    receiver.wait_for(refused=times, spans=0)
    end(sender)
    receiver.wait_for(spans=1)
    stop(sender)
    assert (sender.sent, sender.failed, len(receiver.spans)) == (1, 2, 1)
    assert any(f"failed: {status} " in line for line in log.lines)


def test_span_that_is_too_large_costs_itself_only(receiver: Receiver) -> None:
    receiver.statuses.extend([413] * 3)
    sender = make_sender(receiver.url)
    end(sender, spans=4)
    sender.start()
    receiver.wait_for(spans=3)
    stop(sender)
    assert [len(request.spans) for request in receiver.requests] == [1, 2]
    assert (sender.sent, sender.failed, sender.dropped) == (3, 1, 0)


def test_queue_is_bounded(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "QUEUE_CHARACTERS", 10_000)
    sender = make_sender(receiver.url)
    end(sender, name="n" * 1000, spans=100)
    assert 0 < len(sender._queue) < 15
    assert sender.dropped == 100 - len(sender._queue)
    sender.start()
    receiver.wait_for(spans=len(sender._queue))
    stop(sender)
    assert sender._size == 0
    assert sender.sent + sender.dropped == 100


def test_connection_closed_while_idle_is_no_trouble(log: Log, receiver: Receiver) -> None:
    receiver.hangs_up = True
    send(receiver, times=3)
    assert log.lines == []


@pytest.mark.parametrize(
    ("read", "connections"),
    [(export.ANSWER_BYTES, 1), (1, 3)],
    ids=["kept", "closed before an answer without end"],
)
def test_connection(
    read: int, connections: int, log: Log, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "ANSWER_BYTES", read)
    send(receiver, times=3)
    assert receiver.connections == connections
    assert log.lines == []


def test_https(log: Log, receiver: Receiver) -> None:
    with sending(receiver.url.replace("http", "https")) as sender:
        end(sender)
        log.wait_for("failed: [SSL")


@each_backend
def test_text_that_is_no_unicode_harms_no_other(
    backend: SpanBackend, log: Log, receiver: Receiver
) -> None:
    pair, alone, escaped = "\U0001f600", "\ud83d", "\\ud83d"
    with sending(receiver.url, backend=backend) as sender:
        span = make_span(f"{alone}a{pair}{escaped}{alone}", sender)
        span.scope, span.scope_version = f"library{alone}", f"1{alone}"
        span.set_attribute(f"key {alone}", f"{alone}{pair} \udc00")
        span.record_exception(ValueError(f"{alone}{alone}"))
        span.end()
        end(sender)
        receiver.wait_for(spans=2)
    odd, _ = receiver.spans
    assert (odd.scope, odd.scope_version) == ("library\ufffd", "1\ufffd")
    assert odd.name == f"\ufffda{pair}{escaped}\ufffd"
    assert odd.attributes["key \ufffd"] == f"\ufffd{pair} \ufffd"
    # As a backend has to that keeps it as UTF-8.
    str(odd).encode()
    assert log.lines == []


@pytest.mark.parametrize("fault", ["refuses", "hangs", "does not resolve", "is malformed"])
@pytest.mark.parametrize(
    ("features", "signal", "unit"),
    [("jaeger", "TRACES", "spans"), ("otlp", "METRICS", "data points")],
)
def test_service_starts_serves_and_stops_without_its_backend(
    features: str, signal: str, unit: str, fault: str, refusing_port: int
) -> None:
    with hanging() as hung:
        url = {
            "refuses": url_of(refusing_port),
            "hangs": hung,
            "does not resolve": "http://nowhere.invalid:9999",
            "is malformed": "localhost:4317",
        }[fault]
        endpoint = {f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT": url}
        often = {"OTEL_METRIC_EXPORT_INTERVAL": "10"}
        with listening(FEATURES=f"logs {features}", **endpoint, **often) as service:
            assert service.fetch("/hello/x")
            assert service.stop() == 0
            expected = "It is ignored" if fault == "is malformed" else f"{unit} were lost"
            assert expected in service.output()
            assert "Traceback" not in service.output()
