"""The settings of the service that the chassis is tested with, and the features it can have."""

import os
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from tornado_chassis.settings.console import ConsoleSettings
from tornado_chassis.settings.logs import LogSettings
from tornado_chassis.settings.newrelic import NewRelicSettings
from tornado_chassis.settings.otlp import OtlpSettings
from tornado_chassis.settings.otlp_metrics import OtlpMetricsSettings
from tornado_chassis.settings.sentry import SentrySettings
from tornado_chassis.settings.statsd import StatsdSettings
from tornado_chassis.settings.tracing import TraceLinkSettings, TracingSettings
from tornado_chassis.settings.zipkin import ZipkinSettings

if TYPE_CHECKING:
    # New Relic's agent has to be initialised before anything imports Tornado.
    from tornado_chassis.feature import Feature

FEATURES = {
    "logs": "logs:Logs",
    "stub": "tracing.stub:Stub",
    "jaeger": "tracing.jaeger:Jaeger",
    "zipkin": "tracing.zipkin:Zipkin",
    "prometheus": "metrics.prometheus:Prometheus",
    "otlp": "metrics.otlp:OtlpMetrics",
    "statsd": "metrics.statsd:StatsD",
    "sentry": "errors.sentry:Sentry",
    "newrelic": "errors.newrelic:NewRelic",
    "probes": "health.probes:Probes",
    "console": "console:Console",
}
SERVICE, VERSION, PACKAGE = "my-service", "1.2.3", "tests.chassis"
DEFAULT = "logs stub prometheus sentry probes console"


@dataclass(frozen=True, kw_only=True)
class Settings(
    TraceLinkSettings,
    ConsoleSettings,
    NewRelicSettings,
    SentrySettings,
    TracingSettings,
    OtlpSettings,
    OtlpMetricsSettings,
    StatsdSettings,
    LogSettings,
):
    service_name = SERVICE
    service_version = VERSION
    service_package = PACKAGE

    def features(self) -> "list[Feature]":
        """Those that the variable FEATURES names, or else the usual ones."""
        return self.make(os.environ.get("FEATURES", DEFAULT))

    def make(self, names: str) -> "list[Feature]":
        made: list[Feature] = []
        for name in names.split():
            module, _, kind = FEATURES[name].partition(":")
            made.append(getattr(import_module(f"tornado_chassis.{module}"), kind)(self))
        return made


@dataclass(frozen=True, kw_only=True)
class SettingsOfZipkin(ZipkinSettings, Settings):
    """Those with the feature `zipkin`, which has another default of OTEL_PROPAGATORS."""
