"""Values that the chart refuses, and what it says."""

from __future__ import annotations

from typing import Any

import helm_python as helm
import pytest

from tests.helm.rendering import (
    CHART,
    ISTIO,
    Object,
    texts,
    values,
)

REFUSED = [
    ({"replicaCount": "two"}, "got string, want integer"),
    ({"replicaCont": 2}, "additional properties 'replicaCont' not allowed"),
    ({"mode": "daemonset"}, "value must be one of"),
    ({"image": {"digest": "latest"}}, "does not match pattern"),
    ({"attach": {"provider": "nginx"}}, "value must be one of"),
    ({"attach": {"istio": {"contxt": "GATEWAY"}}}, "additional properties 'contxt' not allowed"),
    ({"attach": {"messageTimeout": 2}}, "got number, want string"),
    ({"attach": {"messageTimeout": "2m"}}, "does not match pattern"),
    ({"attach": {"envoy": {"maxConnections": 0}}}, "minimum"),
    ({"attach": {"envoy": {"caFile": "it's"}}}, "does not match pattern"),
    ({"metrics": {"serviceMonitor": {"enabled": "yes"}}}, "value must be one of"),
    ({"models": {"initContainer": {"url": "http://insecure"}}}, "does not match pattern"),
    ({"grpc": {"port": 70000}}, "maximum"),
    ({"attach": {"provider": "envoy", "envoy": {"maxConnections": 1_000_001}}}, "maximum"),
    ({"router": {"models": {}, "default": "a"}}, "minProperties"),
    ({"router": {"models": {"a": {"url": "ftp://a", "price": {"input": 1, "output": 1}}}, "default": "a"}}, "pattern"),
    ({"router": {"models": {"a": {"url": "http://a"}}, "default": "a"}}, "missing property 'price'"),
    ({"redis": {"url": "redis://user:secret@host"}}, "does not match pattern"),
    ({"router": {"modelz": {}}}, "additional properties 'modelz' not allowed"),
    ({"routerFiles": {"router.yaml": "default: a"}}, "invalid propertyName 'router.yaml'"),
    ({"routerFiles": {"../users.yaml": ""}}, "invalid propertyName '../users.yaml'"),
    ({"routerFiles": {"..users": ""}}, "invalid propertyName '..users'"),
    ({"routerFiles": {"users.yaml": {"a": {}}}}, "got object, want string"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[str(change) for change, _ in REFUSED])
def test_the_schema_refuses(change: dict[str, Any], message: str) -> None:
    with helm.Chart.load(str(CHART)) as chart, pytest.raises(helm.HelmValuesError, match=message):
        chart.validate_schema(values("minimal", **change))


NONSENSE = [
    ({"router": {}}, "router is empty: put your router.yaml there"),
    ({"existingRoutesConfigMap": "mine"}, "router and existingRoutesConfigMap are both set"),
    ({"mode": "sidecar"}, "mode sidecar: set attach.provider"),
    ({"autoscaling": {"type": "hpa", "minReplicas": 5, "maxReplicas": 2}}, "minReplicas is above maxReplicas"),
    ({"state": {"volume": {"persistentVolumeClaim": {"claimName": "c"}}}}, "a ledger has one writer"),
    ({"terminationGracePeriodSeconds": 5}, r"5 is not above drain.preStopSeconds \(5\)"),
    ({"tls": {"enabled": True, "serverSecret": "s"}}, "set tls.serverSecret and tls.clientSecret, or tls.certManager"),
    ({"mode": "sidecar", "attach": {"provider": "envoy"}, "tls": {"enabled": True}}, "a Unix socket, which needs none"),
    (
        {"mode": "sidecar", "attach": {"provider": "envoy-gateway", "envoyGateway": {"gateway": {"name": "g"}}}},
        "attach.envoyGateway.gatewayNamespaceMode: true, or use mode deployment",
    ),
    (
        {"mode": "sidecar", "attach": {"provider": "envoy"}, "networkPolicy": {"enabled": True}},
        "networkPolicy selects the pods of mode deployment",
    ),
    ({"models": {"source": "pvc"}}, "set models.pvc.existingClaim, or models.pvc.create"),
    ({"models": {"source": "initContainer"}}, r"set models.initContainer.url and .sha256"),
    ({"attach": {"provider": "envoy", "backup": {"small": ["large"]}}}, "attach.backup is for the providers istio"),
    ({"attach": {**ISTIO, "backup": {"small": ["large"]}}}, "large has another upstream name, key or path"),
    ({"attach": {**ISTIO, "backup": {"small": ["huge"]}}}, 'unknown model "huge"'),
    (
        {"router": {}, "existingRoutesConfigMap": "mine", "routerFiles": {"users.yaml": ""}},
        "put them into that ConfigMap",
    ),
    ({"attach": {"provider": "istio"}}, "set targetRefs or workloadSelector"),
    ({"attach": {"provider": "envoy-gateway"}}, r"gateway.name: which Gateway\?"),
    ({"router": {}, "existingRoutesConfigMap": "mine", "attach": ISTIO}, "it needs the models in `router`"),
    (
        {"router": {}, "existingRoutesConfigMap": "mine", "redis": {"url": "redis://r"}},
        "write the `store` section there",
    ),
    ({"redis": {"url": "redis://r", "caSecret": {"name": "ca"}}}, "redis.caSecret needs a rediss:// url"),
    ({"redis": {"passwordSecret": {"name": "secret"}}}, "do nothing without redis.url"),
    (
        {"attach": {"provider": "envoy", "messageTimeout": "0.25s"}},
        r"messageTimeout: 0.25s is not above router.limits.deadline_ms \(250\)",
    ),
    (
        {"attach": {"provider": "envoy", "envoy": {"caFile": "/ca", "caSecret": {"name": "ca"}}}},
        "caFile and attach.envoy.caSecret are both set",
    ),
    ({"router": ""}, "router is empty"),
    ({"router": "models: ["}, "router: the text is not YAML"),
    ({"router": "- a"}, "router: the text"),
    ({"router": "default: a"}, "router: the text needs `models` and `default`"),
    ({"router": "models: {a: {url: 'http://a'}}\ndefault: b"}, 'names the model "b"'),
    (
        {"router": "models: {a: {url: 'http://a'}}\ndefault: a\nstore: {wait_ms: 5}", "redis": {"url": "redis://r"}},
        "router is a text that has one",
    ),
]


@pytest.mark.parametrize(("change", "message"), NONSENSE, ids=[str(change) for change, _ in NONSENSE])
def test_values_that_make_no_sense_together_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(helm.HelmError, match=message):
        texts(values("minimal", **change))


MODELS = [
    ({"auth": {"env": "KEY"}}, "set providerKeys.existingSecret to the Secret that holds the key KEY"),
    ({"auth": {"file": "/key"}}, "auth.file"),
    ({"paths": {"chat_completions": "/chat"}}, "paths"),
    ({"provider": "azure_openai", "api_version": "2024-10-21"}, "api_version"),
    ({"url": "http://10.0.0.1:80"}, "Istio routes to names, not to IP addresses"),
]


@pytest.mark.parametrize(("change", "message"), MODELS, ids=[str(change) for change, _ in MODELS])
def test_a_model_that_the_gateway_cannot_serve_is_refused(change: dict[str, Any], message: str) -> None:
    given = values("minimal", attach=ISTIO)
    given["router"]["models"]["small"].update(change)
    with pytest.raises(helm.HelmError, match=message):
        texts(given)


@pytest.mark.parametrize(
    ("small", "west"),
    [
        ({"passthrough": True}, None),  # the client's own credentials would go to a host that is not to have them
        ({"env": "KEY", "prefix": "Token "}, {"env": "KEY"}),
    ],
)
def test_a_backup_that_is_to_get_other_credentials_is_refused(small: Object, west: Object | None) -> None:
    given = values("istio-backup", providerKeys={"existingSecret": "keys"})
    models = given["router"]["models"]
    for first, second in ((small, west), (west, small)):
        models["small"]["auth"], models["small-west"]["auth"] = first, second
        with pytest.raises(helm.HelmError, match="small-west has another upstream name, key or path"):
            texts(given)
    models["small"]["auth"] = models["small-west"]["auth"] = small
    assert texts(given)


def test_envoy_gateway_refuses_to_pass_other_paths_on() -> None:
    given = values("envoy-gateway")
    given["router"]["passthrough"] = True
    with pytest.raises(helm.HelmError, match=r"router\.passthrough: attach\.provider envoy can do this"):
        texts(given)
    given["attach"] = {"provider": "envoy"}
    assert texts(given)


@pytest.mark.parametrize("gateway", ["istio", "envoy-gateway"])
def test_a_time_limit_that_gateways_of_others_cannot_keep_is_refused(gateway: str) -> None:
    given = values(gateway)
    given["router"]["retry"] = {"per_try_seconds": 120}
    with pytest.raises(helm.HelmError, match=r"router\.retry\.per_try_seconds: attach\.provider envoy can do this"):
        texts(given)
    given["attach"] = {"provider": "envoy"}
    assert texts(given)


def test_the_default_model_must_exist() -> None:
    given = values("minimal")
    given["router"]["default"] = ["small", "huge"]
    with pytest.raises(helm.HelmError, match=r'router\.default names the model "huge"'):
        texts(given)
