"""How router.yaml and the settings reach the pods, and whom a change of them restarts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from router_extproc.cli import main as cli
from router_extproc.config.envoy import EnvoyOptions, render
from router_extproc.config.limits import Limits, Retry
from router_extproc.config.loader import load, parse
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
from tests.mounted import Mounted


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
    # A first byte that comes before the time for whole answers is told by the sidecar, per request.
    "retry": {
        "statuses": [418],
        "per_try_seconds": 7,
        "first_byte_seconds": 307,
        "answer_seconds": 77,
        "total_seconds": 77,
    },
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
    made, made_of_map = ([o for o in each if o["kind"] in kinds] for each in (found, as_map))
    for thing in made + made_of_map:
        if thing["kind"] == "Deployment":  # of an Envoy that tries the models in another order
            thing["spec"]["template"]["metadata"]["annotations"].pop("checksum/catalogue", None)
    assert made == made_of_map


ORDERS = [
    (TEXT, "".join(TEXT.splitlines(keepends=True)[line] for line in (0, 1, 3, 2, 4))),
    (
        "default: c\nmodels: {c: {url: 'http://c', price: {input: 1, output: 1}}, "
        "'a.b': {url: 'http://x', price: {input: 1, output: 1}}, a: {url: 'http://x', price: {input: 1, output: 1}}}",
        "default: c\nmodels: {c: {url: 'http://c', price: {input: 1, output: 1}}, "
        "a: {url: 'http://x', price: {input: 1, output: 1}}, 'a.b': {url: 'http://x', price: {input: 1, output: 1}}}",
    ),
    (
        json.dumps({"models": {name: {"url": "http://x", "price": PRICE} for name in "abc"}, "default": "a"}, indent=1),
        json.dumps({"models": {name: {"url": "http://x", "price": PRICE} for name in "acb"}, "default": "a"}, indent=1),
    ),
]
"""router.yaml as text, and the same with its models in another order: as a block, in one line, as JSON."""


@pytest.mark.parametrize(("before", "after"), ORDERS, ids=["block", "line", "json"])
def test_another_order_of_the_models_in_a_text_restarts_envoy(before: str, after: str) -> None:
    assert yaml.safe_load(before) == yaml.safe_load(after)
    sums = [_checksums(values("envoy", router=text), "router-extproc-envoy") for text in (before, after)]
    assert sums[0] != sums[1]
    read = [parse(text.encode(), CHART).config for text in (before, after)]
    assert render(read[0], EnvoyOptions()) != render(read[1], EnvoyOptions())


def test_what_a_text_says_elsewhere_of_its_models_restarts_nothing() -> None:
    more = """\
  signals:
    zeta: {type: tokens}
    alpha: {type: tokens}
  routes:
    - name: both
      when: "true"
      models:
        - zeta
        - alpha
"""
    other = more.replace("zeta: {", "tmp: {").replace("alpha: {", "zeta: {").replace("tmp: {", "alpha: {")
    comment = TEXT.replace("  models:", "  # alpha: then zeta\n  models:")
    sums = [
        _checksums(values("envoy", router=text), "router-extproc-envoy")
        for text in (TEXT, more + TEXT, other + TEXT, TEXT + other, comment)
    ]
    assert sums == [sums[0]] * 5


def test_files_beside_router_yaml_are_in_both_config_maps(tmp_path: Path) -> None:
    users = "users:\n  interns: {forbidden: large}\n"
    given = values("minimal", routerFiles={"users.yaml": users})
    given["router"]["preferences"] = {"header": "x-tenant", "users_file": "users.yaml"}
    for form in (given, {**given, "router": yaml.safe_dump(given["router"])}):
        for name in ("router-extproc-routes", "router-extproc-check"):
            mounted = Mounted(tmp_path / f"{name}-{type(form['router']).__name__}")
            mounted.swap(one(objects(form), "ConfigMap", name)["data"])
            assert list(load(mounted.path).config.preferences.users) == ["interns"]
    # Read anew while the process runs: nothing is restarted.
    before = _checksums(given, "router-extproc")
    assert _checksums({**given, "routerFiles": {"users.yaml": "users: {}"}}, "router-extproc") == before


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
