"""The service's routes, and what lives as long as the service does."""

from tornado_chassis.service import Service

from . import handlers
from .settings import Settings


def make_service(settings: Settings) -> Service:
    # fmt: off
    service = Service(settings, [
        (r"/", handlers.Root),
        (r"/hello/(?P<name>[^/]+)", handlers.Hello),
    ])
    # fmt: on
    return service
