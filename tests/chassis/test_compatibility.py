"""A service says which chassis it was made for, and ends at its start if another is installed."""

from unittest import mock

import pytest
from tornado_chassis import compatibility


@pytest.mark.parametrize("found", ["0.2.0", "0.2.7", "0.2.0.dev0"])
def test_same_minor_version_fits(found: str) -> None:
    with mock.patch.object(compatibility, "__version__", found):
        compatibility.require("0.2.0")


@pytest.mark.parametrize("found", ["0.1.9", "0.3.0", "1.2.0", "0.2.2"])
def test_any_other_is_named(found: str, capsys: pytest.CaptureFixture[str]) -> None:
    with (
        mock.patch.object(compatibility, "__version__", found),
        pytest.raises(SystemExit) as ended,
    ):
        compatibility.require("0.2.3")
    assert ended.value.code == 78
    assert capsys.readouterr().err.startswith(
        f"tornado-chassis {found} is installed, but features.py is for 0.2.3.\n"
    )
