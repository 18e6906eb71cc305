"""Which features the service has, and the settings that come with them. From the template."""

from dataclasses import dataclass
from importlib.metadata import version
# {% if cookiecutter.__has_features %}
from typing import TYPE_CHECKING
# {% endif %}

# {% if cookiecutter.chassis == "package" %}
from tornado_chassis import compatibility
# {% endif %}
# {% if cookiecutter.__admin and cookiecutter.logging == "none" and cookiecutter.console == "none" %}
from tornado_chassis.settings.admin import AdminSettings
# {% endif %}
# {% if cookiecutter.console != "none" %}
from tornado_chassis.settings.console import ConsoleSettings
# {% endif %}
# {% if cookiecutter.logging != "none" %}
from tornado_chassis.settings.logs import LogSettings
# {% endif %}
# {% if cookiecutter.error_tracking == "newrelic" %}
from tornado_chassis.settings.newrelic import NewRelicSettings
# {% endif %}
# {% if cookiecutter.tracing == "jaeger" %}
from tornado_chassis.settings.otlp import OtlpSettings
# {% endif %}
# {% if cookiecutter.metrics == "otlp" %}
from tornado_chassis.settings.otlp_metrics import OtlpMetricsSettings
# {% endif %}
# {% if cookiecutter.error_tracking == "sentry" %}
from tornado_chassis.settings.sentry import SentrySettings
# {% endif %}
from tornado_chassis.settings.server import ServerSettings
# {% if cookiecutter.metrics == "statsd" %}
from tornado_chassis.settings.statsd import StatsdSettings
# {% endif %}
# {% if cookiecutter.tracing == "jaeger" and cookiecutter.console != "none" %}
from tornado_chassis.settings.tracing import TraceLinkSettings, TracingSettings
# {% elif cookiecutter.tracing == "jaeger" %}
from tornado_chassis.settings.tracing import TracingSettings
# {% elif cookiecutter.tracing == "zipkin" and cookiecutter.console != "none" %}
from tornado_chassis.settings.tracing import TraceLinkSettings
# {% endif %}
# {% if cookiecutter.tracing == "zipkin" %}
from tornado_chassis.settings.zipkin import ZipkinSettings
# {% endif %}
# {% if cookiecutter.__has_features %}

if TYPE_CHECKING:
    from tornado_chassis.feature import Feature
# {% endif %}
# {% if cookiecutter.chassis == "package" %}

compatibility.require("{chassis_version}")
# {% endif %}


@dataclass(frozen=True, kw_only=True)
class Settings(
    # {% if cookiecutter.console != "none" and cookiecutter.tracing in ("jaeger", "zipkin") %}
    TraceLinkSettings,
    # {% endif %}
    # {% if cookiecutter.error_tracking == "sentry" %}
    SentrySettings,
    # {% elif cookiecutter.error_tracking == "newrelic" %}
    NewRelicSettings,
    # {% endif %}
    # {% if cookiecutter.tracing == "jaeger" %}
    TracingSettings,
    OtlpSettings,
    # {% elif cookiecutter.tracing == "zipkin" %}
    ZipkinSettings,
    # {% endif %}
    # {% if cookiecutter.metrics == "otlp" %}
    OtlpMetricsSettings,
    # {% elif cookiecutter.metrics == "statsd" %}
    StatsdSettings,
    # {% endif %}
    # {% if cookiecutter.console != "none" %}
    ConsoleSettings,
    # {% endif %}
    # {% if cookiecutter.logging != "none" %}
    LogSettings,
    # {% elif cookiecutter.__admin and cookiecutter.console == "none" %}
    AdminSettings,
    # {% endif %}
    ServerSettings,
):
    """Settings of the features. Fields are in the order of these classes, from last to first."""

    service_name = "{{ cookiecutter.project_slug }}"
    service_version = version("{{ cookiecutter.project_slug }}")
    service_package = "{{ cookiecutter.__package }}"
    # {% if cookiecutter.__has_features %}

    def features(self) -> "list[Feature]":
        # Imported only now: settings are read before Tornado is loaded.
        # {% if cookiecutter.console != "none" %}
        from tornado_chassis.console import Console
        # {% endif %}
        # {% if cookiecutter.error_tracking == "newrelic" %}
        from tornado_chassis.errors.newrelic import NewRelic
        # {% elif cookiecutter.error_tracking == "sentry" %}
        from tornado_chassis.errors.sentry import Sentry
        # {% endif %}
        # {% if cookiecutter.health != "none" %}
        from tornado_chassis.health.probes import Probes
        # {% endif %}
        # {% if cookiecutter.logging != "none" %}
        from tornado_chassis.logs import Logs
        # {% endif %}
        # {% if cookiecutter.metrics == "prometheus" %}
        from tornado_chassis.metrics.prometheus import Prometheus
        # {% elif cookiecutter.metrics == "otlp" %}
        from tornado_chassis.metrics.otlp import OtlpMetrics
        # {% elif cookiecutter.metrics == "statsd" %}
        from tornado_chassis.metrics.statsd import StatsD
        # {% endif %}
        # {% if cookiecutter.tracing == "jaeger" %}
        from tornado_chassis.tracing.jaeger import Jaeger
        # {% elif cookiecutter.tracing == "stub" %}
        from tornado_chassis.tracing.stub import Stub
        # {% elif cookiecutter.tracing == "zipkin" %}
        from tornado_chassis.tracing.zipkin import Zipkin
        # {% endif %}

        # In the order in which they are notified of a request's start, and in reverse of its end.
        return [
            # {% if cookiecutter.logging != "none" %}
            Logs(self),
            # {% endif %}
            # {% if cookiecutter.tracing == "jaeger" %}
            Jaeger(self),
            # {% elif cookiecutter.tracing == "stub" %}
            Stub(self),
            # {% elif cookiecutter.tracing == "zipkin" %}
            Zipkin(self),
            # {% endif %}
            # {% if cookiecutter.metrics == "prometheus" %}
            Prometheus(self),
            # {% elif cookiecutter.metrics == "otlp" %}
            OtlpMetrics(self),
            # {% elif cookiecutter.metrics == "statsd" %}
            StatsD(self),
            # {% endif %}
            # {% if cookiecutter.error_tracking == "sentry" %}
            Sentry(self),
            # {% elif cookiecutter.error_tracking == "newrelic" %}
            NewRelic(self),
            # {% endif %}
            # {% if cookiecutter.health != "none" %}
            Probes(self),
            # {% endif %}
            # {% if cookiecutter.console != "none" %}
            Console(self),
            # {% endif %}
        ]
    # {% endif %}
