"""Starts the service again when its source changes, while one develops."""

import sys
from pathlib import Path

CHANGED = 75
"""Exit status, which only `run` sees, after a change."""


def watch(folder: Path) -> None:
    """Raises SystemExit on the running event loop when a module that is imported, a file below this
    folder, such as a template, or `.env` changes."""
    # Imported only now: settings are read before Tornado is loaded.
    from tornado import autoreload

    # But for what Python writes when it imports them.
    own = (each for each in folder.rglob("*") if each.is_file() and each.suffix != ".pyc")
    for each in (*own, ".env"):
        autoreload.watch(str(each))
    # What Tornado does next would cut off the requests in flight.
    autoreload.add_reload_hook(lambda: sys.exit(CHANGED))
    autoreload.start()
