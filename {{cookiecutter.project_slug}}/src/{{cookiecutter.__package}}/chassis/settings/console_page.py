"""Who may see the console."""

import re
from dataclasses import dataclass

from .server import ServerSettings
from .setting import setting


def _token(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._~-]{16,256}", text):
        raise ValueError("should be 16 to 256 letters, digits, -, ., _ and ~")
    return text


@dataclass(frozen=True, kw_only=True)
class ConsoleSettings(ServerSettings):
    console_token: str | None = setting(None, parse=_token, secret=True)
    """Gives access to the console from other machines. Without it, only the machine that the
    service runs on has access."""
