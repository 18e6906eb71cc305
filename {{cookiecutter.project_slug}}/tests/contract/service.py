"""The service of the contract tests: it has the features of this one, and nothing of the team's."""

from collections.abc import Sequence
from typing import Any

from tornado.gen import sleep
from tornado.httpclient import AsyncHTTPClient
from tornado.web import Application, RequestHandler
from tornado_chassis.handlers import JsonHandler
from tornado_chassis.service import Service
from tornado_chassis.testing import Process, ServiceTest

from my_service import features

MAIN = """
from tornado_chassis import process
from my_service import features
process.main([], features.Settings, app={app!r})
"""


class Work(JsonHandler):
    def get(self, name: str) -> None:
        self.finish({"name": name})


class Fail(JsonHandler):
    def get(self) -> None:
        raise LookupError("a detail")

    post = get


class Call(JsonHandler):
    """Calls another service, and answers with the headers that it has received."""

    async def get(self) -> None:
        response = await AsyncHTTPClient().fetch(self.settings["other"])
        self.finish(response.body)


class Other(RequestHandler):
    def get(self) -> None:
        self.finish(dict(self.request.headers))


class Late(JsonHandler):
    async def get(self) -> None:
        print("In flight", flush=True)
        await self.settings["stopping"].wait()
        await sleep(0.1)
        self.finish({"late": True})


ROUTES = [(r"/task/(?P<name>\w+)", Work), (r"/fail", Fail), (r"/call", Call), (r"/late", Late)]


def make_service(settings: features.Settings, *routes: Any) -> Service:
    service = Service(settings, [*ROUTES, *routes])
    service.app.settings["stopping"] = service.stopping
    return service


class ContractTest(ServiceTest):
    routes: Sequence[Any] = ()

    def make_service(self) -> Service:
        service = make_service(self.read(features.Settings), *self.routes)
        other = self.serve(Application([(r"/", Other)]))
        service.app.settings["other"] = f"http://127.0.0.1:{other}/"
        return service


def process(app: str = __name__, **environ: str) -> Process:
    """The service that `make_service` of a module returns, in a process of its own."""
    return Process("-c", MAIN.format(app=app), **{"PORT": "0", "ADMIN_PORT": "0", **environ})
