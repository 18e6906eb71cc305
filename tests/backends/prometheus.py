"""Prometheus 3 or 2, and its promtool."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode

from . import answers, eventually, free_port, get_json, home, process, tool

EXEMPLAR_WINDOW_SECONDS = 3600.0


@dataclass(frozen=True)
class Prometheus:
    url: str

    def query(self, promql: str) -> list[dict[str, Any]]:
        """Return the vector `promql` has now; raises ValueError for bad PromQL."""
        result: list[dict[str, Any]] = self._api("query", query=promql)["result"]
        return result

    def query_range(
        self, promql: str, start: float, end: float, step: float
    ) -> list[dict[str, Any]]:
        """Return the series that `promql` has from `start` to `end`, every `step` seconds."""
        times = {"start": str(start), "end": str(end), "step": str(step)}
        result: list[dict[str, Any]] = self._api("query_range", query=promql, **times)["result"]
        return result

    def wait_for(self, promql: str) -> list[dict[str, Any]]:
        """Return the vector once it is not empty; else TimeoutError with the scrapes' errors.

        The first scrape comes 5 to 6 seconds after the start.
        """
        try:
            return eventually(lambda: self.query(promql), promql)
        except TimeoutError as error:
            errors = {target["scrapeUrl"]: target["lastError"] for target in self.targets()}
            raise TimeoutError(f"{error}; scrape errors: {errors}") from None

    def targets(self) -> list[dict[str, Any]]:
        """Return the scraped targets, with `health` and `lastError`; empty in the first seconds."""
        result: list[dict[str, Any]] = self._api("targets", state="active")["activeTargets"]
        return result

    def exemplars(self, promql: str) -> list[dict[str, Any]]:
        """Return the exemplars of the series in `promql`, each with `seriesLabels`."""
        now = time.time()
        start, end = now - EXEMPLAR_WINDOW_SECONDS, now + EXEMPLAR_WINDOW_SECONDS
        result: list[dict[str, Any]] = self._api(
            "query_exemplars", query=promql, start=str(start), end=str(end)
        )
        return result

    def _api(self, name: str, **parameters: str) -> Any:
        try:
            return get_json(f"{self.url}/api/v1/{name}?{urlencode(parameters)}")["data"]
        except HTTPError as error:
            raise ValueError(error.read().decode()) from None


@contextmanager
def running(
    directory: Path,
    targets: list[str],
    scrape_interval: str = "1s",
    rule_files: Iterable[Path] = (),
    job: str = "test",
    labels: Mapping[str, str] | None = None,
    evaluation_interval: str | None = None,
    version: int = 3,
    otlp: Mapping[str, Any] | None = None,
) -> Iterator[Prometheus]:
    """Run a server that scrapes /metrics of `targets` ("host:port") as `job`, with these labels.

    With `otlp`, which is that section of its configuration, it takes metrics at
    /api/v1/otlp/v1/metrics, which Prometheus 2 cannot.
    Unless told otherwise, rules are evaluated as often as targets are scraped. Its data and log are
    in `directory`.
    """
    static = {"targets": targets, "labels": dict(labels or {})}
    config = {
        "global": {
            "scrape_interval": scrape_interval,
            "evaluation_interval": evaluation_interval or scrape_interval,
        },
        "scrape_configs": [{"job_name": job, "static_configs": [static]}],
        "rule_files": [str(path.absolute()) for path in rule_files],
        **({"otlp": otlp} if otlp else {}),
    }
    # JSON is YAML.
    (directory / "prometheus.yml").write_text(json.dumps(config))
    url = f"http://127.0.0.1:{free_port()}"
    argv: list[str | Path] = [
        _home(version) / "bin/prometheus",
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=data",
        f"--web.listen-address={url.removeprefix('http://')}",
        "--enable-feature=exemplar-storage",
        *(["--web.enable-otlp-receiver"] if otlp is not None else []),
    ]
    log = directory / "prometheus.log"
    with process(argv, directory, {}, log, lambda: answers(f"{url}/-/ready")):
        yield Prometheus(url)


def promtool(*args: str | Path, input: str | None = None, version: int = 3) -> str:
    """Return what `promtool ARGS` prints; raises RuntimeError with it when promtool fails."""
    return tool(_home(version) / "bin/promtool", *args, input=input)


def promtool_check_metrics(text: str) -> str:
    """Lint an exposition in the text format; raises RuntimeError with the findings."""
    return promtool("check", "metrics", input=text)


def _home(version: int) -> Path:
    return home("prometheus2") if version == 2 else home("prometheus")
