"""The dashboard's queries and the alerts', asked of a Prometheus that has the service's metrics."""

import json
import math
import re
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from ..backends import eventually, free_port, otlp, prometheus
from . import grafana
from .conftest import Generate
from .project import TEMPLATE, Project, Service
from .test_alerts import alerts, load

SLUG = "order-desk"
BOOM = """\
class Boom(JsonHandler):
    has_latency_objective = False

    def get(self) -> None:
        raise ValueError("boom")
"""
SLOW_SECONDS = 0.6
NAMESPACE = "production"
# What the Prometheus Operator gives each target, beside `job` and `instance`. What a metric of ours
# has under the same name is renamed to `exported_…`.
TARGET = {
    "namespace": NAMESPACE,
    "service": f"{SLUG}-admin",
    "pod": f"{SLUG}-1-a",
    "container": SLUG,
    "endpoint": "admin",
    "node": "a",
}
OBSERVED = {"metrics": "prometheus", "project_slug": SLUG}
TALK = """\
from tornado.websocket import WebSocketHandler


class Talk(WebSocketHandler):
    def open(self) -> None:
        self.write_message("hello")
"""
# What kube-state-metrics says of a deployment, as rules: there is no cluster to ask.
DEPLOYMENT, AUTOSCALER = {"deployment": SLUG}, {"horizontalpodautoscaler": SLUG}
CONTAINER = {"container": SLUG, "pod": f"{SLUG}-1-a"}
STUCK = DEPLOYMENT | {"condition": "Progressing", "status": "false"}
BLIND = AUTOSCALER | {"condition": "ScalingActive", "status": "false"}
CLUSTER = [
    {"record": name, "expr": f"vector({value})", "labels": {"namespace": NAMESPACE} | labels}
    for name, value, labels in [
        ("kube_deployment_spec_replicas", 2, DEPLOYMENT),
        ("kube_deployment_status_replicas_available", 2, DEPLOYMENT),
        ("kube_deployment_status_condition", 0, STUCK),
        ("kube_horizontalpodautoscaler_status_current_replicas", 2, AUTOSCALER),
        ("kube_horizontalpodautoscaler_spec_max_replicas", 2, AUTOSCALER),
        ("kube_horizontalpodautoscaler_spec_min_replicas", 1, AUTOSCALER),
        ("kube_horizontalpodautoscaler_status_condition", 0, BLIND),
        ("kube_pod_status_phase", 0, {"pod": f"{SLUG}-6d-bcdfg", "phase": "Pending"}),
        ("container_memory_working_set_bytes", 1, CONTAINER),
        ("kube_pod_container_resource_limits", 2, CONTAINER | {"resource": "memory"}),
        ("kube_pod_container_status_restarts_total", 1, CONTAINER),
    ]
]
PROBES = {"/livez", "/readyz", "/health"}
NOT_SHOWN = {
    "metrics_dropped_created",
    "process_virtual_memory_bytes",
    "python_gc_collections_total",
    "python_gc_objects_collected_total",
    "python_gc_objects_uncollectable_total",
    "python_info",
}
OF_PROMETHEUS_ITSELF = {"up", "ALERTS"}
METRIC = re.compile(r"([a-zA-Z_:][\w:]*)\{")
# What an alert asks for, unless it looks back further than this test has run.
SELECTOR = re.compile(r"[a-zA-Z_:][\w:]*\{(?:\"[^\"]*\"|[^}\"])*\}(?!\[1d\])")
# There are none while all is well.
OF_TROUBLE = (f'namespace="{SLUG}"', "instance:process_restarts:loop")


