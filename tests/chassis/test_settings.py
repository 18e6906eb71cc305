"""Settings: each has its place in the docs, and none that is wrong gets past the start."""

import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
from tornado_chassis import settings
from tornado_chassis.settings import parsing, read, setting, tracing

from .settings import Settings
from .testing import inherited, process


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


def test_defaults(tmp_path: Path) -> None:
    assert load(tmp_path).port == 8000


def test_environment_wins_over_dotenv(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=9001\nHOST=127.0.0.9\nSOMETHING_ELSE=1\n")
    loaded = load(tmp_path, PORT="9002")
    assert (loaded.port, loaded.host) == (9002, "127.0.0.9")


def test_empty_is_unset(tmp_path: Path) -> None:
    assert load(tmp_path, PORT="").port == 8000
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
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", ""),
        ("TRUSTED_PROXY", ""),
        ("MAX_CONNECTION", "MAX_CONNECTIONS"),
        ("XMAX_CONNECTIONS", "MAX_CONNECTIONS"),
        ("REQUEST_TIMEOUT", "REQUEST_TIMEOUT_SECONDS"),
        ("DRAIN_DELAY", "DRAIN_DELAY_SECONDS"),
        ("HOSTNAME", ""),
        ("HOME", ""),
        ("MY_SERVICE_PORT", ""),
        ("REUSE_PORT", ""),
        ("PROMPT", ""),
    ],
)
def test_misspelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, setting: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with mock.patch.dict(os.environ, {name: "1"}, clear=True):
        assert settings.misspelled(Settings) == ([(name, setting)] if setting else [])


def test_dotenv_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it may be a pipe, which would have to be written again."""
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("REUSE_PRT=1\n")
    with mock.patch.dict(os.environ, clear=True):
        settings.load(Settings)
        Path(".env").write_text("ENVIROMENT=a\n")
        assert settings.misspelled(Settings) == [("REUSE_PRT", "REUSE_PORT")]


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
    assert tracing.key_values("a=1%2C2, b = x,") == {"a": "1,2", "b": "x"}
    with pytest.raises(ValueError, match="should look like key=value,key=value"):
        tracing.key_values("a")


def test_unreadable_dotenv_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".env").write_bytes(b"PORT=\xff\xfe")
    with pytest.raises(SystemExit) as exit_status:
        load(tmp_path)
    assert exit_status.value.code == 78
    assert capsys.readouterr().err.startswith("Invalid settings:\n  .env: ")


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
