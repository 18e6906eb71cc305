"""A value that cannot be written costs only itself, whatever it does and wherever it is shown."""

import asyncio
import io
import json
import logging
import logging.handlers
import pickle
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from tornado.web import RequestHandler
from tornado_chassis import values
from tornado_chassis.console.recorder import Tail
from tornado_chassis.exchange import correlation
from tornado_chassis.logs import Logs

from .settings import Settings
from .testing import ChassisTest

log = logging.getLogger("some.library")


def circle() -> list[Any]:
    around: list[Any] = [1]
    around += [around] * 10
    return around


def deep(levels: int = 100_000) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


def failing(error: BaseException) -> Any:
    """An object whose every text raises this."""

    def fail(*args: object) -> NoReturn:
        raise error

    names = "__str__", "__repr__", "__iter__", "__len__", "__bool__", "__format__", "__hash__"
    return type("Order", (), dict.fromkeys(names, fail))()


class Detached(Exception):
    """As SQLAlchemy's, of an object whose session has gone."""


class Lying:
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError("working outside of a request")


class Posing:
    __class__ = str  # type: ignore[assignment]


class Nameless(type):
    def __getattribute__(cls, name: str) -> NoReturn:
        raise RuntimeError


class Row(dict[str, Any]):
    def items(self) -> NoReturn:
        raise Detached

    __iter__ = __len__ = __repr__ = __str__ = keys = values = items


class Text(str):
    def __str__(self) -> Any:
        return 5

    def __len__(self) -> NoReturn:
        raise Detached

    __getitem__ = __format__ = __repr__ = encode = __len__  # type: ignore[assignment]


class Logging:
    """Logs itself, in its own text."""

    def __str__(self) -> str:
        log.info("I am %s", self, extra={"me": self})
        return "itself"


class Growing(list[Any]):
    def __repr__(self) -> str:
        return "x" * 1_000_000


