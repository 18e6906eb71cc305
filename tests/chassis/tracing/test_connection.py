"""How spans reach a backend: through a proxy, and with certificates of one's own."""

import asyncio
import base64
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tornado_chassis.export import Sender
from tornado_chassis.settings import read
from tornado_chassis.tracing.otlp import Otlp
from tornado_chassis.tracing.spans import Span

from ..settings import Settings
from .receiver import Receiver, receiving

CREDENTIALS = f"Basic {base64.b64encode(b'me:s3cret').decode()}"


def send(**environ: str) -> Sender:
    """Sends a span with these settings, and stops."""
    settings = read(Settings, environ)
    assert [*settings.warnings] == []
    sender = Sender(Otlp(settings, {}))
    Span("work", "INTERNAL", "1" * 32, "", 1, "", sender.put).end()
    sender.start()
    asyncio.run(sender.stop())
    return sender


@contextmanager
def tunnelling(port: int) -> Iterator[tuple[str, list[bytes]]]:
    """The address of a proxy that connects to this port, and what it was asked first."""
    heads: list[bytes] = []

    def copy(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):  # Either end may be closed by now.
            while data := source.recv(65536):
                sink.sendall(data)

    def serve() -> None:
        client, _ = listener.accept()
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        heads.append(head)
        with client, socket.create_connection(("127.0.0.1", port)) as server:
            client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            threading.Thread(target=copy, args=(server, client), daemon=True).start()
            copy(client, server)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", heads


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a certificate for `collector.test`, and its key."""
    if not shutil.which("openssl"):
        pytest.skip("openssl makes the certificate")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=collector.test"
    names = "subjectAltName=DNS:collector.test,IP:127.0.0.1"
    argv = [*command.split(), "-addext", names, "-keyout", str(path), "-out", f"{path}.crt"]
    subprocess.run(argv, check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@contextmanager
def receiving_with_tls(certificate: Path) -> Iterator[Receiver]:
    """A backend that demands a certificate of whoever connects."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificate)
    context.load_cert_chain(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    with receiving() as receiver:
        receiver.socket = context.wrap_socket(receiver.socket, server_side=True)
        yield receiver


def test_http_proxy_is_asked_for_the_whole_url() -> None:
    with receiving() as proxy:
        address = proxy.url.replace("//", "//me:s3cret@")
        endpoint = "http://collector.test:4318"
        sender = send(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, HTTP_PROXY=address)
        [request] = proxy.requests
    assert sender.sent == 1
    assert request.path == f"{endpoint}/v1/traces"
    assert request.headers["Host"] == "collector.test:4318"
    assert request.headers["Proxy-Authorization"] == CREDENTIALS


@pytest.mark.parametrize(
    "domains", ["*", "other, 127.0.0.1", "*.0.0.1", "127.0.0.1:{port}", "::/0,127.0.0.0/8"]
)
def test_no_proxy(domains: str) -> None:
    with receiving() as receiver:
        domains = domains.format(port=receiver.server_port)
        endpoint = receiver.url
        send(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, http_proxy="127.0.0.1:9", no_proxy=domains)
        [request] = receiver.requests
    assert request.path == "/v1/traces"


def test_only_whole_names_of_domains_go_without_a_proxy() -> None:
    settings = read(Settings, {"HTTP_PROXY": "proxy:3128", "NO_PROXY": "lector.test,a.test"})
    assert settings.proxy_for("http://collector.test") == "http://proxy:3128"
    assert settings.proxy_for("http://b.A.test") == ""
    settings = read(Settings, {"HTTP_PROXY": "proxy:3128", "NO_PROXY": "10.0.0.1/8, fd00::/8,a/b"})
    for near in ("10.96.0.12", "[fd00::7]:4318"):
        assert settings.proxy_for(f"http://{near}") == ""
    for far in ("11.0.0.1", "[fe80::1]", "10.example.com"):
        assert settings.proxy_for(f"http://{far}") == "http://proxy:3128"
    assert settings.proxy_for("https://collector.test") == ""


def test_certificates_of_both_sides(certificate: Path) -> None:
    with receiving_with_tls(certificate) as receiver:
        sender = send(
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url.replace("http:", "https:"),
            OTEL_EXPORTER_OTLP_CERTIFICATE=str(certificate),
            OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE=str(certificate),
            OTEL_EXPORTER_OTLP_CLIENT_KEY=str(certificate),
        )
        assert len(receiver.spans) == sender.sent == 1


def test_https_goes_through_a_tunnel(certificate: Path) -> None:
    with (
        receiving_with_tls(certificate) as receiver,
        tunnelling(receiver.server_port) as (proxy, heads),
    ):
        sender = send(
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="https://collector.test/own/path",
            OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE=str(certificate),
            OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE=str(certificate),
            HTTPS_PROXY=f"http://me:s3cret@{proxy}",
        )
        [request] = receiver.requests
    assert (sender.sent, request.path) == (1, "/own/path")
    [head] = heads
    assert head.startswith(b"CONNECT collector.test:443 HTTP/1.")
    assert CREDENTIALS.encode() in head
    assert "Proxy-Authorization" not in request.headers


def test_client_certificate_that_cannot_be_used_is_left_out(certificate: Path) -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://127.0.0.1:9",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(certificate),
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": "/nowhere",
    }
    settings = read(Settings, environ)
    [warning] = settings.warnings
    assert warning.startswith("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE: ")
    assert settings.traces_tls() is not None
