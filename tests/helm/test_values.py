"""values.yaml and its schema: nothing unknown is taken, and nothing that is offered is without effect."""

from __future__ import annotations

import copy
import json
import runpy
from collections.abc import Iterator
from typing import Any

import helm_python as helm
import pytest
import yaml

from tests.helm.rendering import CHART, ROOT, cases, texts, values

SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
COMMENTS = runpy.run_path(str(ROOT / "helm" / "generate.py"))["comments"]
NAMES = [name for kind, name, _ in COMMENTS((CHART / "values.yaml").read_text(encoding="utf-8")) if kind == "param"]

KUBERNETES_OBJECTS = {
    "extraEnv",
    "extraEnvFrom",
    "extraVolumes",
    "extraVolumeMounts",
    "tolerations",
    "affinity",
    "topologySpreadConstraints",
    "podSecurityContext",
    "securityContext",
    "state.volume",
    "updateStrategy",
    "autoscaling.metrics",
    "autoscaling.behavior",
    "autoscaling.keda.extraTriggers",
    "redis.networkPolicyTo",
    "networkPolicy.gateways",
    "networkPolicy.prometheus",
    "networkPolicy.extraIngress",
    "networkPolicy.extraEgress",
    "attach.envoy.extraVolumes",
    "attach.envoy.extraVolumeMounts",
    "attach.envoy.parentRefs",
    "attach.istio.routeConfiguration",
}
"""Values that are handed on as they are: Kubernetes, or the other project, knows their fields."""


