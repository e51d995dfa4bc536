"""The configurations that are measured: the sidecar's as shipped, the references with less and never with more."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from bench.envoy_variants import checked, proxy, router_config
from router_extproc.config.envoy import EnvoyOptions, render

MODEL = "http://127.0.0.1:9"


def whole() -> dict[str, Any]:
    keywords, everything = (checked(router_config(MODEL, signals)) for signals in ("keywords", "all"))
    return proxy(
        "127.0.0.1:1",
        ("127.0.0.1:2", keywords),
        ("127.0.0.1:3", "127.0.0.1:4", keywords),
        {
            "keywords": ("127.0.0.1:5", "127.0.0.1:6", keywords),
            "all-heads": ("127.0.0.1:7", "127.0.0.1:8", everything),
        },
    )


def listener(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in document["static_resources"]["listeners"] if one["name"] == name)
    return found


def filters(found: dict[str, Any]) -> list[str]:
    manager = found["filter_chains"][0]["filters"][0]["typed_config"]
    return [entry["name"] for entry in manager["http_filters"]]


def test_the_sidecars_listeners_and_clusters_are_the_shipped_ones() -> None:
    document = whole()
    for name, signals, listen, server in (("keywords", "keywords", 5, 6), ("all-heads", "all", 7, 8)):
        options = EnvoyOptions(listen=f"127.0.0.1:{listen}", sidecars=(f"127.0.0.1:{server}",))
        shipped = yaml.safe_load(render(checked(router_config(MODEL, signals)), options))["static_resources"]
        own = json.loads(json.dumps(shipped).replace('"mom-sidecar"', f'"mom-sidecar-{name}"'))
        assert listener(document, name) == {**own["listeners"][0], "name": name}
        clusters = {cluster["name"]: cluster for cluster in document["static_resources"]["clusters"]}
        for cluster in own["clusters"]:
            assert clusters[cluster["name"]] == cluster


def test_the_references_have_less() -> None:
    document = whole()
    assert filters(listener(document, "alone")) == ["envoy.filters.http.router"]
    assert filters(listener(document, "trivial")) == ["envoy.filters.http.ext_proc.mom", "envoy.filters.http.router"]
    assert len(filters(listener(document, "keywords"))) > 2
    clusters = {cluster["name"]: cluster for cluster in document["static_resources"]["clusters"]}
    assert "http_filters" in json.dumps(clusters["premium"])
    assert "http_filters" not in json.dumps(clusters["premium-plain"])
    alone = json.dumps(listener(document, "alone"))
    assert "mom-sidecar" not in alone
    assert '"cluster_name": "premium-plain"' in alone
    assert '"cluster_name": "premium"' not in alone
    trivial = json.dumps(listener(document, "trivial"))
    assert '"cluster_name": "mom-sidecar-trivial"' in trivial
    assert '"cluster_name": "premium"' not in trivial


@pytest.mark.parametrize("signals", ["keywords", "all"])
def test_the_policies_say_what_they_measure(signals: str) -> None:
    config = checked(router_config(MODEL, signals))
    types = {spec.type for spec in config.signals.values()}
    assert (types == {"keywords"}) == (signals == "keywords")
    assert len(config.routes) == 3
