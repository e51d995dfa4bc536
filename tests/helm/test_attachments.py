"""The rendered objects in gateways of others, through the real proxy: valid, and routing."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest

from tests.e2e.stack import ENVOY, free_ports, get, wait_until
from tests.helm.attaching import (
    EVERY_ENVOY,
    GATEWAYS,
    Installed,
    Provider,
    attached,
    chat,
    envoy,
    logged,
    outcomes,
    validate,
)
from tests.helm.gateways import TYPE, cluster, gateway, through_istio
from tests.helm.rendering import (
    Object,
    cases,
    objects,
    one,
    values,
)


@EVERY_ENVOY
@pytest.mark.parametrize("case", [case for case in cases() if case.startswith("istio")])
def test_envoy_takes_every_patch_of_the_envoy_filter(case: str, proxy: str, tmp_path: Path) -> None:
    found = objects(values(case))
    text = json.dumps(one(found, "EnvoyFilter"))
    names = {part.split('"')[0] for part in text.split('"outbound|')[1:]}
    path = tmp_path / "envoy.json"
    path.write_text(json.dumps(through_istio(found, 1, 2, {f"outbound|{name}": ("127.0.0.1", 9) for name in names})))
    validate(path, environment={"OPENAI_API_KEY": "a", "ANTHROPIC_API_KEY": "b"}, proxy=proxy)


def test_validation_would_find_a_wrong_field(tmp_path: Path) -> None:
    config = gateway(1, 2, [], [])
    config["static_resources"]["listeners"][0]["per_connection_buffer_limit"] = 1
    path = tmp_path / "envoy.json"
    path.write_text(json.dumps(config))
    with pytest.raises(AssertionError, match="per_connection_buffer_limit"):
        validate(path)


@EVERY_ENVOY
@pytest.mark.parametrize(("kind", "make"), GATEWAYS, ids=["istio", "envoy-gateway"])
def test_a_gateway_routes_by_the_rendered_objects(
    kind: str, make: Callable[..., Object], proxy: str, installed: Installed, tmp_path: Path
) -> None:
    for provider in installed.providers.values():
        provider.seen.clear()
    before = outcomes(installed)
    with attached(installed, kind, tmp_path, make, proxy) as url:
        forged = {"x-mom-model": "premium", "x-mom-cluster": "premium", "authorization": "Bearer client"}
        status, headers, document = chat(url, "some Python please", **forged)
        assert (status, headers["x-mom-model"], document["model"]) == (200, "coder", "gpt")
        assert headers["x-mom-route"] == "code"
        assert headers["x-mom-reason"]
        line = wait_until(lambda: logged(tmp_path, headers["x-mom-decision-id"]), "a JSON line")
        assert (line["status"], line["path"], line["mom.attempts"]) == (200, "/v1/chat/completions", 1)
        assert (line["mom.route"], line["mom.band"], line["mom.pick"]) == ("code", "recommended", "coder")
        assert (line["gen_ai.operation.name"], line["gen_ai.request.stream"]) == ("chat", False)
        status, headers, document = chat(url, "hello", **forged)
        assert (status, headers["x-mom-model"], document["model"]) == (200, "small", "llama")
        status, headers, document = chat(url, "hello", model="premium")
        assert (status, headers["x-mom-model"], document["model"]) == (200, "premium", "premium")
        assert chat(url, "x" * 3_000_000)[0] == 200
        with urllib.request.urlopen(f"{url}/v1/models", timeout=20) as answer:
            assert {entry["id"] for entry in json.load(answer)["data"]} == {"auto", "small", "coder", "premium"}
        stored = urllib.request.Request(f"{url}/v1/responses/resp_1", headers={"authorization": "Bearer client"})
        with pytest.raises(urllib.error.HTTPError) as refused, urllib.request.urlopen(stored, timeout=20):
            pass
        refused.value.close()
        wait_until(lambda: outcomes(installed)["coder"] == before["coder"] + 1, "the access log's outcome")

    ((path, got, _),) = installed.providers["coder"].seen
    assert path == "/openai/v1/chat/completions"
    assert got["authorization"] == "Bearer sk-coder"
    path, got, body = installed.providers["small"].seen[0]
    assert path == "/v1/chat/completions"
    assert body["messages"] == [{"role": "user", "content": "hello"}]
    ((_, premium, _),) = installed.providers["premium"].seen
    assert premium["api-key"] == "sk-premium"
    for seen in (got, premium):
        assert "authorization" not in seen
        assert not [name for name in seen if name.startswith("x-mom-")]


@EVERY_ENVOY
@pytest.mark.parametrize(("kind", "make"), GATEWAYS, ids=["istio", "envoy-gateway"])
def test_a_gateway_answers_503_where_it_does_not_know_the_only_models_allowed(
    kind: str, make: Callable[..., Object], proxy: str, installed: Installed, tmp_path: Path
) -> None:
    """The sidecar has read a newer file: a model that a guard orders, and one that is first of several."""
    for provider in installed.providers.values():
        provider.seen.clear()
    newer = deepcopy(installed.given)
    router = newer["router"]
    router["models"]["in-house"] = {**router["models"]["small"], "upstream_model": "in-house"}
    router["signals"]["secret"] = {"type": "keywords", "any": ["confidential"]}
    router["guards"] = [
        {"name": "in-house", "when": "secret.label == 'true'", "action": "reroute", "models": "in-house"},
        {"name": "ours", "when": "code.label == 'true'", "action": "reroute", "models": ["small", "in-house"]},
    ]
    router["routes"][1] |= {"models": "in-house", "fallback": "small"}
    try:
        installed.read(newer)
        with attached(installed, kind, tmp_path, make, proxy) as url:
            status, _, error = chat(url, "this is confidential")
            assert (status, json.loads(error)["error"]["type"]) == (503, "server_error")
            # Ruled out are others than these, and the first is known.
            status, headers, _ = chat(url, "some Python please")
            assert (status, headers["x-mom-model"]) == (200, "small")
            # Nothing is ruled out: the default model serves.
            status, headers, _ = chat(url, "hello")
            assert (status, headers["x-mom-model"]) == (200, "premium")
    finally:
        installed.read(installed.given)
    seen = {name: len(provider.seen) for name, provider in installed.providers.items()}
    assert seen == {"small": 1, "coder": 0, "premium": 1}


@EVERY_ENVOY
def test_a_backup_with_the_same_name_takes_over_in_istio(proxy: str, installed: Installed, tmp_path: Path) -> None:
    """`small` refuses connections; the request ends at a model with the same upstream name."""
    given = values("istio-backup")
    small, west = (given["router"]["models"][name] for name in ("small", "small-west"))
    (dead,) = free_ports(1)
    small["url"], west["url"] = f"http://dead:{dead}", f"http://localhost:{installed.providers['small'].port}"
    listen, admin = free_ports(2)
    addresses = {**installed.addresses, f"outbound|{dead}||dead": ("127.0.0.1", dead)}
    path = tmp_path / "gateway.json"
    path.write_text(json.dumps(through_istio(objects(given), listen, admin, addresses)))
    installed.providers["small"].seen.clear()
    command = [proxy, "-c", str(path), "--concurrency", "1", "--log-level", "warning"]
    with envoy(command, tmp_path, lambda: get(f"http://127.0.0.1:{admin}/ready") == b"LIVE\n"):
        assert [chat(f"http://127.0.0.1:{listen}", "hello")[0] for _ in range(5)] == [200] * 5
    assert len(installed.providers["small"].seen) == 5


def test_a_filter_that_routes_turn_on_is_that_of_the_first_route(tmp_path: Path) -> None:
    """Why keys are headers of routes here: an injected one goes to the wrong provider after the route was changed."""
    injector, inject = "envoy.filters.http.credential_injector", "envoy.http.injected_credentials.generic"
    decide = "function envoy_on_request(h) h:headers():replace('x-mom-model', 'b') h:clearRouteCache() end"
    lua = {"@type": TYPE + "envoy.extensions.filters.http.lua.v3.Lua", "default_source_code": {"inline_string": decide}}
    filters: list[Object] = [{"name": "decide", "typed_config": lua}]
    routes: list[Object] = []
    for name in ("b", "a"):
        generic = TYPE + "envoy.extensions.http.injected_credentials.generic.v3.Generic"
        credential = {"@type": generic, "credential": {"name": name}, "header": f"x-key-{name}"}
        config = {
            "@type": TYPE + "envoy.extensions.filters.http.credential_injector.v3.CredentialInjector",
            "credential": {"name": inject, "typed_config": credential},
        }
        filters.append({"name": f"{injector}/{name}", "disabled": True, "typed_config": config})
        on = {f"{injector}/{name}": {"@type": TYPE + "envoy.config.route.v3.FilterConfig", "config": {}}}
        routes.append({"match": {"prefix": "/"}, "route": {"cluster": name}, "typed_per_filter_config": on})
    routes[0]["match"]["headers"] = [{"name": "x-mom-model", "string_match": {"exact": "b"}}]
    listen, admin = free_ports(2)
    proxy = gateway(listen, admin, routes, filters)
    static = proxy["static_resources"]
    static["secrets"] = [{"name": n, "generic_secret": {"secret": {"inline_string": f"key of {n}"}}} for n in "ab"]
    path = tmp_path / "gateway.json"
    with Provider() as a, Provider() as b:
        static["clusters"] = [cluster(n, ("127.0.0.1", p.port)) for n, p in (("a", a), ("b", b))]
        path.write_text(json.dumps(proxy))
        command = [ENVOY, "-c", str(path), "--log-level", "warning"]
        with envoy(command, tmp_path, lambda: get(f"http://127.0.0.1:{admin}/ready") == b"LIVE\n"):
            assert chat(f"http://127.0.0.1:{listen}", "hello")[0] == 200
    ((_, got, _),) = b.seen
    assert {name: value for name, value in got.items() if name.startswith("x-key")} == {"x-key-a": "key of a"}


def test_other_traffic_of_an_istio_gateway_never_meets_the_sidecar(installed: Installed, tmp_path: Path) -> None:
    attach = {"provider": "istio", "istio": {"workloadSelector": {"a": "b"}, "hostnames": ["127.0.0.1", "*.llm.test"]}}
    listen, admin = free_ports(2)
    path = tmp_path / "gateway.json"
    path.write_text(json.dumps(through_istio(installed.objects(**attach), listen, admin, installed.addresses)))
    url, page = f"http://127.0.0.1:{listen}", f"http://127.0.0.1:{admin}"
    command = [ENVOY, "-c", str(path), "--concurrency", "1", "--log-level", "warning"]

    def asked() -> int:
        return int(re.findall(r"ext_proc.streams_started: (\d+)", get(f"{page}/stats").decode())[0])

    with envoy(command, tmp_path, lambda: get(f"{page}/ready") == b"LIVE\n"):
        assert chat(url, "hello")[0] == 200
        assert chat(url, "hello", host="a.llm.test")[0] == 200
        assert asked() == 2
        assert chat(url, "hello", host="other.test")[:1] == (404,)
        assert chat(url, "hello", host="llm.test.evil")[:1] == (404,)
        assert chat(f"{url}/upload", "hello")[:1] == (404,)
        assert asked() == 2


@EVERY_ENVOY
@pytest.mark.parametrize(("kind", "make"), GATEWAYS, ids=["istio", "envoy-gateway"])
def test_without_a_sidecar_paths_that_are_no_llm_api_get_no_key(
    kind: str, make: Callable[..., Object], proxy: str, installed: Installed, tmp_path: Path
) -> None:
    for provider in installed.providers.values():
        provider.seen.clear()
    paths = ["/v1/files", "/v1/responses/resp_1/cancel", "/v1/chat/completions/stored", "/v1/messages/batches"]
    with attached(installed, kind, tmp_path, make, proxy, sidecar=False) as url:
        for path in paths:
            body = json.dumps({"model": "premium"}).encode()
            request = urllib.request.Request(f"{url}{path}", body, {"authorization": "Bearer client"}, method="POST")
            try:
                urllib.request.urlopen(request, timeout=20).close()
            except urllib.error.HTTPError as error:
                error.close()
    assert not any(provider.seen for name, provider in installed.providers.items() if name != "premium")
    seen = installed.providers["premium"].seen
    assert [path for path, _, _ in seen] == ([] if kind == "istio" else paths)
    for _, got, _ in seen:
        assert "api-key" not in got
        assert got["authorization"] == "Bearer client"


@EVERY_ENVOY
@pytest.mark.parametrize(("kind", "make"), GATEWAYS, ids=["istio", "envoy-gateway"])
def test_without_a_sidecar_the_default_model_serves_and_no_client_chooses(
    kind: str, make: Callable[..., Object], proxy: str, installed: Installed, tmp_path: Path
) -> None:
    for provider in installed.providers.values():
        provider.seen.clear()
    with attached(installed, kind, tmp_path, make, proxy, sidecar=False) as url:
        status, headers, _ = chat(url, "python", **{"x-mom-model": "coder", "x-mom-cluster": "coder"})
        assert (status, headers["x-mom-model"]) == (200, "premium")
        assert "x-mom-route" not in headers
    ((_, got, body),) = installed.providers["premium"].seen
    assert got["api-key"] == "sk-premium"
    assert body["model"] == "auto"  # what this way of attaching cannot change without the sidecar
