"""Who may connect to whom, and what certificates they show: network policies, TLS, the shared store, Services."""

from __future__ import annotations

import pytest
import yaml

from router_extproc.config.loader import parse
from tests.helm.rendering import (
    CHART,
    objects,
    one,
    pod_specs,
    values,
)


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


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize(("url", "ports"), [("rediss://valkey:6400/3", [53, 53, 6400]), ("memory:", [53, 53])])
def test_the_network_policy_lets_out_to_a_store_of_router(url: str, ports: list[int], as_text: bool) -> None:
    router = {**values("minimal")["router"], "store": {"url": url}}
    to = [{"podSelector": {"matchLabels": {"app": "valkey"}}}]
    given = values("minimal", redis={"networkPolicyTo": to}, networkPolicy={"enabled": True})
    given["router"] = yaml.safe_dump(router) if as_text else router
    egress = one(objects(given), "NetworkPolicy")["spec"]["egress"]
    assert [port["port"] for rule in egress for port in rule["ports"]] == ports
    assert [rule["to"] for rule in egress if "to" in rule] == [to] * (len(ports) - 2)


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


def test_what_publishes_the_clients_port_publishes_nothing_else() -> None:
    found = objects(values("envoy-private-ca"))
    published = one(found, "Service", "router-extproc-envoy")["spec"]
    assert (published["type"], [port["port"] for port in published["ports"]]) == ("LoadBalancer", [10000])
    inside = one(found, "Service", "router-extproc-envoy-metrics")["spec"]
    assert (inside["type"], [port["port"] for port in inside["ports"]]) == ("ClusterIP", [9902])
    assert inside["selector"] == published["selector"]
