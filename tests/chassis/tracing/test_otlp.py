"""OTLP over HTTP, as OpenTelemetry specifies it."""

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

from ..settings import SERVICE, VERSION, Settings
from . import PARENT, TRACE, full_span, make_span


def make_backend(**environ: str) -> Otlp:
    return Otlp(read(Settings, environ), {"service.name": "shop"})


def encode(span: Span) -> dict[str, Any]:
    """The span, out of a request made of it."""
    backend = make_backend()
    body = json.loads(backend.body([backend.encode(span)]))
    ((resource, scopes),) = (part.values() for part in body["resourceSpans"])
    assert resource == {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}
    ((scope, spans),) = (part.values() for part in scopes)
    assert scope == {"name": SERVICE}
    (encoded,) = spans
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
def test_url(signal: str, make: Make, endpoint: str, own_endpoint: str, url: str) -> None:
    own = f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"
    backend = make({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, own: own_endpoint})
    assert backend.url == url.format(signal=signal)


@each_signal
def test_what_is_set_for_a_signal_replaces_what_is_set_for_all(signal: str, make: Make) -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=a,x-tenant=b",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1000",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
    }
    general = make(environ)
    assert (general.headers["api-key"], general.headers["x-tenant"]) == ("a", "b")
    assert (general.headers["Content-Encoding"], general.timeout) == ("gzip", 1.0)
    own = f"OTEL_EXPORTER_OTLP_{signal.upper()}"
    environ |= {
        f"{own}_HEADERS": "api-key=c",
        f"{own}_TIMEOUT": "500",
        f"{own}_COMPRESSION": "none",
    }
    special = make(environ)
    assert (special.headers["api-key"], special.timeout) == ("c", 0.5)
    assert not {"x-tenant", "Content-Encoding"} & special.headers.keys()


def test_headers_timeout_and_compression() -> None:
    backend = make_backend(
        OTEL_EXPORTER_OTLP_HEADERS="api-key=a%20b, x-tenant = c=d,",
        OTEL_EXPORTER_OTLP_TIMEOUT="2500",
        OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
    )
    assert backend.headers == {
        "Content-Type": "application/json",
        "Content-Encoding": "gzip",
        "User-Agent": f"{SERVICE}/{VERSION}",
        "api-key": "a b",
        "x-tenant": "c=d",
    }
    assert backend.timeout == 2.5
    assert json.loads(gzip.decompress(backend.body([])))["resourceSpans"][0]["scopeSpans"] == []
    assert "Content-Encoding" not in make_backend().headers


def test_span() -> None:
    span = full_span(3)
    span.add_link(trace.SpanContext(1, 2, False), {"why": "retry"})
    span.set_attribute("items", 3)
    span.end(1_700_000_000_300_000_000)
    assert encode(span) == {
        "traceId": TRACE,
        "spanId": span.span_id,
        "parentSpanId": PARENT,
        "traceState": "a=b",
        "flags": 3,
        "name": 'a "name" \n ü',
        "kind": 2,
        "startTimeUnixNano": "1700000000123456789",
        "endTimeUnixNano": "1700000000300000000",
        "attributes": [{"key": "items", "value": {"intValue": "3"}}],
        "events": [
            {
                "timeUnixNano": "1700000000200000000",
                "name": "paid",
                "attributes": [{"key": "by", "value": {"stringValue": "card"}}],
            }
        ],
        "links": [
            {
                "traceId": f"{1:032x}",
                "spanId": f"{2:016x}",
                "attributes": [{"key": "why", "value": {"stringValue": "retry"}}],
            }
        ],
        "status": {"code": 2, "message": "out of stock"},
    }


def test_spans_are_grouped_by_the_library_that_made_them() -> None:
    spans = [make_span() for _ in range(3)]
    spans[1].scope, spans[1].scope_version = "library", "1"
    spans[2].scope, spans[2].scope_version = "library", "2"
    backend = make_backend()
    body = json.loads(backend.body([backend.encode(span) for span in spans]))
    assert [each["scope"] for each in body["resourceSpans"][0]["scopeSpans"]] == [
        {"name": SERVICE},
        {"name": "library", "version": "1"},
        {"name": "library", "version": "2"},
    ]


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ("ü\x1b", {"stringValue": "ü\x1b"}),
        (True, {"boolValue": True}),
        (-7, {"intValue": "-7"}),
        (HTTPStatus.OK, {"intValue": "200"}),
        (1 << 63, {"stringValue": "9223372036854775808"}),
        (1.5, {"doubleValue": 1.5}),
        (float("nan"), {"stringValue": "nan"}),
        (float("-inf"), {"stringValue": "-inf"}),
        (["a", 1], {"arrayValue": {"values": [{"stringValue": "a"}, {"intValue": "1"}]}}),
        ((), {"arrayValue": {"values": []}}),
        ({"a": 1}, {"kvlistValue": {"values": [{"key": "a", "value": {"intValue": "1"}}]}}),
        (None, {"stringValue": "None"}),
    ],
)
def test_values(value: Any, encoded: dict[str, Any]) -> None:
    span = make_span()
    span.set_attribute("key", value)
    assert encode(span)["attributes"] == [{"key": "key", "value": encoded}]
