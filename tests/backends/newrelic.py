"""A collector for New Relic's agents on TLS, with a certificate of its own, recording all calls.

The protocol: POST /agent_listener/invoke_raw_method?method=NAME with JSON, answered by
{"return_value": …}.
"""

import json
import shutil
import ssl
import traceback
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from . import NotInstalled, eventually, free_port, serving, tool

HOST = "127.0.0.1"
LICENSE_KEY = "0123456789abcdef" * 2 + "01234567"
RUN_ID = "1234567"
OPENSSL_SECONDS = WAIT_SECONDS = 30.0
WBITS = {"gzip": 31, "deflate": 15}
# What New Relic says to each method, and null to the others. What is left out of a connection is as
# the agent has it.
ANSWERS: dict[str, Any] = {
    "preconnect": {"redirect_host": HOST},
    "connect": {
        "agent_run_id": RUN_ID,
        "account_id": "1",
        "primary_application_id": "2",
        "trusted_account_key": "1",
        "entity_guid": "VEVTVEVOVElUWQ",
        "event_harvest_config": {
            "report_period_ms": 200,
            # Only the kinds named here are sent in this period.
            "harvest_limits": {
                "analytic_event_data": 1000,
                "custom_event_data": 1000,
                "error_event_data": 100,
                "log_event_data": 1000,
                "span_event_data": 1000,
            },
        },
        "messages": [{"level": "INFO", "message": "Reporting to the test collector"}],
    },
    "get_agent_commands": [],
}


@dataclass(frozen=True)
class Call:
    method: str
    payload: Any


@dataclass(frozen=True)
class Collector:
    host: str
    port: int
    ca_bundle: Path
    calls: list[Call] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def settings(self) -> dict[str, str]:
        """Those of a service that reports here."""
        return {
            "NEW_RELIC_LICENSE_KEY": LICENSE_KEY,
            "NEW_RELIC_HOST": self.host,
            "NEW_RELIC_PORT": str(self.port),
            "NEW_RELIC_CA_BUNDLE_PATH": str(self.ca_bundle),
        }

    def payloads(self, method: str) -> list[Any]:
        """Return the decoded JSON of all calls of `method`, in order."""
        return [call.payload for call in self.calls if call.method == method]

    def wait_for(self, method: str) -> Any:
        """Return the first payload of `method`; else TimeoutError with what came."""
        try:
            return eventually(lambda: self.payloads(method), WAIT_SECONDS, f"New Relic {method}")[0]
        except TimeoutError as error:
            methods = [call.method for call in self.calls]
            raise TimeoutError(f"{error}: calls: {methods}; errors: {self.errors}") from None


@contextmanager
def running(directory: Path, port: int = 0, status: int = 200) -> Iterator[Collector]:
    """Run a collector in a thread of this process; its certificate is in `directory`.

    It tells agents to send events every 0.2 seconds (New Relic's own: 5). Metrics, error traces and
    transaction traces come every 60 seconds and at the agent's shutdown only. It answers all calls
    with `status`.
    """
    certificate, key = _certificate(directory)

    class Handler(BaseHTTPRequestHandler):
        # No connection outlives its request, so that a collector that is gone is gone.
        protocol_version = "HTTP/1.0"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            encoding = self.headers.get("Content-Encoding", "identity").lower()
            if encoding != "identity":
                body = zlib.decompress(body, WBITS[encoding])
            method = dict(parse_qsl(urlsplit(self.path).query))["method"]
            collector.calls.append(Call(method, json.loads(body)))
            answer = json.dumps({"return_value": ANSWERS.get(method)}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            collector.errors.append(traceback.format_exc())

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = Server((HOST, port or free_port()), Handler)
    # The handshake is left to the connection's thread: it must not block the others.
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    collector = Collector(HOST, server.server_port, certificate)
    with serving(server):
        yield collector


def _certificate(directory: Path) -> tuple[Path, Path]:
    """Make a self-signed certificate for `HOST`, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        raise NotInstalled("newrelic")
    certificate, key = directory / "newrelic.crt", directory / "newrelic.key"
    argv: list[str | Path] = [openssl, "req", "-x509", "-nodes", "-days", "1"]
    argv += ["-newkey", "rsa:2048", "-keyout", key, "-out", certificate]
    argv += ["-subj", "/CN=localhost", "-addext", f"subjectAltName=DNS:localhost,IP:{HOST}"]
    argv += ["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    tool(*argv, timeout=OPENSSL_SECONDS)
    return certificate, key
