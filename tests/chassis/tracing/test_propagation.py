"""What is read from the headers of callers, and written into those of calls."""

from contextvars import Context

import pytest
from tornado.httputil import HTTPHeaders
from tornado_chassis.tracing.otel import make_propagation
from tornado_chassis.tracing.propagation import Parent, Propagation

from . import PARENT as SPAN
from . import TRACE, TRACEPARENT


def propagation(names: str) -> Propagation:
    return make_propagation(names.split(","))


def extract(names: str, headers: dict[str, str]) -> Parent | None:
    return propagation(names).extract(HTTPHeaders(headers))


def inject(names: str, parent: Parent) -> dict[str, str]:
    headers: dict[str, str] = {}
    propagation(names).inject(parent, headers)
    return headers


@pytest.mark.parametrize(
    ("version", "end", "flags"),
    [
        ("00", "01", 1),
        ("00", "00", 0),
        ("00", "03", 3),
        ("00", "ff", 3),  # unknown ones are dropped
        ("00", "fe", 2),
        ("00", "08", 0),
        ("cc", "01", 1),
        ("cc", "01-what-comes-later", 1),
    ],
)
def test_traceparent(version: str, end: str, flags: int) -> None:
    headers = {"traceparent": f"{version}-{TRACE}-{SPAN}-{end}"}
    assert extract("tracecontext", headers) == Parent(TRACE, SPAN, flags)


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
        *(f"00-{TRACE}-{SPAN}-{end}" for end in ("1", "0g", f"01,{TRACEPARENT}", "01-more", "01 ")),
        f"cc-{TRACE}-{SPAN}-01.more",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{chr(0x660) * 31}1-{SPAN}-01",
        "x" * 60_000,
    ],
)
def test_hostile_traceparent_is_none(traceparent: str) -> None:
    assert extract("tracecontext", {"traceparent": traceparent}) is None


def test_two_traceparents_are_none() -> None:
    headers = HTTPHeaders()
    headers.add("traceparent", TRACEPARENT)
    headers.add("traceparent", TRACEPARENT)
    assert Propagation().extract(headers) is None


def test_tracestate_is_passed_on() -> None:
    headers = HTTPHeaders({"traceparent": TRACEPARENT})
    headers.add("tracestate", "a=b")
    headers.add("tracestate", "c=d")
    parent = Propagation().extract(headers)
    assert parent == Parent(TRACE, SPAN, 1, "a=b,c=d")
    assert inject("tracecontext", parent) == {"traceparent": TRACEPARENT, "tracestate": "a=b,c=d"}


def test_tracestate_beyond_its_length_is_dropped() -> None:
    headers = {"traceparent": TRACEPARENT, "tracestate": "a=" + "b" * 511}
    assert extract("tracecontext", headers) == Parent(TRACE, SPAN, 1)


def several(**given: str) -> dict[str, str]:
    """The headers of `b3multi`: with ids, and what is given."""
    ids = {"TraceId": TRACE, "SpanId": SPAN}
    return {f"X-B3-{name}": value for name, value in {**ids, **given}.items()}


@pytest.mark.parametrize("name", ["b3", "b3multi"])
@pytest.mark.parametrize(
    ("end", "flags"),
    [
        ("-1", 1),
        ("-0", 0),
        ("-d", 1),
        (f"-1-{SPAN}", 1),
        ("", None),
        # As OpenTelemetry's own propagator reads it.
        ("-True", 1),
        ("-true-x", 1),
        ("-false", 0),
        ("-x", 0),
    ],
)
def test_b3_in_one_header(name: str, end: str, flags: int | None) -> None:
    assert extract(name, {"b3": f"{TRACE}-{SPAN}{end}"}) == Parent(TRACE, SPAN, flags)
    assert extract(name, {"b3": f"{TRACE.upper()}-{SPAN}{end}"}) == Parent(TRACE, SPAN, flags)
    short = Parent("0" * 16 + TRACE[16:], SPAN, flags)
    assert extract(name, {"b3": f"{TRACE[16:]}-{SPAN}{end}"}) == short


@pytest.mark.parametrize("name", ["b3", "b3multi"])
@pytest.mark.parametrize(
    ("headers", "parent"),
    [
        ({"b3": "", **several()}, Parent(TRACE, SPAN, None)),
        (several(), Parent(TRACE, SPAN, None)),
        (several(Sampled="1"), Parent(TRACE, SPAN, 1)),
        (several(Sampled="false"), Parent(TRACE, SPAN, 0)),
        (several(Sampled="perhaps"), Parent(TRACE, SPAN, None)),
        (several(Flags="1"), Parent(TRACE, SPAN, 1)),
        ({"b3": "0"}, Parent("", "", 0)),
        ({"b3": "d"}, Parent("", "", 1)),
        ({"X-B3-Sampled": "0"}, Parent("", "", 0)),
        ({"X-B3-Flags": "1"}, Parent("", "", 1)),
    ],
)
def test_b3_in_several_headers_or_without_ids(
    name: str, headers: dict[str, str], parent: Parent
) -> None:
    assert extract(name, headers) == parent


@pytest.mark.parametrize(
    "headers",
    [
        {},
        *(
            {"b3": value}
            for value in (
                "",
                "2",
                f"{TRACE}-{SPAN}-1-{SPAN}-1",
                f"{TRACE}-{SPAN}".replace("0", "\u0660"),
                f"{TRACE}-{'0' * 16}-1",
                f"{'0' * 32}-{SPAN}-1",
                f"{TRACE[1:]}-{SPAN}-1",
            )
        ),
        {"X-B3-TraceId": TRACE},
        {"X-B3-SpanId": SPAN},
        several(TraceId="x"),
    ],
)
def test_hostile_b3_is_none(headers: dict[str, str]) -> None:
    assert extract("b3", headers) is None


def test_each_form_of_b3_is_sent_by_its_name() -> None:
    for flags, sampled in ((None, "0"), (0, "0"), (1, "1"), (2, "0"), (3, "1")):
        parent = Parent(TRACE, SPAN, flags)
        assert inject("b3", parent) == {"b3": f"{TRACE}-{SPAN}-{sampled}"}
        assert inject("b3multi", parent) == several(Sampled=sampled)


def test_last_of_several_counts() -> None:
    headers = {"traceparent": TRACEPARENT, "b3": f"{SPAN}-{SPAN}-1"}
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
    assert Context().run(passed_on, header) == {}
    assert caplog.records == []


def test_baggage_within_the_limits_is_passed_on() -> None:
    header = ",".join(f"key{number}={number}" for number in range(64))
    assert Context().run(passed_on, header) == {"baggage": header}


def passed_on(header: str) -> dict[str, str]:
    """What is sent of this baggage."""
    assert extract("baggage", {"baggage": header}) is None
    return inject("baggage", Parent(TRACE, SPAN, 1))


def test_none_is_none() -> None:
    headers = {"traceparent": TRACEPARENT}
    assert extract("none", headers) is extract("tracecontext,none", headers) is None
    assert inject("tracecontext,none", Parent(TRACE, SPAN, 1)) == {}
    assert type(propagation("baggage,none")) is Propagation
