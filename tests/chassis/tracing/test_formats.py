"""What backends are sent: OTLP, as OpenTelemetry specifies it, or the second version of Zipkin's
JSON."""

import gzip
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import pytest
from opentelemetry import trace
from tornado_chassis.metrics import otlp
from tornado_chassis.otlp import OtlpBackend
from tornado_chassis.settings import read
from tornado_chassis.tracing.otel import ApiSpan as Span
from tornado_chassis.tracing.otlp import Otlp
from tornado_chassis.tracing.zipkin import Backend as Zipkin

from ..settings import SERVICE, VERSION, Settings, SettingsOfZipkin
from ..testing import process
from . import PARENT, TRACE, make_span


def make_otlp(**environ: str) -> Otlp:
    return Otlp(read(Settings, environ), {"service.name": "shop"})


def make_zipkin(**environ: str) -> Zipkin:
    return Zipkin(read(SettingsOfZipkin, environ), {"service.name": "shop", "team": "a"})


def in_otlp(span: Span) -> dict[str, Any]:
    """The span, out of a request made of it."""
    backend = make_otlp()
    body = json.loads(backend.body([backend.encode(span)]))
    ((resource, scopes),) = (part.values() for part in body["resourceSpans"])
    assert resource == {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}
    ((scope, spans),) = (part.values() for part in scopes)
    assert scope == {"name": SERVICE}
    (encoded,) = spans
    return dict(encoded)


def in_zipkin(span: Span) -> dict[str, Any]:
    backend = make_zipkin()
    (encoded,) = json.loads(gzip.decompress(backend.body([backend.encode(span)])))
    return dict(encoded)


each_signal = pytest.mark.parametrize(
    ("signal", "make"),
    [
        ("traces", lambda environ: Otlp(read(Settings, environ), {})),
        ("metrics", lambda environ: otlp.Backend(read(Settings, environ))),
    ],
)
Make = Callable[[dict[str, str]], OtlpBackend]


@each_signal
@pytest.mark.parametrize(
    ("endpoint", "own_endpoint", "url"),
    [
        ("http://a:4318", "", "http://a:4318/v1/{signal}"),
        ("http://a:4318/", "", "http://a:4318/v1/{signal}"),
        ("http://a/under/here/", "", "http://a/under/here/v1/{signal}"),
        ("http://a", "http://b/as/it/is", "http://b/as/it/is"),
        ("http://a", "http://a", "http://a"),
        ("HTTP://a", "", "http://a/v1/{signal}"),
        ("", "https://b/?tenant=c", "https://b/?tenant=c"),
        ("", "", ""),
    ],
)
def test_url_of_otlp(signal: str, make: Make, endpoint: str, own_endpoint: str, url: str) -> None:
    own = f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"
    backend = make({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, own: own_endpoint})
    assert backend.url == url.format(signal=signal)


@each_signal
def test_what_is_set_for_a_signal_replaces_what_is_set_for_all(signal: str, make: Make) -> None:
    def settings(prefix: str, headers: str, timeout: str, compression: str) -> dict[str, str]:
        given = {"HEADERS": headers, "TIMEOUT": timeout, "COMPRESSION": compression}
        return {f"OTEL_EXPORTER_OTLP_{prefix}{name}": value for name, value in given.items()}

    environ = settings("", "api-key=a%20b, x-tenant = c=d,", "2500", "gzip")
    general = make(environ)
    assert general.headers == {
        "Content-Type": "application/json",
        "Content-Encoding": "gzip",
        "User-Agent": f"{SERVICE}/{VERSION}",
        "api-key": "a b",
        "x-tenant": "c=d",
    }
    assert general.timeout == 2.5
    assert json.loads(gzip.decompress(general.body([])))
    special = make(environ | settings(f"{signal.upper()}_", "api-key=c", "500", "none"))
    assert (special.headers["api-key"], special.timeout) == ("c", 0.5)
    assert not {"x-tenant", "Content-Encoding"} & special.headers.keys()


def test_span() -> None:
    """176 ms with some of everything that both formats have."""
    span = Span('a "name" \n ü', "SERVER", TRACE, PARENT, 3, "a=b", lambda span: None)
    span.started = 1_700_000_000_123_456_789
    span.add_event("paid", {"by": "card"}, 1_700_000_000_200_000_000)
    span.set_status(trace.StatusCode.ERROR, "out of stock")
    span.add_event("packed", timestamp=1_700_000_000_250_000_000)
    span.add_link(trace.SpanContext(1, 2, False), {"why": "retry"})
    span.set_attribute("client.address", "10.0.0.1")
    span.end(1_700_000_000_300_000_000)
    paid = {"timeUnixNano": "1700000000200000000", "name": "paid"}
    packed = {"timeUnixNano": "1700000000250000000", "name": "packed", "attributes": []}
    assert in_otlp(span) == {
        "traceId": TRACE,
        "spanId": span.span_id,
        "parentSpanId": PARENT,
        "traceState": "a=b",
        "flags": 3,
        "name": 'a "name" \n ü',
        "kind": 2,
        "startTimeUnixNano": "1700000000123456789",
        "endTimeUnixNano": "1700000000300000000",
        "attributes": attributes(**{"client.address": "10.0.0.1"}),
        "events": [{**paid, "attributes": attributes(by="card")}, packed],
        "links": [
            {"traceId": f"{1:032x}", "spanId": f"{2:016x}", "attributes": attributes(why="retry")}
        ],
        "status": {"code": 2, "message": "out of stock"},
    }
    assert in_zipkin(span) == {
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


def attributes(**values: str) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in values.items()]


