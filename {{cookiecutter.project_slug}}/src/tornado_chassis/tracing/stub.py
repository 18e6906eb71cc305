"""Tracing without a backend: a caller's trace is continued, logged and propagated, following W3C
Trace Context. Nothing is exported."""

from ..settings.server import ServerSettings
from .propagation import Propagation
from .tracer import Tracing


class Stub(Tracing):
    def __init__(self, settings: ServerSettings) -> None:
        # All are sampled, or no service downstream would record the trace.
        super().__init__(Propagation())
