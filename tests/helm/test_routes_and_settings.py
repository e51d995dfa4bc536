"""How router.yaml and the settings reach the pods, and whom a change of them restarts."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from router_extproc.cli import main as cli
from router_extproc.config.envoy import EnvoyOptions, render
from router_extproc.config.limits import Limits, Retry
from router_extproc.config.loader import parse
from router_extproc.config.model import Model
from router_extproc.config.schema import RouterConfig
from tests.helm.rendering import (
    CHART,
    PRICE,
    Object,
    objects,
    one,
    values,
)


def test_a_router_yaml_arrives_as_it_was_written() -> None:
    given = values("envoy")
    given["router"]["limits"] = {"max_body_bytes": 33554432, "deadline_ms": 120}
    routes = one(objects(given), "ConfigMap", "router-extproc-routes")["data"]["router.yaml"]
    assert yaml.safe_load(routes) == given["router"]
    assert parse(routes.encode(), CHART).config.limits.max_body_bytes == 33554432


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


def _checksums(given: dict[str, Any], name: str) -> dict[str, str]:
    annotations = one(objects(given), "Deployment", name)["spec"]["template"]["metadata"]["annotations"]
    return {key: value for key, value in annotations.items() if key.startswith("checksum/")}


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


def test_only_settings_restart_the_sidecar() -> None:
    before = _checksums(values("minimal"), "router-extproc")
    other = values("minimal")
    other["router"]["models"]["new"] = {"url": "http://new:1", "price": {"input": 1, "output": 1}}
    assert _checksums(other, "router-extproc") == before
    assert _checksums(values("minimal", maxQueued=9), "router-extproc") != before


def test_another_store_restarts_the_sidecar_and_not_envoy() -> None:
    before, after = values("envoy"), values("envoy", redis={"url": "redis://valkey:6379"})
    assert _checksums(before, "router-extproc") != _checksums(after, "router-extproc")
    assert _checksums(before, "router-extproc-envoy") == _checksums(after, "router-extproc-envoy")
    own = values("envoy")
    own["router"]["store"] = {"url": "redis://valkey:6379"}
    assert _checksums(before, "router-extproc") != _checksums(own, "router-extproc")
    assert _checksums(before, "router-extproc-envoy") == _checksums(own, "router-extproc-envoy")


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
