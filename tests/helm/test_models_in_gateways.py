"""The models as objects of other gateways: routes, backends, clusters, each model's own."""

from __future__ import annotations

import re

import helm_python as helm
import pytest

from router_extproc.config.envoy_clusters import ANTHROPIC_VERSION, CLIENT_CREDENTIALS, credential_headers
from router_extproc.config.limits import Limits, Retry
from router_extproc.config.providers import API_PATHS
from router_extproc.config.schema import RouterConfig
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
    assert [len(o["spec"]["rules"]) for o in routes] == [3, 15, 15, 12]
    asked = [m["headers"][0]["value"] for o in routes[1:] for r in o["spec"]["rules"] for m in r["matches"]]
    assert sorted(asked) == sorted(len(API_PATHS) * list(given["router"]["models"]))
    # What the Gateway API allows in all rules of a route.
    assert max(sum(len(rule["matches"]) for rule in o["spec"]["rules"]) for o in routes) <= 128
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
    more = (
        ISTIO
        if gateway == "istio"
        else {
            "provider": gateway,
            "envoyGateway": {"gateway": {"name": "g"}, "gatewayNamespaceMode": True},
        }
    )
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
        specs = [backends[reference["name"]] for reference in rule.get("backendRefs", [])]
        assert [spec.get("fallback", False) for spec in specs] == [False, True][: len(specs)]
        for match in rule["matches"]:
            if specs and "headers" in match:
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


RETRY = {"statuses": [404, 429], "first_byte_seconds": 5, "total_seconds": 1800.5}
LIMITS = {"max_attempts": 2, "max_body_bytes": 1_048_576}


def model_routes(found: list[Object]) -> list[Object]:
    """The routes to models that an EnvoyFilter puts in."""
    patches = one(found, "EnvoyFilter")["spec"]["configPatches"]
    routes = [patch["patch"]["value"] for patch in patches if patch["applyTo"] == "HTTP_ROUTE"]
    return [route for route in routes if "route" in route]


def test_istio_is_told_the_limits_and_retries_of_router() -> None:
    given = values("istio")
    given["router"] |= {"retry": RETRY, "limits": LIMITS}
    for route in model_routes(objects(given)):
        assert route["per_request_buffer_limit_bytes"] == 1_048_576
        assert route["route"]["timeout"] == "1800.500s"
        policy = route["route"]["retry_policy"]
        assert (policy["retriable_status_codes"], policy["num_retries"]) == ([404, 429], 1)
        assert policy["per_try_timeout"] == "5.000s"
    for route in model_routes(objects(values("istio"))):
        assert route["route"]["timeout"] == f"{Retry().total_seconds:.3f}s"
        policy = route["route"]["retry_policy"]
        assert "5xx" in policy["retry_on"].split(",")  # `gateway-error` leaves a model's 500 and 529 to the client
        assert policy["retriable_status_codes"] == Retry().statuses
        assert policy["num_retries"] == Limits().max_attempts - 1
        assert "per_try_timeout" not in policy  # for an answer that does not stream it would be the time for all of it
        assert route["per_request_buffer_limit_bytes"] == Limits().max_body_bytes
    given["router"]["retry"] = RETRY | {"answer_seconds": 90}
    assert {route["route"]["retry_policy"]["per_try_timeout"] for route in model_routes(objects(given))} == {"90.000s"}
    given["attach"]["istio"] |= {"timeout": "0s", "retries": 0}
    for route in model_routes(objects(given)):
        assert (route["route"]["timeout"], route["route"]["retry_policy"]["num_retries"]) == ("0s", 0)


