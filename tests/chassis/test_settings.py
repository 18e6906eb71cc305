"""Settings: each has its place in the docs, and none that is wrong gets past the start."""

import contextlib
import json
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock
from urllib.error import HTTPError

import pytest
from tornado_chassis import settings
from tornado_chassis.settings import parsing, read, resource, setting

from .settings import Settings, SettingsOfZipkin
from .testing import inherited, listening, process


@dataclass(frozen=True, kw_only=True)
class Own(Settings):
    """What a team may add."""

    database_url: str
    api_key: str = setting(secret=True)
    countries: tuple[str, ...] = setting(("nl",), parse=parsing.comma_separated)
    limit: int | None = None
    ratio: float = 0.5


def load(directory: Path, **environ: str) -> Settings:
    with (
        mock.patch.dict(os.environ, {**inherited(), **environ}, clear=True),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.chdir(directory)
        return settings.load(Settings)


def test_environment_wins_over_dotenv(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=9001\nHOST=127.0.0.9\nSOMETHING_ELSE=1\n")
    loaded = load(tmp_path, PORT="9002")
    assert (loaded.port, loaded.host) == (9002, "127.0.0.9")


def test_empty_is_unset(tmp_path: Path) -> None:
    assert load(tmp_path).port == load(tmp_path, PORT="").port == 8000
    (tmp_path / ".env").write_text("PORT=9001\n")
    assert load(tmp_path, PORT="").port == 9001


def test_trusted_proxies_are_a_list(tmp_path: Path) -> None:
    proxies = load(tmp_path, TRUSTED_PROXIES="10.0.0.0/8, 192.0.2.1, ::1").trusted_proxies
    assert [str(proxy) for proxy in proxies] == ["10.0.0.0/8", "192.0.2.1/32", "::1/128"]


def test_every_problem_is_reported_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_status:
        load(tmp_path, PORT="eighty", DRAIN_TIMEOUT_SECONDS="nan", TRUSTED_PROXIES="nobody")
    assert exit_status.value.code == 78
    assert capsys.readouterr().err.splitlines() == [
        "Invalid settings:",
        "  PORT: should be a whole number from 0 to 65535, not 'eighty'",
        "  TRUSTED_PROXIES: should be IP addresses or networks, comma-separated, not 'nobody'",
        "  DRAIN_TIMEOUT_SECONDS: should be a number from 0 to 3600, not 'nan'",
    ]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("PORT", "65536", "should be a whole number from 0 to 65535, not '65536'"),
        ("PORT", "8_000", "should be a whole number from 0 to 65535, not '8_000'"),
        ("PORT", "\u0661", "should be a whole number from 0 to 65535, not '\u0661'"),
        ("PORT", "9" * 99, f"should be a whole number from 0 to 65535, not '{'9' * 57}...'"),
        ("DRAIN_DELAY_SECONDS", "inf", "should be a number from 0 to 3600, not 'inf'"),
        ("DRAIN_DELAY_SECONDS", "soon", "should be a number from 0 to 3600, not 'soon'"),
        ("HOST", ",", "should be addresses, comma-separated, not ','"),
        ("REUSE_PORT", "perhaps", "should be true or false, not 'perhaps'"),
    ],
)
def test_problem_of_a_setting(name: str, text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^  {name}: {re.escape(problem)}$"):
        read(Settings, {name: text})


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
@pytest.mark.parametrize(
    ("descriptors", "connections"), [(64, 32), (1024, 924), (2**20, 1000), (-1, 1000), (1, 1)]
)
def test_connections_leave_descriptors(
    monkeypatch: pytest.MonkeyPatch, descriptors: int, connections: int
) -> None:
    import resource

    limit = vars(resource)["RLIM_INFINITY"] if descriptors == -1 else descriptors
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, limit))
    assert read(Settings, {}).max_connections == connections
    assert read(Settings, {"MAX_CONNECTIONS": "7"}).max_connections == 7


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("REUSE_PRT", "REUSE_PORT"),
        ("ENVIROMENT", "ENVIRONMENT"),
        ("ENVIRONEMNT", "ENVIRONMENT"),
        ("TRUSTED_PROXY", ""),
        ("MAX_CONNECTION", "MAX_CONNECTIONS"),
        ("XMAX_CONNECTIONS", "MAX_CONNECTIONS"),
        ("REQUEST_TIMEOUT", "REQUEST_TIMEOUT_SECONDS"),
        ("DRAIN_DELAY", "DRAIN_DELAY_SECONDS"),
        ("CONSOLE_TOKEN_FILE", "CONSOLE_TOKEN"),
        ("PORT_FILE", "PORT"),
        ("HOSTNAME", ""),
        ("HOME", ""),
        ("MY_SERVICE_PORT", ""),
        ("REUSE_PORT", ""),
        ("PROMPT", ""),
    ],
)
def test_misspelled(name: str, setting: str) -> None:
    hint = f"{name} is not a setting; did you mean {setting}?"
    assert [*read(Settings, {name: "1"}).warnings] == ([hint] if setting else [])