def test_spans_are_grouped_by_the_library_that_made_them() -> None:
    spans = [make_span() for _ in range(3)]
    spans[1].scope, spans[1].scope_version = "library", "1"
    spans[2].scope, spans[2].scope_version = "library", "2"
    backend = make_otlp()
    body = json.loads(backend.body([backend.encode(span) for span in spans]))
    assert [each["scope"] for each in body["resourceSpans"][0]["scopeSpans"]] == [
        {"name": SERVICE},
        {"name": "library", "version": "1"},
        {"name": "library", "version": "2"},
    ]


def array(*values: dict[str, Any]) -> dict[str, Any]:
    return {"arrayValue": {"values": [*values]}}


ONE = {"intValue": "1"}


@pytest.mark.parametrize(
    ("value", "otlp", "zipkin"),
    [
        ("ü\x1b", {"stringValue": "ü\x1b"}, "ü\x1b"),
        (True, {"boolValue": True}, "true"),
        (-7, {"intValue": "-7"}, "-7"),
        (HTTPStatus.OK, {"intValue": "200"}, "200"),
        (1 << 63, {"stringValue": "9223372036854775808"}, "9223372036854775808"),
        (1.5, {"doubleValue": 1.5}, "1.5"),
        (float("nan"), {"stringValue": "nan"}, "NaN"),
        (float("-inf"), {"stringValue": "-inf"}, "-Infinity"),
        (["a", 1], array({"stringValue": "a"}, ONE), '["a", 1]'),
        ((), array(), "[]"),
        ({"a": 1}, {"kvlistValue": {"values": [{"key": "a", "value": ONE}]}}, '{"a": 1}'),
        (None, {"stringValue": "None"}, "null"),
        (b"a", {"stringValue": "b'a'"}, "\"b'a'\""),
    ],
)
def test_values(value: Any, otlp: dict[str, Any], zipkin: str) -> None:
    span = make_span()
    span.set_attribute("key", value)
    assert in_otlp(span)["attributes"] == [{"key": "key", "value": otlp}]
    assert in_zipkin(span)["tags"]["key"] == zipkin


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://a:9411/api/v2/spans", "http://a:9411/api/v2/spans"),
        ("http://a:9411", "http://a:9411/api/v2/spans"),
        ("http://a/under/here", "http://a/under/here"),
        ("", ""),
    ],
)
def test_url_of_zipkin(endpoint: str, url: str) -> None:
    assert make_zipkin(ZIPKIN_ENDPOINT=endpoint).url == url


def test_headers_of_zipkin() -> None:
    assert make_zipkin().headers == {
        "Content-Type": "application/json",
        "Content-Encoding": "gzip",
        "User-Agent": f"{SERVICE}/{VERSION}",
    }


def test_other_ends() -> None:
    server, client = make_span("SERVER"), make_span("CLIENT")
    server.set_attribute("client.address", "::1")
    client.set_attribute("server.address", "stock.example")
    assert in_zipkin(server)["remoteEndpoint"] == {"ipv6": "::1"}
    assert in_zipkin(client)["remoteEndpoint"] == {"serviceName": "stock.example"}
    assert "remoteEndpoint" not in in_zipkin(make_span("SERVER"))
    assert "remoteEndpoint" not in in_zipkin(make_span("CLIENT"))


def test_what_an_internal_span_has_not() -> None:
    encoded = in_zipkin(make_span())
    assert {"kind", "parentId", "annotations", "remoteEndpoint"}.isdisjoint(encoded)
    assert encoded["tags"] == {"team": "a"}
    assert encoded["duration"] == 1


def test_error_without_a_message_is_shown_by_its_type() -> None:
    span = make_span()
    span.set_attribute("error.type", "503")
    span.set_status(trace.StatusCode.ERROR)
    assert in_zipkin(span)["tags"]["error"] == "503"


def test_library_that_made_the_span_is_shown() -> None:
    span = make_span()
    span.scope, span.scope_version = "library", "1.2.3"
    span.set_status(trace.StatusCode.OK)
    assert in_zipkin(span)["tags"] == {
        "team": "a",
        "otel.status_code": "OK",
        "otel.scope.name": "library",
        "otel.scope.version": "1.2.3",
    }


def test_invalid_endpoint_is_reported_and_its_secret_is_not() -> None:
    with process(FEATURES="zipkin", ZIPKIN_ENDPOINT="http://user:hidden@zipkin") as service:
        assert service.wait() == 78
        assert "  ZIPKIN_ENDPOINT: " in service.output()
        assert "hidden" not in service.output()
