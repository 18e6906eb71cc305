"""What is read from the headers of callers, and written into those of calls."""

from contextvars import Context

import pytest
from tornado.httputil import HTTPHeaders
from tornado_chassis.tracing.otel import make_propagation
from tornado_chassis.tracing.propagation import Parent, Propagation

from . import TRACE

SPAN = "b7ad6b7169203331"


def propagation(names: str) -> Propagation:
    return make_propagation(names.split(","))


def extract(names: str, headers: dict[str, str]) -> Parent | None:
    return propagation(names).extract(HTTPHeaders(headers))


def inject(names: str, parent: Parent) -> dict[str, str]:
    headers: dict[str, str] = {}
    propagation(names).inject(parent, headers)
    return headers


@pytest.mark.parametrize(
    ("traceparent", "flags"),
    [
        (f"00-{TRACE}-{SPAN}-01", 1),
        (f"00-{TRACE}-{SPAN}-00", 0),
        (f"00-{TRACE}-{SPAN}-03", 3),
        (f"00-{TRACE}-{SPAN}-ff", 3),  # unknown ones are dropped
        (f"00-{TRACE}-{SPAN}-fe", 2),
        (f"00-{TRACE}-{SPAN}-08", 0),
        (f"cc-{TRACE}-{SPAN}-01", 1),
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", 1),
    ],
)
def test_traceparent(traceparent: str, flags: int) -> None:
    assert extract("tracecontext", {"traceparent": traceparent}) == Parent(TRACE, SPAN, flags)


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "nonsense",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-0g",
        f"00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01 ",
        f"00-{chr(0x660) * 31}1-{SPAN}-01",
        "x" * 60_000,
    ],
)
def test_hostile_traceparent_is_none(traceparent: str) -> None:
    assert extract("tracecontext", {"traceparent": traceparent}) is None


def test_two_traceparents_are_none() -> None:
    headers = HTTPHeaders()
    headers.add("traceparent", f"00-{TRACE}-{SPAN}-01")
    headers.add("traceparent", f"00-{TRACE}-{SPAN}-01")
    assert Propagation().extract(headers) is None


def test_tracestate_is_passed_on() -> None:
    headers = HTTPHeaders({"traceparent": f"00-{TRACE}-{SPAN}-01"})
    headers.add("tracestate", "a=b")
    headers.add("tracestate", "c=d")
    parent = Propagation().extract(headers)
    assert parent == Parent(TRACE, SPAN, 1, "a=b,c=d")
    assert inject("tracecontext", parent) == {
        "traceparent": f"00-{TRACE}-{SPAN}-01",
        "tracestate": "a=b,c=d",
    }


def test_tracestate_beyond_its_length_is_dropped() -> None:
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "a=" + "b" * 511}
    assert extract("tracecontext", headers) == Parent(TRACE, SPAN, 1)


