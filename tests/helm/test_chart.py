"""What the chart renders for every values file, and what it refuses."""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from router_extproc.app import ServeOptions
from router_extproc.cli import main as cli
from router_extproc.config.envoy import EnvoyOptions, render
from router_extproc.config.limits import Limits, Retry
from router_extproc.config.loader import parse
from router_extproc.config.model import Model
from router_extproc.config.schema import RouterConfig
from tests.helm.gateways import milliseconds
from tests.helm.rendering import (
    CHART,
    NEWEST_MINOR,
    OLDEST_MINOR,
    ROOT,
    Object,
    UniqueKeys,
    built_in,
    cases,
    check_fields,
    objects,
    one,
    pod_specs,
    texts,
    values,
)


@pytest.mark.parametrize("case", cases())
def test_lints_strictly(case: str) -> None:
    report = helm.lint(str(CHART), values(case), strict=True, kube_version="v1.33.0", with_subcharts=True)
    assert [m for m in report["messages"] if m["severity"] > 1] == []
    assert report["errors"] == []


@pytest.mark.parametrize("minor", [OLDEST_MINOR, NEWEST_MINOR])
@pytest.mark.parametrize("case", cases())
def test_kubernetes_knows_every_field(case: str, minor: str) -> None:
    given = values(case, kubeVersion=f"v{minor}.0")
    if given.get("models", {}).get("source") == "ociVolume" and minor == OLDEST_MINOR:
        with pytest.raises(helm.HelmError, match=r"image volumes need Kubernetes 1\.31"):
            objects(given)
        return
    found = objects(given)
    for thing in found:
        if built_in(thing):
            check_fields(thing, minor)
    names = [(o["apiVersion"], o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in found]
    assert len(names) == len(set(names))
    assert all(len(name) <= 63 for *_, name in names)


def test_strict_validation_would_catch_a_typo() -> None:
    service = one(objects(values("minimal")), "Service", "router-extproc")
    service["spec"]["portz"] = service["spec"].pop("ports")
    with pytest.raises(kubernetes_validate.ValidationError, match="portz"):
        check_fields(service, NEWEST_MINOR)


def test_duplicate_keys_would_be_caught() -> None:
    with pytest.raises(yaml.YAMLError, match="duplicate"):
        yaml.load("a: {b: 1, b: 2}", UniqueKeys)


@pytest.mark.parametrize("case", cases())
def test_every_pod_meets_the_restricted_standard(case: str) -> None:
    specs = pod_specs(objects(values(case)))
    assert specs
    for name, spec in specs.items():
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert "limits" in container["resources"], name
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            assert mounted <= {volume["name"] for volume in spec["volumes"]}, name
            assert not any("subPath" in mount for mount in container.get("volumeMounts", [])), name


@pytest.mark.parametrize("case", cases())
def test_selectors_and_references_meet(case: str) -> None:
    found = objects(values(case))
    maps = {o["metadata"]["name"] for o in found if o["kind"] == "ConfigMap"} | {"my-routes"}
    for spec in pod_specs(found).values():
        assert {v["configMap"]["name"] for v in spec["volumes"] if "configMap" in v} <= maps
    for thing in found:
        if thing["kind"] == "Deployment":
            wanted = thing["spec"]["selector"]["matchLabels"]
            labels = thing["spec"]["template"]["metadata"]["labels"]
            assert wanted.items() <= labels.items()
            assert not {"app.kubernetes.io/version", "helm.sh/chart"} & wanted.keys()
    templates = [o["spec"]["template"]["metadata"]["labels"] for o in found if o["kind"] == "Deployment"]
    for service in (o for o in found if o["kind"] == "Service"):
        assert any(service["spec"]["selector"].items() <= labels.items() for labels in templates)


def test_a_router_yaml_arrives_as_it_was_written() -> None:
    given = values("envoy")
    given["router"]["limits"] = {"max_body_bytes": 33554432, "deadline_ms": 120}
    routes = one(objects(given), "ConfigMap", "router-extproc-routes")["data"]["router.yaml"]
    assert yaml.safe_load(routes) == given["router"]
    assert parse(routes.encode(), CHART).config.limits.max_body_bytes == 33554432


PRICE = {"input": 1, "output": 1}
CHANGED: dict[str, dict[str, Any]] = {
    "": {
        "models": {"new": {"url": "http://new", "price": PRICE}, "small": {"url": "http://small", "price": PRICE}},
        "signals": {"length": {"type": "tokens"}},
        "routes": [{"name": "any", "when": "true", "models": "small"}],
        "default": ["small", "coder"],
        "bands": {"recommended": 0.5, "fallback": 0.1},
        "guards": [{"name": "g", "when": "true", "action": "tag"}],
        "preferences": {"everyone": {"prefer": "cheap"}},
        "schedules": [{"name": "s", "from": "08:00", "to": "18:00", "favourite": "small"}],
        "virtual_models": {"best": {}},
        "limits": {"max_attempts": 2},
        "retry": {"total_seconds": 100},
        "ledger": {"router_per_query": 0.001},
        "sessions": {"sticky_seconds": 60},
        "budgets": [{"name": "b", "usd": 5}],
        "store": {"url": "redis://valkey"},
        "passthrough": True,
    },
    "models": {
        "url": "http://other",
        "provider": "azure_openai",
        "upstream_model": "other",
        "cluster": "other",
        "apis": ["chat_completions", "messages"],
        "paths": {"chat_completions": "/chat"},
        "api_version": "2024-10-21",
        "auth": {"env": "KEY"},
        "price": {"input": 7, "output": 7},
        "context_window": 7,
        "modalities": ["text", "image"],
        "tools": False,
        "json_mode": False,
        "fallback": ["premium"],
        "labels": {"tier": "other"},
        "quality": 0.7,
        "like": "other",
    },
    "limits": {"max_body_bytes": 4096, "deadline_ms": 77, "read_windows": 7, "max_attempts": 7},
    "retry": {"statuses": [418], "per_try_seconds": 7, "first_byte_seconds": 7, "total_seconds": 77},
}
"""Another value of every field of router.yaml that Envoy's configuration could depend on."""


@pytest.mark.parametrize("name", [f"{at}.{name}".lstrip(".") for at, fields in CHANGED.items() for name in fields])
def test_what_envoy_reads_restarts_it_and_nothing_else_does(name: str) -> None:
    def envoy(given: dict[str, Any]) -> str:
        return render(parse(yaml.safe_dump(given["router"]).encode(), CHART).config, EnvoyOptions())

    section, _, key = name.rpartition(".")
    before, after = values("envoy"), values("envoy")
    for given in (before, after):
        if key == "api_version":  # says nothing with other providers
            given["router"]["models"]["coder"]["provider"] = "azure_openai"
        if name == "models":
            given["router"] |= {"default": "small", "routes": []}
    router = after["router"]
    changed = {"": router, "models": router["models"]["coder"]}.get(section) or router.setdefault(section, {})
    changed[key] = CHANGED[section][key]
    restarts = _checksums(before, "router-extproc-envoy") != _checksums(after, "router-extproc-envoy")
    assert restarts == (envoy(before) != envoy(after))


def test_no_field_of_the_file_is_forgotten_there() -> None:
    for section, model in (("", RouterConfig), ("models", Model), ("limits", Limits), ("retry", Retry)):
        assert set(CHANGED[section]) == set(model.model_fields) - {"version"}, section


TEXT = """\
  # Helm would sort these.
  models:
    zeta: {url: "http://zeta.models.svc.cluster.local:1", price: {input: 1, output: 1}, labels: {tier: light}}
    alpha: {url: "http://alpha.models.svc.cluster.local:1", price: {input: 1, output: 1}, labels: {tier: light}}
  default: zeta
"""
"""Indented throughout, as a block of another file may be."""


@pytest.mark.parametrize("case", ["minimal", "envoy", "envoy-compatible", "istio", "envoy-gateway"])
def test_a_router_yaml_given_as_text_keeps_its_order_and_comments(case: str) -> None:
    given = values(case, router=TEXT)
    found = objects(given)
    for name in ("router-extproc-routes", "router-extproc-check"):
        routes = one(found, "ConfigMap", name)["data"]["router.yaml"]
        assert routes == TEXT
        assert list(parse(routes.encode(), CHART).config.models) == ["zeta", "alpha"]
    # What the chart makes of the models is what it makes of the same map.
    as_map = objects({**given, "router": yaml.safe_load(TEXT)})
    kinds = ("EnvoyFilter", "ServiceEntry", "HTTPRoute", "Backend", "Deployment", "ReferenceGrant")
    assert [o for o in found if o["kind"] in kinds] == [o for o in as_map if o["kind"] in kinds]


def test_the_store_goes_behind_a_router_yaml_given_as_text() -> None:
    text = "models: {a: {url: 'http://a', price: {input: 1, output: 1}}}\ndefault: a"
    given = values("minimal", router=text, redis={"url": "redis://r"})
    routes = one(objects(given), "ConfigMap", "router-extproc-routes")["data"]["router.yaml"]
    assert routes.startswith(text)
    assert parse(routes.encode(), CHART).config.store.url == "redis://r"


def _checksums(given: dict[str, Any], name: str) -> dict[str, str]:
    annotations = one(objects(given), "Deployment", name)["spec"]["template"]["metadata"]["annotations"]
    return {key: value for key, value in annotations.items() if key.startswith("checksum/")}


def test_only_settings_restart_the_sidecar() -> None:
    before = _checksums(values("minimal"), "router-extproc")
    other = values("minimal")
    other["router"]["models"]["new"] = {"url": "http://new:1", "price": {"input": 1, "output": 1}}
    assert _checksums(other, "router-extproc") == before
    assert _checksums(values("minimal", maxQueued=9), "router-extproc") != before


def test_settings_are_environment_variables_that_the_command_line_knows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings: Object = one(objects(values("gpu")), "ConfigMap", "router-extproc-static")["data"]
    with pytest.raises(SystemExit):
        cli(["serve", "--help"])
    known = capsys.readouterr().out
    for name, value in settings.items():
        assert name in known
        monkeypatch.setenv(name, value)
    # `serve` reads them all before it looks for the file, which does not exist here.
    monkeypatch.setenv("ROUTER_EXTPROC_CONFIG", "/nonexistent")
    monkeypatch.setenv("ROUTER_EXTPROC_ADMIN", "127.0.0.1:0")
    assert cli(["serve"]) == 1
    assert "/nonexistent: cannot be read" in capsys.readouterr().err


def test_the_pod_is_given_time_for_the_whole_drain() -> None:
    spec = one(objects(values("minimal")), "Deployment")["spec"]["template"]["spec"]
    pre_stop = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    defaults = ServeOptions(config=CHART)
    assert spec["terminationGracePeriodSeconds"] > pre_stop + defaults.drain_notice + defaults.drain_grace
    assert one(objects(values("hpa")), "Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 120


def test_autoscalers_own_the_number_of_pods() -> None:
    for case, kind in (("hpa", "HorizontalPodAutoscaler"), ("keda", "ScaledObject")):
        found = objects(values(case))
        assert "replicas" not in one(found, "Deployment")["spec"]
        assert one(found, kind)["spec"]["scaleTargetRef"]["name"] == "router-extproc"


def test_a_gpu_is_asked_for_tolerated_and_never_needed_twice() -> None:
    spec = one(objects(values("gpu")), "Deployment")["spec"]
    pod = spec["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in pod["containers"][0]["resources"]["requests"]
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert pod["runtimeClassName"] == "nvidia"
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert one(objects(values("gpu")), "ConfigMap", "router-extproc-static")["data"]["ROUTER_EXTPROC_DEVICE"] == "cuda"


def test_the_network_policy_lets_in_gateways_and_prometheus_and_lets_out_dns() -> None:
    spec = one(objects(values("models-download")), "NetworkPolicy")["spec"]
    given = values("models-download")["networkPolicy"]
    grpc, metrics, ours = spec["ingress"]
    assert (grpc["from"], grpc["ports"]) == (given["gateways"], [{"port": 50051}])
    assert metrics["from"][:1] == given["prometheus"]
    assert metrics["ports"] == [{"port": 9090}]
    components = [peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in ours["from"]]
    assert components == ["envoy", "test"]
    assert [port["port"] for rule in spec["egress"] for port in rule["ports"]] == [53, 53, 443]


def test_a_shared_store_is_configured_mounted_and_let_out_to() -> None:
    found = objects(values("redis"))
    for name in ("router-extproc-routes", "router-extproc-check"):
        config = parse(one(found, "ConfigMap", name)["data"]["router.yaml"].encode(), CHART).config
        store = config.store
        assert (store.url, store.username) == ("rediss://valkey.data.svc.cluster.local:6380/1", "mom")
        assert (store.password_file, store.ca_file) == ("/etc/router-redis/password", "/etc/router-redis-ca/ca.crt")
        assert (store.wait_ms, config.budgets[0].name) == (20, "tenants-daily")
    pod = one(found, "Deployment")["spec"]["template"]["spec"]
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    secrets = {v["name"]: v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v}
    assert {mounts[name]: secret for name, secret in secrets.items()} == {
        "/etc/router-redis": "mom-valkey",
        "/etc/router-redis-ca": "mom-valkey-ca",
        "/etc/router-session": "mom-sessions",
    }
    settings = one(found, "ConfigMap", "router-extproc-static")["data"]
    assert settings["ROUTER_EXTPROC_SESSION_SECRET_FILE"] == "/etc/router-session/secret"
    rule = one(found, "NetworkPolicy")["spec"]["egress"][-1]
    assert rule["ports"] == [{"port": 6380, "protocol": "TCP"}]
    assert rule["to"] == values("redis")["redis"]["networkPolicyTo"]


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("redis://valkey", 6379),
        ("redis://valkey:6400", 6400),
        ("redis://valkey/3", 6379),
        ("redis://[fd00::1]:7000/2", 7000),
    ],
)
def test_the_network_policy_finds_the_stores_port(url: str, port: int) -> None:
    given = values("minimal", redis={"url": url}, networkPolicy={"enabled": True})
    assert one(objects(given), "NetworkPolicy")["spec"]["egress"][-1]["ports"][0]["port"] == port


def test_another_store_restarts_the_sidecar_and_not_envoy() -> None:
    before, after = values("envoy"), values("envoy", redis={"url": "redis://valkey:6379"})
    assert _checksums(before, "router-extproc") != _checksums(after, "router-extproc")
    assert _checksums(before, "router-extproc-envoy") == _checksums(after, "router-extproc-envoy")
    own = values("envoy")
    own["router"]["store"] = {"url": "redis://valkey:6379"}
    assert _checksums(before, "router-extproc") != _checksums(own, "router-extproc")
    assert _checksums(before, "router-extproc-envoy") == _checksums(own, "router-extproc-envoy")


def test_certificates_are_for_the_name_that_gateways_verify() -> None:
    found = objects(values("envoy-tls"))
    name = "router-extproc.mom.svc"
    server, client = (
        one(found, "Certificate", f"router-extproc{suffix}")["spec"] for suffix in ("-tls", "-client-tls")
    )
    assert name in server["dnsNames"]
    assert server["usages"][-1:] + client["usages"][-1:] == ["server auth", "client auth"]
    assert server["issuerRef"] == {"name": "router-ca", "kind": "Issuer", "group": "cert-manager.io"}
    sidecar = one(found, "Deployment", "router-extproc")["spec"]["template"]["spec"]
    envoy = one(found, "Deployment", "router-extproc-envoy")["spec"]["template"]["spec"]
    secrets = [
        {volume["name"]: volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
        for pod in (sidecar, envoy)
    ]
    assert secrets == [{"router-tls": server["secretName"]}, {"router-client-tls": client["secretName"]}]
    container = sidecar["containers"][0]
    assert {p: "httpGet" in container[f"{p}Probe"] for p in ("startup", "liveness", "readiness")} == {
        "startup": True,
        "liveness": True,
        "readiness": True,
    }
    # A certificate that is renewed restarts nothing: no checksum looks at it.
    ports = [
        p["appProtocol"] for o in found if o["kind"] == "Service" for p in o["spec"]["ports"] if p["name"] == "grpc"
    ]
    assert ports == ["grpc", "grpc"]


def test_gateways_of_others_verify_the_sidecar_too() -> None:
    rule = one(objects(values("istio-tls")), "DestinationRule", "router-extproc")["spec"]
    assert rule["workloadSelector"] == {"matchLabels": {"app": "chat-frontend"}}
    assert rule["trafficPolicy"]["tls"] == {
        "mode": "MUTUAL",
        "credentialName": "router-extproc-client-tls",
        "sni": "router-extproc.mom.svc",
        "subjectAltNames": ["router-extproc.mom.svc"],
    }
    found = objects(values("envoy-gateway-tls"))
    backend = one(found, "Backend", "router-extproc-sidecar")["spec"]
    assert backend["tls"] == {
        "caCertificateRefs": [{"group": "", "kind": "Secret", "name": "router-authority"}],
        "sni": "router-extproc.mom.svc",
    }
    (process,) = one(found, "EnvoyExtensionPolicy")["spec"]["extProc"]
    (sink,) = one(found, "EnvoyProxy")["spec"]["telemetry"]["accessLog"]["settings"][0]["sinks"]
    for references in (process["backendRefs"], sink["als"]["backendRefs"]):
        assert [reference["name"] for reference in references] == ["router-extproc-sidecar"]


def test_without_client_certificates_no_client_is_given_a_key() -> None:
    for name, spec in pod_specs(objects(values("envoy-gateway-tls"))).items():
        for volume in spec["volumes"]:
            if volume["name"] == "router-client-tls":
                assert volume["secret"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}], name
    settings = one(objects(values("envoy-gateway-tls")), "ConfigMap", "router-extproc-static")["data"]
    assert "ROUTER_EXTPROC_TLS_CERT" in settings
    assert "ROUTER_EXTPROC_TLS_CLIENT_CA" not in settings


def test_native_sidecars_only_where_kubernetes_has_them() -> None:
    for version, native in (("v1.29.0", True), ("v1.28.5", False)):
        pod = one(objects(values("envoy-sidecar", kubeVersion=version)), "Deployment")["spec"]["template"]["spec"]
        listed = {c["name"]: c for c in (pod["initContainers"] if native else pod["containers"])}
        assert listed["router"].get("restartPolicy") == ("Always" if native else None)
        assert "httpGet" in listed["router"]["readinessProbe"]


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
    ({"router": {"models": {}, "default": "a"}}, "minProperties"),
    ({"router": {"models": {"a": {"url": "ftp://a", "price": {"input": 1, "output": 1}}}, "default": "a"}}, "pattern"),
    ({"router": {"models": {"a": {"url": "http://a"}}, "default": "a"}}, "missing property 'price'"),
    ({"redis": {"url": "redis://user:secret@host"}}, "does not match pattern"),
    ({"router": {"modelz": {}}}, "additional properties 'modelz' not allowed"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[str(change) for change, _ in REFUSED])
def test_the_schema_refuses(change: dict[str, Any], message: str) -> None:
    with helm.Chart.load(str(CHART)) as chart, pytest.raises(helm.HelmValuesError, match=message):
        chart.validate_schema(values("minimal", **change))


ISTIO = {"provider": "istio", "istio": {"workloadSelector": {"a": "b"}}}
NONSENSE = [
    ({"router": {}}, "router is empty: put your router.yaml there"),
    ({"existingRoutesConfigMap": "mine"}, "router and existingRoutesConfigMap are both set"),
    ({"mode": "sidecar"}, "mode sidecar: set attach.provider"),
    ({"autoscaling": {"type": "hpa", "minReplicas": 5, "maxReplicas": 2}}, "minReplicas is above maxReplicas"),
    ({"state": {"volume": {"persistentVolumeClaim": {"claimName": "c"}}}}, "a ledger has one writer"),
    ({"tls": {"enabled": True, "serverSecret": "s"}}, "set tls.serverSecret and tls.clientSecret, or tls.certManager"),
    ({"mode": "sidecar", "attach": {"provider": "envoy"}, "tls": {"enabled": True}}, "a Unix socket, which needs none"),
    ({"models": {"source": "pvc"}}, "set models.pvc.existingClaim, or models.pvc.create"),
    ({"models": {"source": "initContainer"}}, r"set models.initContainer.url and .sha256"),
    ({"attach": {"provider": "envoy", "backup": {"small": ["large"]}}}, "attach.backup is for the providers istio"),
    ({"attach": {**ISTIO, "backup": {"small": ["large"]}}}, "large has another upstream name, key or path"),
    ({"attach": {**ISTIO, "backup": {"small": ["huge"]}}}, 'unknown model "huge"'),
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


def test_the_default_model_must_exist() -> None:
    given = values("minimal")
    given["router"]["default"] = ["small", "huge"]
    with pytest.raises(helm.HelmError, match=r'router\.default names the model "huge"'):
        texts(given)


def test_what_is_generated_is_in_step() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "helm" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_value_is_described() -> None:
    comments = runpy.run_path(str(ROOT / "helm" / "generate.py"))["comments"]
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    described = {name for kind, name, _ in comments(text) if kind == "param"}

    def leaves(node: Any, at: str) -> list[str]:
        if at in described or not isinstance(node, dict) or not node:
            return [at]
        return [leaf for key, value in node.items() for leaf in leaves(value, f"{at}.{key}" if at else key)]

    assert set(leaves(yaml.safe_load(text), "")) == described


@pytest.mark.parametrize("case", cases())
def test_the_notes_say_what_to_do_next(case: str) -> None:
    given = values(case)
    notes, found = texts(given)["NOTES.txt"], objects(given)
    assert "<no value>" not in notes
    steps = [int(number) for number in re.findall(r"^(\d+)\. ", notes, re.MULTILINE)]
    assert steps == list(range(1, len(steps) + 1))
    there = {(o["kind"].lower(), o["metadata"]["name"]) for o in found}
    named = re.findall(r"\b(deployment|service|configmap|httproute|certificate)[/ ](router-extproc[a-z-]*)", notes)
    assert named
    assert set(named) <= there
    wanted = {
        "none": ["-headless.mom.svc.cluster.local:50051"],
        "envoy": ["port-forward service/router-extproc-envoy"],
        "istio": ["istioctl proxy-config listener"],
        "envoy-gateway": ['"kind":"EnvoyProxy","name":"router-extproc"', "status.ancestors", "/v1/chat/completions"],
    }
    for text in wanted[given.get("attach", {}).get("provider", "none")]:
        assert text in notes
    if given.get("tls", {}).get("certManager"):
        assert "get certificate" in notes
    if "targetRefs" in given.get("attach", {}).get("istio", {}) and "providerKeys" in given:
        assert "patch gateway inference-gateway" in notes
    elif case == "istio-outbound":
        assert "patch deployment YOUR-DEPLOYMENT --type strategic" in notes


def test_a_model_list_is_split_over_routes_of_sixteen_rules() -> None:
    given = values("minimal", attach={"provider": "envoy-gateway", "envoyGateway": {"gateway": {"name": "g"}}})
    given["router"]["models"] |= {
        f"m{n}": {"url": f"http://m{n}.models.svc.cluster.local", "price": {"input": 1, "output": 1}} for n in range(40)
    }
    found = objects(given)
    routes = [o for o in found if o["kind"] == "HTTPRoute"]
    assert [len(o["spec"]["rules"]) for o in routes] == [2, 15, 15, 12]
    asked = [m["headers"][0]["value"] for o in routes[1:] for r in o["spec"]["rules"] for m in r["matches"]]
    assert sorted(asked) == sorted(given["router"]["models"])
    targets = {target["name"] for target in one(found, "EnvoyExtensionPolicy")["spec"]["targetRefs"]}
    assert targets == {o["metadata"]["name"] for o in routes}


HARD_NAMES = [
    "llama-3.1-8b-instruct-east",
    "llama-3.1-8b-instruct-west",
    "deepseek-r1-distill-llama-70b-instruct-fp8-eu-central",
    "deepseek-r1-distill-llama-70b-instruct-fp8-eu-west",
    "gpt-4.1",
    "gpt-4-1",
    "Small",
    "sidecar",
    "small-backup",
    "ends-",
]
"""Names of models that look alike when they are cut, that Kubernetes does not allow, or that other objects have."""


@pytest.mark.parametrize("fullname", ["", "a-name-that-takes-all-the-room-of-a-fullname"])
@pytest.mark.parametrize("gateway", ["istio", "envoy-gateway"])
def test_every_model_has_objects_of_its_own(gateway: str, fullname: str) -> None:
    more = ISTIO if gateway == "istio" else {"provider": gateway, "envoyGateway": {"gateway": {"name": "g"}}}
    given = values("minimal", mode="sidecar", fullnameOverride=fullname)
    given["attach"] = {**more, "backup": {"small": ["Small"]}}
    models: dict[str, Object] = {
        name: {"url": f"https://model-{n}.example.com", "price": PRICE} for n, name in enumerate(HARD_NAMES)
    }
    models |= {"small": {**models["Small"], "upstream_model": "s"}, "Small": {**models["Small"], "upstream_model": "s"}}
    models["small"]["url"] = "https://model.example.com"
    given["router"] = {"models": models, "default": "small"}
    found = objects(given)
    names = [(o["kind"], o["metadata"]["name"]) for o in found]
    assert len(names) == len(set(names))
    for _, name in names:
        assert re.fullmatch("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name), name
    if gateway == "istio":
        hosts = [host for o in found if o["kind"] == "ServiceEntry" for host in o["spec"]["hosts"]]
        ruled = [o["spec"]["host"] for o in found if o["kind"] == "DestinationRule"]
        wanted = sorted(model["url"].removeprefix("https://") for model in models.values())
        assert sorted(hosts) == sorted(host for host in ruled if "example" in host) == wanted
        return
    backends = {o["metadata"]["name"]: o["spec"] for o in found if o["kind"] == "Backend"}
    reached = {}
    for rule in (rule for o in found if o["kind"] == "HTTPRoute" for rule in o["spec"]["rules"]):
        specs = [backends[reference["name"]] for reference in rule["backendRefs"]]
        assert [spec.get("fallback", False) for spec in specs] == [False, True][: len(specs)]
        for match in rule["matches"]:
            if "headers" in match:
                reached[match["headers"][0]["value"]] = [s["endpoints"][0]["fqdn"]["hostname"] for s in specs]
    urls = {name: [model["url"].removeprefix("https://")] for name, model in models.items()}
    assert reached == {**urls, "small": urls["small"] + urls["Small"]}


def test_istio_is_asked_for_a_service_by_its_whole_name() -> None:
    """However short the url has it: Istio has one cluster per Service, named by all of it."""
    for written, domain, whole in (
        ("models.svc", "cluster.local", "models.svc.cluster.local"),
        ("models.svc.cluster.local", "cluster.local", "models.svc.cluster.local"),
        ("models.svc", "example.org", "models.svc.example.org"),
    ):
        given = values("istio-backup", clusterDomain=domain)
        for name in ("small", "small-west"):
            given["router"]["models"][name]["url"] = f"http://{name}.{written}:8000"
        found = objects(given)
        clusters = set(re.findall(r"outbound[^\"]*8000[^\"]*", str(one(found, "EnvoyFilter")).replace("'", '"')))
        assert clusters == {f"outbound|8000||{name}.{whole}" for name in ("small", "small-west")}
        assert not [o for o in found if o["kind"] == "ServiceEntry"]


def test_istio_speaks_tls_to_a_service_that_wants_it() -> None:
    given = values("istio-backup")
    given["router"]["models"]["small-west"]["url"] = "https://small.west.svc:8443"
    found = objects(given)
    assert "outbound|8443||small.west.svc.cluster.local" in str(one(found, "EnvoyFilter"))
    assert not [o for o in found if o["kind"] == "ServiceEntry"]  # Istio knows Services by itself
    (rule,) = (o["spec"] for o in found if o["kind"] == "DestinationRule" and "west" in o["spec"]["host"])
    assert rule["host"] == "small.west.svc.cluster.local"
    (port,) = rule["trafficPolicy"]["portLevelSettings"]
    assert port["tls"] == {"mode": "SIMPLE", "sni": "small.west.svc"}


def _commands(job: Object) -> list[list[str]]:
    """What the Job runs, one command after the other, each as words and without what it does with the output."""
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["sh", "-ec"]
    (script,) = container["args"]
    lines = [shlex.split(line, comments=True) for line in script.replace("\\\n", " ").splitlines()]
    return [[word for word in words if word not in (">", "/dev/null")] for words in lines if words]


@pytest.mark.parametrize("case", [case for case in cases() if "router" in values(case)])
def test_the_job_of_the_hook_accepts_the_routes(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = objects(values(case))
    (tmp_path / "router.yaml").write_text(one(found, "ConfigMap", "router-extproc-check")["data"]["router.yaml"])
    local = {"/etc/router-extproc": str(tmp_path), "/tmp/sds": str(tmp_path / "sds")}
    commands = _commands(one(found, "Job"))
    own_envoy = values(case).get("attach", {}).get("provider") == "envoy"
    assert [command[:2] for command in commands] == [
        ["router-extproc", name] for name in ("check", "envoy")[: 1 + own_envoy]
    ]
    for _, *arguments in commands:
        assert cli([local.get(argument, argument) for argument in arguments]) == 0, capsys.readouterr().err


def test_the_job_of_the_hook_refuses_what_the_envoy_cannot_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = values("envoy-compatible")
    given["router"]["models"]["premium"]["auth"] = {"file": "/etc/mom/keys/KEY"}
    found = objects(given)
    (tmp_path / "router.yaml").write_text(one(found, "ConfigMap", "router-extproc-check")["data"]["router.yaml"])
    local = {"/etc/router-extproc": str(tmp_path)}
    checked, rendered = (
        cli([local.get(argument, argument) for argument in arguments]) for _, *arguments in _commands(one(found, "Job"))
    )
    assert (checked, rendered) == (0, 1)
    assert "models.premium.auth.file" in capsys.readouterr().err


def test_the_job_of_the_hook_runs_what_the_init_container_runs() -> None:
    """Also what a shell would take apart."""
    for case in ("envoy-tls", "envoy-compatible", "envoy-private-ca", "envoy-behind-gateway"):
        given = values(case)
        given["attach"].setdefault("envoy", {})["renderArgs"] = ["--access-log", "/dev/it's $HOME"]
        found = objects(given)
        pod = one(found, "Deployment", "router-extproc-envoy")["spec"]["template"]["spec"]
        (script,) = next(c for c in pod["initContainers"] if c["name"] == "render")["args"]
        words = [word.replace("/rendered/sds", "/tmp/sds") for word in shlex.split(script.replace("\\\n", " "))]
        assert words[-2:] == [">", "/rendered/envoy.yaml"]
        assert words[-4:-2] == ["--access-log", "/dev/it's $HOME"]
        assert _commands(one(found, "Job"))[1] == words[:-2]


def test_every_pod_goes_to_the_nodes_that_are_named() -> None:
    nodes: Object = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}
    pods: Object = {"requiredDuringSchedulingIgnoredDuringExecution": []}
    given = values("envoy", affinity={"nodeAffinity": nodes, "podAffinity": pods})
    given["nodeSelector"] = {"pool": "gpu"}
    given["tolerations"] = [{"key": "dedicated", "operator": "Exists"}]
    given["gpu"] = {"enabled": True}
    gpu = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    specs = pod_specs(objects(given))
    assert len(specs) == 7
    for name, spec in specs.items():
        assert spec["nodeSelector"] == {"pool": "gpu"}, name
        own_envoy = name == "Deployment/router-extproc-envoy"
        assert spec["tolerations"] == given["tolerations"] + ([] if own_envoy else [gpu]), name
        # The Job runs before there is any pod that it could be near to.
        wanted = {"nodeAffinity": nodes} if not name.startswith("Deployment") else given["affinity"]
        assert spec["affinity"] == wanted, name
        assert ("topologySpreadConstraints" in spec) == name.startswith("Deployment"), name


def test_what_publishes_the_clients_port_publishes_nothing_else() -> None:
    found = objects(values("envoy-private-ca"))
    published = one(found, "Service", "router-extproc-envoy")["spec"]
    assert (published["type"], [port["port"] for port in published["ports"]]) == ("LoadBalancer", [10000])
    inside = one(found, "Service", "router-extproc-envoy-metrics")["spec"]
    assert (inside["type"], [port["port"] for port in inside["ports"]]) == ("ClusterIP", [9902])
    assert inside["selector"] == published["selector"]


@pytest.mark.parametrize(
    ("change", "flags"),
    [
        ({}, []),
        ({"maxConnections": 500}, ["--max-connections", "500"]),
        ({"caFile": "/etc/pki/ca.pem"}, ["--ca-file", "/etc/pki/ca.pem"]),
        ({"caSecret": {"name": "models", "key": "all.pem"}}, ["--ca-file", "/etc/mom/ca/all.pem"]),
    ],
)
def test_values_of_the_envoy_become_flags(change: dict[str, Any], flags: list[str]) -> None:
    given = values("minimal", attach={"provider": "envoy", "envoy": change})
    _, command = _commands(one(objects(given), "Job"))
    assert command[7:] == flags


@pytest.mark.parametrize("deadline", [None, 60_000])
def test_every_gateway_waits_longer_than_the_sidecar_may_take(deadline: int | None) -> None:
    """As long as `router-extproc envoy` itself makes Envoy wait."""
    router = {**values("minimal")["router"], **({"limits": {"deadline_ms": deadline}} if deadline else {})}
    envoy_gateway = {"provider": "envoy-gateway", "envoyGateway": {"gateway": {"name": "g"}}}
    wanted = (Limits().deadline_ms if deadline is None else deadline) + 2000
    for attach, timeout in (
        ({}, [f"{wanted / 1000:g}s"]),
        ({"messageTimeout": "61.5s"}, ["61.5s"]),
    ):
        found = objects(values("minimal", router=router, attach={"provider": "envoy", **attach}))
        _, (_, _, _, *flags) = _commands(one(found, "Job"))
        parser = argparse.ArgumentParser()
        EnvoyOptions.add_arguments(parser)
        text = render(parse(yaml.safe_dump(router).encode(), CHART).config,
                      EnvoyOptions.from_arguments(parser.parse_args(flags)))  # fmt: skip
        assert re.findall(r"message_timeout: (\S+)", text) == timeout
        seconds = float(timeout[0].removesuffix("s"))
        patches = str(one(objects(values("minimal", router=router, attach={**ISTIO, **attach})), "EnvoyFilter"))
        assert [float(found) for found in re.findall(r"'message_timeout': '([0-9.]+)s'", patches)] == [seconds]
        policy = one(
            objects(values("minimal", router=router, attach={**envoy_gateway, **attach})), "EnvoyExtensionPolicy"
        )
        assert milliseconds(policy["spec"]["extProc"][0]["messageTimeout"]) == seconds * 1000