@pytest.mark.parametrize("metrics", ["prometheus", "otlp"])
def test_each_query_has_an_answer(generate: Generate, tmp_path: Path, metrics: str) -> None:
    """With all that can be chosen: other dashboards and rules are parts of these, see below."""
    observed = OBSERVED | {"metrics": metrics}
    project = generate(**observed, health="probes", tracing="jaeger")
    project.add_handler(BOOM, '(r"/boom", handlers.Boom)')
    project.add_handler(
        "class Slow(JsonHandler):\n"
        "    async def get(self) -> None:\n"
        "        import asyncio\n"
        "        from tornado.httpclient import AsyncHTTPClient\n"
        "        from tornado.websocket import websocket_connect\n"
        '        await AsyncHTTPClient().fetch(f"http://{self.request.host}/")\n'
        '        (await websocket_connect(f"ws://{self.request.host}/talk")).close()\n'
        f"        await asyncio.sleep({SLOW_SECONDS})\n",
        '(r"/slow", handlers.Slow)',
    )
    project.add_handler(TALK, '(r"/talk", handlers.Talk)')
    app = project.path / "src" / project.package / "app.py"
    work = '    service.background("wait", service.stopping.wait)\n    return service\n'
    app.write_text(app.read_text().replace("    return service\n", work))
    dashboard = grafana.read(project.path)
    rules = project.path / "deploy/prometheus/alerts.yml"
    kube_state_metrics = tmp_path / "kube_state_metrics.yml"
    kube_state_metrics.write_text(json.dumps({"groups": [{"name": "cluster", "rules": CLUSTER}]}))
    port = free_port()
    scrapes = metrics == "prometheus"
    with (
        otlp.running(tmp_path) as collector,
        prometheus.running(
            tmp_path,
            [f"127.0.0.1:{port}"] if scrapes else [],
            rule_files=[rules, kube_state_metrics],
            job=SLUG,
            labels=TARGET,
            otlp=load(rules.with_name("prometheus.yml")).get("otlp"),
        ) as server,
        project.start(
            ADMIN_PORT=str(port),
            DRAIN_DELAY_SECONDS="600",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            **({} if scrapes else pushes_to(server)),
        ) as service,
    ):
        server.wait_for("build_info")
        visit(service)
        server.wait_for('http_server_request_duration_seconds_count{http_route="/slow"}')
        job = server.query("build_info")[0]["metric"]["job"]
        series = [each["metric"] for each in server.query(f'{{job="{job}"}}')]
        assert not [each for each in series if any(name.startswith("exported_") for name in each)]
        values = dashboard.variables(server)
        assert (values["namespace"], values["job"]) == (NAMESPACE, job)
        assert not [probe for probe in PROBES if probe in values["route"]]

        queries = {name: grafana.fill(query, values) for name, query in dashboard.queries().items()}
        for alert in alerts(project.path):
            labels = " ".join(alert["labels"].values())
            for selector in SELECTOR.findall(alert["expr"]):
                if not any(name in selector for name in OF_TROUBLE):
                    queries[f"{alert['alert']} {labels}: {selector}"] = selector

        def without_answer() -> list[str]:
            visit(service)
            return [name for name, query in queries.items() if not answer(server, query)]

        try:
            eventually(lambda: not without_answer(), "answers")
        except TimeoutError as error:
            raise AssertionError([queries[name] for name in without_answer()]) from error
        for annotation in dashboard.json["annotations"]["list"]:
            server.query(grafana.fill(annotation["expr"], values))

        errors = answer(server, queries["Errors by route, A"])
        assert [(each["http_route"], each["error_type"]) for each in errors] == [
            ("/boom", "ValueError")
        ]
        routes = answer(server, queries["Rate by route, A"])
        assert {each["http_route"] for each in routes} == {
            "/",
            "/hello/{name}",
            "/boom",
            "/slow",
            "/talk",
            "unmatched",
        }
        assert answer(server, "job:http_server_slow:ratio_rate1h > 0")

        fires(server, project, "AvailabilityBudgetBurn", partial(service.get, "/boom"))
        fires(server, project, "LatencyBudgetBurn", partial(service.get, "/slow"))

        # All that is asked for is exported, or recorded of what is.
        exported = {each["metric"]["__name__"] for each in server.query(f'{{job="{job}"}}')}
        recorded = [rule for group in load(rules)["groups"] for rule in group["rules"]]
        used = {name for query in queries.values() for name in METRIC.findall(query)}
        used |= {name for rule in recorded for name in METRIC.findall(rule["expr"])}
        names = {rule["record"] for rule in recorded if "record" in rule}
        of_cluster = {rule["record"] for rule in CLUSTER}
        assert used - names - OF_PROMETHEUS_ITSELF - of_cluster <= exported
        assert names | of_cluster <= used

        not_ready = f"({queries['Not ready, A']}) > 0"
        assert not answer(server, not_ready)
        service.process.send_signal(signal.SIGTERM)

        def is_seen() -> bool:
            return service.get("/readyz")[0] == 503 and bool(answer(server, not_ready))

        eventually(is_seen, "a service that is not ready")
        fires(server, project, "ReadinessFailing", partial(service.get, "/readyz"))


def fires(
    server: prometheus.Prometheus, project: Project, name: str, ask: Callable[[], object]
) -> None:
    """Asks until each rule of this alert has an answer, whatever it waits for before it fires."""
    rules = [each["expr"] for each in alerts(project.path) if each["alert"] == name]

    def all_do() -> bool:
        ask()
        return all(answer(server, rule) for rule in rules)

    eventually(all_do, name)


