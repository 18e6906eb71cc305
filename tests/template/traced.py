"""A service with handlers that have spans of their own, and requests that make traces."""

import json
from collections.abc import Mapping

from .project import Project

CALLER = "b7ad6b7169203331"


def add_handlers(project: Project) -> None:
    """Adds handlers with a span of their own: in one all goes well, the other fails within it."""
    project.add_handler(
        """\
from tornado_chassis.tracing import span


class Welcome(JsonHandler):
    def get(self, name: str) -> None:
        with span("greet"):
            message = f"Welcome, {name}!"
        self.finish({"message": message})
""",
        '(r"/welcome/(?P<name>[^/]+)", handlers.Welcome)',
    )
    project.add_handler(
        """\
class Order(JsonHandler):
    def post(self, number: str) -> None:
        with span("load order") as loading:
            loading.set_attribute("order.number", int(number))
            raise ValueError(f"order {number} is not there")
""",
        r'(r"/orders/(?P<number>\d+)", handlers.Order)',
    )


def trace_id(number: int) -> str:
    return f"{number:032x}"


def of_trace(number: int) -> dict[str, str]:
    """The headers of a caller who has begun a trace and samples it."""
    return {"traceparent": f"00-{trace_id(number)}-{CALLER}-01"}


def visit(
    project: Project, first: Mapping[str, str], third: Mapping[str, str], **settings: str
) -> dict[str, str]:
    """Makes requests of four traces: one that goes well, one that fails, one that finds nothing,
    and probes. Takes headers for the first and the third, returns the first one's access line."""
    settings["OTEL_SERVICE_NAME"] = "shop"
    settings["OTEL_RESOURCE_ATTRIBUTES"] = "team=orders"
    settings["ENVIRONMENT"] = "staging"
    secrets = {"Cookie": "session=hidden", "Authorization": "Bearer hidden"}
    order = "/orders/7?card=hidden"
    with project.start(**settings) as service:
        assert service.get("/welcome/x?token=hidden", {**first, **secrets})[0] == 200
        assert service.get(order, of_trace(2), method="POST", body="hidden")[0] == 500
        assert service.get("/nowhere", third)[0] == 404
        assert service.get("/livez", of_trace(4))[0] == 200
        assert service.get("/metrics", of_trace(4), admin=True)[0] == 200
        # The last of it may still wait to be sent: a stop loses none.
        assert service.terminate() == 0, service.output()
        lines = [json.loads(line) for line in service.output().splitlines()]
    [access] = [line for line in lines if line.get("url.path") == "/welcome/x"]
    return dict(access)
