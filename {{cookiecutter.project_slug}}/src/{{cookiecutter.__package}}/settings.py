"""Settings, read once at start from the environment and, in development, from a file `.env`.

Names are the ecosystem's own where one exists, without a prefix: an orchestrator may tell of the
service's own address by a variable `MY_SERVICE_PORT=tcp://...`, which is not the port to listen on.
"""

import os
# {% if cookiecutter.metrics == "statsd" or cookiecutter.tracing in ("jaeger", "zipkin") or cookiecutter.error_tracking == "newrelic" %}
import re
# {% endif %}
import sys
import typing as t
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
# {% if cookiecutter.tracing in ("jaeger", "zipkin") %}
from urllib.parse import SplitResult, unquote, urlsplit
# {% elif cookiecutter.error_tracking == "sentry" %}
from urllib.parse import SplitResult, urlsplit
# {% endif %}

import msgspec
from msgspec import Meta

EX_CONFIG = 78
"""Exit status for an error in the configuration, after sysexits.h."""

Port = t.Annotated[int, Meta(ge=0, le=65535)]
Seconds = t.Annotated[float, Meta(ge=0, le=3600)]


def _addresses(text: str) -> tuple[IPv4Address | IPv6Address, ...]:
    return tuple(ip_address(item.strip()) for item in text.split(","))
# {% if cookiecutter.tracing in ("jaeger", "zipkin") or cookiecutter.error_tracking == "sentry" %}


def _split(text: str) -> SplitResult | None:
    """The parts of a URL of HTTP, or None: what is wrong may quote a secret."""
    try:
        url = urlsplit(text)
        is_http = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:
        return None
    return url if is_http else None
# {% endif %}
# {% if cookiecutter.metrics == "statsd" %}


