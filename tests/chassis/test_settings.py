"""Settings: each has its place in the docs, and none that is wrong gets past the start."""

import contextlib
import json
import os
import pkgutil
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from unittest import mock
from urllib.error import HTTPError

import pytest
from tornado_chassis import settings
from tornado_chassis.settings import parsing, read, resource, setting

from .settings import Settings, SettingsOfZipkin
from .testing import eventually, inherited, listening


@dataclass(frozen=True, kw_only=True)
class Own(Settings):
    """What a team may add."""

    database_url: str
    api_key: str = setting(secret=True)
    countries: tuple[str, ...] = setting(("nl",), parse=parsing.comma_separated)
    limit: int | None = None
    ratio: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Parsed(Settings):
    """Each parser has a setting."""

    rate: float = setting(1, parse=parsing.number(1, 5))
    count: int = setting(1, parse=parsing.integer(1, 5))
    look: str = setting("json", parse=parsing.choice("json", "console"))
    labels: object = setting(None, parse=resource.key_values)
    url: str = setting("", parse=parsing.http_url)
    level: Literal[1, 2] = 1
    smtp_pass: int = setting(0, parse=parsing.integer(0, 9999))
    pin: int = setting(0, secret=True, parse=parsing.integer(0, 9999))


NAMES_ALONE = "should be host names without a port, comma-separated"
LIKE_A_TIME = "should be a time like 2030-01-31T"
LIKE_A_URL = "should look like https://host:port/path"


