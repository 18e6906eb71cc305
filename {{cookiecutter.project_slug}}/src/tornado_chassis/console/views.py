"""What each part of the page shows, assembled when somebody looks."""

import ast
import asyncio
import inspect
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from functools import cache
from itertools import chain, pairwise
from time import monotonic, perf_counter
from typing import Any

from tornado.web import RequestHandler

from ..exchange import Exchange, correlation
from ..settings import source
from ..settings.server import ServerSettings
from ..settings.setting import HIDDEN, in_force, is_secret, masked
from ..values import text
from .recorder import Histogram, Line, Request, Span, short
from .state import State

RECENT_SECONDS = 5 * 60
TASKS = 200
FRAMES = 30

Arguments = Mapping[str, str]

_EXECUTE = RequestHandler._execute.__code__

# Of those settings whose classes are in it, the chassis is the owner.
_CHASSIS = ServerSettings.__module__.rpartition(".")[0]


def now(console: State, arguments: Arguments) -> dict[str, Any]:
    recorder, runtime = console.recorder, console.runtime
    since = _number(arguments.get("since")) or 0.0
    built = console.settings.build_time
    return {
        "service": console.settings.service_name,
        "version": console.settings.service_version,
        "commit": console.settings.build_commit,
        "built": built.timestamp() if built else None,
        "environment": console.settings.environment,
        "host": socket.gethostname(),
        "process": os.getpid(),
        "python": sys.version.partition(" ")[0],
        "time": time.time(),
        "started": console.started,
        "state": runtime.state,
        "is_ready": runtime.state == "ready" and not runtime.is_full() and not _fails(console),
        "in_flight": len(recorder.in_flight),
        "requests": recorder.total,
        "errors": sum(entry[0] for entry in recorder.errors.values()),
        "refused": console.rejected,
        "blocked": list(console.blocked),
        "failed_work": _failed_work(console),
        "seconds": [each._asdict() for each in recorder.seconds if each.time > since],
    }


def requests(console: State, arguments: Arguments) -> dict[str, Any]:
    limit = int(_number(arguments.get("limit")) or 500)
    in_flight = [_in_flight(*each) for each in console.recorder.in_flight.items()]
    ended = [_request(Request._make(each)) for each in reversed(console.recorder.requests)]
    failed = {each.number: each for each in console.recorder.failures if each.number}
    for each in ended:
        if failure := failed.get(each["number"]):
            each["error"] = f"{failure.type}: {failure.message}"[:200]
    return {
        "time": time.time(),
        "in_flight": [each for each in in_flight if _matches(each, arguments)],
        "requests": [each for each in ended if _matches(each, arguments)][:limit],
    }


def request(console: State, number: int) -> dict[str, Any] | None:
    """One request; None if it is not among the last."""
    recorder = console.recorder
    in_flight = {its: exchange for exchange, its in recorder.in_flight.items()}
    ended = {each[0]: each for each in recorder.requests}
    if number in in_flight:
        found = _in_flight(in_flight[number], number)
        found["stack"] = _stack_of_exchange(in_flight[number])
    elif number in ended:
        found = _request(Request._make(ended[number]))
    else:
        return None
    request_id, begun = found["ids"]["request_id"], found["started"]
    found["spans"] = [_span(each, begun) for each in recorder.spans_of(found["ids"])]
    found["trace_url"] = _trace_url(console, found["ids"])
    found["logs"] = [_line(each) for each in console.tail.lines if each.request_id == request_id]
    found["errors"] = [
        each._asdict()
        for each in recorder.failures
        if each.number == number or (not each.number and each.request_id == request_id)
    ]
    return found


def errors(console: State, arguments: Arguments) -> dict[str, Any]:
    groups = [
        {"count": count, "first": first, "last": latest.time, **latest._asdict()}
        for count, first, latest in reversed(console.recorder.errors.values())
    ]
    return {"errors": groups}


def routes(console: State, arguments: Arguments) -> dict[str, Any]:
    handlers = {route: _named(target) for route, target in console.runtime.routes()}
    measured = dict(console.recorder.routes)
    for idle in handlers.keys() - {route for _, route in measured}:
        measured["", idle] = Histogram()
    rows = [
        {
            "method": method,
            "route": route,
            "handler": handlers.get(route, ""),
            "count": histogram.count,
            "errors": histogram.errors,
            "p50": histogram.quantile(0.5),
            "p99": histogram.quantile(0.99),
        }
        for (method, route), histogram in measured.items()
    ]
    return {
        "routes": sorted(rows, key=lambda each: (-each["count"], each["method"], each["route"]))
    }


