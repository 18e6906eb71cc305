"""The composition root: what the service answers, and what observes it."""

from typing import Any

# {% if cookiecutter.logging == "none" %}
from tornado.log import enable_pretty_logging

# {% endif %}
from . import handlers
# {% if cookiecutter.error_tracking != "none" %}
from .errors import Errors
# {% endif %}
from .exchange import Application, Observer
# {% if cookiecutter.health != "none" %}
from .health import Health
# {% endif %}
# {% if cookiecutter.logging != "none" %}
from .logs import AccessLog
# {% endif %}
# {% if cookiecutter.metrics != "none" %}
from .metrics import Metrics
# {% endif %}
from .server import Endpoint
from .settings import Settings
# {% if cookiecutter.tracing != "none" %}
from .tracing import Tracing
# {% endif %}


def make_service(settings: Settings) -> list[Endpoint]:
    # {% if cookiecutter.__admin %}
    """The application, and beside it what only operators may see."""
    # {% else %}
    """The application."""
    # {% endif %}
    # {% if cookiecutter.logging != "none" %}
    access_log = AccessLog(settings)
    # {% else %}
    enable_pretty_logging()
    # {% endif %}
    # {% if cookiecutter.health != "none" %}
    health = Health()
    # {% endif %}
    observers: list[Observer] = []
    # {% if cookiecutter.tracing != "none" %}
    observers.append(Tracing(settings))
    # {% endif %}
    # {% if cookiecutter.metrics != "none" %}
    metrics = Metrics(settings, observers)
    observers.append(metrics)
    # {% endif %}
    # {% if cookiecutter.error_tracking != "none" %}
    observers.append(Errors(settings))
    # {% endif %}

    routes: list[Any] = [
        # {% if cookiecutter.health != "none" %}
        *health.routes(),
        # {% endif %}
        (r"/", handlers.Root),
        (r"/hello/(?P<name>[^/]+)", handlers.Hello),
    ]
    app = Application(
        routes,
        observers,
        default_handler_class=handlers.NotFound,
        # {% if cookiecutter.logging != "none" %}
        log_function=access_log,
        # {% endif %}
    )
    # {% if not cookiecutter.__admin %}
    return [Endpoint(app, settings.host, settings.port)]
    # {% else %}

    admin_routes: list[Any] = [
        # {% if cookiecutter.health != "none" %}
        *health.admin_routes(app),
        # {% endif %}
        # {% if cookiecutter.logging != "none" %}
        *access_log.admin_routes(),
        # {% endif %}
        # {% if cookiecutter.metrics == "prometheus" %}
        *metrics.admin_routes(),
        # {% endif %}
    ]
    admin = Application(
        admin_routes,
        default_handler_class=handlers.NotFound,
        # {% if cookiecutter.logging != "none" %}
        log_function=access_log,
        # {% endif %}
    )
    return [
        Endpoint(app, settings.host, settings.port),
        Endpoint(admin, settings.admin_host, settings.admin_port),
    ]
    # {% endif %}
