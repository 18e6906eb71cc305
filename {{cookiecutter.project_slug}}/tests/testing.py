"""`ServiceTest` for this service. From the template."""

from pathlib import Path

from tornado_chassis import testing
from tornado_chassis.service import Service

from my_service.app import make_service
from my_service.settings import Settings


class ServiceTest(testing.ServiceTest):
    """Serves the team's `make_service`, with the settings of `settings.env` and `environ`."""

    def settings(self) -> Settings:
        return self.read(Settings, Path(__file__).with_name("settings.env"))

    def make_service(self) -> Service:
        return make_service(self.settings())
