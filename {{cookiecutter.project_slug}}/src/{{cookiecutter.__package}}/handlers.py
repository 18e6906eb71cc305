"""The service's handlers. Replace the example by your own, and its route in `app.py`."""

import logging

from .chassis import SERVICE, __version__
from .chassis.handlers import JsonHandler

log = logging.getLogger(__name__)


class Root(JsonHandler):
    def get(self) -> None:
        self.finish({"service": SERVICE, "version": __version__})


class Hello(JsonHandler):
    def get(self, name: str) -> None:
        log.debug("Greeting")
        self.finish({"message": f"Hello, {name}!"})
