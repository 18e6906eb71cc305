"""What a team imports, with and without a feature that traces."""

import asyncio
import inspect
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from typing import Any

import pytest
from tornado_chassis import tracing
from tornado_chassis.feature import Runtime
from tornado_chassis.tracing.stub import Stub
from tornado_chassis.tracing.tracer import Span

from ..settings import Settings
from ..testing import inherited
from . import Parts


@pytest.fixture(autouse=True)
def _untraced() -> Iterator[None]:
    before = tracing._tracer
    tracing.use(tracing.Tracer())
    yield
    tracing.use(before)


@tracing.span("at import")
def traced() -> str:
    span = tracing.current()
    return span.trace_id if span else "none"


@tracing.span("at import, too")
async def awaited() -> str:
    await asyncio.sleep(0)
    return traced()


def test_without_tracing_nothing_happens() -> None:
    headers: dict[str, str] = {}
    with tracing.span("work") as span:
        span.set_attribute("items", 3)
        span.record_exception(ValueError("not really"))
        assert (span.trace_id, span.span_id, span.parent_id, span.ids()) == ("", "", "", {})
        assert tracing.current() is None
        tracing.inject(headers)
    assert headers == {}
    assert traced() == asyncio.run(awaited()) == "none"
    with pytest.raises(KeyError), tracing.span("fails"):
        raise KeyError


def test_what_was_named_before_there_is_a_tracer_uses_it() -> None:
    kept = tracing.span("kept")
    Stub(Settings())
    with kept as span:
        assert len(span.trace_id) == 32
        assert traced() == asyncio.run(awaited()) == span.trace_id
    assert traced() != span.trace_id


class Kept(Parts):
    def named(self) -> list[tuple[str, str, str]]:
        """Name, name of the parent, and status of each part, in the order of their ends."""
        names = {each.span_id: each.name for each in self.parts}
        return [(each.name, names.get(each.parent_id, ""), each.status) for each in self.parts]


@pytest.fixture
def kept() -> Kept:
    kept = Kept()
    Runtime([Stub(Settings()), kept])
    return kept


def here() -> str:
    span = tracing.current()
    return span.name if isinstance(span, Span) else ""


@tracing.span("rows")
def rows(count: int) -> Generator[str, str, str]:
    said = ""
    for number in range(count):
        with tracing.span(f"row {number}"):
            with tracing.span("nothing"):
                pass
            try:
                said += (yield f"{number}{said}") or ""
            except KeyError:
                said = "thrown"
    return said


@tracing.span("rows")
async def async_rows(count: int) -> AsyncGenerator[str, str]:
    said = ""
    for number in range(count):
        with tracing.span(f"row {number}"):
            await asyncio.sleep(0)
            async with asyncio.timeout(60):
                await asyncio.create_task(nothing())
            try:
                said += await passed((yield f"{number}{said}"))
            except KeyError:
                said = "thrown"


async def nothing() -> None:
    with tracing.span("nothing"):
        await asyncio.sleep(0)


async def passed(text: str) -> str:
    await asyncio.sleep(0)
    return text or ""


async def drive(generator: Any, method: str, *given: object) -> Any:
    """What comes of `send`, `throw` or `close`; at the end, what the generator returns."""
    try:
        if isinstance(generator, Generator):
            return getattr(generator, method)(*given)
        return await getattr(generator, f"a{method}")(*given)
    except StopIteration as end:
        return end.value
    except StopAsyncIteration:
        return "the end"


each_kind = pytest.mark.parametrize("make", [rows, async_rows])


@each_kind
async def test_span_of_a_generator_covers_its_run(make: Callable[[int], Any], kept: Kept) -> None:
    with tracing.span("consumer"):
        generator = make(3)
        assert (await drive(generator, "send", None), here()) == ("0", "consumer")
        with tracing.span("between"):
            assert (await drive(generator, "send", "a"), here()) == ("1a", "between")
        assert await drive(generator, "throw", KeyError()) == "2thrown"
        end = "thrownb" if make is rows else "the end"
        assert await drive(generator, "send", "b") == end
        assert here() == "consumer"
    assert kept.named() == [
        ("nothing", "row 0", "UNSET"),
        ("row 0", "rows", "UNSET"),
        ("nothing", "row 1", "UNSET"),
        ("between", "consumer", "UNSET"),
        ("row 1", "rows", "UNSET"),
        ("nothing", "row 2", "UNSET"),
        ("row 2", "rows", "UNSET"),
        ("rows", "consumer", "UNSET"),
        ("consumer", "", "UNSET"),
    ]
    started = {each.name: (each.started, each.ended) for each in kept.parts}
    assert started["rows"][0] <= started["row 0"][0]
    assert started["rows"][1] >= started["row 2"][1]


@each_kind
async def test_span_of_a_generator_that_is_left_or_fails_ends(
    make: Callable[[int], Any], kept: Kept
) -> None:
    left, failing = make(3), make(3)
    await drive(left, "send", None)
    await drive(left, "close")
    await drive(failing, "send", None)
    error = ValueError("of the consumer")
    with pytest.raises(ValueError, match="of the consumer") as raised:
        await drive(failing, "throw", error)
    assert raised.value is error
    assert [each for each in kept.named() if each[0] != "nothing"] == [
        ("row 0", "rows", "UNSET"),
        ("rows", "", "UNSET"),
        ("row 0", "rows", "ERROR"),
        ("rows", "", "ERROR"),
    ]
    assert here() == ""


async def test_generators_stay_what_they_are(kept: Kept) -> None:
    assert inspect.isgeneratorfunction(rows)
    assert inspect.isasyncgenfunction(async_rows)
    assert [*rows(1)] == [row async for row in async_rows(1)] == ["0"]

    async def cancelled() -> None:
        async for _ in async_rows(3):
            asyncio.current_task().cancel()  # type: ignore[union-attr]

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(cancelled())
    assert [each for each in kept.named() if each[0] == "rows"] == [("rows", "", "UNSET")] * 3
    assert here() == ""


def test_tracer_that_comes_within_a_span_ends_nothing_of_it() -> None:
    with tracing.span("before"):
        Stub(Settings())
    assert tracing.current() is None


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("tracing", "opentelemetry tornado."),
        ("tracing.stub", "opentelemetry tornado_chassis.tracing.b3 tornado_chassis.tracing.spans"),
        ("tracing.otlp", "opentelemetry"),
        ("export", "opentelemetry tornado. tornado_chassis.tracing.spans"),
        ("metrics", "tornado. prometheus"),
    ],
)
def test_what_a_module_does_not_load(module: str, absent: str) -> None:
    program = f"import sys, tornado_chassis.{module}; print(*sys.modules)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=inherited(), check=True, capture_output=True, text=True)
    loaded = done.stdout.split()
    assert f"tornado_chassis.{module}" in loaded
    assert [name for name in loaded if name.startswith(tuple(absent.split()))] == []
