"""A server for Sentry's protocol: Bugsink, which stores each event before it answers."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import WAIT_SECONDS, answers, eventually, free_port, home, process

# .ci/backends/sentry.sh puts this project into the database.
KEY = "0123456789abcdef" * 2
PROJECT = 1


@dataclass(frozen=True)
class Sentry:
    dsn: str
    database: Path
    log: Path

    def events(self) -> list[dict[str, Any]]:
        """Return the payloads of the stored events, oldest first."""
        rows = self._rows("SELECT data FROM events_event ORDER BY project_digest_order")
        return [json.loads(data) for (data,) in rows]

    def envelopes(self) -> list[bytes]:
        """Return all envelopes received, oldest first, also those with refused or other items."""
        return [bytes(data) for (data,) in self._rows("SELECT data FROM ingest_envelope")]

    def schema_findings(self) -> list[str]:
        """Return what breaks Sentry's event schema; it lacks `message` (`capture_message`)."""
        lines = self.log.read_text().splitlines()
        return [line for line in lines if line.startswith("event data validation failed")]

    def wait_for_events(self, count: int = 1) -> list[dict[str, Any]]:
        """Return the events once there are `count`; else TimeoutError with the server's log."""
        try:
            what = f"{count} Sentry events"
            return eventually(self.events, what, lambda events: len(events) >= count)
        except TimeoutError as error:
            log = self.log.read_text()[-4000:]
            raise TimeoutError(f"{error}; stored: {len(self.events())}\n{log}") from None

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.database, timeout=WAIT_SECONDS)) as connection:
            return connection.execute(query).fetchall()


@contextmanager
def running(directory: Path) -> Iterator[Sentry]:
    """Run a server with an empty project; its database and log are in `directory`."""
    installed = home("sentry")
    shutil.copy(installed / "db.sqlite3", directory)
    port = free_port()
    log = directory / "sentry.log"
    argv: list[str | Path] = [installed / "bin/python", "-m", "gunicorn", "bugsink.wsgi"]
    argv += [
        f"--bind=127.0.0.1:{port}",
        "--threads=4",
        "--graceful-timeout=1",
        "--no-control-socket",
    ]

    def ready() -> bool:
        return answers(f"http://127.0.0.1:{port}/health/ready")

    env = {"DJANGO_SETTINGS_MODULE": "bugsink_conf", "PYTHONPATH": str(installed)}
    with process(argv, directory, env, log, ready):
        yield Sentry(f"http://{KEY}@127.0.0.1:{port}/{PROJECT}", directory / "db.sqlite3", log)
