"""A microservice chassis for Tornado: settings, logs, telemetry, and a clean start and stop.

Names are imported from the modules that define them.
"""

__version__ = "0.2.0.dev0"
