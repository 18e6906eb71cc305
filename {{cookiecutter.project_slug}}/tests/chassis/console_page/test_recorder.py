"""What the console remembers stays within its bounds."""

import gc
import logging
import random
import tracemalloc
import weakref
from types import SimpleNamespace
from typing import Any

from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from my_service.chassis.application import Exchange
from my_service.chassis.console import recorder

MEBIBYTE = 1024 * 1024
LIMIT = 4 * MEBIBYTE


def exchange(path: str, **headers: str) -> Exchange:
    request = HTTPServerRequest(
        start_line=RequestStartLine("GET", path, "HTTP/1.1"),
        headers=HTTPHeaders({"Host": "a", **headers}),
    )
    request.remote_ip = "192.0.2.1"
    return Exchange(request, "/orders/{number}", False)


def failing(text: str) -> ValueError:
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


def test_all_of_it_takes_four_mebibytes() -> None:
    # Of letters that take four bytes each, and no two texts alike.
    def text() -> str:
        return "".join(chr(random.randint(0x1F300, 0x1F5FF)) for _ in range(2000))

    long = [text() for _ in range(40)]
    memory, tail = recorder.Recorder(), recorder.Tail(None)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(2500):
        # A copy, as each request has its own.
        own = long[number % 40][1:] + str(number)
        each = exchange(f"/{own}", **{"User-Agent": own, "X-Request-ID": f"{number:0128}"})
        each.ids.update(trace_id=f"{number:032x}", span_id=f"{number:016x}", trace_flags="01")
        memory.request_started(each)
        each.status, each.duration = 500, 0.01 * (number + 1)
        memory.request_ended(each)
        memory.failed(failing(own), f"GET /{number}", number, each.request_id)
        memory.span_ended(
            SimpleNamespace(
                name=own,
                kind="INTERNAL",
                trace_id=f"{number:032x}",
                span_id=f"{number:016x}",
                parent_id=f"{number + 1:016x}",
                started=10**18 + number,
                ended=10**18 + 2 * number,
            )
        )
        memory.end_second(number / 7)
        tail.handle(line(own, (ValueError, failing(own), None)))
    del own, each
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(memory.spans) == recorder.SPANS
    assert len(memory.seconds) == recorder.SECONDS
    assert taken < LIMIT, f"{taken / MEBIBYTE:.1f} MiB"
    assert taken > MEBIBYTE  # or nothing has been measured


def line(text: str, error: Any = None) -> logging.LogRecord:
    return logging.LogRecord("orders", logging.ERROR, "a.py", 1, text, (), error)


def test_last_lines_are_kept() -> None:
    tail = recorder.Tail(None)
    for number in range(recorder.LINES + 10):
        tail.handle(line(str(number)))
    assert (len(tail.lines), tail.lines[0].message) == (recorder.LINES, "10")


def test_lines_that_do_not_fit_their_arguments_are_kept() -> None:
    tail = recorder.Tail(None)
    record = line("%d orders")
    record.args = ("no number",)
    tail.handle(record)
    assert tail.lines[0].message == "%d orders"


def test_errors_that_cannot_be_printed_are_kept() -> None:
    class Mute(Exception):  # noqa: N818 (what it is is beside the point)
        def __str__(self) -> str:
            raise RuntimeError

    memory = recorder.Recorder()
    memory.failed(Mute(), "GET /", 1, "")
    assert memory.failures[0].type.endswith("Mute")


def test_request_that_is_kept_keeps_nothing_else_alive() -> None:
    memory = recorder.Recorder()
    each = exchange("/a")
    memory.request_started(each)
    memory.request_ended(each)
    kept = weakref.ref(each)
    del each
    gc.collect()
    assert kept() is None


def test_quantiles_are_right_to_15_percent() -> None:
    memory = recorder.Recorder()
    for number in range(1, 1001):
        each = exchange("/a")
        memory.request_started(each)
        each.duration = number / 1000
        memory.request_ended(each)
    [histogram] = memory.routes.values()
    for share in (0.5, 0.95, 0.99):
        found = histogram.quantile(share)
        assert found is not None
        assert abs(found / share - 1) < 0.15
    assert recorder.Histogram().quantile(0.5) is None
