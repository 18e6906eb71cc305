"""A client that nobody here wrote, generated from the service's document, places an order."""

import json
import sys
from pathlib import Path

import pytest
from openapi_spec_validator import validate

from .conftest import Generate
from .project import Project, tool
from .test_docs import paste, samples, sections_of

CLIENT = """\
import json, sys
from shop_client import Client
from shop_client.api.default import get_order_list, post_order_list
from shop_client.models import NewOrder, Order, ProblemDetails

client = Client(base_url=sys.argv[1])
order = post_order_list.sync(client=client, body=NewOrder(item="tea", count=2))
assert isinstance(order, Order), order
refused = post_order_list.sync_detailed(client=client, body=NewOrder(item="coffee"))
assert isinstance(refused.parsed, ProblemDetails), refused
wrong = post_order_list.sync_detailed(client=client, body=NewOrder(item=5))
listed = get_order_list.sync(client=client)
print(json.dumps({
    "order": order.to_dict(),
    "listed": [each.to_dict() for each in listed],
    "refused": [refused.status_code, refused.parsed.detail],
    "wrong": [wrong.status_code, wrong.parsed.errors[0].pointer],
}))
"""


def test_generated_client_places_an_order(generate: Generate, tmp_path: Path) -> None:
    project = generate()
    section = next(each for each in sections_of(project, "openapi.md") if "post" in each)
    for path, code in samples(section):
        paste(project, path, code)
    project.sync()
    document = tmp_path / "openapi.json"
    # What is logged goes elsewhere.
    project.run("sh", "-c", f"my-service openapi > '{document}'")
    validate(json.loads(document.read_text()))
    make_client(document, tmp_path)
    with project.start() as service:
        output = tool(sys.executable, "-c", CLIENT, service.url, cwd=tmp_path)
        served = json.loads(service.get("/openapi.json", admin=True)[2])
        assert served == json.loads(document.read_text())
    tea = {"item": "tea", "count": 2, "number": 1}
    assert json.loads(output) == {
        "order": tea,
        "listed": [tea],
        "refused": [409, "There is coffee again on Monday"],
        "wrong": [422, "#/item"],
    }


def make_client(document: Path, directory: Path) -> None:
    config = directory / "config.json"
    # Without what would be formatted by programs of its own.
    config.write_text(json.dumps({"package_name_override": "shop_client", "post_hooks": []}))
    tool(
        *(Path(sys.executable).with_name("openapi-python-client"), "generate", "--fail-on-warning"),
        *("--meta=none", f"--path={document}", f"--config={config}"),
        *("--output-path=shop_client",),
        cwd=directory,
    )


@pytest.mark.full
def test_every_service_prints_a_document(generate: Generate) -> None:
    nothing = ("health", "logging", "metrics", "error_tracking", "tracing", "console")
    project: Project = generate(**dict.fromkeys(nothing, "none"))
    project.sync()
    printed = json.loads(project.run("my-service", "openapi"))
    validate(printed)
    assert {path: {*item} - {"parameters"} for path, item in printed["paths"].items()} == {
        "/": {"get"},
        "/hello/{name}": {"get"},
    }
