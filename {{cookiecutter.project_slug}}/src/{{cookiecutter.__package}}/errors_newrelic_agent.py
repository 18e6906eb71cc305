"""New Relic's agent. It instruments modules as they are imported, so nothing here imports Tornado.

The agent takes its settings, such as `NEW_RELIC_HOST`, from the environment, and from the file that
`NEW_RELIC_CONFIG_FILE` names; what is set here are defaults for both.
"""

import configparser
import logging
import os
import sys

from newrelic.api.exceptions import ConfigurationError

from . import __version__
from .settings import EX_CONFIG, Settings


def initialize(settings: Settings) -> None:
    """Sets the agent up where there is a license key; it connects later.

    Raises SystemExit with status 78 for settings that the agent can't read.
    """
    if settings.new_relic_license_key is None:
        return
    defaults = {
        "NEW_RELIC_LABELS": f"Environment:{settings.environment}",
        "NEW_RELIC_METADATA_SERVICE_VERSION": __version__,
        # Logs have a way of their own, and may tell what no report should.
        "NEW_RELIC_APPLICATION_LOGGING_FORWARDING_ENABLED": "false",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    try:
        _initialize(settings.new_relic_license_key, settings.new_relic_app_name)
    except (ValueError, configparser.Error, ConfigurationError) as error:
        print(f"Invalid settings:\n  NEW_RELIC_*: {error}", file=sys.stderr)
        raise SystemExit(EX_CONFIG) from None


def _initialize(license_key: str, app_name: str) -> None:
    # Reads the environment, at once.
    import newrelic.agent
    from newrelic.hooks import framework_tornado

    settings = newrelic.agent.global_settings()
    # These may come from `.env`, of which the agent does not know.
    settings.license_key, settings.app_name = license_key, app_name
    # To learn where it runs, it would call addresses that are a cloud's, or anybody's.
    utilization = settings.utilization
    utilization.detect_aws = utilization.detect_azure = utilization.detect_gcp = False
    # Its own way with a request costs three times as much as ours, names transactions after
    # functions, and takes a 403 for an error.
    for module in ("httpserver", "httputil", "routing", "web"):
        setattr(framework_tornado, f"instrument_tornado_{module}", _leave_alone)
    newrelic.agent.initialize()
    if "NEW_RELIC_LOG" not in os.environ:
        log = logging.getLogger("newrelic")
        log.propagate = True
        log.setLevel(logging.WARNING)


def _leave_alone(module: object) -> None:
    pass
