"""An OTLP/HTTP receiver of traces, strict about the messages: decoded by the official schema."""

import base64
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from . import serving

ENCODINGS = ("gzip", "identity")
IDS = ("traceId", "spanId", "parentSpanId")

M = TypeVar("M", bound=Message)
UNSET = {"status": {"code": 0, "message": ""}}


@dataclass(frozen=True)
class Request:
    """One export as it came; `body` is decompressed."""

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
                collector.requests.append(Request(headers, body))
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


def parse(body: bytes, message: M) -> M:
    """Reads it from OTLP's JSON, which is protobuf's with ids in hex and not base64; raises
    ParseError for what the schema forbids."""
    ParseDict(json.loads(body, object_hook=_with_ids(_to_base64)), message)
    return message


def _decode(request: Request) -> dict[str, Any]:
    try:
        message = parse(request.body, ExportTraceServiceRequest())
    except ParseError as error:
        raise ValueError(f"no OTLP traces: {error}: {request.body[:1000]!r}") from None
    decoded = MessageToDict(
        message, use_integers_for_enums=True, always_print_fields_with_no_presence=True
    )
    to_hex = _with_ids(lambda id: base64.b64decode(id).hex())
    found: dict[str, Any] = json.loads(json.dumps(decoded), object_hook=to_hex)
    return found


def _to_base64(id: str) -> str:
    return base64.urlsafe_b64encode(bytes.fromhex(id)).decode()


def _with_ids(convert: Callable[[str], str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda part: {key: convert(it) if key in IDS else it for key, it in part.items()}


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
