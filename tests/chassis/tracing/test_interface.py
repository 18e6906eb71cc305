"""What a team imports, with and without a feature that traces."""

import asyncio
import inspect
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator, Iterator
from pathlib import Path

import pytest
import tornado_chassis
from tornado_chassis import tracing
from tornado_chassis.feature import Runtime
from tornado_chassis.tracing.stub import Stub
from tornado_chassis.tracing.tracer import Span

from ..settings import Settings
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


@tracing.span("rows")
def rows(count: int) -> Generator[str, str, str]:
    said = ""
    for number in range(count):
        with tracing.span(f"row {number}"):
            try:
                said += yield f"{number}{said}"
            except KeyError:
                said = "thrown"
    return said


def here() -> str:
    span = tracing.current()
    return span.name if isinstance(span, Span) else ""


def test_span_of_a_generator_covers_its_run(kept: Kept) -> None:
    with tracing.span("consumer"):
        generator = rows(3)
        assert (next(generator), here()) == ("0", "consumer")
        with tracing.span("between"):
            assert (generator.send("a"), here()) == ("1a", "between")
        assert generator.throw(KeyError()) == "2thrown"
        with pytest.raises(StopIteration, match="thrownb"):
            generator.send("b")
        assert here() == "consumer"
    assert kept.named() == [
        ("row 0", "rows", "UNSET"),
        ("between", "consumer", "UNSET"),
        ("row 1", "rows", "UNSET"),
        ("row 2", "rows", "UNSET"),
        ("rows", "consumer", "UNSET"),
        ("consumer", "", "UNSET"),
    ]
    started = {each.name: (each.started, each.ended) for each in kept.parts}
    assert started["rows"][0] <= started["row 0"][0]
    assert started["rows"][1] >= started["row 2"][1]
    assert inspect.isgeneratorfunction(rows)


def test_span_of_a_generator_that_is_left_or_fails_ends(kept: Kept) -> None:
    left = rows(3)
    next(left)
    left.close()
    failing = rows(3)
    next(failing)
    error = ValueError("of the consumer")
    with pytest.raises(ValueError, match="of the consumer") as raised:
        failing.throw(error)
    assert raised.value is error
    assert kept.named() == [
        ("row 0", "rows", "UNSET"),
        ("rows", "", "UNSET"),
        ("row 0", "rows", "ERROR"),
        ("rows", "", "ERROR"),
    ]
    assert here() == ""


@tracing.span("pages")
async def pages(count: int) -> AsyncGenerator[str, str]:
    said = ""
    for number in range(count):
        with tracing.span(f"page {number}"):
            await asyncio.sleep(0)
            async with asyncio.timeout(10):
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


async def test_span_of_an_async_generator_covers_its_run(kept: Kept) -> None:
    with tracing.span("consumer"):
        generator = pages(3)
        assert (await anext(generator), here()) == ("0", "consumer")
        with tracing.span("between"):
            assert (await generator.asend("a"), here()) == ("1a", "between")
        assert await generator.athrow(KeyError()) == "2thrown"
        with pytest.raises(StopAsyncIteration):
            await generator.asend("b")
        assert [page async for page in pages(1)] == ["0"]
        assert here() == "consumer"
    assert [each for each in kept.named() if each[0] != "nothing"] == [
        ("page 0", "pages", "UNSET"),
        ("between", "consumer", "UNSET"),
        ("page 1", "pages", "UNSET"),
        ("page 2", "pages", "UNSET"),
        ("pages", "consumer", "UNSET"),
        ("page 0", "pages", "UNSET"),
        ("pages", "consumer", "UNSET"),
        ("consumer", "", "UNSET"),
    ]
    parents = [parent for name, parent, _ in kept.named() if name == "nothing"]
    assert parents == ["page 0", "page 1", "page 2", "page 0"]
    assert inspect.isasyncgenfunction(pages)


async def test_span_of_an_async_generator_that_is_left_or_fails_ends(kept: Kept) -> None:
    left = pages(3)
    await anext(left)
    await left.aclose()
    failing = pages(3)
    await anext(failing)
    with pytest.raises(ValueError, match="of the consumer"):
        await failing.athrow(ValueError("of the consumer"))

    async def cancelled() -> None:
        async for _ in pages(3):
            asyncio.current_task().cancel()  # type: ignore[union-attr]

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(cancelled())
    found = [each for each in kept.named() if each[0] == "pages"]
    assert found == [("pages", "", "UNSET"), ("pages", "", "ERROR"), ("pages", "", "UNSET")]
    assert here() == ""


def test_tracer_that_comes_within_a_span_ends_nothing_of_it() -> None:
    with tracing.span("before"):
        Stub(Settings())
    assert tracing.current() is None


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("tracing", ("opentelemetry", "tornado.")),
        (
            "tracing.stub",
            ("opentelemetry", *(f"tornado_chassis.tracing.{name}" for name in ("b3", "spans"))),
        ),
        ("tracing.otlp", ("opentelemetry",)),
        ("export", ("opentelemetry", "tornado.", "tornado_chassis.tracing.spans")),
    ],
)
def test_what_a_module_does_not_load(module: str, absent: tuple[str, ...]) -> None:
    program = f"import sys, tornado_chassis.{module}; print(*sys.modules)"
    source = Path(tornado_chassis.__file__).parents[1]
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=source, check=True, capture_output=True, text=True
    ).stdout.split()
    assert f"tornado_chassis.{module}" in loaded
    assert [name for name in loaded if name.startswith(absent)] == []