def load(directory: Path, **environ: str) -> Settings:
    with (
        mock.patch.dict(os.environ, {**inherited(), **environ}, clear=True),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.chdir(directory)
        return settings.load(Settings)


def problems(capsys: pytest.CaptureFixture[str], directory: Path, **environ: str) -> list[str]:
    """What a start reports of these settings, with which it ends."""
    with pytest.raises(SystemExit) as exit_status:
        load(directory, **environ)
    assert exit_status.value.code == 78
    title, *reported = capsys.readouterr().err.splitlines()
    assert title == "Invalid settings:"
    return reported


def test_environment_wins_over_dotenv_and_empty_is_unset(tmp_path: Path) -> None:
    assert load(tmp_path).port == load(tmp_path, PORT="").port == 8000
    (tmp_path / ".env").write_text("PORT=9001\nHOST=127.0.0.9\nSOMETHING_ELSE=1\n")
    for port, read_port in (("9002", 9002), ("", 9001)):
        loaded = load(tmp_path, PORT=port)
        assert (loaded.port, loaded.host) == (read_port, "127.0.0.9")


def test_every_problem_is_reported_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {"PORT": "eighty", "DRAIN_TIMEOUT_SECONDS": "nan", "TRUSTED_PROXIES": "nobody"}
    assert problems(capsys, tmp_path, **wrong) == [
        "  PORT: should be a whole number from 0 to 65535, not 'eighty'",
        "  TRUSTED_PROXIES: should be IP addresses or networks, comma-separated, not 'nobody'",
        "  DRAIN_TIMEOUT_SECONDS: should be a number from 0 to 3600, not 'nan'",
    ]
    (tmp_path / ".env").write_bytes(b"PORT=\xff\xfe")
    assert problems(capsys, tmp_path)[0].startswith("  .env: ")


def test_problem_of_a_setting() -> None:
    for name, texts, problem in (
        ("PORT", ("65536", "8_000", "\u0661"), "should be a whole number from 0 to 65535"),
        ("DRAIN_DELAY_SECONDS", ("inf", "soon"), "should be a number from 0 to 3600"),
        ("LEVEL", ("3", "one"), "should be one of 1, 2"),
        ("HOST", (",",), "should be addresses, comma-separated"),
        ("ADMIN_ALLOWED_HOSTS", ("a.example:80", "https://a.example", "*.example"), NAMES_ALONE),
        ("REUSE_PORT", ("perhaps",), "should be true or false"),
        ("RATE", ("0", "6", "1_0", "\u0661"), "should be a number from 1 to 5"),
        ("COUNT", ("0", "6"), "should be a whole number from 1 to 5"),
        ("LOOK", ("xml",), "should be one of json, console"),
        ("LABELS", ("a",), "should look like key=value,key=value"),
        ("BUILD_TIME", ("now", "2030-01-31", "2030-01-31T12:00:00"), f"{LIKE_A_TIME}12:00:00Z"),
        ("URL", "ftp://a,http://,http://a:0,http://a b,http://a:x".split(","), LIKE_A_URL),
    ):
        for text in texts:
            assert problem_of(name, text) == f"{problem}, not '{text}'"
    assert problem_of("PORT", "9" * 99).endswith(f"not '{'9' * 57}...'")
    for secret in ("PIN", "SMTP_PASS"):
        assert problem_of(secret, "12345") == "should be a whole number from 0 to 9999"
    for name in ("URL", "TRACE_URL"):
        with_password = problem_of(name, "http://me:hidden@host/{trace_id}")
        assert with_password.startswith("should not contain a user name or password, ")
        assert "hidden" not in with_password


def problem_of(name: str, text: str) -> str:
    with pytest.raises(ValueError, match=f"^  {name}: [^\n]+$") as raised:
        read(Parsed, {name: text})
    return str(raised.value).removeprefix(f"  {name}: ")


def test_values_of_a_setting() -> None:
    environ = {"RATE": "1", "COUNT": "5", "LOOK": "JSON", "LABELS": "a=1%2C2, b = x,"}
    parsed = read(Parsed, environ | {"URL": "HTTPS://host:1/path?a=b", "PIN": "9999"})
    assert (parsed.rate, parsed.count, parsed.look, parsed.pin) == (1, 5, "json", 9999)
    assert (parsed.labels, parsed.url) == ({"a": "1,2", "b": "x"}, "https://host:1/path?a=b")
    parsed = read(Parsed, {"RATE": "5", "COUNT": "1", "LEVEL": "2"})
    assert (parsed.rate, parsed.count, parsed.level) == (5, 1, 2)
    proxies = read(Parsed, {"TRUSTED_PROXIES": "10.0.0.0/8, 192.0.2.1, ::1"}).trusted_proxies
    assert [str(proxy) for proxy in proxies] == ["10.0.0.0/8", "192.0.2.1/32", "::1/128"]
    for text, value in (("true", True), ("TRUE", True), ("0", False)):
        assert read(Parsed, {"REUSE_PORT": text}).reuse_port is value


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_connections_leave_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    unlimited = vars(resource)["RLIM_INFINITY"]
    cases = (64, 32), (1024, 924), (2**20, 1000), (unlimited, 1000), (1, 1)
    for descriptors, connections in cases:
        limits = descriptors, descriptors
        monkeypatch.setattr(resource, "getrlimit", lambda which, limits=limits: limits)
        assert read(Settings, {}).max_connections == connections
        assert read(Settings, {"MAX_CONNECTIONS": "7"}).max_connections == 7


MISSPELLED = {
    "REUSE_PRT": "REUSE_PORT",
    "CONSOLE_TOKEN_FILE": "CONSOLE_TOKEN",
    "PORT_FILE": "PORT",
    "ENVIROMENT": "ENVIRONMENT",
    "ENVIRONEMNT": "ENVIRONMENT",
    "MAX_CONNECTION": "MAX_CONNECTIONS",
    "XMAX_CONNECTIONS": "MAX_CONNECTIONS",
    "REQUEST_TIMEOUT": "REQUEST_TIMEOUT_SECONDS",
    "DRAIN_DELAY": "DRAIN_DELAY_SECONDS",
}


def test_misspelled() -> None:
    for name, meant in MISSPELLED.items():
        hint = f"{name} is not a setting; did you mean {meant}?"
        assert [*read(Settings, {name: "1"}).warnings] == [hint]
    for name in "TRUSTED_PROXY HOSTNAME HOME MY_SERVICE_PORT REUSE_PORT PROMPT".split():
        assert [*read(Settings, {name: "1"}).warnings] == [], name


# Variables of the specification, and what is logged about them: nothing if one is heeded, or asks
# for nothing. https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
# and https://opentelemetry.io/docs/specs/otel/protocol/exporter/
# What a `*` in a name stands for.
SIGNALS = "", "TRACES_", "METRICS_"
IGNORED = "It is ignored"
SPECIFIED = {
    f"should be true or false, not '1'. {IGNORED}": "OTEL_SDK_DISABLED=1",
    "ignored, because OTEL_RESOURCE_ATTRIBUTES describes": "OTEL_ENTITIES=service{}",
    f"should look like key=value,key=value, not 'a'. {IGNORED}": "OTEL_RESOURCE_ATTRIBUTES=a",
    "ignored, because OpenTelemetry logs like everything else": "OTEL_LOG_LEVEL=debug",
    f"should be one or more of .*, not 'xray'. {IGNORED}": "OTEL_PROPAGATORS=xray",
    "not 'xray,b3'. Only the rest of it is used": "OTEL_PROPAGATORS=xray,b3",
    f"should be one of .*{IGNORED}": "OTEL_TRACES_SAMPLER=parentbased_jaeger_remote",
    f"should be a number from 0 to 1, not 'half'. {IGNORED}": "OTEL_TRACES_SAMPLER_ARG=half",
    "ignored, because OTEL_TRACES_SAMPLER is not": "OTEL_TRACES_SAMPLER_ARG=0.5",
    "ignored, because up to 512 spans are sent at once": (
        "OTEL_BSP_SCHEDULE_DELAY=1000 OTEL_BSP_EXPORT_TIMEOUT=1000 OTEL_BSP_MAX_QUEUE_SIZE=1000 "
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE=1000"
    ),
    "ignored, because logs are written to standard output": (
        "OTEL_BLRP_SCHEDULE_DELAY=1000 OTEL_BLRP_EXPORT_TIMEOUT=1000 "
        "OTEL_BLRP_MAX_QUEUE_SIZE=1000 OTEL_BLRP_MAX_EXPORT_BATCH_SIZE=1000 "
        "OTEL_LOGS_EXPORTER=otlp OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=http://collector:4318"
    ),
    "ignored, because a span has up to 128 attributes": (
        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT=many OTEL_ATTRIBUTE_COUNT_LIMIT=10 "
        "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT=10 OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT=10 "
        "OTEL_SPAN_EVENT_COUNT_LIMIT=10 OTEL_SPAN_LINK_COUNT_LIMIT=10 "
        "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT=10 OTEL_LINK_ATTRIBUTE_COUNT_LIMIT=10"
    ),
    "because logs are not sent with OTLP": (
        "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT=10 OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT=10"
    ),
    f"should be otlp or none, not 'jaeger'. {IGNORED}": "OTEL_TRACES_EXPORTER=jaeger",
    "Only the rest of it is used": "OTEL_TRACES_EXPORTER=console,otlp",
    f"should be otlp or none, .*{IGNORED}": "OTEL_METRICS_EXPORTER=prometheus",
    f"should be one of trace_based, .*{IGNORED}": "OTEL_METRICS_EXEMPLAR_FILTER=some",
    f"should be a whole number from 1 to .*{IGNORED}": (
        "OTEL_METRIC_EXPORT_INTERVAL=0 STATSD_PORT=tcp://10.0.0.1:8125"
    ),
    "_TIMEOUT limits each request": "OTEL_METRIC_EXPORT_TIMEOUT=1000",
    f"should be one of cumulative, delta, lowmemory, .*{IGNORED}": (
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=sometimes"
    ),
    "histograms have the buckets of": (
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION=base2_exponential_bucket_histogram"
    ),
    f"should look like key=value,key=value. {IGNORED}": "OTEL_EXPORTER_OTLP_*HEADERS=hidden",
    f"should be a whole number from 0 to .*{IGNORED}": (
        "OTEL_EXPORTER_OTLP_*TIMEOUT=-1 OTEL_EXPORTER_OTLP_TRACES_TIMEOUT=10s"
    ),
    "should be a file with certificates in PEM format": (
        f"OTEL_EXPORTER_OTLP_*CERTIFICATE=/nowhere OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE={__file__}"
    ),
    "CLIENT_CERTIFICATE is not set": "OTEL_EXPORTER_OTLP_*CLIENT_KEY=/nowhere",
    "ignored, because telemetry is sent over HTTP: send to port 4318": (
        "OTEL_EXPORTER_OTLP_*PROTOCOL=grpc"
    ),
    "ignored, because nothing in this service reads it": (
        "OTEL_EXPORTER_PROMETHEUS_HOST=0.0.0.0 OTEL_EXPORTER_PROMETHEUS_PORT=9464 "
        "OTEL_EXPORTER_ZIPKIN_ENDPOINT=http://zipkin:9411 OTEL_INVENTED_NAME=1 SENTRY_INVENTED=1"
    ),
    "only variables are read": "OTEL_EXPERIMENTAL_CONFIG_FILE=otel.yaml OTEL_CONFIG_FILE=otel.yaml",
    f"like https://host:port/path. {IGNORED}": "OTEL_EXPORTER_OTLP_ENDPOINT=collector:4318",
    "over HTTP: send to port 4318": (
        "OTEL_EXPORTER_OTLP_*ENDPOINT=http://collector:4317 "
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=https://collector:4317/x"
    ),
    f"password. {IGNORED}": "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=http://me:hidden@a",
    "because the endpoint decides": (
        "OTEL_EXPORTER_OTLP_*INSECURE=true OTEL_EXPORTER_OTLP_SPAN_INSECURE=true"
    ),
    "should have its key": (
        "OTEL_EXPORTER_OTLP_*CLIENT_CERTIFICATE=/nowhere "
        f"OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE={__file__}"
    ),
    f"of HTTP headers. {IGNORED}": "OTEL_EXPORTER_OTLP_TRACES_HEADERS=hidden=%0A",
    f"should be one of none, gzip, .*{IGNORED}": "OTEL_EXPORTER_OTLP_*COMPRESSION=zstd",
    "it is http/json, to the same port": "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
    "Jaeger takes OTLP": "OTEL_EXPORTER_JAEGER_ENDPOINT=http://jaeger:14268",
    f"should look like https://key@host/project-number. {IGNORED}": "SENTRY_DSN=hidden",
    "all errors are reported, and traces are not": "SENTRY_TRACES_SAMPLE_RATE=0.1",
    f"should be 40 letters and digits. {IGNORED}": "NEW_RELIC_LICENSE_KEY=hidden",
    f"should look like http://host:port. {IGNORED}": "HTTPS_PROXY=socks5://hidden",
    "": (
        "OTEL_SDK_DISABLED=TRUE OTEL_RESOURCE_ATTRIBUTES=a=b OTEL_SERVICE_NAME=shop "
        "OTEL_PROPAGATORS=b3,tracecontext,b3,BAGGAGE OTEL_PROPAGATORS=none "
        "OTEL_TRACES_SAMPLER=always_off OTEL_TRACES_EXPORTER=otlp OTEL_TRACES_EXPORTER=none "
        "OTEL_METRICS_EXPORTER=none OTEL_METRICS_EXPORTER=otlp "
        "OTEL_METRICS_EXEMPLAR_FILTER=always_on OTEL_METRIC_EXPORT_INTERVAL=1000 "
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=Delta OTEL_LOGS_EXPORTER=none "
        "OTEL_PYTHON_ID_GENERATOR=random OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318 "
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=http://collector:4318/x "
        "OTEL_EXPORTER_OTLP_HEADERS=key=hidden OTEL_EXPORTER_OTLP_COMPRESSION=gzip "
        "OTEL_EXPORTER_OTLP_TIMEOUT=0 OTEL_EXPORTER_OTLP_PROTOCOL=http/json SENTRY_RELEASE=shop@2 "
        "SENTRY_ENVIRONMENT=staging SENTRY_DEBUG=1 NEW_RELIC_PROXY_HOST=proxy "
        "HTTP_PROXY=proxy:3128 https_proxy=http://me:hidden@proxy:3128 NO_PROXY=* "
        # Set by Kubernetes beside a service that is called `otel-collector`.
        "OTEL_COLLECTOR_SERVICE_HOST=10.0.0.1 OTEL_COLLECTOR_PORT=tcp://10.0.0.1:4317 "
        "OTEL_COLLECTOR_PORT_4317_TCP_ADDR=10.0.0.1"
    ),
}


@pytest.mark.parametrize(
    ("variable", "logged"),
    [
        (variable.replace("*", signal), logged)
        for logged, variables in SPECIFIED.items()
        for variable in variables.split()
        for signal in (SIGNALS if "_*" in variable else ("*",))
    ],
)
def test_shared_variable_is_heeded_or_logged(variable: str, logged: str) -> None:
    name, _, text = variable.partition("=")
    warnings = "\n".join(read(Settings, {name: text}).warnings)
    assert bool(warnings) is bool(logged)
    assert re.search(logged, warnings)
    assert not logged or name in warnings
    assert "hidden" not in warnings


def test_shared_variables_that_are_ignored_are_listed_by_reason() -> None:
    names = "OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_MAX_QUEUE_SIZE"
    [warning] = read(Settings, dict.fromkeys(names, "1")).warnings
    assert warning.startswith("OTEL_BSP_SCHEDULE_DELAY, OTEL_BSP_MAX_QUEUE_SIZE: ignored, ")


def test_part_of_a_shared_variable_is_used() -> None:
    loaded = read(Settings, {"OTEL_PROPAGATORS": "xray,b3", "OTEL_TRACES_EXPORTER": "console,otlp"})
    assert (loaded.otel_propagators, loaded.otel_traces_exporter) == (("b3",), "otlp")


def test_zipkin_reads_opentelemetry_s_names() -> None:
    environ = {
        "OTEL_EXPORTER_ZIPKIN_ENDPOINT": "http://zipkin:9411/api",
        "OTEL_EXPORTER_ZIPKIN_TIMEOUT": "500",
        "OTEL_TRACES_EXPORTER": "zipkin",
    }
    assert [*read(SettingsOfZipkin, environ).warnings] == []
    [warning] = read(SettingsOfZipkin, {"OTEL_TRACES_EXPORTER": "otlp"}).warnings
    assert "should be zipkin or none" in warning


WRONG = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://user:hidden@collector",
    "OTEL_TRACES_SAMPLER": "parentbased_jaeger_remote",
    "OTEL_PROPAGATORS": "pigeon",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "many",
    "SENTRY_DSN": "hidden",
    "HTTPS_PROXY": "hidden://",
}


