"""Which log lines are written, and in what format."""

from importlib import import_module
from typing import Literal

from .admin import TokenSettings
from .setting import group, on_terminal, setting


@group
class LogSettings(TokenSettings):
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    """The lowest level that is logged."""

    log_format: Literal["json", "console"] = setting(
        default_factory=lambda: "console" if on_terminal() else "json"
    )
    """`json` or `console`. Default: `console` on a terminal, otherwise `json`."""

    def start_logging(self) -> None:
        # Not with a statement: the logs import these settings.
        logs = import_module("..logs", __package__)
        logs.Logs(self)
        logs.root.contain()