def _named(target: Any) -> str:
    # An application's or a delegate's own name is its class's.
    kind = target if hasattr(target, "__qualname__") else type(target)
    return f"{kind.__module__}.{kind.__qualname__}"


async def checks(console: State, arguments: Arguments) -> dict[str, Any]:
    results = await console.check()
    rows = [
        {"name": name, **result, "history": console.history.get(name, [])}
        for name, result in results.items()
    ]
    return {"state": console.runtime.state, "checks": rows}


def settings(console: State, arguments: Arguments) -> dict[str, Any]:
    known = console.settings
    meanings = _docstrings(type(known))  # type: ignore[arg-type]
    # By identity: a field that the team has declared again is its own.
    chassis = {
        id(field)
        for kind in type(known).__mro__
        if kind.__module__.startswith(f"{_CHASSIS}.")
        for field in vars(kind)["__dataclass_fields__"].values()
    }
    rows = []
    for field in sorted(fields(known), key=lambda each: id(each) in chassis):
        value = getattr(known, field.name)
        is_default = field.default is MISSING or value is field.default
        shown = _shown(in_force(known, field.name))
        rows.append(
            {
                "name": field.name.upper(),
                "value": HIDDEN if is_secret(field) and shown else masked(shown),
                "source": source(known, field.name) or ("default" if is_default else "code"),
                "meaning": meanings.get(field.name, ""),
                "is_own": id(field) not in chassis,
            }
        )
    return {"settings": rows}


def logs(console: State, arguments: Arguments) -> dict[str, Any]:
    least = logging.getLevelNamesMapping().get(arguments.get("level", "").upper(), 0)
    limit, sought = int(_number(arguments.get("limit")) or 200), arguments.get("text", "").lower()
    lines = [
        _line(each)
        for each in reversed(console.tail.lines)
        if each.level >= least
        and sought in f"{each.message} {each.fields} {each.logger} {each.request_id}".lower()
    ]
    return {"lines": lines[:limit]}


def levels(console: State, arguments: Arguments) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    rows = []
    for name in loggers():
        logger = logging.getLogger(name)
        changed = console.changed_levels.get(name)
        rows.append(
            {
                "logger": name,
                "level": logging.getLevelName(logger.getEffectiveLevel()),
                "is_own": logger.level != logging.NOTSET,
                "seconds_left": max(changed[2].when() - loop.time(), 0.0) if changed else None,
            }
        )
    return {"loggers": rows}


def loggers() -> list[str]:
    known = logging.root.manager.loggerDict.items()
    return ["root", *sorted(name for name, each in known if isinstance(each, logging.Logger))]


def work(console: State, arguments: Arguments) -> dict[str, Any]:
    rows = []
    for each in console.runtime.background.works:
        task = each.task if each.task and not each.task.done() else None
        last, error = console.failed_work.get(each.name, (None, ""))
        rows.append(
            {
                "name": each.name,
                "state": each.state,
                "restart": each.restart,
                "failures": each.failures,
                "last_failed": last,
                "error": error,
                "seconds": monotonic() - each.started if each.state == "running" else None,
                "stack": stack_of_task(task) if task else [],
            }
        )
    # The oldest first: what should have ended is among them.
    tasks = sorted(console.note_new_tasks(), key=lambda task: console.tasks[task])
    shown = [
        {
            "name": task.get_name(),
            "function": getattr(task.get_coro(), "__qualname__", ""),
            "request_id": _ids_of(task).get("request_id", ""),
            "at_least_seconds": monotonic() - console.tasks[task],
            "stack": stack_of_task(task),
        }
        for task in tasks[:TASKS]
    ]
    return {"work": rows, "tasks": shown, "count": len(tasks)}


def exports(console: State, arguments: Arguments) -> dict[str, Any]:
    rows = [
        {**each._asdict(), "last_sent": console.sent.get(each.backend, (0, None))[1]}
        for each in console.runtime.exports()
    ]
    totals = [
        {"name": " ".join([name, *labels.values()]), "description": description, "total": total}
        for name, description, total, labels in console.runtime.totals()
    ]
    return {"exports": rows, "totals": totals}


VIEWS: dict[str, Callable[[State, Arguments], Any]] = {
    view.__name__: view
    for view in (now, requests, errors, routes, checks, settings, logs, levels, work, exports)
}


