"""Error tracking."""

import logging
from collections.abc import Callable

from ..values import raised

LOGGERS = "asyncio", "tornado.application"


class LoggedErrors(logging.Handler):
    """Reports exceptions of callbacks, and of tasks that nothing awaits, which are only logged."""

    def __init__(self, report: Callable[[BaseException], None]) -> None:
        super().__init__(logging.ERROR)
        self._report = report

    def attach(self) -> None:
        for name in LOGGERS:
            logging.getLogger(name).addHandler(self)

    def detach(self) -> None:
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if error := raised(record):
            try:
                self._report(error)
            except Exception:  # Whoever logs must not learn of it.
                self.handleError(record)
