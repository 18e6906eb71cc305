"""Tornado's `Application` with features, which are notified of each request, whatever answers it.

Every request passes through it. A base class for handlers would miss 404s, `StaticFileHandler`,
`RedirectHandler`, WebSockets, and what is no handler at all.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tornado import web
from tornado.escape import url_unescape
from tornado.httputil import HTTPConnection, HTTPMessageDelegate, HTTPServerRequest
from tornado.routing import Matcher, PathMatches, ReversibleRouter, RuleRouter

from .feature import Feature, Runtime
from .hooks import Incoming


class Application(web.Application):
    """Tornado's `Application` with features.

    `settings` are those of `tornado.web.Application`.
    """

    def __init__(
        self, handlers: Sequence[Any], features: Sequence[Feature] = (), **settings: Any
    ) -> None:
        super().__init__(list(handlers), **settings)
        _name_routes(self.default_router)
        self.runtime = Runtime(features)
        self.runtime.routes = lambda: _routes(self.default_router)

    def add_handlers(self, host_pattern: str, host_handlers: Any) -> None:
        super().add_handlers(host_pattern, host_handlers)
        _name_routes(self.default_router)

    def start_request(
        self, server_conn: object, request_conn: HTTPConnection
    ) -> HTTPMessageDelegate:
        connection: Any = request_conn
        if connection.stream.closed():
            # What its client had pipelined would run, though nobody reads the answers.
            connection.stream._read_buffer.clear()
        return Incoming(self.runtime, self.find_handler, server_conn, connection)

    def log_request(self, handler: web.RequestHandler) -> None:
        if not self.runtime.logs_requests:
            super().log_request(handler)


class Endpoint(NamedTuple):
    """An application and the address to serve it on; port 0 is any free one."""

    app: Application
    host: str
    port: int


def _routes(router: Any) -> Iterator[tuple[str, Any]]:
    """The template of each route, and what answers it."""
    for rule in router.rules:
        target, route = rule.target, getattr(rule.target_kwargs, "route", "")
        if isinstance(target, _Target):
            target, route = target.target, target.route
        if isinstance(target, RuleRouter):
            yield from _routes(target)
            continue
        yield route, target
        if isinstance(target, web.Application):
            yield from _routes(target.default_router)


class _Arguments(dict[str, Any]):
    """A rule's arguments for its handler, and beside them the template of its route."""

    route = ""

    def __bool__(self) -> bool:
        return True  # or Tornado would not pass them on


class _Target(ReversibleRouter):
    """The target of a rule that is no handler, with the template of its route."""

    def __init__(self, target: Any, route: str) -> None:
        self.target = target
        self.route = route

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> HTTPMessageDelegate | None:
        delegate = _ROUTER.get_target_delegate(self.target, request, **kwargs)
        if delegate is not None:
            request.connection.route = self.route  # type: ignore[union-attr]
        return delegate

    def reverse_url(self, name: str, *args: Any) -> str | None:
        is_reversible = isinstance(self.target, ReversibleRouter)
        return self.target.reverse_url(name, *args) if is_reversible else None


_ROUTER = RuleRouter()


def _name_routes(router: Any) -> None:
    """Lets each rule pass the template of its route, beside the handler's arguments."""
    for rule in router.rules:
        target = rule.target
        if isinstance(target, RuleRouter):
            _name_routes(target)
        elif isinstance(target, type) and issubclass(target, web.RequestHandler):
            rule.target_kwargs = _Arguments(rule.target_kwargs or {})
            rule.target_kwargs.route = _template(rule.matcher)
        elif not isinstance(target, _Target):
            if isinstance(target, web.Application):
                _name_routes(target.default_router)
            rule.target = _Target(target, _template(rule.matcher))


def _template(matcher: Matcher) -> str:
    """`/hello/{name}` for `/hello/(?P<name>[^/]+)`; a pattern that is too complex, unchanged."""
    if not isinstance(matcher, PathMatches):
        return ""
    names = {index: name for name, index in matcher.regex.groupindex.items()}
    groups = range(1, matcher.regex.groups + 1)
    try:
        path = matcher.reverse(*("{" + str(names.get(group, group)) + "}" for group in groups))
    except (TypeError, ValueError):  # the first for groups within groups
        path = None
    return url_unescape(path, plus=False) if path else matcher.regex.pattern.removesuffix("$")