# Each variable of the specification, with a value and what is logged about it: nothing if it is
# heeded, or asks for nothing. https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
# and https://opentelemetry.io/docs/specs/otel/protocol/exporter/
IGNORED = "It is ignored"
CERTIFICATES = "should be a file with certificates in PEM format"
BATCHES = "ignored, because up to 512 spans are sent at once"
LIMITS = "ignored, because a span has up to 128 attributes"
LOGS = "ignored, because logs are written to standard output"
HTTP = "ignored, because telemetry is sent over HTTP: send to port 4318"
NOBODY = "ignored, because nothing in this service reads it"
SPECIFIED = [
    ("OTEL_SDK_DISABLED", "TRUE", ""),
    ("OTEL_SDK_DISABLED", "1", f"should be true or false, not '1'. {IGNORED}"),
    ("OTEL_ENTITIES", "service{}", "ignored, because OTEL_RESOURCE_ATTRIBUTES describes"),
    ("OTEL_RESOURCE_ATTRIBUTES", "a=b", ""),
    ("OTEL_RESOURCE_ATTRIBUTES", "a", f"should look like key=value,key=value, not 'a'. {IGNORED}"),
    ("OTEL_SERVICE_NAME", "shop", ""),
    ("OTEL_LOG_LEVEL", "debug", "ignored, because OpenTelemetry logs like everything else"),
    ("OTEL_PROPAGATORS", "b3,tracecontext,b3,BAGGAGE", ""),
    ("OTEL_PROPAGATORS", "none", ""),
    ("OTEL_PROPAGATORS", "xray", f"should be one or more of .*, not 'xray'. {IGNORED}"),
    ("OTEL_PROPAGATORS", "xray,b3", "not 'xray,b3'. Only the rest of it is used"),
    ("OTEL_TRACES_SAMPLER", "always_off", ""),
    ("OTEL_TRACES_SAMPLER", "parentbased_jaeger_remote", f"should be one of .*{IGNORED}"),
    ("OTEL_TRACES_SAMPLER_ARG", "half", f"should be a number from 0 to 1, not 'half'. {IGNORED}"),
    ("OTEL_TRACES_SAMPLER_ARG", "0.5", "ignored, because OTEL_TRACES_SAMPLER is not"),
    *(
        (f"OTEL_{batch}_{name}", "1000", reason)
        for batch, reason in (("BSP", BATCHES), ("BLRP", LOGS))
        for name in ("SCHEDULE_DELAY", "EXPORT_TIMEOUT", "MAX_QUEUE_SIZE", "MAX_EXPORT_BATCH_SIZE")
    ),
    ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "many", LIMITS),
    *(
        (f"OTEL_{name}_LIMIT", "10", LIMITS)
        for name in (
            *("ATTRIBUTE_COUNT", "SPAN_ATTRIBUTE_VALUE_LENGTH", "SPAN_ATTRIBUTE_COUNT"),
            *("SPAN_EVENT_COUNT", "SPAN_LINK_COUNT"),
            *("EVENT_ATTRIBUTE_COUNT", "LINK_ATTRIBUTE_COUNT"),
        )
    ),
    ("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", "10", "because logs are not sent with OTLP"),
    ("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "10", "because logs are not sent with OTLP"),
    ("OTEL_TRACES_EXPORTER", "otlp", ""),
    ("OTEL_TRACES_EXPORTER", "none", ""),
    ("OTEL_TRACES_EXPORTER", "jaeger", f"should be otlp or none, not 'jaeger'. {IGNORED}"),
    ("OTEL_TRACES_EXPORTER", "console,otlp", "Only the rest of it is used"),
    ("OTEL_METRICS_EXPORTER", "none", ""),
    ("OTEL_METRICS_EXPORTER", "otlp", ""),
    ("OTEL_METRICS_EXPORTER", "prometheus", f"should be otlp or none, .*{IGNORED}"),
    ("OTEL_METRICS_EXEMPLAR_FILTER", "always_on", ""),
    ("OTEL_METRICS_EXEMPLAR_FILTER", "some", f"should be one of trace_based, .*{IGNORED}"),
    ("OTEL_METRIC_EXPORT_INTERVAL", "1000", ""),
    ("OTEL_METRIC_EXPORT_INTERVAL", "0", f"should be a whole number from 1 to .*{IGNORED}"),
    ("OTEL_METRIC_EXPORT_TIMEOUT", "1000", "_TIMEOUT limits each request"),
    ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "Delta", ""),
    (
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
        "sometimes",
        f"should be one of cumulative, delta, lowmemory, .*{IGNORED}",
    ),
    (
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
        "base2_exponential_bucket_histogram",
        "histograms have the buckets of",
    ),
    ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "hidden", f"should look like key=.*{IGNORED}"),
    ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "-1", f"should be a whole number .*{IGNORED}"),
    ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "zstd", f"should be one of none, .*{IGNORED}"),
    ("OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", "/nowhere", CERTIFICATES),
    ("OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY", "/nowhere", "CLIENT_CERTIFICATE is not set"),
    ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc", HTTP),
    ("OTEL_LOGS_EXPORTER", "none", ""),
    ("OTEL_LOGS_EXPORTER", "otlp", LOGS),
    ("OTEL_EXPORTER_PROMETHEUS_HOST", "0.0.0.0", NOBODY),
    ("OTEL_EXPORTER_PROMETHEUS_PORT", "9464", NOBODY),
    ("OTEL_EXPERIMENTAL_CONFIG_FILE", "otel.yaml", "only variables are read"),
    ("OTEL_CONFIG_FILE", "otel.yaml", "only variables are read"),
    ("OTEL_PYTHON_ID_GENERATOR", "random", ""),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318", ""),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317", "over HTTP: send to port 4318"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", f"like https://host:port/path. {IGNORED}"),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://collector:4317/x", "send to port 4318"),
    ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://collector:4318/x", ""),
    ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://collector:4317", "send to port 4318"),
    ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://me:hidden@a", f"password. {IGNORED}"),
    ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://collector:4318", LOGS),
    ("OTEL_EXPORTER_OTLP_INSECURE", "true", "because the endpoint decides"),
    ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "true", "because the endpoint decides"),
    ("OTEL_EXPORTER_OTLP_SPAN_INSECURE", "true", "because the endpoint decides"),
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere", CERTIFICATES),
    ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", __file__, CERTIFICATES),
    ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/nowhere", "CLIENT_CERTIFICATE is not set"),
    ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "/nowhere", "CLIENT_CERTIFICATE is not set"),
    ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/nowhere", "should have its key"),
    ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", __file__, "should have its key"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "key=hidden", ""),
    ("OTEL_EXPORTER_OTLP_HEADERS", "hidden", f"should look like key=value,key=value. {IGNORED}"),
    ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "hidden=%0A", f"of HTTP headers. {IGNORED}"),
    ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip", ""),
    ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", f"should be one of none, gzip, .*{IGNORED}"),
    ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "zstd", f"should be one of none, gzip, .*{IGNORED}"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", ""),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "-1", f"should be a whole number from 0 to .*{IGNORED}"),
    ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "10s", f"should be a whole number .*{IGNORED}"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", ""),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", "it is http/json, to the same port"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", HTTP),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc", HTTP),
    ("OTEL_EXPORTER_JAEGER_ENDPOINT", "http://jaeger:14268", "Jaeger takes OTLP"),
    ("OTEL_EXPORTER_ZIPKIN_ENDPOINT", "http://zipkin:9411", NOBODY),
    ("OTEL_INVENTED_NAME", "1", NOBODY),
    # Set by Kubernetes beside a service that is called `otel-collector` or `statsd`.
    ("OTEL_COLLECTOR_SERVICE_HOST", "10.0.0.1", ""),
    ("OTEL_COLLECTOR_PORT", "tcp://10.0.0.1:4317", ""),
    ("OTEL_COLLECTOR_PORT_4317_TCP_ADDR", "10.0.0.1", ""),
    ("STATSD_PORT", "tcp://10.0.0.1:8125", f"should be a whole number .*{IGNORED}"),
    ("SENTRY_DSN", "hidden", f"should look like https://key@host/project-number. {IGNORED}"),
    ("SENTRY_RELEASE", "shop@2", ""),
    ("SENTRY_ENVIRONMENT", "staging", ""),
    ("SENTRY_DEBUG", "1", ""),
    ("SENTRY_TRACES_SAMPLE_RATE", "0.1", "all errors are reported, and traces are not"),
    ("SENTRY_INVENTED", "1", NOBODY),
    ("NEW_RELIC_LICENSE_KEY", "hidden", f"should be 40 letters and digits. {IGNORED}"),
    ("NEW_RELIC_PROXY_HOST", "proxy", ""),
    ("HTTP_PROXY", "proxy:3128", ""),
    ("https_proxy", "http://me:hidden@proxy:3128", ""),
    ("HTTPS_PROXY", "socks5://hidden", f"should look like http://host:port. {IGNORED}"),
    ("NO_PROXY", "*", ""),
]


