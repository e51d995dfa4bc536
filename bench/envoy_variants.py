"""What is measured, as configuration: a router.yaml per policy, one Envoy with a listener per variant, the model.

All variants share one Envoy process, its workers and its clusters. The sidecar's listeners are exactly as
`router-extproc envoy` renders them. The two references are the same listener with less: without the filters that are
there for the sidecar, in the listener and in the model clusters alike. What the sidecar is measured against is so
rather too fast than too slow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from router_extproc.config.envoy import EnvoyOptions, render
from router_extproc.config.schema import RouterConfig
from router_extproc.validation import validate

PATH = "/v1/chat/completions"
KEY = "BENCH_API_KEY"
"""Environment variable of Envoy with the key that it sends to the models."""
_TYPE = "type.googleapis.com/envoy.extensions."
_EXT_PROC = "envoy.filters.http.ext_proc.mom"
_SIDECAR = "mom-sidecar"


def router_config(model_url: str, signals: str) -> dict[str, Any]:
    """A router.yaml with four models, all of them the simulated one. `signals` is `keywords` or `all`.

    The same number of routes in both; with `all` every head of the shipped classifier is read.
    """
    price = {"input": 1, "output": 3}
    names = ("premium", "general", "coder", "small")
    document: dict[str, Any] = {
        "models": {
            name: {"url": model_url, "upstream_model": f"{name}-1", "auth": {"env": KEY}, "price": price}
            for name in names
        },
        "default": ["premium", "general"],
    }
    if signals == "keywords":
        document["signals"] = {
            "code": {"type": "keywords", "any": ["python", "function", "patch", "coroutines"]},
            "parcel": {"type": "keywords", "any": ["parcel", "delivery", "refund"]},
            "law": {"type": "keywords", "any": ["contract", "court", "landlord"]},
        }
        document["routes"] = [
            {"name": model, "when": f'{signal}.label == "true"', "models": model}
            for model, signal in (("coder", "code"), ("small", "parcel"), ("general", "law"))
        ]
        return document
    heads = ("intent", "domain", "guard", "win", "pii")
    document["signals"] = {name: {"type": "classifier", "head": name} for name in heads}
    document["signals"] |= {"complexity": {"type": "complexity"}, "language": {"type": "language"}}
    # Every rule reads the classifier: a request is decided by it, or by nothing.
    rules = {
        "coder": 'intent.label in ["code_generation", "code_review_debug"]',
        "small": 'intent.label.startsWith("cs_") || (intent.label == "factual_qa" && language.label == "en")',
        "general": 'domain.label == "law" || guard.label != "benign" || complexity.label == "high"',
    }
    document["routes"] = [{"name": model, "when": rule, "models": model} for model, rule in rules.items()]
    return document


def simulated_model(address: str, admin: str) -> dict[str, Any]:
    """An Envoy that reads a whole request and answers with a chat completion, at once and always the same."""
    answer = {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1,
        "model": "bench",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "As simulated."}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23},
    }
    manager = {
        "@type": _TYPE + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "model",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "model",
                    "domains": ["*"],
                    "response_headers_to_add": [{"header": {"key": "content-type", "value": "application/json"}}],
                    "routes": [
                        {
                            "match": {"prefix": "/"},
                            "direct_response": {"status": 200, "body": {"inline_string": json.dumps(answer)}},
                        }
                    ],
                }
            ]
        },
        "http_filters": [
            # An answer before the request is complete would close the connection.
            {
                "name": "buffer",
                "typed_config": {"@type": _TYPE + "filters.http.buffer.v3.Buffer", "max_request_bytes": 1 << 20},
            },
            {"name": "router", "typed_config": {"@type": _TYPE + "filters.http.router.v3.Router"}},
        ],
    }
    listener = {
        "name": "model",
        "address": _socket_address(address),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {"admin": {"address": _socket_address(admin)}, "static_resources": {"listeners": [listener]}}


def proxy(
    admin: str,
    alone: tuple[str, RouterConfig],
    trivial: tuple[str, str, RouterConfig],
    sidecars: Mapping[str, tuple[str, str, RouterConfig]],
) -> dict[str, Any]:
    """One Envoy configuration with a listener per variant.

    Each variant is (listener's address, [ext_proc server's address,] configuration); all have the same models.
    """
    documents = {name: _rendered(config, listen, server) for name, (listen, server, config) in sidecars.items()}
    whole: dict[str, Any] = next(iter(documents.values()))
    listeners, clusters = [], {cluster["name"]: cluster for cluster in whole["static_resources"]["clusters"]}
    del clusters[_SIDECAR]
    for name, document in documents.items():
        listener, cluster = _own_server(document, name)
        listeners.append(listener)
        clusters[cluster["name"]] = cluster
    listen, server, config = trivial
    document = _rendered(config, listen, server)
    _strip_listener(document, keep_ext_proc=True)
    listener, cluster = _own_server(document, "trivial")
    clusters[cluster["name"]] = cluster
    listeners.append(_plain_clusters(listener, config, clusters))
    listen, config = alone
    document = _rendered(config, listen, "127.0.0.1:1")
    _strip_listener(document, keep_ext_proc=False)
    listeners.append(
        _plain_clusters(document["static_resources"]["listeners"][0] | {"name": "alone"}, config, clusters)
    )
    whole["admin"] = {"address": _socket_address(admin)}
    whole["static_resources"] |= {"listeners": listeners, "clusters": list(clusters.values())}
    return whole


def _rendered(config: RouterConfig, listen: str, server: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(render(config, EnvoyOptions(listen=listen, sidecars=(server,))))
    return document


def _own_server(document: dict[str, Any], name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The listener and the cluster of its ext_proc server, both with a name of their own."""
    resources = document["static_resources"]
    cluster = next(cluster for cluster in resources["clusters"] if cluster["name"] == _SIDECAR)
    text = json.dumps([resources["listeners"][0], cluster])
    listener, cluster = json.loads(text.replace(json.dumps(_SIDECAR), json.dumps(f"{_SIDECAR}-{name}")))
    return {**listener, "name": name}, cluster


