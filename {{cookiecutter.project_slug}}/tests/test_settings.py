"""Settings: each has its place in the README, and none that is wrong gets past the start."""

import ast
import inspect
import os
from dataclasses import MISSING, fields
from itertools import pairwise
from pathlib import Path
from unittest import mock

import pytest

# {% filter replace("my_service", cookiecutter.__package) %}
from my_service import settings
from my_service.settings import Settings

# {% endfilter %}
from .service import inherited, process

README = Path(__file__).parents[1] / "README.md"


def load(directory: Path, **environ: str) -> Settings:
    with (
        mock.patch.dict(os.environ, {**inherited(), **environ}, clear=True),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.chdir(directory)
        return settings.load()


def test_readme_has_a_row_for_each_setting() -> None:
    definition = ast.parse(inspect.getsource(Settings)).body[0]
    assert isinstance(definition, ast.ClassDef)
    meanings = {}
    for setting, docstring in pairwise(definition.body):
        if isinstance(setting, ast.AnnAssign) and isinstance(docstring, ast.Expr):
            meaning = ast.literal_eval(docstring.value)
            meanings[ast.unparse(setting.target)] = " ".join(meaning.split())
    rows = []
    for each in fields(Settings):
        value = ",".join(each.default) if isinstance(each.default, tuple) else each.default
        default = "" if value in (MISSING, None, "") else f"`{value}`"
        rows.append(f"| `{each.name.upper()}` | {default} | {meanings[each.name]} |")
    _, _, readme = README.read_text(encoding="utf-8").partition("| Setting |")
    table = readme.partition("\n\n")[0].splitlines()[2:]
    assert table == rows


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
    proxies = load(tmp_path, TRUSTED_PROXIES="10.0.0.1, ::1").trusted_proxies
    assert [str(proxy) for proxy in proxies] == ["10.0.0.1", "::1"]


def test_all_errors_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_status:
        load(tmp_path, PORT="eighty", DRAIN_TIMEOUT_SECONDS="nan", TRUSTED_PROXIES="nobody")
    assert exit_status.value.code == 78
    assert capsys.readouterr().err.splitlines() == [
        "Invalid settings:",
        "  PORT: should be `int`",
        "  TRUSTED_PROXIES: 'nobody' does not appear to be an IPv4 or IPv6 address",
        "  DRAIN_TIMEOUT_SECONDS: should be `float` >= 0.0",
    ]


@pytest.mark.parametrize(
    ("setting", "text", "problem"),
    [
        ("PORT", "65536", "should be `int` <= 65535"),
        ("DRAIN_DELAY_SECONDS", "inf", "should be `float` <= 3600.0"),
        ("REUSE_PORT", "perhaps", "should be true or false"),
    ],
)
def test_what_is_told(setting: str, text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^  {setting}: {problem}$"):
        settings.read({setting: text})


def test_unreadable_dotenv_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".env").write_bytes(b"PORT=\xff\xfe")
    with pytest.raises(SystemExit) as exit_status:
        load(tmp_path)
    assert exit_status.value.code == 78
    assert capsys.readouterr().err.startswith("Invalid settings:\n  .env: ")


def test_service_with_a_wrong_setting_ends_with_78_and_no_traceback() -> None:
    with process(PORT="tcp://10.0.0.1:80") as service:
        assert service.wait() == 78
        assert "PORT: " in service.output()
        assert "Traceback" not in service.output()