@pytest.mark.parametrize(("name", "text", "logged"), SPECIFIED)
def test_shared_variable_is_heeded_or_logged(name: str, text: str, logged: str) -> None:
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
    environ = {"OTEL_PROPAGATORS": "xray,b3", "OTEL_TRACES_EXPORTER": "console,otlp"}
    loaded = read(Settings, environ)
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


def test_service_with_malformed_shared_variables_starts_and_logs_them() -> None:
    wrong = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://user:hidden@collector",
        "OTEL_TRACES_SAMPLER": "parentbased_jaeger_remote",
        "OTEL_PROPAGATORS": "pigeon",
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "many",
        "SENTRY_DSN": "hidden",
        "HTTPS_PROXY": "hidden://",
    }
    with listening(FEATURES="logs jaeger sentry", LOG_FORMAT="json", **wrong) as service:
        lines = [json.loads(line) for line in service.output().splitlines()]
        logged = [line["message"] for line in lines if line["level"] == "WARNING"]
        assert sorted(message.partition(":")[0] for message in logged) == sorted(wrong)
        assert "hidden" not in service.output()


@pytest.mark.parametrize(
    "environ",
    [
        {"HTTP_PROXY": "hidden://proxy", "SENTRY_DSN": "http://key@127.0.0.1:9/1"},
        {"HTTPS_PROXY": "proxy", "SENTRY_DSN": "https://key@127.0.0.1:9/1"},
        {"OTEL_PYTHON_TRACER_PROVIDER": "nowhere"},
    ],
    ids=lambda environ: next(iter(environ)),
)
def test_service_starts_whatever_libraries_read(environ: dict[str, str]) -> None:
    with listening(FEATURES="logs jaeger sentry probes", **environ) as service:
        is_ready = False
        while not is_ready:
            assert service.process.poll() is None, service.output()
            with contextlib.suppress(HTTPError):
                is_ready = bool(service.fetch("/readyz"))
        assert service.stop() == 0
        assert "Traceback" not in service.output()