@pytest.mark.parametrize("name", ["b3", "b3multi"])
@pytest.mark.parametrize(
    ("headers", "parent"),
    [
        ({"b3": f"{TRACE}-{SPAN}-1"}, Parent(TRACE, SPAN, 1)),
        ({"b3": f"{TRACE}-{SPAN}-0"}, Parent(TRACE, SPAN, 0)),
        ({"b3": f"{TRACE}-{SPAN}-d"}, Parent(TRACE, SPAN, 1)),
        ({"b3": f"{TRACE}-{SPAN}-1-{SPAN}"}, Parent(TRACE, SPAN, 1)),
        ({"b3": f"{TRACE}-{SPAN}"}, Parent(TRACE, SPAN, None)),
        ({"b3": f"{TRACE[16:]}-{SPAN}-1"}, Parent("0" * 16 + TRACE[16:], SPAN, 1)),
        ({"b3": f"{TRACE.upper()}-{SPAN}-1"}, Parent(TRACE, SPAN, 1)),
        # As OpenTelemetry's own propagator reads it.
        ({"b3": f"{TRACE}-{SPAN}-True"}, Parent(TRACE, SPAN, 1)),
        ({"b3": f"{TRACE}-{SPAN}-true-x"}, Parent(TRACE, SPAN, 1)),
        ({"b3": f"{TRACE}-{SPAN}-false"}, Parent(TRACE, SPAN, 0)),
        ({"b3": f"{TRACE}-{SPAN}-x"}, Parent(TRACE, SPAN, 0)),
        ({"b3": "", "X-B3-TraceId": TRACE, "X-B3-SpanId": SPAN}, Parent(TRACE, SPAN, None)),
        ({"b3": "0"}, Parent("", "", 0)),
        ({"b3": "d"}, Parent("", "", 1)),
        (
            {"X-B3-TraceId": TRACE, "X-B3-SpanId": SPAN, "X-B3-Sampled": "1"},
            Parent(TRACE, SPAN, 1),
        ),
        (
            {"X-B3-TraceId": TRACE, "X-B3-SpanId": SPAN, "X-B3-Sampled": "false"},
            Parent(TRACE, SPAN, 0),
        ),
        (
            {"X-B3-TraceId": TRACE, "X-B3-SpanId": SPAN, "X-B3-Flags": "1"},
            Parent(TRACE, SPAN, 1),
        ),
        (
            {"X-B3-TraceId": TRACE, "X-B3-SpanId": SPAN, "X-B3-Sampled": "perhaps"},
            Parent(TRACE, SPAN, None),
        ),
        ({"X-B3-TraceId": TRACE, "X-B3-SpanId": SPAN}, Parent(TRACE, SPAN, None)),
        ({"X-B3-Sampled": "0"}, Parent("", "", 0)),
        ({"X-B3-Flags": "1"}, Parent("", "", 1)),
    ],
)
def test_b3(name: str, headers: dict[str, str], parent: Parent) -> None:
    assert extract(name, headers) == parent


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"b3": ""},
        {"b3": "2"},
        {"b3": f"{TRACE}-{SPAN}-1-{SPAN}-1"},
        {"b3": f"{TRACE}-{SPAN}".replace("0", "\u0660")},
        {"b3": f"{TRACE}-{'0' * 16}-1"},
        {"b3": f"{'0' * 32}-{SPAN}-1"},
        {"b3": f"{TRACE[1:]}-{SPAN}-1"},
        {"X-B3-TraceId": TRACE},
        {"X-B3-TraceId": "x", "X-B3-SpanId": SPAN},
        {"X-B3-SpanId": SPAN},
    ],
)
def test_hostile_b3_is_none(headers: dict[str, str]) -> None:
    assert extract("b3", headers) is None


def test_each_form_of_b3_is_sent_by_its_name() -> None:
    for flags, sampled in ((None, "0"), (0, "0"), (1, "1"), (2, "0"), (3, "1")):
        parent = Parent(TRACE, SPAN, flags)
        assert inject("b3", parent) == {"b3": f"{TRACE}-{SPAN}-{sampled}"}
        assert inject("b3multi", parent) == {
            "X-B3-TraceId": TRACE,
            "X-B3-SpanId": SPAN,
            "X-B3-Sampled": sampled,
        }


def test_last_of_several_counts() -> None:
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "b3": f"{SPAN}-{SPAN}-1"}
    assert extract("b3,tracecontext", headers) == Parent(TRACE, SPAN, 1)
    assert extract("tracecontext,b3", headers) == Parent("0" * 16 + SPAN, SPAN, 1)
    assert extract("tracecontext,b3", {"traceparent": headers["traceparent"]}) is not None
    assert inject("tracecontext,b3", Parent(TRACE, SPAN, 1)).keys() == {"traceparent", "b3"}


@pytest.mark.parametrize(
    "header",
    [
        ",".join(["no pair"] * 900),
        ",".join(["key=\u00e4"] * 900),
        "=;,=" * 2000,
        "x" * 9000,
        "key=" + "x" * 9000,
        ",".join(f"key{number}={number}" for number in range(65)),
    ],
)
def test_hostile_baggage_is_dropped_and_not_logged(
    header: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")

    def passed_on() -> dict[str, str]:
        assert extract("baggage", {"baggage": header}) is None
        return inject("baggage", Parent(TRACE, SPAN, 1))

    assert Context().run(passed_on) == {}
    assert caplog.records == []


def test_baggage_within_the_limits_is_passed_on() -> None:
    header = ",".join(f"key{number}={number}" for number in range(64))

    def passed_on() -> dict[str, str]:
        extract("baggage", {"baggage": header})
        return inject("baggage", Parent(TRACE, SPAN, 1))

    assert Context().run(passed_on) == {"baggage": header}


def test_none_is_none() -> None:
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
    assert extract("none", headers) is extract("tracecontext,none", headers) is None
    assert inject("tracecontext,none", Parent(TRACE, SPAN, 1)) == {}
    assert type(propagation("baggage,none")) is Propagation
