"""Settings, read once at start from the environment and, in development, from a file `.env`.

Names are the ecosystem's own where one exists, without a prefix: an orchestrator may tell of the
service's own address by a variable `MY_SERVICE_PORT=tcp://...`, which is not the port to listen on.
"""

# {% if cookiecutter.tracing == "jaeger" or cookiecutter.error_tracking == "newrelic" %}
import re
# {% endif %}
import sys
import typing as t
# {% if cookiecutter.tracing in ("jaeger", "zipkin") and cookiecutter.error_tracking == "sentry" %}
from urllib.parse import unquote, urlsplit
# {% elif cookiecutter.tracing in ("jaeger", "zipkin") %}
from urllib.parse import unquote
# {% elif cookiecutter.error_tracking == "sentry" %}
from urllib.parse import urlsplit
# {% endif %}

import pydantic
from pydantic import Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

EX_CONFIG = 78
"""Exit status for an error in the configuration, after sysexits.h."""


def _items(value: object) -> object:
    return [item.strip() for item in value.split(",")] if isinstance(value, str) else value
# {% if cookiecutter.tracing in ("jaeger", "zipkin") %}


def _pairs(value: object) -> object:
    """`key=value,key=value`, the values percent-encoded."""
    if not isinstance(value, str):
        return value
    pairs = [item.partition("=") for item in value.split(",") if item.strip()]
    if not all(key.strip() and equals for key, equals, _ in pairs):
        raise ValueError("should look like key=value,key=value")
    return {key.strip(): unquote(text.strip()) for key, _, text in pairs}


def _without_user(url: pydantic.HttpUrl) -> pydantic.HttpUrl:
    if url.username or url.password:
        raise ValueError("should hold no user name or password")
    return url


Pairs = t.Annotated[dict[str, str], NoDecode, pydantic.BeforeValidator(_pairs)]
Receiver = t.Annotated[pydantic.HttpUrl, pydantic.AfterValidator(_without_user)]
# {% endif %}
# {% if cookiecutter.tracing == "jaeger" %}


def _are_headers(pairs: dict[str, pydantic.SecretStr]) -> dict[str, pydantic.SecretStr]:
    header = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~]*")
    for name, value in pairs.items():
        if not header.fullmatch(f"{name}:{value.get_secret_value()}"):
            raise ValueError("should hold names and values of HTTP headers")
    return pairs
# {% endif %}


