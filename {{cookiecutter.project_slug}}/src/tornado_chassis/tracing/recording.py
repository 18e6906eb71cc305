"""The spans of a service's own, as its tests see them: whichever backend there is, and without."""

import contextlib
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any

from . import Span, Tracer


class RecordedSpan(Span):
    """A span and what was set, all of which the backend's own span is given as well."""

    def __init__(self, name: str, inner: Span, parent: "RecordedSpan | None") -> None:
        self.name = name
        #: The span of the service's own that it is a part of.
        self.parent = parent
        self.attributes: dict[str, Any] = {}
        #: The exception that has left it.
        self.error: BaseException | None = None
        self.trace_id, self.span_id, self.parent_id = inner.trace_id, inner.span_id, inner.parent_id
        self.flags, self.tracestate = inner.flags, inner.tracestate
        self._inner = inner

    def set_attribute(self, key: str, value: Any) -> None:
        self.attributes[key] = value
        self._inner.set_attribute(key, value)

    def record_exception(self, exception: BaseException) -> None:
        self._inner.record_exception(exception)

    def ids(self) -> dict[str, str]:
        return self._inner.ids()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


_current: ContextVar[RecordedSpan | None] = ContextVar("recorded", default=None)


class RecordingTracer(Tracer):
    """Keeps each span that ends, and leaves all else to another tracer."""

    def __init__(self, inner: Tracer) -> None:
        self.inner = inner
        self.ended: list[RecordedSpan] = []

    def current(self) -> Span | None:
        inner, recorded = self.inner.current(), _current.get()
        return recorded if inner and recorded and recorded.span_id == inner.span_id else inner

    def inject(self, headers: MutableMapping[str, str]) -> None:
        self.inner.inject(headers)

    def enter(self, name: str) -> tuple[Span, Any]:
        entered = self.inner.enter(name)
        span = RecordedSpan(name, entered[0], _current.get())
        return span, (entered, _current.set(span))

    def leave(self, entered: tuple[Any, Any], error: BaseException | None) -> None:
        span, (inner, token) = entered
        with contextlib.suppress(ValueError):  # in another context
            _current.reset(token)
        self.inner.leave(inner, error)
        span.error = error
        self.ended.append(span)