def _prefix(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", text):
        raise ValueError("should be of letters, digits, _ and -, with dots between")
    return text
# {% endif %}
# {% if cookiecutter.tracing in ("jaeger", "zipkin") %}


def _pairs(text: str) -> dict[str, str]:
    """`key=value,key=value`, the values percent-encoded."""
    pairs = [item.partition("=") for item in text.split(",") if item.strip()]
    if not all(key.strip() and equals for key, equals, _ in pairs):
        raise ValueError("should look like key=value,key=value")
    return {key.strip(): unquote(value.strip()) for key, _, value in pairs}


def _receiver(text: str) -> str:
    if not (re.fullmatch("[!-~]+", text) and (url := _split(text))):
        raise ValueError("should look like https://host:port/path")
    if "@" in url.netloc:
        raise ValueError("should hold no user name or password")
    # The scheme in small letters, as the exporter has it.
    return url.geturl()


def _propagators(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not {*names} <= {"tracecontext", "baggage", "b3", "b3multi", "none"}:
        raise ValueError("should be of tracecontext, baggage, b3 and b3multi, or none")
    return names
# {% endif %}
# {% if cookiecutter.tracing == "jaeger" %}


def _headers(text: str) -> dict[str, str]:
    headers = _pairs(text)
    header = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~]*")
    if not all(header.fullmatch(f"{name}:{value}") for name, value in headers.items()):
        raise ValueError("should hold names and values of HTTP headers")
    return headers
# {% endif %}
# {% if cookiecutter.error_tracking == "sentry" %}


def _dsn(text: str) -> str:
    url = _split(text)
    if not (url and url.username and url.path.rpartition("/")[2].isdigit()):
        raise ValueError("should look like https://key@host/project-number")
    return text
# {% endif %}
# {% if cookiecutter.error_tracking == "newrelic" %}


def _license_key(text: str) -> str:
    if not re.fullmatch("[0-9A-Za-z]{40}", text):
        raise ValueError("should be 40 letters and digits")
    return text
# {% endif %}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What can be set from outside, each by its name in capitals.

    `Annotated` limits the values of a type, or names what parses them: a function of the text that
    raises ValueError.
    """

    environment: str = "development"
    """Where the service runs, such as `production`."""

    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` for all."""

    port: Port = 8000
    """Port to listen on; 0 for any free one."""
    # {% if cookiecutter.__admin %}

    admin_host: str = "127.0.0.1"
    """Address of the admin server, which must not be public."""

    admin_port: Port = 8001
    """Port of the admin server; 0 for any free one."""
    # {% endif %}

    reuse_port: bool = False
    """Share the port with other processes by `SO_REUSEPORT`."""

    trusted_proxies: t.Annotated[tuple[IPv4Address | IPv6Address, ...], _addresses] = ()
    """Addresses of proxies, comma-separated. With one set, the client's address and scheme are
    taken from `X-Forwarded-For` and its kin: set it only behind a proxy that overwrites them."""

    drain_delay_seconds: Seconds = field(
        default_factory=lambda: 0.0 if sys.stdout.isatty() else 5.0
    )
    """How long a stopping service goes on accepting, as load balancers learn late that it stops;
    by default 0 on a terminal, else 5."""

    drain_timeout_seconds: Seconds = 20.0
    """How long a stopping service then waits for the requests in flight."""
    # {% if cookiecutter.logging == "structured" %}

    log_level: t.Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    """Lowest level that is logged."""

    log_format: t.Literal["json", "console"] = field(
        default_factory=lambda: "console" if sys.stdout.isatty() else "json"
    )
    """`json` or `console`; by default `console` on a terminal, else `json`."""
    # {% endif %}
    # {% if cookiecutter.metrics == "statsd" %}

    statsd_host: str | None = None
    """Where the StatsD daemon is; without it, no metrics are sent."""

    statsd_port: t.Annotated[int, Meta(ge=1, le=65535)] = 8125
    """The daemon's UDP port."""

    statsd_prefix: t.Annotated[str | None, _prefix] = None
    """Put before each name with a dot, as in `shop.checkout`."""
    # {% endif %}
    # {% if cookiecutter.tracing in ("jaeger", "zipkin") %}

    otel_service_name: str | None = None
    """What traces call the service; by default it is its own name."""

    otel_resource_attributes: t.Annotated[Mapping[str, str], _pairs] = field(default_factory=dict)
    """More to tell of the service with its spans: `key=value,key=value`."""

    otel_traces_sampler: t.Literal[
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ] = "parentbased_always_on"
    """Which traces are recorded; `parentbased_` leaves it to a caller that has decided."""

    otel_traces_sampler_arg: t.Annotated[float, Meta(ge=0, le=1)] = 1.0
    """Share of the traces that `traceidratio` records."""

    otel_sdk_disabled: bool = False
    """Record no spans at all."""

    otel_propagators: t.Annotated[tuple[str, ...], _propagators] = (
        "tracecontext",
        "baggage",
        # {% if cookiecutter.tracing == "zipkin" %}
        "b3",
        # {% endif %}
    )
    """How traces cross between services: `tracecontext`, `baggage`, `b3`, `b3multi`, or several of
    them, comma-separated; or `none`."""
    # {% endif %}
    # {% if cookiecutter.tracing == "jaeger" %}

    otel_exporter_otlp_endpoint: t.Annotated[str | None, _receiver] = None
    """Where spans go by OTLP over HTTP, such as `http://jaeger:4318`; without it, none are sent."""

    otel_exporter_otlp_traces_endpoint: t.Annotated[str | None, _receiver] = None
    """The same with its path, which is else `/v1/traces`."""

    otel_exporter_otlp_headers: t.Annotated[Mapping[str, str], _headers] = field(
        default_factory=dict, repr=False
    )
    """Headers to send along, such as a key: `name=value,name=value`."""

    otel_exporter_otlp_timeout: t.Annotated[int, Meta(gt=0)] = 10_000
    """How long to wait for an answer, in milliseconds."""

    otel_exporter_otlp_compression: t.Literal["none", "gzip"] = "none"
    """`gzip` for a receiver that is far away."""
    # {% endif %}
    # {% if cookiecutter.tracing == "zipkin" %}

    zipkin_endpoint: t.Annotated[str | None, _receiver] = None
    """Where spans go, such as `http://zipkin:9411/api/v2/spans`; without it, none are sent."""
    # {% endif %}
    # {% if cookiecutter.error_tracking == "sentry" %}

    sentry_dsn: t.Annotated[str | None, _dsn] = field(default=None, repr=False)
    """Where Sentry takes reports; without it, none are sent."""
    # {% endif %}
    # {% if cookiecutter.error_tracking == "newrelic" %}

    new_relic_license_key: t.Annotated[str | None, _license_key] = field(default=None, repr=False)
    """Without it, nothing is sent to New Relic. The environment, but not `.env`, may hold all other
    settings of the agent, too."""

    new_relic_app_name: str = "{{ cookiecutter.project_slug }}"
    """The service's name at New Relic."""
    # {% endif %}


def load() -> Settings:
    """The settings, or an end of the process with status 78 and every error on standard error."""
    try:
        return read({**_dotenv(), **{name: text for name, text in os.environ.items() if text}})
    except ValueError as error:
        print("Invalid settings:", error, sep="\n", file=sys.stderr)
        raise SystemExit(EX_CONFIG) from None


def read(environ: Mapping[str, str]) -> Settings:
    """Settings from variables; one that is empty counts as unset.

    Raises ValueError with a line for each that is invalid.
    """
    kinds = t.get_type_hints(Settings, include_extras=True)
    values: dict[str, t.Any] = {}
    problems = []
    for each in fields(Settings):
        name = each.name.upper()
        text = environ.get(name, "").strip()
        if not text:
            continue
        try:
            values[each.name] = _parse(text, kinds[each.name])
        except ValueError as error:
            problems.append(f"  {name}: {error}")
    if problems:
        raise ValueError("\n".join(problems))
    return Settings(**values)


def _dotenv() -> dict[str, str]:
    path = Path(".env")
    if not path.exists():
        return {}
    # Only where it is needed.
    from dotenv import dotenv_values

    try:
        values = dotenv_values(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"  .env: {error}") from None
    return {name: value for name, value in values.items() if value}


def _parse(text: str, kind: t.Any) -> t.Any:
    for note in getattr(kind, "__metadata__", ()):
        if callable(note):
            return note(text)
    if t.get_origin(kind) is t.Literal:
        choices = {choice.lower(): choice for choice in t.get_args(kind)}
        if text.lower() not in choices:
            raise ValueError(f"should be one of {', '.join(choices.values())}")
        return choices[text.lower()]
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        expected = str(error).partition(", got ")[0].replace("`bool`", "true or false")
        raise ValueError(expected.replace("Expected", "should be")) from None
