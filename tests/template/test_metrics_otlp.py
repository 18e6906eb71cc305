"""Metrics, pushed to a real Prometheus 3."""

from operator import not_
from pathlib import Path

import pytest

from ..backends import eventually, free_port, prometheus
from .conftest import Generate
from .project import Project
from .test_statsd import with_a_counter

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
DURATION = "http_server_request_duration_seconds"
COUNT = f'{DURATION}_count{{http_route="/hello/{{name}}"}}'
# What Prometheus's library measures of the process, and what Prometheus adds to what it scrapes.
OTHERS = "(process|python|scrape)_.*|.*_created|up|target_info"


@pytest.fixture
def project(generate: Generate) -> Project:
    return with_a_counter(generate(metrics="otlp", tracing="stub", logging="structured"))


def test_prometheus_receives_what_is_measured(project: Project, tmp_path: Path) -> None:
    with prometheus.running(tmp_path, [], otlp={}) as server:
        settings = {
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{server.url}/api/v1/otlp/v1/metrics",
            "OTEL_METRIC_EXPORT_INTERVAL": "200",
            "OTEL_RESOURCE_ATTRIBUTES": "service.namespace=shop,k8s.pod.name=a",
        }
        with project.start(**settings) as service:
            for _ in range(3):
                parent = f"00-{TRACE_ID}-b7ad6b7169203331-01"
                assert service.get("/hello/x", {"traceparent": parent})[0] == 200
            service.get("/nowhere")
            [series] = server.wait_for(f"{COUNT} == 3")
            labels = {
                "job": f"shop/{project.slug}",
                "http_request_method": "GET",
                "http_response_status_code": "200",
                "url_scheme": "http",
            }
            assert labels.items() <= series["metric"].items()
            instance = series["metric"]["instance"]
            # These are measured later, and may come in another push.
            for name in ("process_cpu_time_seconds_total", "process_memory_usage_bytes"):
                server.wait_for(name)
            for name in ("python_gc_pause_seconds_total", "python_gc_collections_total"):
                server.wait_for(f'{name}{{generation="2"}}')
            [described] = server.query("target_info")
            assert described["metric"]["k8s_pod_name"] == "a"
            assert described["metric"]["instance"] == instance
            assert server.query(f'histogram_quantile(0.5, {DURATION}_bucket{{le!=""}})')
            buckets = server.exemplars(f"{DURATION}_bucket")
            ids = {each["labels"]["trace_id"] for bucket in buckets for each in bucket["exemplars"]}
            assert TRACE_ID in ids
            # Nothing was scraped.
            assert server.query("up") == []
            assert service.terminate() == 0
            assert "failed" not in service.output()


def test_last_push_comes_in_the_drain_and_a_restart_is_seen(
    project: Project, tmp_path: Path
) -> None:
    with prometheus.running(tmp_path, [], otlp={}) as server:
        endpoint = f"{server.url}/api/v1/otlp/v1/metrics"
        settings = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": endpoint, "PORT": str(free_port())}
        for restarts in (0, 1):
            with project.start(**settings) as service:
                service.get("/hello/x")
                assert service.terminate() == 0
            # Which began at zero.
            [series] = server.wait_for(COUNT)
            assert series["value"][1] == "1"
            server.wait_for(f"changes(process_start_time_seconds[1h]) == {restarts}")


def test_names_are_those_that_are_scraped(
    generate: Generate, project: Project, tmp_path: Path
) -> None:
    scraped = with_a_counter(generate(metrics="prometheus", tracing="stub", logging="structured"))
    with (
        scraped.start() as other,
        prometheus.running(tmp_path, [f"127.0.0.1:{other.admin_port}"], otlp={}) as server,
        project.start(
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"{server.url}/api/v1/otlp/v1/metrics",
            OTEL_METRIC_EXPORT_INTERVAL="200",
        ) as service,
    ):
        for each in (other, service):
            each.get("/hello/x")
            each.get("/nowhere")

        def shown(job: str) -> set[tuple[str, ...]]:
            """Name and labels of each metric."""
            found = server.query(f'{{job="{job}", __name__!~"{OTHERS}"}}')
            return {
                (each["metric"]["__name__"], *sorted(each["metric"].keys() - {"instance", "job"}))
                for each in found
            }

        for job in ("test", project.slug):
            server.wait_for(f'{DURATION}_count{{job="{job}", http_route="unmatched"}}')
        eventually(lambda: shown(project.slug) ^ shown("test"), "one set of names", not_)
