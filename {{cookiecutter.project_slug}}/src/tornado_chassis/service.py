"""The service: its features around the routes of its own."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tornado.log import enable_pretty_logging

from .application import Application, Endpoint
from .handlers import NotFound
from .limits import Limits
from .settings.server import ServerSettings
from .watch import Watch

log = logging.getLogger(__name__)

# Tornado would take messages of 10 MiB, and not notice a client that has vanished.
WEBSOCKETS = {
    "websocket_max_message_size": 1024 * 1024,
    "websocket_ping_interval": 30.0,
    "websocket_ping_timeout": 20.0,
}


class Service:
    """What runs as one process.

    `routes` are rules of `tornado.web.Application`, and `application_settings` its settings, such
    as `compress_response=True`.
    """

    def __init__(
        self, settings: ServerSettings, routes: Sequence[Any], **application_settings: Any
    ) -> None:
        self.settings = settings
        chosen = settings.features()
        needed = dict.fromkeys(kind for each in chosen for kind in each.needs)
        # In the order in which they are notified of a start, and in reverse of an end.
        features = [Limits(settings), Watch(settings), *(kind() for kind in needed), *chosen]
        if not any(each.logs_requests for each in features):
            enable_pretty_logging()
        for warning in settings.warnings:
            log.warning("%s", warning)
        # Features first: a probe must not be compared with every route of the service's own.
        own = [*(route for each in features for route in each.routes()), *routes]
        application_settings = {
            "default_handler_class": NotFound,
            **WEBSOCKETS,
            **application_settings,
        }
        self.app = Application(own, features, **application_settings)
        #: The health checks: see `Health.add`.
        self.health = self.app.runtime.health
        #: Set when a stop begins, for whatever would not end by itself.
        self.stopping = self.app.runtime.stopping
        #: Run in order once the service listens; it is ready when all have returned.
        self.on_startup: list[Callable[[], Awaitable[Any]]] = []
        #: Run in reverse order when the last request has been answered.
        self.on_shutdown: list[Callable[[], Awaitable[Any]]] = []
        main = Endpoint(self.app, settings.host, settings.port)
        self.endpoints = [main, *settings.admin_endpoints(features)]

    def background(
        self, name: str, function: Callable[[], Awaitable[Any]], *, restart: bool = False
    ) -> None:
        """Runs an async function beside the requests, from when the service is ready.

        What it raises is logged and reported; with `restart` it then starts again, after a delay
        that grows from 1 s to a minute. In a stop it is cancelled, before `on_shutdown`.
        """
        self.app.runtime.background.add(name, function, restart)