def test_envoy_gateway_is_told_the_limits_and_retries_of_router() -> None:
    given = values("envoy-gateway")
    for router, time, retries, statuses, first, size in (
        ({"retry": RETRY, "limits": LIMITS}, "1800s500ms", 1, [404, 429], "5s", 1_048_576),
        ({}, f"{Retry().total_seconds}s", Limits().max_attempts - 1, Retry().statuses, None, Limits().max_body_bytes),
    ):
        found = objects({**given, "router": {**given["router"], **router}})
        rules = [rule for o in found if o["kind"] == "HTTPRoute" for rule in o["spec"]["rules"]]
        assert {rule["timeouts"]["request"] for rule in rules if "timeouts" in rule} == {time}
        retry = one(found, "BackendTrafficPolicy")["spec"]["retry"]
        assert retry["numRetries"] == retries
        assert "5xx" in retry["retryOn"]["triggers"]
        assert retry["retryOn"]["httpStatusCodes"] == [*statuses, 500, 502, 503, 504]
        assert retry["perRetry"].get("timeout") == first
        assert one(found, "ClientTrafficPolicy")["spec"]["connection"]["bufferLimit"] == str(size)


def test_envoy_gateway_puts_a_key_on_the_llm_apis_alone() -> None:
    """A path below one, such as that of a stored answer, or beside one, such as /v1/files, goes without."""
    keyed: list[list[Object]] = []
    bare: list[list[Object]] = []
    routes = [o for o in objects(values("envoy-gateway")) if o["kind"] == "HTTPRoute"]
    for rule in (rule for route in routes for rule in route["spec"]["rules"]):
        changes = [f["requestHeaderModifier"] for f in rule["filters"] if "requestHeaderModifier" in f]
        keys = any("authorization" in change["remove"] or "set" in change for change in changes)
        (keyed if keys else bare).append(rule["matches"])
    assert len(keyed) == 4  # three models, and the default one
    for matches in keyed:
        assert [match["path"] for match in matches] == [{"type": "Exact", "value": p} for p in API_PATHS.values()]
        assert {match["method"] for match in matches} == {"POST"}
    assert [{"path": {"type": "PathPrefix", "value": "/v1"}}] in bare


@pytest.mark.parametrize("case", ["istio", "envoy-gateway"])
def test_passthrough_hands_on_the_same_headers_as_in_our_own_configuration(case: str) -> None:
    """The gateway's cookies and what carries another model's key are not for that provider."""
    given = values(case)
    given["router"] = {
        "models": {
            "theirs": {"url": "https://theirs.example.com", "price": PRICE, "auth": {"passthrough": True}},
            "ours": {"url": "https://ours.example.com", "price": PRICE, "auth": {"env": "OURS", "header": "x-ours"}},
        },
        "default": "ours",
    }
    all_of_them = set(credential_headers(RouterConfig.model_validate(given["router"]).models))
    assert {"cookie", "x-ours"} < all_of_them
    found = objects(given)
    if case == "istio":
        removed = {route["name"]: route["request_headers_to_remove"] for route in model_routes(found)}
        removed = {name: removed[f"mom-model-{name}"] for name in ("theirs", "ours")}
    else:
        removed = {
            rule["matches"][0]["headers"][0]["value"]: rule["filters"][0]["requestHeaderModifier"]["remove"]
            for rule in one(found, "HTTPRoute", "router-extproc-models-0")["spec"]["rules"]
        }
    assert {name: {header for header in of if not header.startswith("x-mom-")} for name, of in removed.items()} == {
        "theirs": all_of_them - set(CLIENT_CREDENTIALS),
        "ours": all_of_them,
    }


def test_releases_of_one_name_share_a_namespace_of_models() -> None:
    grant = one(objects(values("envoy-gateway")), "ReferenceGrant")
    assert (grant["metadata"]["name"], grant["metadata"]["namespace"]) == ("mom.router-extproc", "models")


