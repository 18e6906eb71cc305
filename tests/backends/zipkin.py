"""Zipkin's server with in-memory storage."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.error import HTTPError

from . import NotInstalled, answers, eventually, free_port, get_json, home, process


@dataclass(frozen=True)
class Zipkin:
    """A trace is a list of spans in the v2 JSON format; Zipkin lower-cases their names."""

    endpoint: str
    #: Where services find it, by the setting of that name.
    setting: ClassVar[str] = "ZIPKIN_ENDPOINT"

    def trace(self, trace_id: str) -> list[dict[str, Any]]:
        """Return the spans of the trace with this id in hex, none if none has come."""
        try:
            trace: list[dict[str, Any]] = get_json(f"{self._api}/trace/{trace_id}")
        except HTTPError as error:
            if error.code == 404:
                return []
            raise
        return trace

    def wait_for_trace(self, trace_id: str, spans: int = 1) -> list[dict[str, Any]]:
        """Return the trace once it has `spans` spans; else TimeoutError with what it has."""
        return eventually(
            lambda: self.trace(trace_id),
            f"trace {trace_id} with {spans} spans in Zipkin",
            lambda trace: len(trace) >= spans,
        )

    @property
    def _api(self) -> str:
        return self.endpoint.removesuffix("/spans")


@contextmanager
def running(directory: Path) -> Iterator[Zipkin]:
    """Run a server on 127.0.0.1 with an empty storage; its log is in `directory`.

    It needs 3 to 10 seconds to start and 2 to stop: share one between tests.
    """
    java = shutil.which("java")
    server = home("zipkin") / "zipkin-server-exec.jar"
    if java is None:
        raise NotInstalled("zipkin")
    port = free_port()
    # The JVM's options halve the time to start; the server has no option for its address.
    argv: list[str | Path] = [java, "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    argv += ["-jar", server]
    argv += [
        "--armeria.ports[0].ip=127.0.0.1",
        f"--armeria.ports[0].port={port}",
        "--armeria.ports[0].protocols[0]=http",
    ]

    def ready() -> bool:
        return answers(f"http://127.0.0.1:{port}/health")

    log = directory / "zipkin.log"
    with process(argv, directory, {"STORAGE_TYPE": "mem"}, log, ready):
        yield Zipkin(f"http://127.0.0.1:{port}/api/v2/spans")
