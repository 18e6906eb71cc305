"""Metrics, read by a real Prometheus server."""

from pathlib import Path

import pytest

from ..backends import home, prometheus
from .conftest import Generate

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
DURATIONS = 'http_server_request_duration_seconds_count{http_route="/hello/{name}"}'


@pytest.fixture(autouse=True)
def installed() -> None:
    home("prometheus")  # or the service would be started for nothing


@pytest.mark.parametrize("version", [2, 3])
def test_prometheus_scrapes_the_service(generate: Generate, tmp_path: Path, version: int) -> None:
    with (
        generate(metrics="prometheus", tracing="stub").start() as service,
        prometheus.running(
            tmp_path, [f"127.0.0.1:{service.admin_port}"], version=version
        ) as server,
    ):
        service.get("/nowhere")
        for _ in range(3):
            parent = f"00-{TRACE_ID}-b7ad6b7169203331-01"
            assert service.get("/hello/x", {"traceparent": parent})[0] == 200
        service.get("/nowhere")
        [series] = server.wait_for(f"{DURATIONS} == 3")
        labels = {
            "http_request_method": "GET",
            "http_response_status_code": "200",
            "url_scheme": "http",
        }
        assert labels.items() <= series["metric"].items()
        # A scrape may come between the requests.
        [unmatched] = server.wait_for(
            'http_server_request_duration_seconds_count{http_route="unmatched"}'
        )
        assert unmatched["metric"]["http_response_status_code"] == "404"
        [target] = server.targets()
        assert (target["health"], target["lastError"]) == ("up", "")
        for name in ("event_loop_lag_seconds", "process_cpu_seconds_total", "build_info"):
            assert server.query(name), name
        buckets = server.exemplars("http_server_request_duration_seconds_bucket")
        ids = {each["labels"]["trace_id"] for bucket in buckets for each in bucket["exemplars"]}
        assert TRACE_ID in ids


def test_promtool_finds_nothing(generate: Generate) -> None:
    with generate(metrics="prometheus").start() as service:
        service.get("/hello/x")
        service.get("/nowhere")
        status, headers, text = service.get("/metrics", admin=True)
        assert (status, headers.get_content_type()) == (200, "text/plain")
        assert prometheus.promtool_check_metrics(text) == ""
        with pytest.raises(RuntimeError, match="_total"):
            prometheus.promtool_check_metrics("# TYPE greetings counter\ngreetings 3\n")

        # promtool reads the text format only: these are the same samples.
        status, headers, openmetrics = service.get("/metrics", OPENMETRICS, admin=True)
        assert (status, headers.get_content_type()) == (200, "application/openmetrics-text")
        assert openmetrics.endswith("# EOF\n")
        name = "http_server_request_duration_seconds_count"
        assert samples(text, name) == samples(openmetrics, name) != []


def samples(exposition: str, name: str) -> list[str]:
    return [line for line in exposition.splitlines() if line.startswith(f"{name}{{")]