HOSTILE = {
    "exception": lambda: failing(Detached()),
    "cancelled": lambda: failing(asyncio.CancelledError()),
    "exit": lambda: failing(SystemExit(1)),
    "interrupt": lambda: failing(KeyboardInterrupt()),
    "generator": lambda: failing(GeneratorExit()),
    "error whose text fails": lambda: failing(Mute()),
    "class raises": Lying,
    "class lies": Posing,
    "class without a name": lambda: Nameless("Order", (), {"__str__": lambda self: 1 // 0})(),
    "circle": circle,
    "deep": deep,
    "dict": lambda: Row(a=1),
    "str": lambda: Text("a"),
    "logs itself": Logging,
    "huge text": lambda: "x" * 1_000_000,
    "huge list": lambda: ["x" * 1_000_000] * 5,
    "long list": lambda: list(range(100_000)),
    "huge repr": Growing,
    "huge integer": lambda: 10**5000,
    "nan": lambda: float("nan"),
    "infinity": lambda: {"a": float("-inf")},
    "key": lambda: {(1, 2): 3, "b": 4},
    "surrogate": lambda: "a\ud800b\udfff",
    "surrogates": lambda: {"\udc80": ["\ud800"]},
    "bytes": lambda: b"\xff\x00",
    "lock": asyncio.Lock,
}


class Mute(Exception):
    def __str__(self) -> NoReturn:
        raise Detached


class Unnotable(Exception):
    __notes__ = property(lambda self: 1 // 0)

    def __str__(self) -> NoReturn:
        raise SystemExit(1)


Make = Callable[[], Any]
# The value is made within the test: pytest would show it.
each_value = pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)


def logged() -> io.StringIO:
    """What is logged from here on, by the service's own handler and the console's."""
    root = logging.getLogger()
    # pytest's own handlers raise an exception if a record can't be formatted.
    root.handlers.clear()
    stream = io.StringIO()
    Logs(Settings(log_format="json", log_level="DEBUG"), stream)
    root.addHandler(Tail(None))
    return stream


def uncaptured() -> None:
    """Logs without pytest's own handlers, which raise an exception if a record can't be formatted,
    and keep what pytest-xdist can't pass on."""
    root = logging.getLogger()
    root.handlers[:] = [each for each in root.handlers if "pytest" not in type(each).__module__]


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return parsed(stream.getvalue().splitlines())


def parsed(written: list[str]) -> list[dict[str, Any]]:
    """As a reader in another language takes them."""
    assert all(len(line) <= 16 * values.TEXT_CHARACTERS for line in written)
    made: list[dict[str, Any]] = [json.loads(line, parse_constant=refuse) for line in written]
    # Neither NaN nor lone surrogates.
    assert all(json.dumps(line, ensure_ascii=False).encode() for line in made)
    return made


def refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def tail() -> Tail:
    (found,) = [each for each in logging.getLogger().handlers if isinstance(each, Tail)]
    return found


@each_value
def test_argument(make: Make) -> None:
    stream, value = logged(), make()
    assert json.loads(values.to_json({"a": value, "b": 5}, room=1000))["b"] == 5
    assert values.text(value).__class__ is str
    log.info("saved %s", value)
    log.info("none", value)
    log.info("named %(a)s and %(b)s", {"a": value, "b": 5})
    log.info(value)
    assert lines(stream)[-1]["message"]
    assert len(tail().lines) == len(lines(stream))
    for start in ("saved ", "none", "named "):
        assert len([line for line in lines(stream) if line["message"].startswith(start)]) == 1


@pytest.mark.parametrize("kind", [Mute, Unnotable])
def test_exception(kind: type[Exception]) -> None:
    stream = logged()
    try:
        raise kind
    except kind:
        log.exception("failed")
    (line,) = lines(stream)
    assert line["exception.type"] == kind.__qualname__
    assert "raise kind" in line["exception.stacktrace"]
    assert line["exception.message"].startswith(f"<{kind.__qualname__} whose text fails: ")
    assert "raise kind" in tail().lines[-1].stack


def test_placeholder_is_in_place_of_the_value_alone() -> None:
    stream = logged()
    order = failing(Detached())
    extra = {"order": {"it": order, "nan": [float("nan"), 1], "id": 5}, "nan": float("nan")}
    log.info("Order %s saved in %.1f s", order, 0.25, extra=extra)
    (line,) = lines(stream)
    placeholder = "<Order whose text fails: Detached>"
    assert line["message"] == f"Order {placeholder} saved in 0.2 s"
    assert line["order"] == {"it": placeholder, "nan": ["nan", 1], "id": 5}
    assert line["nan"] == "nan"


def test_extra_replaces_none_of_the_line_s_own_fields() -> None:
    stream = logged()
    own = "timestamp", "level", "logger", "request_id", "service.name", "service.version"
    raised = "exception.type", "exception.message", "exception.stacktrace", "stacktrace"
    given = dict.fromkeys([*own, *raised, "extra.level"], "forged")
    token = correlation.set({"request_id": "r1"})
    try:
        raise ValueError
    except ValueError:
        log.warning("said", extra=given, exc_info=True, stack_info=True)
    correlation.reset(token)
    (line,) = lines(stream)
    assert not {name for name in (*own, *raised) if line[name] == "forged"}
    assert (line["level"], line["request_id"]) == ("WARNING", "r1")
    kept = {name for name, value in line.items() if value == "forged"}
    others = {f"extra.{name}" for name in (*own, *raised) if name != "level"}
    assert kept == others | {"extra.level", "extra.extra.level"}


def test_record_of_another_process_keeps_its_stack() -> None:
    stream = logged()
    try:
        raise ValueError("elsewhere")
    except ValueError as error:
        raised = type(error), error, error.__traceback__
    there = logging.LogRecord("worker", logging.ERROR, "a.py", 1, "failed", (), raised)
    sent = logging.handlers.SocketHandler("127.0.0.1", 0).makePickle(there)
    log.handle(logging.makeLogRecord(pickle.loads(sent[4:])))
    (line,) = lines(stream)
    assert line["exception.stacktrace"].endswith("ValueError: elsewhere")
    assert tail().lines[-1].stack.endswith("ValueError: elsewhere")


def test_records_are_made_as_others_want_them() -> None:
    stream = logged()

    class Braces(logging.LogRecord):
        def getMessage(self) -> str:  # noqa: N802 (its name)
            return str(self.msg).format(*self.args or ())

    logging.setLogRecordFactory(Braces)
    Logs(Settings(log_format="json"), stream)
    made = logging.getLogRecordFactory()
    Logs(Settings(log_format="json"), stream)
    assert logging.getLogRecordFactory() is made
    log.warning("saved {}", "it")
    assert lines(stream)[-1]["message"] == "saved it"


def test_logs_at_the_end_of_the_stack_raise_nothing_else() -> None:
    stream = logged()

    def descend() -> None:
        log.info("down %s", failing(Detached()))
        descend()

    with pytest.raises(RecursionError):
        descend()
    assert len(lines(stream)) > 50


class Order(RequestHandler):
    make: Make

    def get(self) -> None:
        value = self.make()
        log.info("saved %s of %d in %r", value, 5, value, extra={"order": value, "number": 5})
        self.finish("saved")


class TestHandler(ChassisTest):
    handlers = [("/order", Order)]  # noqa: RUF012

    def test_a_value_that_cannot_be_logged_fails_no_request_and_costs_only_itself(self) -> None:
        uncaptured()
        for name, make in HOSTILE.items():
            Order.make = staticmethod(make)
            assert self.fetch("/order").body == b"saved", name
            (line,) = [
                each for each in parsed(self.lines()) if each["message"].startswith("saved ")
            ]
            assert line["number"] == 5
            assert "order" in line
            assert " of 5 in " in line["message"] or " cut " in line["message"]
            self.output.truncate(0)
            self.output.seek(0)
        shown = self.fetch_admin("/console/logs.json").body
        messages = [each["message"] for each in json.loads(shown, parse_constant=refuse)["lines"]]
        assert len([each for each in messages if each.startswith("saved ")]) == len(HOSTILE)
        assert json.dumps(json.loads(shown), ensure_ascii=False).encode()
