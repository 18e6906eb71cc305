"""The OpenAPI document: it is valid, and says what handlers say."""

import json
import subprocess
import sys
from dataclasses import dataclass, make_dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pytest
from openapi_spec_validator import validate
from tornado.web import RedirectHandler, RequestHandler, StaticFileHandler
from tornado_chassis.handlers import JsonHandler, operation
from tornado_chassis.openapi import document
from tornado_chassis.service import Service
from tornado_chassis.settings import read
from tornado_chassis.testing import UNWATCHED

from .settings import Settings
from .testing import SECONDS, STAND_IN, ChassisTest, inherited

if TYPE_CHECKING:
    from nowhere import Missing  # type: ignore[import-not-found]


@dataclass
class NewOrder:
    """What a customer wants."""

    item: str
    count: int = 1


@dataclass
class Order(NewOrder):
    number: int = 0


class Custom:
    """A class that is no type of JSON."""


class ProblemDetails(NewOrder):
    """Has the name of a schema of the chassis."""


class Orders(JsonHandler):
    @operation(status=201, problems={409: "Sold out", 400: "Not on Sundays"})
    async def post(self, body: NewOrder) -> Order:
        """Places an order.

        It is shipped on the
        next day.
        """
        return Order(body.item)

    @operation()
    def get(self) -> list[Order]:
        return []

    @operation(status=204)
    def delete(self) -> None: ...


class Odd(JsonHandler):
    @operation()
    def get(self) -> Custom:
        return Custom()

    @operation()
    def post(self, body: "Missing") -> Order:
        """Refers to what is not there."""
        return Order("")

    @operation(status=299)
    def put(self, body: ProblemDetails) -> Any:
        return body

    def head(self) -> None:
        """Says nothing of types."""

    def propfind(self) -> None: ...

    SUPPORTED_METHODS = (*RequestHandler.SUPPORTED_METHODS, "PROPFIND")


def function(request: Any) -> None: ...


ROUTES: list[Any] = [
    (r"/orders", Orders),
    (r"/orders/(?P<number>\d+)/again/(?P<how>\w+)", Odd),
    (r"/orders/(\d+)/again/(\w+)", Orders),  # never reached
    (r"/v(\d{4})/(?:a|b)", Odd),
    (r"/files/(.*)", StaticFileHandler, {"path": "."}),
    (r"/old", RedirectHandler, {"url": "/"}),
    (r"/function", function),
    (r".*", RedirectHandler, {"url": "/"}),
]


def described(routes: list[Any]) -> dict[str, Any]:
    service = Service(read(Settings, UNWATCHED), routes)
    made = document("shop", "1.2", service.app.runtime.routes())
    validate(made)
    assert json.loads(json.dumps(made)) == made
    return made


def test_operation_is_described_by_its_annotations_docstring_and_problems() -> None:
    made = described(ROUTES)
    assert made["info"] == {"title": "shop", "version": "1.2"}
    post = made["paths"]["/orders"]["post"]
    assert (post["operationId"], post["summary"]) == ("post_orders", "Places an order.")
    assert post["description"] == "It is shipped on the\nnext day."
    schema = {"$ref": "#/components/schemas/NewOrder"}
    content = {"application/json": {"schema": schema}}
    assert post["requestBody"] == {"required": True, "content": content}
    meanings = {status: each["description"] for status, each in post["responses"].items()}
    assert meanings == {
        "201": "Created",
        "400": "Not on Sundays",
        "409": "Sold out",
        "415": "The body is not declared as application/json",
        "422": "The body does not have the expected content",
    }
    assert [*post["responses"]["409"]["content"]] == ["application/problem+json"]
    answers = made["paths"]["/orders"]["get"]["responses"]
    of_list = {"type": "array", "items": {"$ref": "#/components/schemas/Order"}}
    assert answers["200"]["content"] == {"application/json": {"schema": of_list}}
    assert [*answers] == ["200"]
    assert "content" not in made["paths"]["/orders"]["delete"]["responses"]["204"]
    new_order = made["components"]["schemas"]["NewOrder"]
    assert (new_order["description"], new_order["required"]) == ("What a customer wants.", ["item"])


def test_routes_that_say_nothing_are_there_with_paths_and_methods() -> None:
    made = described(ROUTES)
    methods = {path: {*item} - {"parameters"} for path, item in made["paths"].items()}
    assert methods == {
        "/orders": {"post", "get", "delete"},
        "/orders/{number}/again/{how}": {"get", "post", "put", "head"},
        r"/v(\d{4})/(?:a|b)": {"get", "post", "put", "head"},
        "/files/{1}": {"get", "head"},
        "/old": {"get"},
        "/function": set(),
    }
    parameters = made["paths"]["/orders/{number}/again/{how}"]["parameters"]
    assert [each["name"] for each in parameters] == ["number", "how"]


