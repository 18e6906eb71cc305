"""Jaeger's all-in-one with in-memory storage: takes OTLP, answers queries."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.error import HTTPError

from . import answers, eventually, free_port, get_json, home, process


@dataclass(frozen=True)
class Jaeger:
    """Traces are as in the query API: `traceID`, `spans`, and `processes` by `processID`."""

    otlp_http: str
    query: str
    #: Where services find it, by the setting of that name.
    setting: ClassVar[str] = "OTEL_EXPORTER_OTLP_ENDPOINT"

    @property
    def endpoint(self) -> str:
        return self.otlp_http

    def trace(self, trace_id: str) -> dict[str, Any] | None:
        """Return the trace with this id in hex, None if no span of it has come."""
        try:
            trace: dict[str, Any] = get_json(f"{self.query}/api/traces/{trace_id}")["data"][0]
        except HTTPError as error:
            if error.code == 404:
                return None
            raise
        return trace

    def wait_for_trace(self, trace_id: str, spans: int = 1) -> dict[str, Any]:
        """Return the trace once it has `spans` spans; else TimeoutError with what it has."""
        trace = eventually(
            lambda: self.trace(trace_id),
            f"trace {trace_id} with {spans} spans in Jaeger",
            lambda trace: trace and len(trace["spans"]) >= spans,
        )
        assert trace is not None
        return trace


def tags(span: dict[str, Any]) -> dict[str, Any]:
    """Return the values of `tags` by key: a span's, a process's or those of an event in `logs`."""
    return {tag["key"]: tag["value"] for tag in span.get("tags") or span.get("fields") or []}


@contextmanager
def running(directory: Path) -> Iterator[Jaeger]:
    """Run a server on 127.0.0.1 with an empty storage; its log is in `directory`."""
    server = home("jaeger") / "all-in-one"
    otlp, query, admin = free_port(), free_port(), free_port()
    addresses = {
        "collector.otlp.http": otlp,
        "query.http-server": query,
        "admin.http": admin,
        # Not needed, but they cannot be turned off.
        "collector.otlp.grpc": 0,
        "collector.grpc-server": 0,
        "collector.http-server": 0,
        "query.grpc-server": 0,
    }
    argv: list[str | Path] = [server, "--log-level=warn"]
    argv += [f"--{name}.host-port=127.0.0.1:{port}" for name, port in addresses.items()]

    def ready() -> bool:
        return answers(f"http://127.0.0.1:{admin}/")

    # Jaeger traces its own API, and stops only 10 seconds after it found no one to send that to.
    env = {"SPAN_STORAGE_TYPE": "memory", "OTEL_TRACES_SAMPLER": "always_off"}
    log = directory / "jaeger.log"
    with process(argv, directory, env, log, ready):
        yield Jaeger(f"http://127.0.0.1:{otlp}", f"http://127.0.0.1:{query}")
