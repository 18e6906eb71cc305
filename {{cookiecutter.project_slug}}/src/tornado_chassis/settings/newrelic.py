"""New Relic's settings, and the initialisation of its agent.

The agent instruments modules as they are imported, so it is initialised before Tornado is imported.
It reads its other settings, such as `NEW_RELIC_HOST`, from the environment and from the file named
by `NEW_RELIC_CONFIG_FILE`. Values set here are defaults that both can override.
"""

import logging
import os
import re

from .proxy import ProxySettings
from .setting import group, in_force, setting


def _license_key(text: str) -> str:
    if not re.fullmatch("[0-9A-Za-z]{40}", text):
        raise ValueError("should be 40 letters and digits")
    return text


@group
class NewRelicSettings(ProxySettings):
    unread = {  # noqa: RUF012 (never changed)
        "NEW_RELIC_STARTUP_TIMEOUT": "the service does not wait for New Relic",
        # The agent reads the others.
        "NEW_RELIC_*": "",
    }

    new_relic_license_key: str | None = setting(None, parse=_license_key, secret=True)
    """Without it, nothing is sent to New Relic. The agent's other settings are read from the
    environment, but not from `.env`."""

    new_relic_app_name: str | None = setting(None, instead=lambda given: given.service_name)
    """The service's name in New Relic. Default: its own name."""

    def prepare(self) -> None:
        """Initialises the agent if there is a license key. It connects later."""
        if self.new_relic_license_key is not None:
            defaults = {
                "NEW_RELIC_LABELS": f"Environment:{self.environment}",
                "NEW_RELIC_METADATA_SERVICE_VERSION": self.service_version,
                # Logs are collected elsewhere, and may contain what no report should.
                "NEW_RELIC_APPLICATION_LOGGING_FORWARDING_ENABLED": "false",
            }
            host = os.environ.get("NEW_RELIC_HOST", "collector.newrelic.com")
            if proxy := self.proxy_for(f"https://{host}"):
                defaults["NEW_RELIC_PROXY_HOST"] = proxy
            for name, value in defaults.items():
                os.environ.setdefault(name, value)
            app_name = in_force(self, "new_relic_app_name")
            warnings = _initialize(self.new_relic_license_key, app_name)
            vars(self).update(warnings=[*self.warnings, *warnings])
        # Last, because it may load what the agent instruments.
        super().prepare()


def _initialize(license_key: str, app_name: str) -> list[str]:
    """Returns what is wrong with the agent's own variables. It goes on without those."""
    warnings: list[str] = []
    while True:
        try:
            _load(license_key, app_name)
            return warnings
        except Exception as error:
            own = {name: text for name, text in os.environ.items() if "NEW_RELIC_" in name}
            wrong = [name for name, text in own.items() if repr(text) in str(error)]
            wrong = wrong or [*own.keys() & {"NEW_RELIC_CONFIG_FILE"}]
            if not wrong:
                raise
            for name in wrong:
                warnings.append(f"{name}: {error}. It is ignored")
                del os.environ[name]


def _load(license_key: str, app_name: str) -> None:
    # Reads the environment when it is imported.
    import newrelic.agent
    import newrelic.config
    from newrelic.hooks import framework_tornado

    settings = newrelic.agent.global_settings()
    # These may come from `.env`, which the agent does not read.
    settings.license_key, settings.app_name = license_key, app_name
    # To find out where it is running, it would call the metadata servers of several clouds.
    utilization = settings.utilization
    utilization.detect_aws = utilization.detect_azure = utilization.detect_gcp = False
    # Its own Tornado instrumentation costs three times as much as this one, names transactions
    # after functions, and counts a 403 as an error.
    for module in ("httpserver", "httputil", "routing", "web"):
        setattr(framework_tornado, f"instrument_tornado_{module}", lambda module: None)
    # It may have failed before, because of a file.
    newrelic.config._configuration_done = False
    newrelic.agent.initialize()
    # It may connect as soon as OpenTelemetry is used, and would wait then.
    settings.startup_timeout = 0.0
    if "NEW_RELIC_LOG" not in os.environ:
        log = logging.getLogger("newrelic")
        log.propagate = True
        log.setLevel(logging.WARNING)