def stack_of_task(task: "asyncio.Task[Any]") -> list[str]:
    """The stack of a task, the innermost await last."""
    stack: list[str] = []
    awaited: Any = task.get_coro()
    while awaited is not None and len(stack) < FRAMES:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is None:
            break  # It waits for something that is not a coroutine.
        code = frame.f_code
        stack.append(f"{short(code.co_filename)}:{frame.f_lineno} in {code.co_qualname}")
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return stack


def _fails(console: State) -> bool:
    """Whether a check failed when it was last seen."""
    return any(past[-1]["status"] == "fail" for past in console.history.values())


def _failed_work(console: State) -> list[dict[str, Any]]:
    """Background work that has failed and does not run, or that failed in the last minutes."""
    works = {each.name: each for each in console.runtime.background.works}
    return [
        {"name": name, "state": work.state, "failures": work.failures, "last": last, "error": error}
        for name, (last, error) in console.failed_work.items()
        if (work := works.get(name))
        and (work.state in ("failed", "restarting") or time.time() - last < RECENT_SECONDS)
    ]


def _trace_url(console: State, ids: Mapping[str, str]) -> str | None:
    """Where the trace of these ids is shown; None where that is not known, or not sampled."""
    if console.trace_url and int(ids.get("trace_flags", "0"), 16) & 1:
        return console.trace_url.replace("{trace_id}", ids["trace_id"])
    return None


def _stack_of_exchange(exchange: Exchange) -> list[str]:
    tasks = asyncio.all_tasks()
    own = (each for each in tasks if _request_of(each) is exchange.request)
    # One that it has started, such as a WebSocket's.
    other = (each for each in tasks if _ids_of(each).get("request_id") == exchange.request_id)
    return next(map(stack_of_task, chain(own, other)), [])


def _request_of(task: "asyncio.Task[Any]") -> Any:
    """The request of the handler that a task runs."""
    frame = getattr(task.get_coro(), "cr_frame", None)
    handler = frame.f_locals.get("self") if frame and frame.f_code is _EXECUTE else None
    return getattr(handler, "request", None)


def _ids_of(task: "asyncio.Task[Any]") -> Mapping[str, str]:
    if not hasattr(task, "get_context"):  # before Python 3.12
        return {}
    ids: Mapping[str, str] = task.get_context().get(correlation, {})
    return ids


def _in_flight(exchange: Exchange, number: int) -> dict[str, Any]:
    request, age = exchange.request, perf_counter() - exchange.started
    path, agent = request.path[:1000], request.headers.get("User-Agent", "")[:1000]
    described = exchange.method, exchange.route, path, 0, age, exchange.ids
    shown = _request(Request(number, time.time(), *described, str(request.remote_ip), agent))
    return {**shown, "has_latency_objective": exchange.has_latency_objective}


def _request(request: Request) -> dict[str, Any]:
    shown = {**request._asdict(), "error": ""}
    shown["started"] = shown.pop("time") - request.duration
    return shown


def _matches(request: dict[str, Any], arguments: Arguments) -> bool:
    names = "method", "path", "route", "client", "user_agent", "error"
    searched = " ".join([*(str(request[name]) for name in names), *request["ids"].values()])
    return (
        arguments.get("route", "") in ("", request["route"] or "unmatched")
        and str(request["status"]).startswith(arguments.get("status", "").rstrip("xX"))
        and request["duration"] >= (_number(arguments.get("slower")) or 0)
        and request["ids"].get("trace_id", "").startswith(arguments.get("trace", ""))
        and arguments.get("text", "").lower() in searched.lower()
    )


def _span(span: Span, begun: float) -> dict[str, Any]:
    offset, duration = span.started / 1e9 - begun, (span.ended - span.started) / 1e9
    return {**span._asdict(), "offset": offset, "duration": duration}


def _line(line: Line) -> dict[str, Any]:
    return {**line._asdict(), "level": logging.getLevelName(line.level)}


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(text, value))
    return "" if value is None else text(value)


@cache
def _docstrings(kind: type[Any]) -> dict[str, str]:
    """The docstring of each field of a class and of its base classes."""
    found: dict[str, str] = {}
    for each in kind.__mro__[:-1]:
        try:
            (definition,) = ast.parse(inspect.getsource(each)).body
        except (OSError, SyntaxError, TypeError, ValueError):
            continue  # The source is not available.
        assert isinstance(definition, ast.ClassDef)
        for field, docstring in pairwise(definition.body):
            if isinstance(field, ast.AnnAssign) and isinstance(docstring, ast.Expr):
                meaning = " ".join(str(ast.literal_eval(docstring.value)).split())
                found.setdefault(ast.unparse(field.target), meaning)
    return found


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if abs(number) < 1e12 else None
