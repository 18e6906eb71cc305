"""The service's handlers. Replace the example by your own, and its route in `app.py`."""

import logging

from tornado_chassis.handlers import JsonHandler

from .settings import Settings

log = logging.getLogger(__name__)


class Root(JsonHandler):
    def get(self) -> None:
        self.finish({"service": Settings.service_name, "version": Settings.service_version})


class Hello(JsonHandler):
    def get(self, name: str) -> None:
        log.debug("Greeting")
        self.finish({"message": f"Hello, {name}!"})
