"""The microservice chassis: settings, logs, telemetry, and a clean start and stop.

It follows the template that the service was made from. Whatever is the service's own belongs in the
modules beside it.
"""

from importlib.metadata import version

PACKAGE = __name__.rpartition(".")[0]
SERVICE = PACKAGE.replace("_", "-")
"""Name of the service: of its distribution, and of the service in telemetry."""

__version__ = version(SERVICE)
