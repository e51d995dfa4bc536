"""The pods: probes, placement, disruption, weights, keys, scaling, and what is patched into gateways of others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import helm_python as helm
import pytest
import yaml

from router_extproc.cli import main as cli
from tests.helm.rendering import (
    NEWEST_MINOR,
    Object,
    UniqueKeys,
    cases,
    check_fields,
    objects,
    one,
    texts,
    values,
)


def nulls(node: Any, at: str) -> Iterator[str]:
    match node:
        case None:
            yield at
        case dict():
            for key, below in node.items():
                yield from nulls(below, f"{at}.{key}")
        case list():
            for index, below in enumerate(node):
                yield from nulls(below, f"{at}[{index}]")


@pytest.mark.parametrize("version", ["v1.28.0", f"v{NEWEST_MINOR}.0"])
@pytest.mark.parametrize("case", [case for case in cases() if case != "gpu"])
def test_nothing_is_null(case: str, version: str) -> None:
    """A list without an entry would be: refused by some servers, and in a strategic merge patch an order to remove."""
    found = objects(values(case, kubeVersion=version))
    patches = [
        yaml.load(o["data"]["deployment"], UniqueKeys)
        for o in found
        if o["kind"] == "ConfigMap" and "deployment" in o["data"]
    ]
    assert [at for thing in [*found, *patches] for at in nulls(thing, thing.get("kind", "patch"))] == []


def pod_of(found: list[Object], name: str = "router-extproc") -> Object:
    spec: Object = one(found, "Deployment", name)["spec"]["template"]["spec"]
    return spec


def selects(selector: Object, found: list[Object], name: str) -> bool:
    labels = one(found, "Deployment", name)["spec"]["template"]["metadata"]["labels"]
    return bool(selector.items() <= labels.items())


def test_probes_ask_health_by_its_services_and_give_the_weights_time() -> None:
    container = pod_of(objects(values("minimal")))["containers"][0]
    asked = {name: container[f"{name}Probe"]["grpc"] for name in ("startup", "liveness", "readiness")}
    assert asked == {
        "startup": {"port": 50051, "service": "readiness"},
        "liveness": {"port": 50051, "service": "liveness"},
        "readiness": {"port": 50051, "service": "readiness"},
    }
    assert container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"] >= 120
    routers = pod_of(objects(values("envoy-sidecar")), "router-extproc-envoy")["initContainers"]
    router = next(c for c in routers if c["name"] == "router")
    assert router["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert router["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_a_drained_node_leaves_pods_behind() -> None:
    found = objects(values("envoy"))
    for name in ("router-extproc", "router-extproc-envoy"):
        budget = one(found, "PodDisruptionBudget", name)["spec"]
        assert budget["maxUnavailable"] == 1
        assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        assert selects(budget["selector"]["matchLabels"], found, name)
    # Of a single pod it would keep the node from being drained for ever.
    single = objects(values("minimal", replicaCount=1))
    assert [o for o in single if o["kind"] == "PodDisruptionBudget"] == []
    assert one(objects(values("keda", replicaCount=1)), "PodDisruptionBudget")


def test_pods_spread_over_nodes_and_zones() -> None:
    found = objects(values("envoy"))
    for name in ("router-extproc", "router-extproc-envoy"):
        constraints = pod_of(found, name)["topologySpreadConstraints"]
        assert [c["topologyKey"] for c in constraints] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
        assert all(selects(c["labelSelector"]["matchLabels"], found, name) for c in constraints)
    own = [{"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}]
    assert pod_of(objects(values("minimal", topologySpreadConstraints=own)))["topologySpreadConstraints"] == own
    assert "topologySpreadConstraints" not in pod_of(objects(values("hpa")))


def test_a_rollout_never_takes_a_pod_away_before_its_successor_is_ready() -> None:
    for name in ("router-extproc", "router-extproc-envoy"):
        spec = one(objects(values("envoy")), "Deployment", name)["spec"]
        assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    with_claim = one(objects(values("own-routes")), "Deployment", "router-extproc")["spec"]
    assert with_claim["strategy"] == {"type": "Recreate"}


WEIGHTS: dict[str, Object] = {
    "models-pvc": {"persistentVolumeClaim": {"claimName": "router-extproc-model", "readOnly": True}},
    "models-download": {"emptyDir": {"sizeLimit": "1Gi"}},
    "gpu": {
        "image": {
            "reference": "registry.example.com/router-minilm:1@sha256:" + "0123456789abcdef" * 4,
            "pullPolicy": "IfNotPresent",
        }
    },
    "own-routes": {"hostPath": {"path": "/var/lib/models", "type": "Directory"}},
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_weights_are_mounted_read_only_where_the_process_looks(case: str) -> None:
    found = objects(values(case))
    pod = pod_of(found)
    (volume,) = [v for v in pod["volumes"] if v["name"] == "router-model"]
    assert volume == {"name": "router-model", **WEIGHTS[case]}
    (mount,) = [m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "router-model"]
    assert mount == {"name": "router-model", "mountPath": "/models", "readOnly": True}
    settings = one(found, "ConfigMap", "router-extproc-static")["data"]
    assert settings["ROUTER_EXTPROC_MODEL_DIR"].startswith("/models")
    assert settings.get("ROUTER_EXTPROC_MODEL_DIGEST", "") == values(case)["models"].get("digest", "")


def test_an_image_of_weights_is_pinned() -> None:
    models: dict[str, Any] = {"source": "ociVolume", "ociVolume": {"reference": "registry.example.com/weights:1"}}
    with pytest.raises(helm.HelmError, match="a tag may be moved"):
        objects(values("minimal", models=models))
    assert objects(values("minimal", models={**models, "digest": "0" * 64}))
    models["ociVolume"]["reference"] += "@sha256:" + "0" * 64
    assert objects(values("minimal", models=models))


@pytest.mark.parametrize("case", [case for case in cases() if "providerKeys" in values(case)])
def test_provider_keys_reach_the_gateway_alone(case: str) -> None:
    """By reference: no key and no Secret of ours is rendered, and the sidecar's container names none."""
    found = objects(values(case))
    assert [o for o in found if o["kind"] == "Secret"] == []
    assert "provider-keys" in "".join(texts(values(case)).values())
    for thing in found:
        if thing["kind"] not in ("Deployment", "Job", "Pod"):
            continue
        pod = thing["spec"] if thing["kind"] == "Pod" else thing["spec"]["template"]["spec"]
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            if container["name"] != "envoy":
                assert "provider-keys" not in yaml.safe_dump(container), container["name"]