@pytest.mark.parametrize(
    "environ",
    [
        WRONG,
        {"HTTP_PROXY": "hidden://proxy", "SENTRY_DSN": "http://key@127.0.0.1:9/1"},
        {"HTTPS_PROXY": "proxy", "SENTRY_DSN": "https://key@127.0.0.1:9/1"},
        {"OTEL_PYTHON_TRACER_PROVIDER": "nowhere"},
    ],
    ids=lambda environ: next(iter(environ)),
)
def test_service_starts_whatever_libraries_read_and_logs_what_is_malformed(
    environ: dict[str, str],
) -> None:
    with listening(FEATURES="logs jaeger sentry probes", LOG_FORMAT="json", **environ) as service:

        def is_ready() -> bool:
            assert service.process.poll() is None, service.output()
            with contextlib.suppress(HTTPError):
                return bool(service.fetch("/readyz"))
            return False

        eventually(is_ready, service.output)
        assert service.stop() == 0
        assert "Traceback" not in service.output()
        if environ is WRONG:
            lines = [json.loads(line) for line in service.output().splitlines()]
            logged = [line["message"] for line in lines if line["level"] == "WARNING"]
            assert sorted(message.partition(":")[0] for message in logged) == sorted(WRONG)
            assert "hidden" not in service.output()


