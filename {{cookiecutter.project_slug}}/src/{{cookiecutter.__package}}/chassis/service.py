"""The service: the chosen features around the routes of its own."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

# {% if cookiecutter.logging == "none" %}
from tornado.log import enable_pretty_logging

# {% endif %}
from . import admission
from .application import Application, Observer
from .background import Background
from .client import Calls
# {% if cookiecutter.console != "none" %}
from .console import Console
# {% endif %}
from .counts import GarbageCollection, Refusals, WebSockets
# {% if cookiecutter.error_tracking != "none" %}
from .errors import Errors
# {% endif %}
from .handlers import NotFound
# {% if cookiecutter.health != "none" %}
from .health import Health
# {% endif %}
# {% if cookiecutter.logging != "none" %}
from .logs import AccessLog
# {% endif %}
# {% if cookiecutter.metrics != "none" %}
from .metrics import Metrics
# {% endif %}
from .settings import Settings
# {% if cookiecutter.tracing != "none" %}
from .tracing import Tracing
# {% endif %}
from .watch import Watch


class Endpoint(NamedTuple):
    """An application and the address to serve it on; port 0 is any free one."""

    app: Application
    host: str
    port: int


# Tornado would take messages of 10 MiB, and not notice a client that has vanished.
WEBSOCKETS = {
    "websocket_max_message_size": 1024 * 1024,
    "websocket_ping_interval": 30.0,
    "websocket_ping_timeout": 20.0,
}


class Service:
    """What runs as one process.

    `routes` are rules of `tornado.web.Application`.
    """

    def __init__(self, settings: Settings, routes: Sequence[Any]) -> None:
        self.settings = settings
        # {% if cookiecutter.logging == "none" %}
        enable_pretty_logging()
        # {% endif %}
        # {% if cookiecutter.health != "none" %}
        self.health = Health()
        # {% endif %}
        features: list[Observer] = [
            # In the order in which they are notified of a start, and in reverse of an end.
            admission.Overload(settings),
            Watch(settings),
            Calls(),
            Refusals(),
            WebSockets(),
            GarbageCollection(),
            # {% if cookiecutter.logging != "none" %}
            AccessLog(settings),
            # {% endif %}
            # {% if cookiecutter.tracing != "none" %}
            Tracing(settings),
            # {% endif %}
            # {% if cookiecutter.metrics != "none" %}
            Metrics(settings),
            # {% endif %}
            # {% if cookiecutter.error_tracking != "none" %}
            Errors(settings),
            # {% endif %}
            # {% if cookiecutter.health != "none" %}
            self.health,
            # {% endif %}
            # {% if cookiecutter.console != "none" %}
            Console(
                settings,
                works=lambda: self.background_work.works,
                # {% if cookiecutter.health != "none" %}
                checks=self.health.results,
                # {% endif %}
                # {% if cookiecutter.tracing in ("jaeger", "zipkin") %}
                trace_url=settings.trace_url,
                # {% endif %}
            ),
            # {% endif %}
        ]
        # Features first: a probe must not be compared with every route of the service's own.
        own = [*(route for each in features for route in each.routes()), *routes]
        self.app = Application(own, features, default_handler_class=NotFound, **WEBSOCKETS)
        #: Run in order once the service listens; it is ready when all have returned.
        self.on_startup: list[Callable[[], Awaitable[Any]]] = []
        #: Run in reverse order when the last request has been answered.
        self.on_shutdown: list[Callable[[], Awaitable[Any]]] = []
        self.background_work = Background(self.app.report_background_failure)
        self.endpoints = [Endpoint(self.app, settings.host, settings.port)]
        # {% if cookiecutter.__admin %}
        admin = Application(
            [route for each in features for route in each.admin_routes()],
            [
                admission.AllowedHosts(settings.admin_allowed_hosts),
                *[each for each in features if each.logs_requests],
            ],
            default_handler_class=NotFound,
        )
        self.endpoints.append(Endpoint(admin, settings.admin_host, settings.admin_port))
        # {% endif %}

    def background(
        self, name: str, function: Callable[[], Awaitable[Any]], *, restart: bool = False
    ) -> None:
        """Runs an async function beside the requests, from when the service is ready.

        What it raises is logged and reported; with `restart` it then starts again, after a delay
        that grows from 1 s to a minute. In a stop it is cancelled, before `on_shutdown`.
        """
        self.background_work.add(name, function, restart)
