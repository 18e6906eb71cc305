"""Logging: one JSON object per line, or coloured text on a terminal.

Everything that the process logs takes this form: Tornado's and libraries' lines, warnings and
uncaught exceptions. Text from outside can neither end a line nor control a terminal.

JSON lines are written by hand because python-json-logger adds 34 to 49 µs to a request, while an
access line that is formatted once and written together with the others of its turn adds 3.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Iterable
from contextvars import Context
from functools import cache, lru_cache
from json.encoder import encode_basestring_ascii as _quote
from types import TracebackType
from typing import Any, TextIO

from ..admin import LEVELS, Guarded, change_level, level_of
from ..exchange import Exchange, correlation
from ..feature import Feature
from ..settings.logs import LogSettings
from ..values import cut, extra, message, name_of, plain, raised, text, to_json, trace
from . import root
from .output import Output


class Logs(Feature):
    """Sends all logs of the process to `stream`, by default standard output, and writes an access
    line for each exchange: at DEBUG for probe traffic, at ERROR for an error, else at INFO.
    """

    logs_requests = True

    def __init__(self, settings: LogSettings, stream: TextIO | None = None) -> None:
        # None if it was closed before the start.
        access = logging.getLogger(f"{settings.service_package}.access")
        stream = stream or sys.stdout or open(os.devnull, "w")  # noqa: SIM115 (kept)
        formatter: _Json | _Console
        if settings.log_format == "json":
            formatter = _Json(settings, access.name)
        else:
            has_colour = stream.isatty() and "NO_COLOR" not in os.environ
            formatter = _Console(access.name, has_colour)
        # Outside of the request that is running now.
        self._output = Output(stream, lambda lines: Context().run(formatter.record, _loss(lines)))
        _keep_records()
        root.install(_Handler(formatter, self._output), settings.log_level, access.name)
        # A `WSGIContainer` logs each of its requests there, with the query string.
        logging.getLogger("tornado.access").disabled = True
        _log_what_is_printed(logging.getLogger(settings.service_package))
        self._is_enabled = access.isEnabledFor
        self._format = formatter.exchange
        self._write = self._output.write

    async def startup(self) -> None:
        root.keep()
        self._output.open()

    async def shutdown(self) -> None:
        await self._output.close()

    def totals(self) -> Iterable[tuple[str, str, int]]:
        yield "log_lines_dropped", "Log lines that nobody read.", self._output.dropped

    def request_ended(self, exchange: Exchange) -> None:
        # A probe that answers 503 has done its job.
        if exchange.error_type and not (exchange.is_probe and exchange.status == 503):
            level = logging.ERROR
        else:
            level = logging.DEBUG if exchange.is_probe else logging.INFO
        # Without a LogRecord, which would take longer than the rest of the line.
        if self._is_enabled(level):
            self._write(self._format(exchange, level))

    def admin_routes(self) -> list[Any]:
        """For the admin port, because lowering the level can fill the disk."""
        return [(r"/loglevel", LogLevel)]


def _log_what_is_printed(own: logging.Logger) -> None:
    """Logs warnings, and exceptions that nobody catches."""
    logging.captureWarnings(True)

    def log_uncaught(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            own.critical("Uncaught exception", exc_info=error)

    def log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)

    def log_ignored(args: "sys.UnraisableHookArgs") -> None:
        what = args.err_msg or "Exception ignored in"
        if args.object is not None:
            what += f": {text(args.object, repr)}"
        own.error("%s", what, exc_info=args.exc_value)

    sys.excepthook = log_uncaught
    threading.excepthook = log_uncaught_in_thread
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = log_ignored


def _keep_records() -> None:
    """Makes a record also of an argument whose class must not be looked at, which `logging` does
    in the caller. An example is a proxy for a request where there is none."""
    make = logging.getLogRecordFactory()
    if getattr(make, "__module__", "") == __name__:
        return

    def keep(*args: Any, **kwargs: Any) -> logging.LogRecord:
        try:
            return make(*args, **kwargs)
        except BaseException:
            record = make(*args[:5], (), *args[6:], **kwargs)
            record.args = args[5]
            return record

    logging.setLogRecordFactory(keep)


class _Handler(logging.Handler):
    def __init__(self, formatter: "_Json | _Console", output: Output) -> None:
        super().__init__()
        self._format = formatter.record
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._output.write(self._format(record))
            if record.levelno >= logging.WARNING:
                self._output.flush()  # The process may die before the turn ends.
        except Exception:  # There is no room left on the stack.
            self._output.dropped += 1

    def flush(self) -> None:
        self._output.flush()


def _loss(lines: int) -> logging.LogRecord:
    message = "%d lines were dropped: standard output was not read"
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, message, (lines,), None)


class _Json:
    """Pure ASCII: control characters such as ESC, and U+2028, become `\\u` escapes."""

    def __init__(self, settings: LogSettings, access: str) -> None:
        self._names = {
            "service.name": settings.service_name,
            "service.version": settings.service_version,
        }
        self._service = to_json(self._names)[1:-1]
        self._access = access

    def record(self, record: logging.LogRecord) -> str:
        fields = {
            "timestamp": _timestamp(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": message(record),
            **correlation.get(),
            **self._names,
        }
        if record.exc_info or record.exc_text:
            if error := raised(record):
                fields["exception.type"] = name_of(error)
                fields["exception.message"] = cut(text(error))
            if stack := trace(record):
                fields["exception.stacktrace"] = cut(stack)
        if record.stack_info:
            fields["stacktrace"] = cut(record.stack_info)
        return to_json(_with_extra(fields, record)) + "\n"

    def exchange(self, exchange: Exchange, level: int) -> str:
        # Ids need no escaping: they were created here, or match a pattern of plain characters.
        ids = "".join([f'"{name}":"{value}",' for name, value in exchange.ids.items()])
        error = f',"error.type":{_quote(exchange.error_type)}' if exchange.error_type else ""
        method, route, status = exchange.method, exchange.route, exchange.status
        fields = _access_fields(self._access, level, method, route, status)
        return (
            '{"timestamp":"'
            f'{_timestamp(time.time())}",'
            f"{fields}"
            f'{ids}{self._service},"url.path":{_quote(cut(exchange.request.path))},'
            f'"duration":{exchange.duration:.6f},'
            f'"client.address":{_quote(str(exchange.request.remote_ip))}{error}'
            "}\n"
        )


@cache
def _access_fields(logger: str, level: int, method: str, route: str, status: int) -> str:
    """The fields that recur in access lines. Clients cannot choose them, so there are few."""
    fields = {
        "level": logging.getLevelName(level),
        "logger": logger,
        "message": f"{method} {route or 'unmatched'} {status}",
        "http.request.method": method,
        **({"http.route": route} if route else {}),
        "http.response.status_code": status,
    }
    return to_json(fields)[1:-1] + ","


class _Console:
    def __init__(self, access: str, colour: bool) -> None:
        self._access = access
        # Dim, green, yellow, red, red on white.
        codes = (2, 32, 33, 31, 7) if colour else ()
        self._colours = {level: f"\033[{code}m" for level, code in zip(LEVELS, codes, strict=False)}

    def record(self, record: logging.LogRecord) -> str:
        fields = _with_extra({**correlation.get()}, record)
        lines = [self._line(record.levelname, record.name, message(record), fields)]
        for stack in (trace(record), record.stack_info or ""):
            # Indented, so that a line of a message cannot be taken for a line of the log.
            lines += [f"    {_printable(line)}" for line in cut(stack).splitlines()]
        return "\n".join(lines) + "\n"

    def exchange(self, exchange: Exchange, level: int) -> str:
        said = (
            f"{exchange.method} {cut(exchange.request.path)} {exchange.status} "
            f"{exchange.duration * 1000:.1f} ms"
        )
        fields = {"client.address": exchange.request.remote_ip, **exchange.ids}
        return self._line(logging.getLevelName(level), self._access, said, fields) + "\n"

    def _line(self, level: str, logger: str, message: str, fields: dict[str, Any]) -> str:
        colour = self._colours.get(level, "")
        plain = "\033[0m" if colour else ""
        shown = "".join([f" {name}={cut(text(value))}" for name, value in fields.items()])
        return (
            f"{_timestamp(time.time())[11:-1]} {colour}{level:8}{plain} "
            f"{_printable(f'{message}  [{logger}]{shown}')}"
        )


class LogLevel(Guarded):
    """Shows the log level of the process, and changes it until the next start."""

    def get(self) -> None:
        level = logging.getLogger().level
        self.finish({"level": logging.getLevelName(level)})

    def put(self) -> None:
        level = level_of(self.read_json())
        change_level(logging.getLogger(), level, str(self.request.remote_ip))
        self.get()


def _with_extra(fields: dict[str, Any], record: logging.LogRecord) -> dict[str, Any]:
    """The fields with those of `extra`, which cannot replace any."""
    for name, value in extra(record):
        while name in fields:
            name = f"extra.{name}"
        fields[name] = plain(value)
    return fields


def _timestamp(seconds: float) -> str:
    """An RFC 3339 timestamp in UTC, with milliseconds."""
    second, millisecond = divmod(int(seconds * 1000), 1000)
    return f"{_second(second)}.{millisecond:03d}Z"


@lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
