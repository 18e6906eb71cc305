"""The StatsD daemon, whose values stay as they are received: unless asked, it does not flush."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import WAIT_SECONDS, eventually, free_port, home, process

# Node runs a timer at once when it is set to more than 24 days.
FLUSH_MILLISECONDS = 24 * 60 * 60 * 1000
# The management port prints what util.inspect returns: no JSON, and cut after 100 items.
# Node 23 dropped util.log, which the daemon calls.
PRELOAD = """\
const util = require("util");
util.inspect = JSON.stringify;
util.log = console.log;
"""


@dataclass(frozen=True)
class StatsD:
    port: int
    management_port: int

    def counters(self) -> dict[str, float]:
        """Return the sums, each sample divided by its rate, with the daemon's own "statsd.*"."""
        return self._ask("counters")

    def timers(self) -> dict[str, list[float]]:
        """Return all values received, in milliseconds and in order."""
        return self._ask("timers")

    def gauges(self) -> dict[str, float]:
        """Return the last values."""
        return self._ask("gauges")

    def wait_for_all(self) -> None:
        """Return once the daemon has read all that was sent to it before."""
        before = self.counters().get("read", 0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"read:1|c", ("127.0.0.1", self.port))
        self.wait_for(lambda it: it.counters().get("read", 0) > before)

    def wait_for(self, predicate: Callable[["StatsD"], bool]) -> None:
        """Return once `predicate(self)` is true; else TimeoutError with all values."""
        try:
            eventually(lambda: predicate(self), "StatsD values")
        except TimeoutError as error:
            values = f"{self.counters()} {self.timers()} {self.gauges()}"
            raise TimeoutError(f"{error}: {values}") from None

    def _ask(self, command: str) -> dict[str, Any]:
        address = "127.0.0.1", self.management_port
        with socket.create_connection(address, timeout=WAIT_SECONDS) as stream:
            stream.sendall(f"{command}\n".encode())
            answer = b""
            while not answer.endswith(b"END\n\n"):
                received = stream.recv(65536)
                if not received:
                    raise ConnectionError(f"StatsD ended its answer early: {answer!r}")
                answer += received
        values: dict[str, Any] = json.loads(answer.removesuffix(b"END\n\n"))
        return values


@contextmanager
def running(directory: Path, own: str = "{}", **settings: object) -> Iterator[StatsD]:
    """Run a daemon on 127.0.0.1; its configuration and its log are in `directory`.

    It has the settings of a file like `own`, and these instead of those.
    """
    daemon = home("statsd") / "node_modules/statsd/stats.js"
    statsd = StatsD(free_port(socket.SOCK_DGRAM), free_port())
    config = {
        "address": "127.0.0.1",
        "port": statsd.port,
        "mgmt_address": "127.0.0.1",
        "mgmt_port": statsd.management_port,
        "flushInterval": FLUSH_MILLISECONDS,
        **settings,
    }
    text = f"{{backends: [], ...({own}\n), ...{json.dumps(config)}}}"
    (directory / "config.js").write_text(text)
    (directory / "preload.js").write_text(PRELOAD)
    argv: list[str | Path] = ["node", "--require", "./preload.js", daemon, "config.js"]
    log = directory / "statsd.log"
    with process(argv, directory, {}, log, lambda: bool(statsd.counters())):
        yield statsd
