"""The console: a page of the admin port that shows what the service does, and what went wrong.

It is notified as any other feature is. Everything on the page is also available as JSON.
"""

from typing import Any

from . import handlers
from .state import State


class Console(State):
    """Records what happens, and shows it."""

    def admin_routes(self) -> list[Any]:
        return handlers.routes(self)
