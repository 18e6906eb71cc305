"""An OTLP/HTTP receiver of traces, strict about the messages: decoded by the official schema."""

import gzip
import json
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from . import RUN_SECONDS, home, serving

ENCODINGS = ("gzip", "identity")
UNSET = {"status": {"code": 0, "message": ""}}
# Runs where opentelemetry-proto is. OTLP's JSON is protobuf's with ids in hex, not base64.
DECODE = """
import base64, json, sys
from google.protobuf.json_format import MessageToDict, ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

IDS = ("traceId", "spanId", "parentSpanId")

def convert(value, ids):
    if isinstance(value, list):
        return [convert(item, ids) for item in value]
    if isinstance(value, dict):
        return {k: ids(v) if k in IDS else convert(v, ids) for k, v in value.items()}
    return value

def to_base64(id):
    return base64.urlsafe_b64encode(bytes.fromhex(id)).decode()

def to_hex(id):
    return base64.b64decode(id).hex()

message = ExportTraceServiceRequest()
try:
    ParseDict(convert(json.load(sys.stdin), to_base64), message)
except Exception as error:
    sys.exit(str(error))
decoded = MessageToDict(
    message, use_integers_for_enums=True, always_print_fields_with_no_presence=True
)
print(json.dumps(convert(decoded, to_hex)))
"""


@dataclass(frozen=True)
class Request:
    """One export as it came; `body` is decompressed."""

    content_encoding: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Collector:
    endpoint: str
    requests: list[Request] = field(default_factory=list)
    _decoded: list[dict[str, Any]] = field(default_factory=list, init=False, repr=False)

    def messages(self) -> list[dict[str, Any]]:
        """Return the exports as OTLP's JSON; raises ValueError for what the schema forbids."""
        for request in self.requests[len(self._decoded) :]:
            self._decoded.append(_decode(request))
        return self._decoded

    def spans(self) -> list[dict[str, Any]]:
        """Return the spans in the order they came; raises ValueError as `messages`.

        The keys are OTLP's, all present. All `attributes` are plain dicts, also those in `events`
        and `links`; `kind` and `status["code"]` are numbers, times are integers (ns). `resource`
        has the resource's attributes, `scope` the name of the instrumentation scope.
        """
        spans = []
        for message in self.messages():
            for part in message["resourceSpans"]:
                resource = _plain(part.get("resource", {}))["attributes"]
                for scoped in part["scopeSpans"]:
                    extra = {"resource": resource, "scope": scoped.get("scope", {}).get("name", "")}
                    spans += [UNSET | _plain(span) | extra for span in scoped["spans"]]
        return spans


@contextmanager
def running(directory: Path) -> Iterator[Collector]:
    """Run a receiver on 127.0.0.1 in a thread of this process; `directory` stays unused."""
    home("otlp")

    class Handler(BaseHTTPRequestHandler):
        # No connection outlives its request, so that a collector that is gone is gone.
        protocol_version = "HTTP/1.0"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            encoding = self.headers.get("Content-Encoding", "identity").lower()
            if self.path != "/v1/traces":
                self._answer(404)
            elif self.headers.get_content_type() != "application/json" or encoding not in ENCODINGS:
                self._answer(415)
            else:
                try:
                    body = gzip.decompress(raw) if encoding == "gzip" else raw
                except (OSError, EOFError, zlib.error):
                    self._answer(400)
                    return
                headers = {name.lower(): value for name, value in self.headers.items()}
                collector.requests.append(Request(encoding, headers, body))
                self._answer(200)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    with serving(server):
        yield collector


def _decode(request: Request) -> dict[str, Any]:
    done = subprocess.run(
        [home("otlp") / "bin/python", "-c", DECODE],
        input=request.body,
        capture_output=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    if done.returncode:
        raise ValueError(f"no OTLP traces: {done.stderr.decode()}: {request.body[:1000]!r}")
    message: dict[str, Any] = json.loads(done.stdout)
    return message


def _plain(part: dict[str, Any]) -> dict[str, Any]:
    """Return a span, an event, a link or a resource with its attributes as a dict."""
    plain = dict(part)
    plain["attributes"] = _attributes(part.get("attributes", []))
    for key in ("startTimeUnixNano", "endTimeUnixNano", "timeUnixNano"):
        if key in plain:
            plain[key] = int(plain[key])
    for key in ("events", "links"):
        if key in plain:
            plain[key] = [_plain(item) for item in plain[key]]
    return plain


def _attributes(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    return {pair["key"]: _value(pair.get("value", {})) for pair in pairs}


def _value(value: dict[str, Any]) -> Any:
    match value:
        case {"intValue": content}:
            return int(content)
        case {"arrayValue": content}:
            return [_value(item) for item in content["values"]]
        case {"kvlistValue": content}:
            return _attributes(content["values"])
        case _:
            return next(iter(value.values()), None)
