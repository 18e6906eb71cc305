"""What the console remembers stays within its bounds."""

import gc
import logging
import random
import tracemalloc
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine
from tornado_chassis import counts
from tornado_chassis.console import recorder
from tornado_chassis.exchange import Exchange

from ..settings import PACKAGE
from ..test_values import Mute

MEBIBYTE = 1024 * 1024
LIMIT = 4 * MEBIBYTE


def exchange(path: str, **headers: str) -> Exchange:
    line = RequestStartLine("GET", path, "HTTP/1.1")
    request = HTTPServerRequest(start_line=line, headers=HTTPHeaders({"Host": "a", **headers}))
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
    memory, tail = recorder.Recorder(PACKAGE), recorder.Tail(None)
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
        span = SimpleNamespace(name=own, kind="INTERNAL", status="ERROR", status_message=own)
        span.trace_id, span.span_id = f"{number:032x}", f"{number:016x}"
        span.parent_id = f"{number + 1:016x}"
        span.started, span.ended = 10**18 + number, 10**18 + 2 * number
        span.attributes = {str(each): own for each in range(100)}
        memory.span_ended(span)
        memory.end_second(number / 7)
        tail.handle(line(own, (ValueError, failing(own), None)))
    del own, each, span
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(memory.spans) == recorder.SPANS
    assert len(memory.seconds) == recorder.SECONDS
    assert taken < LIMIT, f"{taken / MEBIBYTE:.1f} MiB"
    assert taken > MEBIBYTE  # or nothing has been measured


def line(text: Any, error: Any = None) -> logging.LogRecord:
    return logging.LogRecord("orders", logging.ERROR, "a.py", 1, text, (), error)


def test_last_lines_are_kept() -> None:
    tail = recorder.Tail(None)
    for number in range(recorder.LINES + 10):
        tail.handle(line(str(number)))
    assert (len(tail.lines), tail.lines[0].message) == (recorder.LINES, "10")


class Untraceable(Exception):
    __traceback__ = property(lambda self: 1 // 0)


def test_what_cannot_be_printed_is_kept() -> None:
    tail, memory = recorder.Tail(None), recorder.Recorder(PACKAGE)
    tail.handle(line(Mute()))
    record, fields = line("%d orders"), line("paid")
    record.args, fields.order, fields.mute = ("no number",), 5, Mute()
    tail.handle(record)
    tail.handle(fields)
    mute = "<Mute whose text fails: Detached>"
    assert [each.message for each in tail.lines] == [mute, "%d orders ('no number',)", "paid"]
    assert tail.lines[2].fields == f"order=5 mute={mute}"
    memory.failed(Mute(), "GET /", 1, "")
    memory.failed(Untraceable(), "GET /", 1, "")
    assert [each.type for each in memory.failures] == ["Mute", "Untraceable"]
    # As a record that has come over a network may be.
    odd = logging.makeLogRecord({"name": None, "levelno": "30", "created": "now", "msg": "odd"})
    tail.handle(odd)
    assert tail.lines[3][1:5] == (0.0, 0, "None", "odd")


def test_memory_that_the_system_does_not_report_is_not_zero(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(counts, "_MEMORY", "/nowhere")  # as on macOS and Windows
    memory = recorder.Recorder(PACKAGE)
    memory.end_second(0.0)
    assert memory.seconds[-1].memory is None


def test_request_that_is_kept_keeps_nothing_else_alive() -> None:
    memory = recorder.Recorder(PACKAGE)
    each = exchange("/a")
    memory.request_started(each)
    memory.request_ended(each)
    kept = weakref.ref(each)
    del each
    gc.collect()
    assert kept() is None


def function(module: str, file: str, body: str) -> Callable[..., None]:
    """A function of one line, in a module of this name."""
    namespace: dict[str, Any] = {"__name__": module}
    exec(compile(f"def run(*given):\n    {body}", file, "exec"), namespace)
    run: Callable[..., None] = namespace["run"]
    return run


def test_place_is_own_code_though_libraries_are_in_a_directory_called_as_the_service() -> None:
    library = "/orders/.venv/lib/python3/site-packages/library.py"
    fail = function("library", library, "raise ValueError")
    app = function("orders.app", "/orders/src/orders/app.py", "given[0]()")
    memory = recorder.Recorder("orders")
    for run, *given in ((app, fail), (fail,)):
        try:
            run(*given)
        except ValueError as error:
            memory.failed(error, "GET /", 1, "")
    places = [each.place for each in memory.failures]
    assert places == ["orders/app.py:2 in run", "library.py:2 in run"]


def test_quantiles_are_right_to_15_percent() -> None:
    memory = recorder.Recorder(PACKAGE)
    for number in range(1, 1001):
        each = exchange("/a")
        memory.request_started(each)
        each.duration = number / 1000
        memory.request_ended(each)
    [histogram] = memory.routes.values()
    for ratio in (0.5, 0.95, 0.99):
        found = histogram.quantile(ratio)
        assert found is not None
        assert abs(found / ratio - 1) < 0.15
    assert recorder.Histogram().quantile(0.5) is None