def _strip_listener(document: dict[str, Any], *, keep_ext_proc: bool) -> None:
    """Leaves the router, the retries, and ext_proc where wanted. Access log and token counting go."""
    manager = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    kept = {"envoy.filters.http.router"} | ({_EXT_PROC} if keep_ext_proc else set())
    manager["http_filters"] = [entry for entry in manager["http_filters"] if entry["name"] in kept]
    manager["access_log"] = []
    for host in manager["route_config"]["virtual_hosts"]:
        for route in host["routes"]:
            route.pop("typed_per_filter_config", None)


def _plain_clusters(listener: dict[str, Any], config: RouterConfig, clusters: dict[str, Any]) -> dict[str, Any]:
    """Points the listener at copies of the model clusters that have no filters of their own."""
    text = json.dumps(listener)
    for model in config.models:
        text = text.replace(f'"name": "{model}"', f'"name": "{model}-plain"')
        text = text.replace(f'"cluster_name": "{model}"', f'"cluster_name": "{model}-plain"')
        plain = json.loads(json.dumps(clusters[model]))
        plain["name"] = plain["load_assignment"]["cluster_name"] = f"{model}-plain"
        for options in plain["typed_extension_protocol_options"].values():
            del options["http_filters"]
        clusters[plain["name"]] = plain
    found: dict[str, Any] = json.loads(text)
    return found


def checked(document: Mapping[str, Any]) -> RouterConfig:
    """A router.yaml's content as configuration."""
    return validate(RouterConfig, dict(document))


def address_of(document: Mapping[str, Any]) -> str:
    """Where an Envoy configuration's admin page is."""
    found = document["admin"]["address"]["socket_address"]
    return f"{found['address']}:{found['port_value']}"


def _socket_address(address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}