def test_dotenv_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it may be a pipe, which would have to be written again."""
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("REUSE_PRT=1\n")
    with mock.patch.dict(os.environ, clear=True):
        loaded = settings.load(Settings)
        Path(".env").write_text("ENVIROMENT=a\n")
        assert loaded.warnings == ["REUSE_PRT is not a setting; did you mean REUSE_PORT?"]


def test_settings_of_a_team() -> None:
    environ = {"DATABASE_URL": "postgres://db", "API_KEY": "hidden", "COUNTRIES": "nl, be,"}
    own = read(Own, environ)
    assert (own.database_url, own.api_key) == ("postgres://db", "hidden")
    assert (own.countries, own.limit, own.ratio, own.port) == (("nl", "be"), None, 0.5, 8000)
    assert "hidden" not in repr(own)
    assert read(Own, environ | {"LIMIT": "7", "RATIO": "1e-3"}).limit == 7


def test_missing_settings_are_reported_with_the_wrong_ones() -> None:
    with pytest.raises(ValueError, match="is required") as problems:
        read(Own, {"PORT": "x", "LIMIT": "many"})
    assert str(problems.value).splitlines() == [
        "  PORT: should be a whole number from 0 to 65535, not 'x'",
        "  DATABASE_URL: is required",
        "  API_KEY: is required",
        f"  LIMIT: should be a whole number from {-(2**63)} to {2**63 - 1}, not 'many'",
    ]


def test_type_without_a_parser_is_a_mistake_of_the_programmer() -> None:
    with pytest.raises(TypeError, match=r"needs setting\(parse=...\)"):
        parsing.parser_of(dict[str, str])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("PORT 80\nHOST=::\n", "line 1 should look like NAME=value"),
        ("HOST=::\nPORT:80\n", "line 2 should look like NAME=value"),
        ('HOST=::\n# A port\nPORT="80\n', "line 3 should look like NAME=value"),
        (None, "Is a directory"),
    ],
)
def test_dotenv_that_cannot_be_used_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, problem: str
) -> None:
    dotenv = tmp_path / ".env"
    dotenv.mkdir() if text is None else dotenv.write_text(text)
    [reported] = problems(capsys, tmp_path)
    assert reported.startswith("  .env: ")
    assert problem in reported


@pytest.mark.parametrize(
    "text",
    [
        "PORT='9001'\n",
        'export PORT="9001"\r\n',
        "\ufeffPORT=9001\n",
        "PORT=1\n  PORT = 9001 # the last one counts\n",
        "NUMBER=9001\nPORT=${NUMBER}\nHOST\n",
    ],
)
def test_forms_of_dotenv(tmp_path: Path, text: str) -> None:
    (tmp_path / ".env").write_bytes(text.encode())
    assert load(tmp_path).port == 9001


def test_no_settings_import_tornado() -> None:
    """New Relic's agent must be initialised first, and what is wrong is reported sooner."""
    modules = pkgutil.iter_modules(settings.__path__, "tornado_chassis.settings.")
    names = [each.name for each in modules]
    assert "tornado_chassis.settings.newrelic" in names
    code = (
        f"import sys, tornado_chassis.process, {','.join(names)}\nprint('tornado' in sys.modules)"
    )
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, env=inherited(), capture_output=True, check=True)
    assert done.stdout == b"False\n"
