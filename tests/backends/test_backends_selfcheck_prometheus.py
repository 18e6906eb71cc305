from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from . import NotInstalled, eventually
from .prometheus import promtool, promtool_check_metrics, running

OPENMETRICS = """\
# HELP greetings Greetings said.
# TYPE greetings counter
greetings_total{to="world"} 3.0 # {trace_id="abc123"} 1.0
# EOF
"""
RULES = """\
groups:
  - name: test
    rules:
      - alert: TooManyGreetings
        expr: greetings_total > 2
"""


class Exposition(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/openmetrics-text; version=1.0.0")
        self.end_headers()
        self.wfile.write(OPENMETRICS.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def exposition() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Exposition) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _installed() -> None:
    try:
        promtool("--version")
    except NotInstalled as missing:
        pytest.skip(str(missing))


def test_scraped_series_exemplar_and_alert_are_read_back(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    rules.write_text(RULES)
    with exposition() as target, running(tmp_path, [target], rule_files=[rules]) as prometheus:
        (series,) = prometheus.wait_for("greetings_total")
        assert series["metric"]["to"] == "world"
        assert series["metric"]["instance"] == target
        assert series["value"][1] == "3"
        assert [one["health"] for one in prometheus.targets()] == ["up"]
        (found,) = eventually(lambda: prometheus.exemplars("greetings_total"), 10, "exemplar")
        assert found["exemplars"][0]["labels"] == {"trace_id": "abc123"}
        (alert,) = prometheus.wait_for('ALERTS{alertname="TooManyGreetings"}')
        assert alert["metric"]["alertstate"] == "firing"
        with pytest.raises(ValueError, match="parse error"):
            prometheus.query("greetings_total{")


def test_wait_reports_why_a_scrape_failed(tmp_path: Path) -> None:
    with running(tmp_path, ["127.0.0.1:1"]) as prometheus:
        prometheus.wait_for("up == 0")
        with pytest.raises(TimeoutError, match="connection refused"):
            prometheus.wait_for("up == 1", timeout=0)


def test_process_that_dies_is_reported_with_its_log(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yml"
    bad.write_text("groups: 7")
    with (
        pytest.raises(RuntimeError, match="cannot unmarshal"),
        running(tmp_path, [], rule_files=[bad]),
    ):
        pass


def test_promtool_lints_metrics(tmp_path: Path) -> None:
    good = "# HELP greetings_total Greetings said.\n# TYPE greetings_total counter\n"
    assert promtool_check_metrics(f"{good}greetings_total 3\n") == ""
    with pytest.raises(RuntimeError, match="_total"):
        promtool_check_metrics("# HELP greetings Said.\n# TYPE greetings counter\ngreetings 3\n")
    rules = tmp_path / "rules.yml"
    rules.write_text(RULES)
    assert "SUCCESS: 1 rules found" in promtool("check", "rules", rules)
