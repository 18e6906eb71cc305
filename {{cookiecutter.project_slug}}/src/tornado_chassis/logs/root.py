"""What is logged reaches one handler, once, whatever else configures logging, before or after.

A library may add a handler that writes to the console in a format of its own, remove all handlers,
raise the root logger's level, or disable every logger that exists: that is what
`logging.config.dictConfig` and `fileConfig` do by default.
"""

import logging
import logging.config
import sys
import threading
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

_OURS = (__package__.partition(".")[0], "asyncio", "py", "tornado")
"""Loggers that nobody disables on purpose, with those below them."""

_handler: logging.Handler = logging.NullHandler()
_add_handler = logging.Logger.addHandler
_remove_handler = logging.Logger.removeHandler


class _Once(threading.local):
    """Lets each record pass once: it may come from a logger and, again, from one above."""

    last = (0, 0.0)

    def __call__(self, record: logging.LogRecord) -> bool:
        last, self.last = self.last, (id(record), record.created)
        return last != self.last


def install(handler: logging.Handler, level: str, own: str) -> None:
    """Sends all records to this handler in place of the console; `own` is the service's package."""
    global _handler
    before, _handler = _handler, handler
    handler.addFilter(_Once())
    for logger in _loggers():
        if before in logger.handlers:
            logger.handlers[logger.handlers.index(before)] = handler
        if logger.name.partition(".")[0] in (*_OURS, own.partition(".")[0]):
            logger.disabled = False
    logging.getLogger().setLevel(level)
    keep()
    if logging.Logger.addHandler is _add_handler:
        logging.Logger.addHandler = _add  # type: ignore
        logging.Logger.removeHandler = _remove  # type: ignore
        configurator = logging.config.DictConfigurator
        configurator.configure = _harmless(configurator.configure)  # type: ignore[method-assign]
        logging.config.fileConfig = _harmless(logging.config.fileConfig)


def contain() -> None:
    """Lets no handler and no filter raise into whoever logs. Not in tests, where somebody may want
    that."""
    for kind, name in ((logging.Handler, "handle"), (logging.Filterer, "filter")):
        setattr(kind, name, _contained(getattr(kind, name)))


def _contained(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def contained(self: Any, record: logging.LogRecord) -> Any:
        try:
            return method(self, record)
        except Exception as error:
            message, raised = "A handler or filter of the log failed", (type(error), error, None)
            described = record.name, logging.ERROR, __file__, 0, message, (), raised
            # Not `handle`: the filter may be one of its own.
            _handler.emit(logging.LogRecord(*described))
            return True  # The filter lets the record pass.

    return contained


def keep() -> None:
    """Replaces the handlers that write to the console."""
    for logger in _loggers():
        for each in logger.handlers[:]:
            if _is_console(each):
                _remove_handler(logger, each)
                _add_handler(logger, _handler)
    _add_handler(logging.getLogger(), _handler)


def _loggers() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    yield root
    for each in list(root.manager.loggerDict.values()):
        if isinstance(each, logging.Logger):
            yield each


def _is_console(handler: logging.Handler) -> bool:
    # Rich's has a console for it.
    stream = getattr(handler, "stream", getattr(getattr(handler, "console", None), "file", None))
    console = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    return stream is not None and any(stream is each for each in console)


def _add(logger: logging.Logger, hdlr: logging.Handler) -> None:
    _add_handler(logger, _handler if _is_console(hdlr) else hdlr)


def _remove(logger: logging.Logger, hdlr: logging.Handler) -> None:
    if hdlr is not _handler or logger is not logging.getLogger():
        _remove_handler(logger, hdlr)


def _harmless(configure: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(configure)
    def harmless(*args: Any, **kwargs: Any) -> Any:
        disabled = {each: each.disabled for each in _loggers()}
        level = logging.getLogger().level
        try:
            return configure(*args, **kwargs)
        finally:
            for each, was in disabled.items():
                each.disabled = was
            logging.getLogger().setLevel(level)
            keep()

    return harmless
