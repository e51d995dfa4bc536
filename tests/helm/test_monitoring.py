"""Alerts and dashboard: valid PromQL about metrics that the sidecar exports, and alerts that fire when they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from router_extproc.telemetry import instruments
from router_extproc.telemetry.exposition import prometheus_name
from router_extproc.telemetry.metrics import Metrics
from tests.helm.rendering import CHART, NAMESPACE, ROOT, cases, objects, one, values

TOOLS = ROOT / ".run" / "promtool"
DASHBOARD = CHART / "files" / "dashboards" / "router-extproc.json"
SCRAPED = {"namespace", "pod", "service", "job", "le"}
"""Labels that Prometheus adds, and the one of histograms."""


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found:
        return found
    script = Path(__file__).parent / "get-promtool.sh"
    done = subprocess.run([script, TOOLS], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"promtool is missing, and {script.name} could not get it:\n{done.stderr}")
    return str(TOOLS / "usr" / "bin" / "promtool")


def run(promtool: str, *arguments: str) -> None:
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def rules() -> dict[str, Any]:
    spec: dict[str, Any] = one(objects(values("envoy")), "PrometheusRule")["spec"]
    return spec


def panels() -> Iterator[tuple[str, str]]:
    """Title and query of every panel."""
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def test_alerts_fire_on_what_they_are_for_and_on_nothing_else(promtool: str, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules()))
    tests = tmp_path / "alerts.yaml"
    shutil.copy(Path(__file__).parent / "alerts.yaml", tests)
    run(promtool, "check", "rules", str(tmp_path / "rules.yaml"))
    run(promtool, "test", "rules", str(tests))
    alerts = {rule["alert"] for group in rules()["groups"] for rule in group["rules"]}
    fired = {
        case["alertname"]
        for test in yaml.safe_load(tests.read_text())["tests"]
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert fired == alerts


def test_alerts_on_the_gateway_only_where_it_is_scraped() -> None:
    given = values("envoy")
    given["metrics"]["prometheusRule"]["gatewayAlerts"] = False
    spec = one(objects(given), "PrometheusRule")["spec"]
    assert "envoy_" not in json.dumps(spec)


@pytest.mark.parametrize("case", [case for case in cases() if "router" in values(case)])
def test_series_come_from_where_they_are_served_and_with_the_namespace_that_alerts_ask_for(case: str) -> None:
    found = objects(values(case, metrics={"serviceMonitor": {"enabled": True}}))
    monitors = [o for o in found if o["kind"] in ("ServiceMonitor", "PodMonitor")]
    served = {
        port["port"] for o in monitors for port in o["spec"].get("endpoints", o["spec"].get("podMetricsEndpoints"))
    }
    attach = values(case).get("attach", {})
    own_envoy = attach.get("provider") == "envoy"
    sidecar = values(case).get("mode") == "sidecar"
    assert served == {"router-metrics" if sidecar else "http-metrics"} | ({"http-stats"} if own_envoy else set())
    for monitor in (o["spec"] for o in monitors if o["kind"] == "ServiceMonitor"):
        wanted = monitor["selector"]["matchLabels"].items()
        (service,) = (o for o in found if o["kind"] == "Service" and wanted <= o["metadata"]["labels"].items())
        assert [port["name"] for port in service["spec"]["ports"]] == [monitor["endpoints"][0]["port"]]
    for monitor in (o["spec"] for o in monitors if o["kind"] == "PodMonitor"):
        # All gateways that a sidecar can be in run in the release's namespace.
        assert "namespaceSelector" not in monitor
        if attach["provider"] == "envoy-gateway":
            assert monitor["selector"]["matchLabels"] == {
                "gateway.envoyproxy.io/owning-gateway-name": "inference-gateway",
                "gateway.envoyproxy.io/owning-gateway-namespace": NAMESPACE,
            }


def test_dashboard_queries_are_promql(promtool: str, tmp_path: Path) -> None:
    records = [
        {"record": f"panel:{n}", "expr": query.replace("$__rate_interval", "5m").replace("$namespace", "mom")}
        for n, (_, query) in enumerate(panels())
    ]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": records}]}))
    run(promtool, "check", "rules", str(path))


def queries() -> list[tuple[str, str]]:
    scaler = one(objects(values("keda")), "ScaledObject")["spec"]["triggers"]
    return [
        *panels(),
        *((r["alert"], r["expr"]) for g in rules()["groups"] for r in g["rules"] if "envoy_" not in r["expr"]),
        *(("keda", t["metadata"]["query"]) for t in scaler if t["type"] == "prometheus"),
    ]


@pytest.mark.parametrize(("title", "query"), queries(), ids=[title for title, _ in queries()])
def test_queries_ask_for_metrics_and_labels_that_are_exported(title: str, query: str) -> None:
    exported = {}
    for instrument in instruments.ALL:
        name = prometheus_name(instrument.name, instrument.unit, instrument.kind)
        labels = {label.replace(".", "_") for label in instrument.labels}
        for suffix in ("_bucket", "_sum", "_count") if instrument.kind == "histogram" else ("",):
            exported[name + suffix] = labels
    names = re.findall(r"\b(?:mom|gen_ai|process)_[a-z_]+(?=\{)", query)
    assert names, query
    for name in names:
        assert name in exported, f"{title}: {name} is not exported"
    allowed = SCRAPED | set.intersection(*(exported[name] for name in names))
    used = set(re.findall(r"[{,]\s*([a-z_]+)\s*(?:=~|!=|=)", query))
    for grouping in re.findall(r"by \(([^)]*)\)", query):
        used |= {label.strip() for label in grouping.split(",")}
    assert used <= allowed, f"{title}: {used - allowed}"
    assert 'namespace="' in query


def test_what_a_sidecar_exports_reads_as_prometheus_text(promtool: str) -> None:
    metrics = Metrics()
    page = metrics.exposition()
    done = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, check=False)
    problems = [line for line in done.stderr.decode().splitlines() if "error" in line.lower()]
    assert problems == []
    assert b"# TYPE mom_decisions_total counter" in page


def test_the_dashboard_is_laid_out_without_overlaps() -> None:
    document = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    taken: set[tuple[int, int]] = set()
    for panel in document["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in document["panels"]}) == len(document["panels"])
    given = values("minimal", metrics={"dashboard": {"enabled": True}})
    shipped = one(objects(given), "ConfigMap", "router-extproc-dashboard")
    assert json.loads(shipped["data"]["router-extproc.json"]) == document
    assert shipped["metadata"]["labels"]["grafana_dashboard"] == "1"
