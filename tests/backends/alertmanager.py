"""Alertmanager, and its amtool."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import answers, free_port, home, process, tool

Labels = dict[str, str]


@dataclass(frozen=True)
class Alertmanager:
    url: str

    def fire(self, *alerts: Mapping[str, str]) -> None:
        """Tells of alerts by their labels, `alertname` among them, as Prometheus does."""
        for alert in alerts:
            labels = [f"{name}={value}" for name, value in alert.items()]
            amtool("alert", "add", f"--alertmanager.url={self.url}", *labels)

    def active(self) -> list[Labels]:
        """The labels of the alerts that are neither silenced nor inhibited."""
        output = amtool(
            "alert", "query", f"--alertmanager.url={self.url}", "--active", "--output=json"
        )
        return [alert["labels"] for alert in json.loads(output)]


@contextmanager
def running(directory: Path, config: Path) -> Iterator[Alertmanager]:
    """Run a server with this configuration; its data and log are in `directory`."""
    url = f"http://127.0.0.1:{free_port()}"
    argv: list[str | Path] = [
        home("alertmanager") / "bin/alertmanager",
        f"--config.file={config.absolute()}",
        "--storage.path=data",
        f"--web.listen-address={url.removeprefix('http://')}",
        "--cluster.listen-address=",
    ]
    log = directory / "alertmanager.log"
    with process(argv, directory, {}, log, lambda: answers(f"{url}/-/ready")):
        yield Alertmanager(url)


def amtool(*args: str | Path) -> str:
    """Return what `amtool ARGS` prints; raises RuntimeError with it when amtool fails."""
    return tool(home("alertmanager") / "bin/amtool", *args)
