"""Bodies of declared types, answers of the same, and errors as problem details."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from http import HTTPStatus
from math import inf, nan
from typing import Annotated, Any, ClassVar
from urllib.parse import urlencode

import msgspec
import pytest
from tornado.httpclient import HTTPResponse
from tornado.web import HTTPError, RequestHandler
from tornado_chassis import bodies, hooks
from tornado_chassis.bodies import encode, find_errors
from tornado_chassis.handlers import JsonHandler, Problem, operation

from .routes import broken, named
from .testing import ChassisTest

REASONS = ["two\nlines", "<script>", "5 €", "没有", "\r\nSet-Cookie: a=b", "lone \ud800", "plain"]


@dataclass
class Item:
    name: str
    count: int = 1


@dataclass
class NewOrder:
    customer: str
    items: list[Item]
    prices: dict[str, float] = field(default_factory=dict)
    gift: Item | None = None
    day: date | None = None


class Strict(msgspec.Struct, forbid_unknown_fields=True, rename={"odd": "a/b~c d"}):
    odd: int
    size: Annotated[int, msgspec.Meta(ge=1)] = 1

    def __post_init__(self) -> None:
        if self.size == 13:
            raise ValueError("is unlucky")


class Orders(JsonHandler):
    def post(self) -> None:
        order = self.read_json(NewOrder)
        order.customer = order.customer.upper()
        self.finish(order)

    put = post  # and nothing else


class Raw(JsonHandler):
    def post(self) -> None:
        self.finish({"body": self.read_json()})


class Typed(JsonHandler):
    later: ClassVar[list[str]] = []

    @operation(status=201, problems={409: "Sold out"})
    async def post(self, body: NewOrder) -> NewOrder:
        if body.customer == "none":
            raise Problem(409, "Sold out", detail="until Monday", left=0)
        return body

    @operation()
    def get(self) -> list[Item]:
        return [Item("tea")]

    @operation(status=204)
    def delete(self) -> None:
        self.later.append("deleted")

    @operation()
    def put(self, body: "Later") -> "Later":
        return body

    @operation(status=201)
    def patch(self) -> Item:
        self.problem(410, "Gone for good")
        return Item("never")


class Texts(JsonHandler):
    @operation()
    def get(self) -> str:
        return "<b>tea</b>"

    @operation()
    def post(self, body: bytes) -> bytes:
        return body


@dataclass
class Later:
    size: int


class Failing(JsonHandler):
    def initialize(self, how: str) -> None:
        self.how = how

    def get(self) -> None:
        reason = self.get_query_argument("reason", strip=False)
        if self.how == "send":
            self.send_error(422, reason=reason)
        elif self.how == "problem":
            self.set_header("WWW-Authenticate", "Bearer")
            self.problem(401, reason, detail=reason, type="https://example.com/why", odd=[1])
        else:
            raise HTTPError(422, "not for %s", "clients", reason=reason)


class Unprintable:
    def __str__(self) -> str:
        raise ValueError


class Odd(JsonHandler):
    """Answers with a status without content, or with members that are no JSON."""

    def get(self, how: str) -> None:
        recursive: list[Any] = []
        recursive.append(recursive)
        members: dict[str, Any] = {"object": Unprintable(), "list": recursive, "detail": "why"}
        members["none"] = {None: inf}
        status = int(how) if how.isdigit() else 409
        if how == "called" or how == "204":
            self.problem(status, **members)
        else:
            raise Problem(status, **members)


class Upstream(JsonHandler):
    def get(self) -> None:
        try:
            raise ConnectionError("no route to the shop")
        except ConnectionError as error:
            raise HTTPError(502, "the shop is %s", "closed") from error


class TestHandlers(ChassisTest):
    features = "probes"

    def get_httpserver_options(self) -> dict[str, Any]:
        return {"max_body_size": 100_000}

    handlers: ClassVar[list[Any]] = [
        *named(Orders, Raw, Typed, Texts, Upstream),
        (r"/raised", Failing, {"how": "raise"}),
        (r"/sent", Failing, {"how": "send"}),
        (r"/problem", Failing, {"how": "problem"}),
        (r"/odd/(\w+)", Odd),
        # An exception with a `reason` that is none.
        (r"/other", broken(JsonHandler, "get", UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"))),
        (r"/plain", RequestHandler),
    ]

    def send(self, path: str, body: str | bytes, kind: str | None = None, **more: Any) -> Any:
        headers = {"Content-Type": "application/json" if kind is None else kind}
        return self.fetch(path, body=body, headers=headers, **{"method": "POST", **more})

    def problem(self, response: HTTPResponse, status: int) -> dict[str, Any]:
        problem: dict[str, Any] = json.loads(response.body)
        assert response.headers["Content-Type"] == "application/problem+json"
        assert (response.code, problem["status"]) == (status, status)
        assert problem["request_id"] == response.headers["X-Request-ID"]
        return problem

    def test_body_and_answer_of_a_type(self) -> None:
        body = {"customer": "eva", "items": [{"name": "tea"}], "day": "2030-01-31", "unknown": 1}
        response = self.send("/orders", json.dumps(body), "application/merge-patch+json; a=b")
        assert response.headers["Content-Type"] == "application/json; charset=UTF-8"
        assert json.loads(response.body) == {
            "customer": "EVA",
            "items": [{"name": "tea", "count": 1}],
            "prices": {},
            "gift": None,
            "day": "2030-01-31",
        }

    def test_of_a_name_that_comes_twice_the_last_value_counts(self) -> None:
        response = self.send("/typed", '{"size": 2, "more": 1, "size": 3}', method="PUT")
        assert response.body == b'{"size":3}'

    def test_body_that_is_no_json_is_a_400(self) -> None:
        for body in (b"{", b"", b"\xff", b'"\xff"', b"[" * 99_999, b"[1, 2", b'{"a": NaN}', b"1 2"):
            for path in ("/orders", "/raw"):
                problem = self.problem(self.send(path, body), 400)
                assert problem["title"] == "The body is not valid JSON"

    def test_body_of_another_media_type_is_a_415(self) -> None:
        form = "application/x-www-form-urlencoded"
        for kind in ("text/plain", form, "", "application/jsonp", "text/json", "image/a+json"):
            self.problem(self.send("/orders", "{}", kind), 415)
        for kind in ("Application/JSON ; charset=utf-8", "application/geo+json"):
            assert self.send("/texts", '""', kind).code == 200
        assert self.send("/raw", "{}", "text/plain").code == 200

    def test_everything_wrong_with_a_body_is_a_422_that_points_to_it(self) -> None:
        body = {
            "items": [{"name": "tea"}, {"name": 5, "count": "x"}, {}],
            "prices": {"tea": 1, "a/b ~": "x"},
            "gift": {"count": 1},
            "day": "tomorrow",
        }
        problem = self.problem(self.send("/orders", json.dumps(body)), 422)
        pointers = {each["pointer"]: each["detail"] for each in problem["errors"]}
        assert pointers == {
            "#/customer": "is required",
            "#/items/1/name": "Expected `str`, got `int`",
            "#/items/1/count": "Expected `int`, got `str`",
            "#/prices/a~1b%20~0": "Expected `float`, got `str`",
            "#/gift/name": "is required",
            "#/day": "Invalid RFC3339 encoded date",
        }

    def test_annotations_of_an_operation_read_the_body_and_answer(self) -> None:
        made = self.send("/typed", '{"customer": "eva", "items": []}')
        assert (made.code, json.loads(made.body)["customer"]) == (201, "eva")
        assert json.loads(self.fetch("/typed").body) == [{"name": "tea", "count": 1}]
        assert self.fetch("/typed", method="DELETE").code == 204
        assert self.send("/typed", '{"size": 1}', method="PUT").body == b'{"size":1}'
        self.problem(self.send("/typed", '{"customer": 1}'), 422)
        self.problem(self.send("/typed", "{}", "text/plain"), 415)

    def test_text_that_an_operation_returns_is_json_as_the_document_says(self) -> None:
        for response, body in (
            (self.fetch("/texts"), b'"<b>tea</b>"'),
            (self.send("/texts", '"dGVh"'), b'"dGVh"'),
        ):
            assert response.headers["Content-Type"] == "application/json; charset=UTF-8"
            assert response.body == body

    def test_operation_that_raises_or_writes_a_problem(self) -> None:
        sold_out = self.send("/typed", '{"customer": "none", "items": []}')
        problem = self.problem(sold_out, 409)
        assert (problem["title"], problem["detail"]) == ("Sold out", "until Monday")
        assert problem["left"] == 0
        gone = self.fetch("/typed", method="PATCH", body="")
        assert self.problem(gone, 410)["title"] == "Gone for good"

    def test_reason_is_the_title_as_it_was_given_and_the_status_line_is_safe(self) -> None:
        for path in ("/raised", "/sent", "/problem"):
            for reason in REASONS[:-2]:
                response = self.fetch(f"{path}?{urlencode({'reason': reason})}")
                problem = self.problem(response, 401 if path == "/problem" else 422)
                assert problem["title"] == reason
                assert response.reason == HTTPStatus(response.code).phrase
                assert "Set-Cookie" not in response.headers
        assert self.fetch("/raised?reason=Too%20sweet").reason == "Too sweet"

    def test_members_and_headers_of_a_problem(self) -> None:
        response = self.fetch("/problem?reason=why")
        problem = self.problem(response, 401)
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert (problem["detail"], problem["odd"]) == ("why", [1])
        assert problem["type"] == "https://example.com/why"

    def test_member_that_is_no_json_costs_itself_only(self) -> None:
        for how in ("called", "raised"):
            problem = self.problem(self.fetch(f"/odd/{how}"), 409)
            assert (problem["detail"], problem["none"]) == ("why", {"null": None})
            assert "Unprintable whose text fails" in problem["object"]
            assert "list whose text fails" in problem["list"]

    def test_problem_with_a_status_without_content_has_none(self) -> None:
        for status in (204, 304):
            response = self.fetch(f"/odd/{status}")
            assert (response.code, response.body) == (status, b"")

    def test_reason_of_another_exception_is_not_revealed(self) -> None:
        problem = self.problem(self.fetch("/other"), 500)
        assert problem["title"] == "Internal Server Error"

    def test_method_that_is_not_allowed_names_those_that_are(self) -> None:
        for path, allowed in (
            ("/orders", "POST, PUT"),
            ("/old", "GET"),
            ("/static/x", "GET, HEAD"),
            ("/livez", "GET, HEAD"),
            ("/plain", ""),
        ):
            for method in ("PATCH", "PROPFIND"):
                response = self.fetch(path, method=method, body="", allow_nonstandard_methods=True)
                assert (response.code, response.headers["Allow"]) == (405, allowed), path
            if path == "/orders":
                assert self.problem(response, 405)["title"] == "Method Not Allowed"
        self.problem(self.fetch("/nowhere"), 404)

    def test_http_error_that_was_raised_on_purpose_is_no_unhandled_exception(self) -> None:
        with self.assertLogs(hooks.__name__, "ERROR") as logs:
            assert self.fetch("/upstream").code == 502
        assert "502 GET /upstream: the shop is closed" in logs.output[0]
        assert "no route to the shop" in logs.output[0]
        assert "Unhandled" not in logs.output[0]


def test_what_msgspec_cannot_encode_is_encoded_as_before() -> None:
    class Text(str):
        pass

    value = {None: 1, "a": Text("x"), "day": date(2030, 1, 31), "lone": "\ud800", "item": Item("a")}
    assert json.loads(encode(value)) == {
        "null": 1,
        "a": "x",
        "day": "2030-01-31",
        "lone": "\ud800",
        "item": {"name": "a", "count": 1},
    }
    assert encode({None: [inf, nan], "a": "NaN"}) == b'{"null": [null, null], "a": "NaN"}'
    with pytest.raises(TypeError):
        encode(object())


@dataclass
class Tree:
    below: "list[Tree]"
    size: int


class Cat(msgspec.Struct, tag=True):
    lives: Annotated[int, msgspec.Meta(le=9)]
    name: str


class Dog(msgspec.Struct, tag=True):
    name: str


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        ("{}", Strict, "is required #/a~1b~0c%20d"),
        ('{"a/b~c d": "x"}', Strict, "Expected `int`, got `str` #/a~1b~0c%20d"),
        ('{"a/b~c d": 1, "size": 0}', Strict, "Expected `int` >= 1 #/size"),
        ('{"a/b~c d": 1, "size": 13}', Strict, "is unlucky #"),
        ('{"a/b~c d": 1, "more": 1}', Strict, "Object contains unknown field `more` #"),
        ("[]", Strict, "Expected `object`, got `array` #"),
        # Of several classes, it is the one that its tag says.
        (
            '{"type": "Cat", "lives": 10}',
            Cat | Dog,
            "Expected `int` <= 9 #/lives, is required #/name",
        ),
        ('[null, {"type": "Dog"}]', list[Cat | Dog | None], "is required #/1/name"),
        ('{"type": "Bird"}', Cat | Dog | None, "Invalid value 'Bird' #/type"),
        ('{"a": {"b": 1}}', dict[str, dict[int, int]], "Expected `int`, got `str` as a name #/a"),
        ('[{"item": {"x": 1e999}}]', list[dict[str, Any]], "Number out of range #/0"),
        ('{"odd": {"x": [-1e999]}}', Any, "Number out of range #"),
    ],
)
def test_every_error_has_a_place_and_its_detail_has_none(
    body: str, kind: Any, expected: str
) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(body, type=kind)
    found = find_errors(body.encode(), kind, caught.value)
    assert ", ".join(f"{each['detail']} {each['pointer']}" for each in found) == expected


def tree(depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {"below": [], "size": "x"}
    for _ in range(depth):
        made = {"below": [made], "size": 1}
    return made


@pytest.mark.parametrize(
    ("value", "kind", "errors", "looks"),
    [
        (tree(90), Tree, 1, 30),
        ({str(number): "x" for number in range(5000)}, dict[str, int], 20, 30),
        ({str(number): 1 for number in range(5000)} | {"last": "x"}, dict[str, int], 1, 1010),
        ([*range(100_000), "x"], list[int], 1, 3),
    ],
    ids=["deep", "wrong", "wide", "long"],
)
def test_hostile_body_is_not_looked_at_for_long(
    value: object, kind: Any, errors: int, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[object] = []
    of_value = bodies._errors

    def counted(value: Any, *arguments: Any) -> Iterator[dict[str, str]]:
        looked.append(value)
        return of_value(value, *arguments)

    monkeypatch.setattr(bodies, "_errors", counted)
    body = json.dumps(value).encode()
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(body, type=kind)
    found = find_errors(body, kind, caught.value)
    assert len(found) == errors
    assert len(looked) <= looks
    if kind is Tree:
        assert found[0]["pointer"] == "#" + "/below/0" * 90 + "/size"