def pushes_to(server: prometheus.Prometheus) -> dict[str, str]:
    """With the attributes that deployment.yaml and OpenTelemetry's Operator give a pod."""
    return {
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{server.url}/api/v1/otlp/v1/metrics",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        "OTEL_RESOURCE_ATTRIBUTES": f"namespace={NAMESPACE},service.namespace=shop,"
        f"k8s.namespace.name={NAMESPACE},k8s.pod.name={SLUG}-1-a",
    }


def visit(service: Service) -> None:
    statuses = [
        service.get(path)[0]
        for path in ("/", "/hello/x", "/hello/y", "/nowhere", "/boom", "/slow", *PROBES)
    ]
    assert statuses == [200, 200, 200, 404, 500, 200, 200, 200, 200]


def answer(server: prometheus.Prometheus, query: str) -> list[dict[str, str]]:
    """The labels of the series in the answer that have a value."""
    found = server.query(query)
    return [each["metric"] for each in found if not math.isnan(float(each["value"][1]))]


def test_what_is_exported_is_shown(generate: Generate) -> None:
    """Each metric of the chassis has a panel, an annotation or an alert."""
    project = generate(**OBSERVED, health="probes", tracing="jaeger")
    with project.start() as service:
        service.get("/")
        exposition = service.get("/metrics", admin=True)[2]
    families = set(re.findall(r"^# TYPE (\w+)", exposition, re.MULTILINE))
    text = json.dumps(grafana.read(project.path).json) + json.dumps(alerts(project.path))
    rules = (project.path / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8")
    hidden = {name for name in families if not re.search(rf"\b{name}(_\w+)?\b", text + rules)}
    assert hidden == NOT_SHOWN


@pytest.mark.parametrize("health", ["probes", "none"])
@pytest.mark.parametrize("tracing", ["none", "stub", "jaeger", "zipkin"])
def test_dashboard_shows_what_was_chosen(generate: Generate, health: str, tracing: str) -> None:
    dashboard = grafana.read(generate(**OBSERVED, health=health, tracing=tracing).path)
    everything = grafana.read(generate(**OBSERVED, health="probes", tracing="jaeger").path)
    assert dashboard.queries().items() <= everything.queries().items()
    rows = {row["title"] for row in dashboard.rows}
    assert ("Health" in rows) == (health == "probes")
    assert ("Traces" in rows) == (tracing in ("jaeger", "zipkin"))
    exemplars = [
        panel["title"]
        for panel in dashboard.panels
        if any(target.get("exemplar") for target in panel["targets"])
    ]
    assert exemplars == ([] if tracing == "none" else ["Duration", "Duration, heat map"])
    assert ("exemplar" in json.dumps(dashboard.json)) == (tracing != "none")


def test_dashboard_without_a_cluster_and_log_lines_shows_neither(generate: Generate) -> None:
    everything = grafana.read(generate(**OBSERVED).path)
    little = grafana.read(generate(**OBSERVED, deployment="docker", logging="none").path)
    titles = {panel["title"] for panel in everything.json["panels"]}
    assert titles - {panel["title"] for panel in little.json["panels"]} == {
        "Kubernetes",
        "Replicas",
        "Restarts of containers",
        "Log lines dropped",
    }


def test_picture_shows_each_panel(generate: Generate) -> None:
    """If it does not: `docs/dashboard.py` draws it again."""
    dashboard = grafana.read(generate(**OBSERVED, tracing="jaeger", deployment="docker").path)
    picture = (TEMPLATE / "docs/dashboard.png").read_bytes()
    at = picture.index(b"tEXtPanels\0")
    text = picture[at:][: 4 + int.from_bytes(picture[at - 4 : at], "big")].decode("latin-1")
    titles = [panel["title"] for panel in dashboard.panels]
    assert text.partition("\0")[2].split("\n") == titles


def test_environments_do_not_blend(generate: Generate) -> None:
    """Every series asked for is of one environment."""
    dashboard = grafana.read(generate(**OBSERVED, health="probes", tracing="jaeger").path)
    variables = dashboard.json["templating"]["list"]
    queries = [
        *dashboard.queries().values(),
        *(each["expr"] for each in dashboard.json["annotations"]["list"]),
        *(each["definition"] for each in variables if each["name"] in ("job", "instance", "route")),
    ]
    for query in queries:
        selectors = re.findall(r"\w\{([^}]*)\}", query)
        assert selectors, query
        for selector in selectors:
            assert 'namespace="$namespace"' in selector, query