def nodes(schema: Any, at: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object in the chart's own part of the schema, by the value's name."""
    if "$ref" in schema:
        return
    if schema.get("type") == "object":
        yield at, schema
    for name, below in schema.get("properties", {}).items():
        yield from nodes(below, f"{at}.{name}" if at else name)
    if isinstance(schema.get("items"), dict):
        yield from nodes(schema["items"], at)


def test_every_object_is_closed_but_those_that_others_define() -> None:
    open_ones = set()
    for at, node in nodes(SCHEMA):
        closed = node.get("additionalProperties")
        if closed is False:
            continue
        # A map of names to plain values, such as labels, has no keys to mistype.
        if isinstance(closed, dict) and (closed["type"] == "array" or "object" not in closed["type"]):
            continue
        if at.rpartition(".")[2] == "claims":  # of resources
            continue
        open_ones.add(at)
    # `router` is closed by the reference that its if/then/else holds; `global` belongs to charts above this one.
    assert open_ones <= KUBERNETES_OBJECTS | {"router", "global"}


@pytest.mark.parametrize("name", NAMES)
def test_the_schema_knows_every_value(name: str) -> None:
    node = SCHEMA
    for key in name.split("."):
        assert key in node["properties"], name
        node = node["properties"][key]


OTHER: dict[str, Any] = {
    "kubeVersion": "v1.28.0",
    "mode": "sidecar",
    "image.digest": "sha256:" + "1" * 64,
    "image.pullPolicy": "Always",
    "imagePullSecrets": ["other"],
    "existingRoutesConfigMap": "other",
    "logLevel": "debug",
    "device": "cpu",
    "redis.url": "rediss://other:7777",
    "redis.networkPolicyTo": [{"podSelector": {"matchLabels": {"other": "x"}}}],
    "tracing.otlpEndpoint": "https://other",
    "tracing.ratio": 0.7,
    "models.source": "image",
    "models.digest": "2" * 64,
    "models.pvc.size": "7Gi",
    "models.pvc.accessModes": ["ReadOnlyMany"],
    "models.initContainer.url": "https://other/model.tar.gz",
    "models.initContainer.sha256": "3" * 64,
    "models.initContainer.sizeLimit": "7Gi",
    "models.ociVolume.reference": "other@sha256:" + "4" * 64,
    "models.ociVolume.pullPolicy": "Always",
    "models.hostPath.path": "/other",
    "state.sizeLimit": "7Gi",
    "state.volume": {"hostPath": {"path": "/other"}},
    "tmpSizeLimit": "7Gi",
    "tls.certManager.issuerRef.kind": "ClusterIssuer",
    "tls.certManager.duration": "77h",
    "tls.certManager.renewBefore": "7h",
    "updateStrategy": {"type": "Recreate"},
    "terminationGracePeriodSeconds": 77,
    "tolerations": [{"operator": "Exists"}],
    "topologySpreadConstraints": [{"maxSkew": 7}],
    "extraEnv": [{"name": "OTHER", "value": "x"}],
    "extraEnvFrom": [{"configMapRef": {"name": "other"}}],
    "extraVolumes": [{"name": "other", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "other", "mountPath": "/other"}],
    "probes.startup": {"failureThreshold": 77},
    "probes.liveness": {"failureThreshold": 77},
    "probes.readiness": {"failureThreshold": 77},
    "gpu.resourceName": "other.example/gpu",
    "providerKeys.mountPath": "/other",
    "autoscaling.keda.prometheusAddress": "http://other",
    "autoscaling.type": "hpa",
    "autoscaling.metrics": [{"type": "Other"}],
    "autoscaling.keda.extraTriggers": [{"type": "other"}],
    "networkPolicy.gateways": [{"podSelector": {"matchLabels": {"other": "x"}}}],
    "networkPolicy.prometheus": [{"podSelector": {"matchLabels": {"other": "x"}}}],
    "networkPolicy.extraIngress": [{"ports": [{"port": 77}]}],
    "networkPolicy.extraEgress": [{"ports": [{"port": 77}]}],
    "metrics.serviceMonitor.enabled": True,
    "metrics.prometheusRule.enabled": True,
    "metrics.serviceMonitor.interval": "77s",
    "attach.provider": "envoy",
    "attach.backup": {"small-west": ["small"]},
    "attach.messageTimeout": "77s",
    "attach.maxBodyBytes": 77_777,
    "attach.envoy.profile": "compatible",
    "attach.envoy.maxConnections": 77,
    "attach.envoy.caFile": "/other",
    "attach.envoy.renderArgs": ["--other"],
    "attach.envoy.extraVolumes": [{"name": "other", "emptyDir": {}}],
    "attach.envoy.extraVolumeMounts": [{"name": "other", "mountPath": "/other"}],
    "attach.envoy.service.type": "NodePort",
    "attach.envoy.parentRefs": [{"name": "other"}],
    "attach.envoy.hostnames": ["other"],
    "attach.istio.targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "other"}],
    "attach.istio.context": "SIDECAR_INBOUND",
    "attach.istio.operation": "INSERT_FIRST",
    "attach.istio.hostnames": ["other"],
    "attach.istio.timeout": "77s",
    "attach.istio.retries": 7,
    "attach.envoyGateway.hostnames": ["other"],
    "attach.envoyGateway.timeout": "77s",
    "attach.envoyGateway.retries": 7,
    "attach.envoyGateway.drainTimeout": "77s",
}
"""Another value than the default, where one cannot be made up from its type."""


def other_than(default: Any, name: str) -> Any:
    if name in OTHER:
        return OTHER[name]
    if name.endswith("resources"):
        return {"limits": {"memory": "77Mi"}}
    match default:
        case bool():
            return not default
        case int():
            return default + 1
        case float():
            return default / 2
        case str():
            return "other"
        case dict():
            return {"other": "x"}
    raise AssertionError(f"{name}: what else could it be?")


def with_other(given: dict[str, Any], name: str) -> dict[str, Any]:
    changed = copy.deepcopy(given)
    node, default = changed, DEFAULTS
    *path, last = name.split(".")
    for key in path:
        node, default = node.setdefault(key, {}), default[key]
    node[last] = other_than(node.get(last, default[last]), name)
    return changed


def spelt_out(given: Any, name: str) -> int:
    """How much of the value's name a file has: where it has most, it most likely matters."""
    depth = 0
    for key in name.split("."):
        if not isinstance(given, dict) or key not in given:
            break
        given, depth = given[key], depth + 1
    return depth


@pytest.mark.parametrize("name", [name for name in NAMES if name != "router"])
def test_no_value_is_without_effect(name: str) -> None:
    """In one of the values files at least, another value renders something else."""
    for case in sorted(cases(), key=lambda case: -spelt_out(values(case), name)):
        given = values(case)
        try:
            if texts(with_other(given, name)) != texts(given):
                return
        except helm.HelmValuesError:
            raise  # the schema: OTHER needs an entry
        except helm.HelmError:
            continue  # it makes no sense together with this file
    pytest.fail(f"{name} changes nothing in any values file")