def test_dotenv_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it may be a pipe, which would have to be written again."""
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("REUSE_PRT=1\n")
    with mock.patch.dict(os.environ, clear=True):
        loaded = settings.load(Settings)
        Path(".env").write_text("ENVIROMENT=a\n")
        assert loaded.warnings == ["REUSE_PRT is not a setting; did you mean REUSE_PORT?"]


@pytest.mark.parametrize(("text", "value"), [("true", True), ("TRUE", True), ("0", False)])
def test_boolean(text: str, value: bool) -> None:
    assert read(Settings, {"REUSE_PORT": text}).reuse_port is value


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


def test_secret_is_not_quoted() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Secretive(Settings):
        pin: int = setting(secret=True, parse=parsing.integer(0, 9999))

    with pytest.raises(ValueError, match=r"^  PIN: should be a whole number from 0 to 9999$"):
        read(Secretive, {"PIN": "12345"})


def test_type_without_a_parser_is_a_mistake_of_the_programmer() -> None:
    with pytest.raises(TypeError, match=r"needs setting\(parse=...\)"):
        parsing.parser_of(dict[str, str])


@pytest.mark.parametrize("parse", [parsing.integer(1, 5), parsing.number(1, 5)])
def test_bounds_are_included(parse: Callable[[str], float]) -> None:
    assert (parse("1"), parse("5")) == (1, 5)
    for text in ("0", "6"):
        with pytest.raises(ValueError, match="from 1 to 5"):
            parse(text)


def test_choices_are_taken_in_any_case() -> None:
    parse = parsing.choice("json", "console")
    assert parse("JSON") == "json"
    with pytest.raises(ValueError, match="should be one of json, console"):
        parse("xml")


@pytest.mark.parametrize("text", ["ftp://a", "http://", "http://a:0", "http://a b", "http://a:x"])
def test_url_of_http(text: str) -> None:
    assert parsing.http_url("HTTPS://host:1/path?a=b") == "https://host:1/path?a=b"
    with pytest.raises(ValueError, match="should look like https://host:port/path"):
        parsing.http_url(text)


def test_url_with_a_password_is_rejected() -> None:
    with pytest.raises(ValueError, match="should not contain a user name or password"):
        parsing.http_url("http://me:hidden@host")


def test_key_values() -> None:
    assert resource.key_values("a=1%2C2, b = x,") == {"a": "1,2", "b": "x"}
    with pytest.raises(ValueError, match="should look like key=value,key=value"):
        resource.key_values("a")


def test_unreadable_dotenv_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".env").write_bytes(b"PORT=\xff\xfe")
    with pytest.raises(SystemExit) as exit_status:
        load(tmp_path)
    assert exit_status.value.code == 78
    assert capsys.readouterr().err.startswith("Invalid settings:\n  .env: ")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("PORT 80\nHOST=::\n", "line 1 should look like NAME=value"),
        ('HOST=::\n# A port\nPORT="80\n', "line 3 should look like NAME=value"),
        (None, "Is a directory"),
    ],
)
def test_dotenv_that_cannot_be_used_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, problem: str
) -> None:
    dotenv = tmp_path / ".env"
    dotenv.mkdir() if text is None else dotenv.write_text(text)
    with pytest.raises(SystemExit) as exit_status:
        load(tmp_path)
    assert exit_status.value.code == 78
    reported = capsys.readouterr().err
    assert reported.startswith("Invalid settings:\n  .env: ")
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
    names = [
        each.name for each in pkgutil.iter_modules(settings.__path__, "tornado_chassis.settings.")
    ]
    assert "tornado_chassis.settings.newrelic" in names
    code = (
        f"import sys, tornado_chassis.process, {', '.join(names)}\nprint('tornado' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=inherited(), capture_output=True, timeout=30, check=True
    )
    assert done.stdout == b"False\n"


def test_service_with_a_wrong_setting_ends_with_78_and_no_traceback() -> None:
    with process(PORT="tcp://10.0.0.1:80") as service:
        assert service.wait() == 78
        assert "PORT: " in service.output()
        assert "Traceback" not in service.output()
