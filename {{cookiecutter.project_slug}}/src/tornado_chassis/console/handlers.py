"""The console's page, and everything on it as JSON."""

from collections.abc import Awaitable
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tornado.web import HTTPError

from .. import admin
from ..bodies import is_json
from ..values import to_json
from . import views
from .profile import MAX_SECONDS, Profile
from .state import State

MAX_LEVEL_SECONDS = 24 * 60 * 60
BODY_CHARACTERS = 16 * 1024 * 1024

TYPES = {
    "text": "text/plain; charset=utf-8",
    "page.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
}
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

PATH = "/console/"
CONTENTS = """\
A browser shows this as a page.

/console/now.json             state, and the last 15 minutes by the second
/console/requests.json        in flight, and the last 500
    ?route= &status=404 or 5xx &slower=SECONDS &text= &trace= &limit=
/console/requests/NUMBER.json one: its timeline, log lines and exception
/console/errors.json          exceptions, grouped
/console/routes.json          routes, with their handlers and figures
/openapi.json                 what the main port serves, for whoever calls it (OpenAPI 3.1)
/console/checks.json          checks, with their history
/console/settings.json        settings, and where they come from
/console/logs.json            the last lines of the log
    ?level=WARNING &text= &limit=
/console/levels.json          levels of the loggers
    PUT {"logger": "root", "level": "DEBUG", "seconds": 600}
/console/work.json            background work, and asyncio's tasks
/console/exports.json         what exporters have sent and dropped
/console/profile.json         POST {"seconds": 10} samples; GET is the latest for speedscope.app
"""


def routes(console: State) -> list[Any]:
    given = {"console": console}
    return [
        (r"/(?:console/)?", Index, given),
        (r"/openapi\.json", OpenApi, given),
        (r"/console/(page\.css|page\.js)", File, given),
        (r"/console/requests/(\d{1,18})\.json", OneRequest, given),
        (r"/console/(levels)\.json", Levels, given),
        (r"/console/profile\.json", Profiles, given),
        (rf"/console/({'|'.join(views.VIEWS)})\.json", View, given),
    ]


class Guarded(admin.Guarded):
    #: The page polls every second, which would drown out everything else in the log.
    is_probe = True

    def initialize(self, console: State) -> None:
        self.console = console

    def set_default_headers(self) -> None:
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def compute_etag(self) -> None:
        return None

    async def prepare(self) -> None:
        door: admin.Door = self.settings["door"]
        is_read = self.request.method in ("GET", "HEAD")
        token = self.get_query_argument("token", "")
        if token and is_read and door.has_token:
            if denial := await door.denial_of(token, self.request):
                self.deny(*denial)
            else:
                self.log_in(door)
            return
        await super().prepare()
        # A page of another site can send it only if the browser asks first, whatever else it sends.
        if not (self._finished or is_read or is_json(self.request.headers.get("Content-Type", ""))):
            self.deny(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The body must be application/json.")

    def log_in(self, door: admin.Door) -> None:
        """Replaces `?token=` with a cookie, so that it does not stay in the address bar.

        Browsers send a cookie to all ports of a host, so it has a path that the main port has not.
        """
        self.set_cookie(
            admin.COOKIE,
            door.cookie(),
            path=PATH,
            max_age=admin.COOKIE_SECONDS,
            httponly=True,
            secure=self.request.protocol == "https",
            samesite="Strict",
        )
        self.redirect(PATH, status=HTTPStatus.SEE_OTHER)

    def respond(self, body: object) -> None:
        self.set_header("Content-Type", "application/json")
        self.finish(to_json(body, room=BODY_CHARACTERS))

    def seconds(self, body: object, default: float, most: float) -> float:
        if not isinstance(body, dict):
            raise HTTPError(HTTPStatus.BAD_REQUEST, reason="The body must be a JSON object")
        seconds = body.get("seconds", default)
        is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not is_number or not 0 < seconds <= most:
            raise HTTPError(HTTPStatus.BAD_REQUEST, reason=f"seconds must be up to {most:g}")
        return float(seconds)


class Index(Guarded):
    def deny(self, status: int, text: str) -> None:
        # The browser may have a cookie, which it does not send for the root.
        is_page = "text/html" in self.request.headers.get("Accept", "")
        if status == HTTPStatus.UNAUTHORIZED and self.request.path == "/" and is_page:
            self.redirect(PATH, status=HTTPStatus.SEE_OTHER)
        else:
            super().deny(status, text)

    def get(self) -> None:
        settings = self.console.settings
        head = f"{settings.service_name} {settings.service_version}: the console\n\n"
        is_page = "text/html" in self.request.headers.get("Accept", "")
        self.set_header("Vary", "Accept")
        self.set_header("Content-Type", TYPES["page.html" if is_page else "text"])
        self.finish(_file("page.html") if is_page else head + CONTENTS)

    head = get


class File(Guarded):
    def get(self, name: str) -> None:
        self.set_header("Content-Type", TYPES[name])
        self.finish(_file(name))


class View(Guarded):
    """What `views` has a function for."""

    async def get(self, name: str) -> None:
        given = self.request.query_arguments
        arguments = {key: values[-1].decode(errors="replace") for key, values in given.items()}
        view = views.VIEWS[name](self.console, arguments)
        self.respond(await view if isinstance(view, Awaitable) else view)


class OpenApi(Guarded):
    def get(self) -> None:
        # Imported only when it is asked for.
        from ..openapi import document

        settings, routes = self.console.settings, self.console.runtime.routes()
        self.respond(document(settings.service_name, settings.service_version, routes))


class OneRequest(Guarded):
    def get(self, number: str) -> None:
        found = views.request(self.console, int(number))
        if found is None:
            raise HTTPError(HTTPStatus.NOT_FOUND, reason="Not among the last requests")
        self.respond(found)


class Levels(View):
    """Changes the level of a logger for a time."""

    async def put(self, name: str) -> None:
        body = self.read_json()
        seconds = self.seconds(body, 600, MAX_LEVEL_SECONDS)
        if body.get("logger") not in views.loggers():
            raise HTTPError(HTTPStatus.BAD_REQUEST, reason="logger must be one that is listed")
        level, who = admin.level_of(body), str(self.request.remote_ip)
        self.console.set_level(body["logger"], level, seconds, who)
        await self.get(name)


class Profiles(Guarded):
    def get(self) -> None:
        profile = self.console.profile
        if profile is None or not profile.is_done:
            raise HTTPError(HTTPStatus.NOT_FOUND, reason="Nothing has been sampled")
        name = f"{self.console.settings.service_name}-{profile.started:.0f}.speedscope.json"
        self.set_header("Content-Disposition", f'attachment; filename="{name}"')
        self.respond(profile.speedscope())

    async def post(self) -> None:
        seconds = self.seconds(self.read_json(), 10, MAX_SECONDS)
        latest = self.console.profile
        if latest and not latest.is_done:
            raise HTTPError(HTTPStatus.CONFLICT, reason="Another one is being sampled")
        profile = self.console.profile = Profile(seconds, self.console.settings.service_name)
        await profile.sample()
        self.respond({"seconds": seconds, "samples": profile.samples, "tree": profile.tree()})


@cache
def _file(name: str) -> bytes:
    return Path(__file__).with_name(name).read_bytes()
