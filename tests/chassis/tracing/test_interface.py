"""What a team imports, with and without a feature that traces."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tornado_chassis
from tornado_chassis import tracing
from tornado_chassis.tracing.stub import Stub

from ..settings import Settings


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