def test_one_bad_annotation_costs_itself_only() -> None:
    odd = described(ROUTES)["paths"]["/orders/{number}/again/{how}"]
    assert odd["get"]["responses"]["200"]["content"] == {
        "application/json": {"schema": {"title": "Custom"}}
    }
    assert odd["post"]["summary"] == "Refers to what is not there."
    assert [*odd["post"]["responses"]] == ["default"]
    assert odd["head"]["summary"] == "Says nothing of types."


def test_patterns_that_are_no_templates_have_no_parameters() -> None:
    patterns = r"/a\d{2}/(?:b|c){2}", r"/[^/]{2,3}/[^/]{2,3}", r"/{x}/{x}/(?:a|b)", r"/{(?:a|b)"
    paths = described([(pattern, Odd) for pattern in patterns])["paths"]
    assert [*paths] == [each.replace("{", "%7B").replace("}", "%7D") for each in patterns]
    assert not any("parameters" in item for item in paths.values())


def saying(**said: Any) -> type[JsonHandler]:
    """A handler with one operation of which this is said."""

    def post(self: JsonHandler) -> None: ...

    return type("Saying", (JsonHandler,), {"post": operation(**said)(post)})


@pytest.mark.parametrize(
    "said",
    [
        {"status": 99},
        {"status": None},
        {"problems": {99: "Early"}},
        {"problems": {"missing": "No such order"}},
        {"problems": [404]},
    ],
)
def test_one_bad_status_costs_itself_only(
    said: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    made = described([("/bad", saying(**said)), ("/orders", Orders)])
    assert [*made["paths"]["/bad"]["post"]["responses"]] == ["default"]
    assert "201" in made["paths"]["/orders"]["post"]["responses"]
    assert "Cannot describe POST /bad: " in caplog.text


def test_statuses_are_numbers_or_ranges() -> None:
    problems = {HTTPStatus.NOT_FOUND: "None", "409": "Sold out", "5XX": "Later", "default": "Else"}
    made = described([("/", saying(problems=problems))])
    answers = made["paths"]["/"]["post"]["responses"]
    assert [*answers] == ["200", "404", "409", "5XX", "default"]


def test_types_that_cannot_be_told_apart_cost_themselves_only() -> None:
    def make(hint: type[Any]) -> type[JsonHandler]:
        same = make_dataclass("Same", [("value", hint)])

        def post(self: JsonHandler, body: Any) -> None: ...

        post.__annotations__["body"] = same
        return type("Taking", (JsonHandler,), {"post": operation()(post)})

    made = described([("/int", make(int)), ("/str", make(str)), ("/orders", Orders)])
    first, second = (made["paths"][path]["post"] for path in ("/int", "/str"))
    assert "requestBody" in first
    assert "requestBody" not in second
    assert "requestBody" in made["paths"]["/orders"]["post"]


def test_names_are_unique() -> None:
    numbered = type("Odd_2", (Odd,), {})
    described([("/a", numbered), ("/b", Odd), ("/c", numbered)])
    made = described(ROUTES)
    names = [
        each["operationId"]
        for item in made["paths"].values()
        for method, each in item.items()
        if method != "parameters"
    ]
    assert len({*names}) == len(names) == 14
    assert {"get_odd", "get_odd_2", "get_static_file_handler"} <= {*names}


class TestOpenApi(ChassisTest):
    features = "console probes"
    environ = {"CONSOLE_TOKEN": "a-token-of-the-test"}  # noqa: RUF012

    def test_admin_port_has_the_document_for_whoever_may_see_the_console(self) -> None:
        token = {"Authorization": f"Bearer {self.environ['CONSOLE_TOKEN']}"}
        made = json.loads(self.fetch_admin("/openapi.json", headers=token).body)
        validate(made)
        assert made["info"] == {"title": "my-service", "version": "1.2.3"}
        assert "/hello/{name}" in made["paths"]
        assert not {"/livez", "/readyz"} & made["paths"].keys()
        assert self.fetch("/openapi.json").code == 404
        assert self.fetch_admin("/openapi.json").code == 401


def test_command_prints_the_document_and_nothing_else() -> None:
    command = [sys.executable, "-m", STAND_IN, "openapi"]
    done = subprocess.run(command, env=inherited(), capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    validate(made)
    assert "get" in made["paths"]["/hello/{name}"]
