"""Spans of a service's own, whichever backend was chosen; without tracing they do nothing."""

import functools
import inspect
import types
from collections.abc import AsyncGenerator, Callable, Generator, MutableMapping
from contextlib import ExitStack
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])


class Span:
    """A piece of work within a trace. Ids are lower-case hexadecimal; without tracing they are
    empty."""

    __slots__ = ()
    trace_id: str = ""
    span_id: str = ""
    #: The parent span; empty for the first span of a trace.
    parent_id: str = ""
    #: Those of W3C Trace Context, and what else it lets vendors pass on.
    flags: int = 0
    tracestate: str = ""

    def set_attribute(self, key: str, value: Any) -> None:
        """Describes the work. Has no effect without a backend."""

    def record_exception(self, exception: BaseException) -> None:
        """Adds an exception to the span. Has no effect without a backend."""

    def ids(self) -> dict[str, str]:
        """The span's ids, as shown in log lines and reports."""
        return {}


def span(name: str) -> "SpanScope":
    """A span for a part of the work: a child of the current span, or the first of a new trace.

    Use it in a `with` statement, or as a decorator of a function or a generator, async or not:

        with tracing.span("charge card") as span:
            span.set_attribute("order.items", 3)

        @tracing.span("charge card")
        async def charge(order): ...

    That of a generator lasts from its first step to its last, and is not current in between, where
    its caller runs.

    Log lines and outgoing calls within it have its ids. An exception that leaves it is recorded and
    sets its status to error, unless it is an `HTTPError` below 500 or a `Finish`. Spans with the
    same name are compared with each other, so what differs between them belongs in attributes.
    """
    return SpanScope(name)


def current() -> Span | None:
    """The span of the current work; None if there is no trace."""
    return _tracer.current()


def inject(headers: MutableMapping[str, str]) -> None:
    """Writes the current span into the headers of an outgoing request.

    Tornado's `AsyncHTTPClient` does this by itself.
    """
    _tracer.inject(headers)


class SpanScope:
    """See `span`. Its tracer is that of the moment when it is entered."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> Span:
        self._tracer = _tracer
        self._entered = _tracer.enter(self._name)
        return self._entered[0]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._tracer.leave(self._entered, error)

    def __call__(self, function: Function) -> Function:
        @functools.wraps(function)
        def traced(*args: Any, **kwargs: Any) -> Any:
            with SpanScope(self._name):
                return function(*args, **kwargs)

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            with SpanScope(self._name):
                return await function(*args, **kwargs)

        @functools.wraps(function)
        def generated(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            context = copy_context()
            with self._within(context):
                return (yield from _steps(context, function(*args, **kwargs)))

        @functools.wraps(function)
        async def streamed(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            context, items = copy_context(), function(*args, **kwargs)
            step, given = items.asend, None
            with self._within(context):
                while True:
                    try:
                        item = await _awaited(context, step(given))
                    except StopAsyncIteration:
                        return
                    try:
                        step, given = items.asend, (yield item)
                    except BaseException as error:
                        step, given = items.athrow, error

        if inspect.iscoroutinefunction(function):
            return cast(Function, awaited)
        if inspect.isgeneratorfunction(function):
            return cast(Function, generated)
        return cast(Function, streamed if inspect.isasyncgenfunction(function) else traced)

    def _within(self, context: Context) -> ExitStack:
        """Enters a span in a context of its own: what runs in others has another current span."""
        scope, stack = SpanScope(self._name), ExitStack()
        context.run(scope.__enter__)
        stack.push(lambda *raised: context.run(scope.__exit__, *raised))
        return stack


def _steps(context: Context, steps: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Takes each step of a generator in this context, and not in that of whoever asks for it."""
    step: Callable[[Any], Any] = steps.send
    given: Any = None
    while True:
        try:
            item = context.run(step, given)
        except StopIteration as end:
            return end.value
        try:
            step, given = steps.send, (yield item)
        except BaseException as error:
            step, given = steps.throw, error


@types.coroutine
def _awaited(context: Context, awaitable: Any) -> Generator[Any, Any, Any]:
    return (yield from _steps(context, awaitable.__await__()))


class Tracer:
    """What stands behind these functions; this one, as long as there is no other."""

    def current(self) -> Span | None:
        return None

    def inject(self, headers: MutableMapping[str, str]) -> None:
        pass

    def enter(self, name: str) -> tuple[Span, Any]:
        """A new current span, and what else `leave` needs."""
        return _NO_SPAN, None

    def leave(self, entered: tuple[Any, Any], error: BaseException | None) -> None:
        pass


_NO_SPAN = Span()
_tracer = Tracer()


def use(tracer: Tracer) -> None:
    """Makes this the tracer of all spans from now on."""
    global _tracer
    _tracer = tracer
