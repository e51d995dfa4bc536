"""The models as objects of other gateways: routes, backends, clusters, each model's own."""

from __future__ import annotations

import re

import pytest

from tests.helm.rendering import (
    ISTIO,
    PRICE,
    Object,
    objects,
    one,
    values,
)


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