class Settings(BaseSettings):
    """What can be set from outside; the environment wins over `.env`."""

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    environment: str = Field(
        default="development",
        description="Where the service runs, such as `production`.",
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on; `0.0.0.0` for all.")
    port: int = Field(
        default=8000, ge=0, le=65535, description="Port to listen on; 0 for any free one."
    )
    # {% if cookiecutter.__admin %}
    admin_host: str = Field(
        default="127.0.0.1", description="Address of the admin server, which must not be public."
    )
    admin_port: int = Field(
        default=8001, ge=0, le=65535, description="Port of the admin server; 0 for any free one."
    )
    # {% endif %}
    reuse_port: bool = Field(
        default=False,
        description="Share the port with other processes by `SO_REUSEPORT`.",
    )
    trusted_proxies: t.Annotated[
        tuple[pydantic.IPvAnyAddress, ...], NoDecode, pydantic.BeforeValidator(_items)
    ] = Field(
        default=(),
        description="Addresses of proxies, comma-separated. With one set, the client's address and "
        "scheme are taken from `X-Forwarded-For` and its kin: set it only behind a proxy that "
        "overwrites them.",
    )
    drain_delay_seconds: float = Field(
        default_factory=lambda: 0.0 if sys.stdout.isatty() else 5.0,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="How long a stopping service goes on accepting, as load balancers learn late "
        "that it stops; by default 0 on a terminal, else 5.",
    )
    drain_timeout_seconds: float = Field(
        default=20.0,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="How long a stopping service then waits for the requests in flight.",
    )
    # {% if cookiecutter.logging == "structured" %}
    log_level: t.Annotated[
        t.Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
        pydantic.BeforeValidator(lambda value: str(value).upper()),
    ] = Field(default="INFO", description="Lowest level that is logged.")
    log_format: t.Literal["json", "console"] = Field(
        default_factory=lambda: "console" if sys.stdout.isatty() else "json",
        description="`json` or `console`; by default `console` on a terminal, else `json`.",
    )
    # {% endif %}
    # {% if cookiecutter.metrics == "statsd" %}
    statsd_host: str | None = Field(
        default=None, description="Where the StatsD daemon is; without it, no metrics are sent."
    )
    statsd_port: int = Field(default=8125, ge=1, le=65535, description="The daemon's UDP port.")
    statsd_prefix: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$",
        description="Put before each name with a dot, as in `shop.checkout`.",
    )
    # {% endif %}
    # {% if cookiecutter.tracing in ("jaeger", "zipkin") %}
    otel_service_name: str | None = Field(
        default=None,
        description="What traces call the service; by default it is its own name.",
    )
    otel_resource_attributes: Pairs = Field(
        default_factory=dict,
        description="More to tell of the service with its spans: `key=value,key=value`.",
    )
    otel_traces_sampler: t.Literal[
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ] = Field(
        default="parentbased_always_on",
        description="Which traces are recorded; `parentbased_` leaves it to a caller that has "
        "decided.",
    )
    otel_traces_sampler_arg: float = Field(
        default=1.0, ge=0, le=1, description="Share of the traces that `traceidratio` records."
    )
    otel_sdk_disabled: bool = Field(default=False, description="Record no spans at all.")
    otel_propagators: str = Field(
        default="{{ 'tracecontext,baggage,b3' if cookiecutter.tracing == 'zipkin' else 'tracecontext,baggage' }}",
        pattern=r"^(tracecontext|baggage|b3|b3multi|none)(,(tracecontext|baggage|b3|b3multi|none))*$",
        description="How traces cross between services: `tracecontext`, `baggage`, `b3`, "
        "`b3multi`, or several of them, comma-separated; or `none`.",
    )
    # {% endif %}
    # {% if cookiecutter.tracing == "jaeger" %}
    otel_exporter_otlp_endpoint: Receiver | None = Field(
        default=None,
        description="Where spans go by OTLP over HTTP, such as `http://jaeger:4318`; without it, "
        "none are sent.",
    )
    otel_exporter_otlp_traces_endpoint: Receiver | None = Field(
        default=None, description="The same with its path, which is else `/v1/traces`."
    )
    otel_exporter_otlp_headers: t.Annotated[
        dict[str, pydantic.SecretStr],
        NoDecode,
        pydantic.BeforeValidator(_pairs),
        pydantic.AfterValidator(_are_headers),
    ] = Field(
        default_factory=dict,
        description="Headers to send along, such as a key: `name=value,name=value`.",
    )
    otel_exporter_otlp_timeout: int = Field(
        default=10_000, gt=0, description="How long to wait for an answer, in milliseconds."
    )
    otel_exporter_otlp_compression: t.Literal["none", "gzip"] = Field(
        default="none", description="`gzip` for a receiver that is far away."
    )
    # {% endif %}
    # {% if cookiecutter.tracing == "zipkin" %}
    zipkin_endpoint: Receiver | None = Field(
        default=None,
        description="Where spans go, such as `http://zipkin:9411/api/v2/spans`; without it, none "
        "are sent.",
    )
    # {% endif %}
    # {% if cookiecutter.error_tracking == "sentry" %}
    sentry_dsn: pydantic.SecretStr | None = Field(
        default=None, description="Where Sentry takes reports; without it, none are sent."
    )

    @pydantic.field_validator("sentry_dsn")
    @classmethod
    def _is_dsn(cls, dsn: pydantic.SecretStr | None) -> pydantic.SecretStr | None:
        if dsn is not None:
            url = urlsplit(dsn.get_secret_value())
            project = url.path.rpartition("/")[2]
            if url.scheme not in ("http", "https") or not (url.username and project.isdigit()):
                raise ValueError("should look like https://key@host/project-number")
        return dsn
    # {% endif %}
    # {% if cookiecutter.error_tracking == "newrelic" %}
    new_relic_license_key: pydantic.SecretStr | None = Field(
        default=None,
        description="Without it, nothing is sent to New Relic. The environment, but not `.env`, "
        "may hold all other settings of the agent, too.",
    )
    new_relic_app_name: str = Field(
        default="{{ cookiecutter.project_slug }}",
        description="The service's name at New Relic.",
    )

    @pydantic.field_validator("new_relic_license_key")
    @classmethod
    def _is_license_key(cls, key: pydantic.SecretStr | None) -> pydantic.SecretStr | None:
        if key is not None and not re.fullmatch("[0-9A-Za-z]{40}", key.get_secret_value()):
            raise ValueError("should be 40 letters and digits")
        return key
    # {% endif %}


def load() -> Settings:
    """The settings, or an end of the process with status 78 and every error on standard error."""
    try:
        return Settings()
    except pydantic.ValidationError as error:
        problems = [
            f"  {'.'.join(map(str, problem['loc'])).upper()}: {problem['msg']}"
            for problem in error.errors(include_input=False)
        ]
    except (OSError, UnicodeDecodeError) as error:
        problems = [f"  .env: {error}"]
    print("Invalid settings:", *problems, sep="\n", file=sys.stderr)
    raise SystemExit(EX_CONFIG)
