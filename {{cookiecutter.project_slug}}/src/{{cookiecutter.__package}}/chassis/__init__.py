"""The microservice chassis: settings, logs, telemetry, and a clean start and stop.

It follows the template that the service was made from. The service's own code belongs in the
modules beside this package.
"""

from importlib.metadata import version

PACKAGE = __name__.rpartition(".")[0]
SERVICE = PACKAGE.replace("_", "-")
"""Name of the distribution, and of the service in telemetry."""

__version__ = version(SERVICE)