@pytest.mark.parametrize("asked", [None, "2099-01-01"])
def test_anthropic_is_told_the_version_of_its_api(asked: str | None) -> None:
    wanted = {"name": "anthropic-version", "value": asked or ANTHROPIC_VERSION}
    change = {"api_version": asked} if asked else {}
    for case in ("istio", "envoy-gateway"):
        given = values(case)
        given["router"]["models"]["premium"] |= change
        found = objects(given)
        if case == "istio":
            told = {
                route["name"]: header["append_action"]
                for route in model_routes(found)
                for header in route.get("request_headers_to_add", [])
                if header["header"] == {"key": wanted["name"], "value": wanted["value"]}
            }
            assert told == {"mom-model-premium": "ADD_IF_ABSENT"}
            continue
        told = {
            rule["matches"][0]["headers"][0]["value"]: True
            for rule in one(found, "HTTPRoute", "router-extproc-models-0")["spec"]["rules"]
            if wanted in rule["filters"][0]["requestHeaderModifier"].get("set", [])
        }
        assert told == {"premium": True}


def test_envoy_gateway_takes_a_host_without_a_dot_for_a_service_beside_the_release() -> None:
    """A Backend's host name needs a dot, and the gateway's pods may run in another namespace."""
    attach = {"provider": "envoy-gateway", "envoyGateway": {"gateway": {"name": "g"}}}
    given = values("minimal", attach=attach, clusterDomain="example.org")
    given["router"]["models"]["small"]["url"] = "http://vllm-small:8000/v1"
    given["router"]["models"]["large"]["url"] = "https://vllm-large"
    found = objects(given)
    reached = [
        rule["backendRefs"]
        for rule in one(found, "HTTPRoute", "router-extproc-models-0")["spec"]["rules"]
        if rule["matches"][0]["headers"][0]["value"] == "small"
    ]
    assert reached == [[{"name": "vllm-small", "port": 8000}]]
    assert not [o for o in found if o["kind"] == "ReferenceGrant" and o["metadata"]["namespace"] == "mom"]
    (endpoint,) = one(found, "Backend", "router-extproc-large")["spec"]["endpoints"]
    assert endpoint == {"fqdn": {"hostname": "vllm-large.mom.svc.example.org", "port": 443}}


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


def test_istio_is_given_all_ports_of_a_host_at_once() -> None:
    """Of two DestinationRules of a host it takes the trafficPolicy of one: the other's port would be without TLS."""
    given = values("minimal", attach=ISTIO)
    hosts = ("https://gpu.example.com:8443", "https://gpu.example.com:9443", "http://gpu.example.com:8080")
    given["router"] = {
        "models": {f"m{n}": {"url": url, "price": PRICE} for n, url in enumerate((*hosts, hosts[0]))},
        "default": "m0",
    }
    found = objects(given)
    entry = one(found, "ServiceEntry")["spec"]
    assert entry["hosts"] == ["gpu.example.com"]
    assert sorted((port["number"], port["name"], port["protocol"]) for port in entry["ports"]) == [
        (8080, "http-8080", "HTTP"),
        (8443, "https-8443", "HTTPS"),
        (9443, "https-9443", "HTTPS"),
    ]
    (rule,) = (o["spec"] for o in found if o["kind"] == "DestinationRule" and "example" in o["spec"]["host"])
    tls = {"mode": "SIMPLE", "sni": "gpu.example.com"}
    settings = rule["trafficPolicy"]["portLevelSettings"]
    assert {port["port"]["number"]: port.get("tls") for port in settings} == {8443: tls, 9443: tls, 8080: None}


def test_istio_is_not_asked_for_http_and_https_at_one_port() -> None:
    given = values("minimal", attach=ISTIO)
    urls = ("http://gpu.example.com:8443", "https://gpu.example.com:8443")
    models = {f"m{n}": {"url": url, "price": PRICE} for n, url in enumerate(urls)}
    given["router"] = {"models": models, "default": "m0"}
    with pytest.raises(
        helm.HelmError, match=r"router\.models\.m1\.url: another model has http .* gpu\.example\.com:8443"
    ):
        objects(given)
