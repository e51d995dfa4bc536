"""What the chart renders for every values file, and what it refuses."""

from __future__ import annotations

import re
import runpy
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
from router_extproc.config.loader import parse
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


def test_a_route_edit_changes_neither_envoy_s_configuration_nor_its_checksum() -> None:
    """The checksum leaves out the keys that `router-extproc envoy` does not read: this finds a key that it does."""
    before, after = values("envoy"), values("envoy")
    after["router"]["signals"] = {"length": {"type": "tokens"}}
    after["router"]["routes"] = [{"name": "any", "when": "true", "models": "small"}]
    after["router"]["bands"] = {"recommended": 0.5, "fallback": 0.1}
    after["router"]["virtual_models"] = {"best": {}}
    after["router"]["store"] = {"url": "redis://valkey"}

    def envoy(given: dict[str, Any]) -> str:
        return render(parse(yaml.safe_dump(given["router"]).encode(), CHART).config, EnvoyOptions())

    assert envoy(before) == envoy(after)
    assert _checksums(before, "router-extproc-envoy") == _checksums(after, "router-extproc-envoy")
    after["router"]["retry"] = {"total_seconds": 10}
    assert envoy(before) != envoy(after)
    assert _checksums(before, "router-extproc-envoy") != _checksums(after, "router-extproc-envoy")


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


def test_names_that_kubernetes_would_take_for_one_are_refused() -> None:
    given = values("minimal", attach=ISTIO)
    given["router"]["models"]["Small"] = given["router"]["models"]["small"]
    with pytest.raises(helm.HelmError, match="Small and small would give Kubernetes objects of the same name"):
        texts(given)


@pytest.mark.parametrize("case", [case for case in cases() if "router" in values(case)])
def test_the_job_of_the_hook_accepts_the_routes(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = objects(values(case))
    (tmp_path / "router.yaml").write_text(one(found, "ConfigMap", "router-extproc-check")["data"]["router.yaml"])
    command = one(found, "Job")["spec"]["template"]["spec"]["containers"][0]["args"]
    assert command == ["check", "/etc/router-extproc"]
    assert cli(["check", str(tmp_path)]) == 0, capsys.readouterr().err
