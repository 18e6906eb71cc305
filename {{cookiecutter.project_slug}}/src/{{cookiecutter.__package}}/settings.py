"""Settings, read once at start from the environment and, in development, from a file `.env`.

Names are the ecosystem's own where one exists, without a prefix: Kubernetes puts a variable
`MY_SERVICE_PORT=tcp://...` into the pods beside a Service called `my-service`.
"""

import sys
import typing as t
# {% if cookiecutter.error_tracking == "sentry" %}
from urllib.parse import urlsplit
# {% endif %}

import pydantic
from pydantic import Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

EX_CONFIG = 78
"""Exit status for an error in the configuration, after sysexits.h."""


def _items(value: object) -> object:
    return [item.strip() for item in value.split(",")] if isinstance(value, str) else value


class Settings(BaseSettings):
    """What can be set from outside; the environment wins over `.env`."""

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    environment: str = Field(
        default="development",
        description="Where the service runs, such as `production`; written to its reports.",
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
        description="How long a stopping service goes on accepting while `/readyz` tells load "
        "balancers to leave; 0 on a terminal, else 5.",
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
