"""The second version of Zipkin's JSON."""

import gzip
import json
from http import HTTPStatus
from typing import Any

import pytest
from opentelemetry import trace
from tornado_chassis.settings import read
from tornado_chassis.tracing.otel import ApiSpan as Span
from tornado_chassis.tracing.zipkin import Backend

from ..settings import SERVICE, VERSION, SettingsOfZipkin
from ..testing import process
from . import PARENT, TRACE, full_span, make_span


def make_backend(**environ: str) -> Backend:
    return Backend(read(SettingsOfZipkin, environ), {"service.name": "shop", "team": "a"})


def encode(span: Span) -> dict[str, Any]:
    """The span, out of a request made of it."""
    backend = make_backend()
    (encoded,) = json.loads(gzip.decompress(backend.body([backend.encode(span)])))
    return dict(encoded)


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://a:9411/api/v2/spans", "http://a:9411/api/v2/spans"),
        ("http://a:9411", "http://a:9411/api/v2/spans"),
        ("http://a/under/here", "http://a/under/here"),
        ("", ""),
    ],
)
def test_url(endpoint: str, url: str) -> None:
    assert make_backend(ZIPKIN_ENDPOINT=endpoint).url == url


def test_headers() -> None:
    assert make_backend().headers == {
        "Content-Type": "application/json",
        "Content-Encoding": "gzip",
        "User-Agent": f"{SERVICE}/{VERSION}",
    }


def test_span() -> None:
    span = full_span(1)
    span.add_event("packed", timestamp=1_700_000_000_250_000_000)
    span.set_attribute("client.address", "10.0.0.1")
    span.end(1_700_000_000_300_000_000)
    assert encode(span) == {
        "traceId": TRACE,
        "id": span.span_id,
        "parentId": PARENT,
        "kind": "SERVER",
        "name": 'a "name" \n ü',
        "timestamp": 1_700_000_000_123_456,
        "duration": 176_543,
        "localEndpoint": {"serviceName": "shop"},
        "remoteEndpoint": {"ipv4": "10.0.0.1"},
        "annotations": [
            {"timestamp": 1_700_000_000_200_000, "value": '"paid":{"by": "card"}'},
            {"timestamp": 1_700_000_000_250_000, "value": "packed"},
        ],
        "tags": {
            "team": "a",
            "client.address": "10.0.0.1",
            "otel.status_code": "ERROR",
            "error": "out of stock",
        },
    }


def test_other_ends() -> None:
    server, client = make_span("SERVER"), make_span("CLIENT")
    server.set_attribute("client.address", "::1")
    client.set_attribute("server.address", "stock.example")
    assert encode(server)["remoteEndpoint"] == {"ipv6": "::1"}
    assert encode(client)["remoteEndpoint"] == {"serviceName": "stock.example"}
    assert "remoteEndpoint" not in encode(make_span("SERVER"))
    assert "remoteEndpoint" not in encode(make_span("CLIENT"))


def test_what_an_internal_span_has_not() -> None:
    encoded = encode(make_span())
    assert {"kind", "parentId", "annotations", "remoteEndpoint"}.isdisjoint(encoded)
    assert encoded["tags"] == {"team": "a"}
    assert encoded["duration"] == 1


def test_error_without_a_message_is_shown_by_its_type() -> None:
    span = make_span()
    span.set_attribute("error.type", "503")
    span.set_status(trace.StatusCode.ERROR)
    assert encode(span)["tags"]["error"] == "503"


def test_library_that_made_the_span_is_shown() -> None:
    span = make_span()
    span.scope, span.scope_version = "library", "1.2.3"
    span.set_status(trace.StatusCode.OK)
    assert encode(span)["tags"] == {
        "team": "a",
        "otel.status_code": "OK",
        "otel.scope.name": "library",
        "otel.scope.version": "1.2.3",
    }


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ("ü\x1b", "ü\x1b"),
        (True, "true"),
        (-7, "-7"),
        (HTTPStatus.OK, "200"),
        (1.5, "1.5"),
        (float("nan"), "NaN"),
        (["a", 1], '["a", 1]'),
        ({"a": 1}, '{"a": 1}'),
        (None, "null"),
        (b"a", "\"b'a'\""),
    ],
)
def test_values(value: Any, encoded: str) -> None:
    span = make_span()
    span.set_attribute("key", value)
    assert encode(span)["tags"]["key"] == encoded


def test_invalid_endpoint_is_reported_and_its_secret_is_not() -> None:
    with process(FEATURES="zipkin", ZIPKIN_ENDPOINT="http://user:hidden@zipkin") as service:
        assert service.wait() == 78
        assert "  ZIPKIN_ENDPOINT: " in service.output()
        assert "hidden" not in service.output()
