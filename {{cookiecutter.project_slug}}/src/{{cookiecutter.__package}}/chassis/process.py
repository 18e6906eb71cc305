"""The process around the service: its settings, its signals and its event loop."""

import asyncio
import os
import signal
from typing import TYPE_CHECKING, TypeVar

from . import settings

if TYPE_CHECKING:
    from .service import Service

AnySettings = TypeVar("AnySettings", bound=settings.Settings)


def configure(kind: type[AnySettings]) -> AnySettings:
    """Loads the settings and prepares the process for them, before anything imports Tornado.

    Raises SystemExit with status 78 for settings that are invalid or missing.
    """
    # Until the service can drain, a signal ends it at once. Without a handler, a process with the
    # id 1 would ignore it.
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda number, frame: os._exit(128 + number))
    loaded = settings.load(kind)
    loaded.prepare()
    return loaded


def run(service: "Service") -> None:
    """Serves until SIGTERM or SIGINT.

    Raises SystemExit with status 69 where an address can't be listened on.
    """
    from .server import serve

    asyncio.run(serve(service))
