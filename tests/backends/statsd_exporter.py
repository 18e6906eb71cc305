"""statsd_exporter, which a Prometheus reads what StatsD receives from."""

import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import WAIT_SECONDS, answers, free_port, home, process

# Names alone: without what stands before them, and without labels.
MAPPING = """\
mappings:
  - match: '[^.]+\\.([^.]+).*'
    match_type: regex
    name: '$1'
"""


@dataclass(frozen=True)
class Exporter:
    port: int
    url: str

    def names(self) -> set[str]:
        """The names of all metrics that it shows, its own among them; raises HTTPError."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=WAIT_SECONDS) as response:
            lines = response.read().decode().splitlines()
        return {line.split()[2] for line in lines if line.startswith("# TYPE ")}


@contextmanager
def running(directory: Path) -> Iterator[Exporter]:
    """Run an exporter on 127.0.0.1; its configuration and log are in `directory`."""
    exporter = Exporter(free_port(socket.SOCK_DGRAM), f"http://127.0.0.1:{free_port()}")
    (directory / "mapping.yml").write_text(MAPPING)
    argv: list[str | Path] = [
        home("statsd_exporter") / "bin/statsd_exporter",
        "--statsd.mapping-config=mapping.yml",
        f"--statsd.listen-udp=127.0.0.1:{exporter.port}",
        "--statsd.listen-tcp=",
        f"--web.listen-address={exporter.url.removeprefix('http://')}",
    ]
    log = directory / "statsd_exporter.log"
    with process(argv, directory, {}, log, lambda: answers(f"{exporter.url}/")):
        yield exporter
