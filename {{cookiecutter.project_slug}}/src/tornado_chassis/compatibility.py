"""Whether a service and the chassis that is installed beside it fit together."""

import re
import sys

from . import __version__
from .settings import EX_CONFIG


def require(version: str) -> None:
    """Ends the process unless the chassis is this version or a later one that is compatible.

    Compatible are versions with the same major and minor number. Raises SystemExit with status 78
    and says on standard error which versions there are.
    """
    wanted, found = _numbers(version), _numbers(__version__)
    if found[:2] == wanted[:2] and found >= wanted:
        return
    print(
        f"tornado-chassis {__version__} is installed, but features.py is for {version}.",
        f"Depend on tornado-chassis {version} in pyproject.toml, or update the service:",
        f"cruft update --skip-apply-ask --checkout {__version__}",
        sep="\n",
        file=sys.stderr,
    )
    raise SystemExit(EX_CONFIG)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))
