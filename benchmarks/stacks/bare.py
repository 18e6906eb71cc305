"""Tornado alone, with the routes of a generated service and no access log: the measure of all."""

import asyncio
import os

from tornado.web import Application, RequestHandler


class Root(RequestHandler):
    def get(self) -> None:
        self.finish({"service": "bare", "version": "0"})


class Hello(RequestHandler):
    def get(self, name: str) -> None:
        self.finish({"message": f"Hello, {name}!"})


class Bench(RequestHandler):
    def get(self, name: str) -> None:
        if name == "fail":
            raise RuntimeError("as it happens")
        self.finish({"message": "hello"})


async def main() -> None:
    routes = [
        (r"/", Root),
        (r"/hello/(?P<name>[^/]+)", Hello),
        (r"/bench/(?P<name>[^/]+)", Bench),
    ]
    Application(routes).listen(int(os.environ["PORT"]), "127.0.0.1")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