def test_scaling_on_cpu_and_on_requests_in_decision() -> None:
    scaler = one(objects(values("hpa")), "HorizontalPodAutoscaler")["spec"]
    assert scaler["metrics"][0]["resource"] == {
        "name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": 70},
    }
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 20)
    assert [metric["type"] for metric in scaler["metrics"]] == ["Resource", "Pods"]
    triggers = one(objects(values("keda")), "ScaledObject")["spec"]["triggers"]
    assert [trigger["type"] for trigger in triggers] == ["cpu", "prometheus", "cron"]
    assert "mom_decision_duration_seconds_sum" in triggers[1]["metadata"]["query"]
    # Metadata of KEDA is text; a bare number would be refused.
    assert {type(value) for trigger in triggers for value in trigger["metadata"].values()} == {str}


def test_monitors_select_what_exists() -> None:
    found = objects(values("envoy"))
    for monitor in (o for o in found if o["kind"] == "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        (service,) = [o for o in found if o["kind"] == "Service" and wanted.items() <= o["metadata"]["labels"].items()]
        ports = {port["name"] for port in service["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports
    found = objects(values("envoy-sidecar"))
    monitor = one(found, "PodMonitor")["spec"]
    assert selects(monitor["selector"]["matchLabels"], found, "router-extproc-envoy")
    pod = pod_of(found, "router-extproc-envoy")
    ports = {port["name"] for c in [*pod["initContainers"], *pod["containers"]] for port in c.get("ports", [])}
    assert {endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]} <= ports


def test_every_setting_of_the_process_can_be_made_in_the_values(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli(["serve", "--help"])
    known = set(re.findall(r"\[(ROUTER_EXTPROC_[A-Z_]+),", capsys.readouterr().out))
    made = set()
    for case in cases():
        made |= set(one(objects(values(case)), "ConfigMap", "router-extproc-static")["data"])
    assert known - made == set()


def test_the_network_policy_lets_in_a_gateway_whose_pods_run_elsewhere() -> None:
    found = objects(values("envoy-gateway", networkPolicy={"enabled": True}))
    grpc = one(found, "NetworkPolicy")["spec"]["ingress"][0]
    elsewhere, tests = grpc["from"]
    assert elsewhere["namespaceSelector"] == {}
    assert elsewhere["podSelector"]["matchLabels"] == {
        "gateway.envoyproxy.io/owning-gateway-name": "inference-gateway",
        "gateway.envoyproxy.io/owning-gateway-namespace": "mom",
    }
    assert tests["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "test"


def test_the_network_policy_lets_traces_out() -> None:
    egress = one(objects(values("gpu")), "NetworkPolicy")["spec"]["egress"]
    assert egress[1:] == [{"ports": [{"port": 4318, "protocol": "TCP"}]}]


GATEWAY_POD = {"istio": ("istio-proxy", 1337), "envoy-gateway": ("envoy", 65532)}


def patched(provider: str, found: list[Object]) -> Object:
    """A gateway's Deployment as its controller makes it, with our strategic merge patch applied: lists by name."""
    container, _ = GATEWAY_POD[provider]
    if provider == "istio":
        patch = yaml.load(one(found, "ConfigMap", "router-extproc-gateway")["data"]["deployment"], UniqueKeys)
    else:
        patch = one(found, "EnvoyProxy")["spec"]["provider"]["kubernetes"]["envoyDeployment"]["patch"]["value"]
    template = patch["spec"]["template"]
    pod = template["spec"]
    proxies = [c for c in pod["containers"] if c["name"] == container]
    assert len(proxies) == 1
    proxies[0]["image"] = "proxy"
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "gateway"},
        "spec": {
            "selector": {"matchLabels": {"app": "gateway"}},
            "template": {**template, "metadata": {**template.get("metadata", {}), "labels": {"app": "gateway"}}},
        },
    }


@pytest.mark.parametrize("minor", ["1.28", "1.29", NEWEST_MINOR])
@pytest.mark.parametrize("case", ["istio-sidecar", "envoy-gateway-sidecar"])
def test_what_is_patched_into_a_gateway_is_a_restricted_sidecar(case: str, minor: str) -> None:
    provider = case.removesuffix("-sidecar")
    found = objects(values(case, kubeVersion=f"v{minor}.0"))
    deployment = patched(provider, found)
    check_fields(deployment, minor)
    pod = deployment["spec"]["template"]["spec"]
    name, uid = GATEWAY_POD[provider]
    everything = {c["name"]: c for c in [*pod.get("initContainers", []), *pod["containers"]]}
    router, proxy = everything["router"], everything[name]
    assert router.get("restartPolicy") == ("Always" if minor != "1.28" else None)
    security = router["securityContext"]
    assert security["runAsUser"] == uid  # a socket is writable for its owner alone
    assert security["readOnlyRootFilesystem"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert all(volume.startswith("router-") for volume in volumes)
    for container in (router, proxy):
        assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes
    sockets = [m["mountPath"] for c in (router, proxy) for m in c["volumeMounts"] if m["name"] == "router-socket"]
    assert len(sockets) == 2
    assert len(set(sockets)) == 1
    settings = one(found, "ConfigMap", "router-extproc-static")["data"]
    assert settings["ROUTER_EXTPROC_LISTEN"] == f"unix:{sockets[0]}/router.sock"


@pytest.mark.parametrize("case", ["istio-sidecar", "envoy-gateway-sidecar"])
def test_what_is_patched_into_a_gateway_can_be_pulled_and_finds_its_gpu(case: str) -> None:
    more = {"imagePullSecrets": ["pull"], "gpu": {"enabled": True, "runtimeClassName": "nvidia"}}
    provider = case.removesuffix("-sidecar")
    deployment = patched(provider, objects(values(case, **more)))
    check_fields(deployment, NEWEST_MINOR)
    pod = deployment["spec"]["template"]["spec"]
    assert pod["imagePullSecrets"] == [{"name": "pull"}]
    assert pod["runtimeClassName"] == "nvidia"
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    plain = patched(provider, objects(values(case)))["spec"]["template"]["spec"]
    # Whatever stands here takes the place of the gateway's own.
    assert not {"imagePullSecrets", "runtimeClassName", "tolerations"} & plain.keys()


@pytest.mark.parametrize("case", ["istio-sidecar", "envoy-gateway-sidecar"])
def test_no_port_of_ours_has_the_name_of_one_of_the_gateways(case: str) -> None:
    found = objects(values(case, metrics={"serviceMonitor": {"enabled": True}}))
    pod = patched(case.removesuffix("-sidecar"), found)["spec"]["template"]["spec"]
    router = next(c for c in pod["initContainers"] if c["name"] == "router")
    ports = [port["name"] for port in router["ports"]]
    assert ports == ["router-metrics"]  # Envoy Gateway's and Istio's proxies have one that is `metrics`
    assert [endpoint["port"] for endpoint in one(found, "PodMonitor")["spec"]["podMetricsEndpoints"]] == ports
    assert router["readinessProbe"]["httpGet"]["port"] in ports


def test_a_gateway_of_istio_gets_the_keys_by_name() -> None:
    pod = patched("istio", objects(values("istio")))["spec"]["template"]["spec"]
    wanted = {entry["name"]: entry["valueFrom"]["secretKeyRef"] for entry in pod["containers"][0]["env"]}
    assert wanted == {key: {"name": "provider-keys", "key": key} for key in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY")}
