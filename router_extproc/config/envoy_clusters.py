"""Envoy clusters: one per model, with the filters that prepare an attempt for that model, and the sidecar's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from router_extproc.config.envoy_tls import SidecarTls, transport_socket
from router_extproc.config.model import Model, Provider
from router_extproc.config.providers import (
    API_PATHS,
    GEN_AI_PROVIDERS,
    Endpoint,
    cluster_of,
    endpoint_of,
    key_header,
    upstream_name,
    upstream_path,
)
from router_extproc.config.schema import RouterConfig
from router_extproc.config.yaml_text import Alias, Anchored
from router_extproc.flags import host_and_port, socket_path

TYPE = "type.googleapis.com/"
NAMESPACE = "mom"
"""Namespace of our metadata: what the sidecar decided, and what the clusters say of their models."""
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
ANTHROPIC_VERSION = "2023-06-01"

# Headers that carry a credential, or that say whose account a credential belongs to.
_CREDENTIALS = (
    "authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "proxy-authorization",
    "cookie",
    "openai-organization",
    "openai-project",
)
CLIENT_CREDENTIALS = ("authorization", "x-api-key", "api-key", "openai-organization", "openai-project")
"""What `auth.passthrough` hands on. Kept aside in the filter state: an attempt at another model removes it."""

OUTLIERS = {
    "# For models with several addresses. Less than half of them may be out, so the last one never is: Envoy's own "
    "threshold for trying ejected ones all the same counts the address of a name that has none.": None,
    "consecutive_5xx": 10,
    "base_ejection_time": "5s",
    "max_ejection_percent": 49,
}
_BREAKERS = {
    "thresholds": [{f"max_{what}": 100_000 for what in ("connections", "pending_requests", "requests", "retries")}]
}


def typed(name: str, **fields: Any) -> dict[str, Any]:
    """An Envoy extension's `typed_config`: its message type and fields."""
    return {"@type": TYPE + name, **fields}


def extension(name: str, message: str, **fields: Any) -> dict[str, Any]:
    """A named Envoy extension (filter, access logger, predicate...)."""
    return {"name": name, "typed_config": typed(message, **fields)}


def client_state(header: str) -> str:
    """Filter state key under which a client's own credential header is kept."""
    return f"mom.client.{header}"


def set_header(key: str, value: str, action: str = "OVERWRITE_IF_EXISTS_OR_ADD") -> dict[str, Any]:
    """A header mutation that sets `key`."""
    return {"append": {"header": {"key": key, "value": value}, "append_action": action}}


def credential_headers(models: Mapping[str, Model]) -> list[str]:
    """Every header that carries a key for any model, or that a client may have sent one in."""
    return sorted({*_CREDENTIALS, *(key_header(model)[0] for model in models.values())})


def secret_name(name: str) -> str:
    """Envoy's name for the key of a model."""
    return f"key-{name}"


def secrets(config: RouterConfig) -> list[dict[str, Any]]:
    """Where Envoy reads the keys. Only names of variables and files: no key is ever written into the output."""
    found = []
    for name, model in config.models.items():
        if model.auth is None or model.auth.passthrough:
            continue
        source = {"environment_variable": model.auth.env} if model.auth.env else {"filename": model.auth.file}
        found.append({"name": secret_name(name), "generic_secret": {"secret": source}})
    return found


def model_clusters(config: RouterConfig, ca_file: str) -> list[Any]:
    """All model clusters, in the catalogue's order."""
    lua: Any = Anchored("prepare", {"inline_string": lua_source(config.models)})
    clusters = []
    for name, model in config.models.items():
        clusters.append(
            {
                f"# {name}: {model.provider.value}, {', '.join(api.value for api in model.speaks)}": None,
                **reachable(cluster_of(name, model), endpoint_of(model), ca_file),
                **says_who(name, model),
                "outlier_detection": OUTLIERS,
                "typed_extension_protocol_options": {
                    HTTP_OPTIONS: {
                        "@type": TYPE + HTTP_OPTIONS,
                        **protocol(endpoint_of(model), config.retry.per_try_seconds),
                        "# Once per attempt, in this order.": None,
                        "http_filters": _attempt_filters(name, model, config.models, lua),
                    }
                },
            }
        )
        lua = Alias("prepare")
    return clusters


def says_who(name: str, model: Model) -> dict[str, Any]:
    """Metadata of a model's cluster, for the access log."""
    return {
        "# For the access log: who answered.": None,
        "metadata": {
            "filter_metadata": {
                NAMESPACE: {
                    "model": name,
                    "upstream_model": upstream_name(name, model),
                    "provider": GEN_AI_PROVIDERS[model.provider],
                }
            }
        },
    }


def passthrough_cluster(config: RouterConfig, ca_file: str) -> dict[str, Any]:
    """The first default model's host, without our credentials: for the list of models, and for other paths if they may
    pass."""
    endpoint = endpoint_of(config.models[config.default[0]])
    return {
        "# What is no LLM API and may pass: the default model's host, the client's own headers, no key of ours.": None,
        **reachable("mom-passthrough", endpoint, ca_file),
        "typed_extension_protocol_options": {HTTP_OPTIONS: {"@type": TYPE + HTTP_OPTIONS, **protocol(endpoint, None)}},
    }


def sidecar_cluster(addresses: tuple[str, ...], tls: SidecarTls | None = None) -> dict[str, Any]:
    """The sidecars: each its own endpoint, so that every Envoy worker connects to each."""
    endpoints = [_sidecar_address(address) for address in addresses]
    named = any("socket_address" in e and not _is_ip(e["socket_address"]["address"]) for e in endpoints)
    return {
        "name": "mom-sidecar",
        "type": "STRICT_DNS" if named else "STATIC",
        "connect_timeout": "0.25s",
        "lb_policy": "LEAST_REQUEST",
        "# All down is told by the health check and then fails open at once, instead of being tried.": None,
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "circuit_breakers": _BREAKERS,
        "health_checks": [
            {
                "# One slow check takes no sidecar out; two in a row do, and so does its own NOT_SERVING.": None,
                "timeout": "1s",
                "interval": "0.5s",
                "no_traffic_interval": "1s",
                "unhealthy_interval": "0.25s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "grpc_health_check": {},
            }
        ],
        "typed_extension_protocol_options": {
            HTTP_OPTIONS: typed(HTTP_OPTIONS, explicit_http_config={"http2_protocol_options": {}})
        },
        **({"transport_socket": transport_socket(tls)} if tls is not None else {}),
        "load_assignment": {
            "cluster_name": "mom-sidecar",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}} for address in endpoints]}],
        },
    }


def lua_source(models: Mapping[str, Model]) -> str:
    """The Lua that prepares an attempt: the table of all models and the code that we ship beside this file."""
    lines = ["local MODELS = {"]
    for name, model in models.items():
        upstream = json.dumps(upstream_name(name, model))
        lines.append(f"  [{_lua(cluster_of(name, model))}] = {{")
        lines.append(f"    model = {_lua(name)}, host = {_lua(endpoint_of(model).authority)}, json = {_lua(upstream)},")
        lines.append("    paths = {")
        lines += [f"      [{_lua(API_PATHS[a])}] = {_lua(upstream_path(name, model, a))}," for a in model.speaks]
        lines += ["    },", "  },"]
    lines.append("}")
    body = files("router_extproc.config").joinpath("model.lua").read_text(encoding="utf-8")
    return "\n".join(lines) + "\n\n" + body


def _lua(text: str) -> str:
    """A Lua string literal. Bytes outside printable ASCII, quotes and backslashes as decimal escapes."""
    safe = (chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\{b:03d}" for b in text.encode())
    return '"' + "".join(safe) + '"'


def _attempt_filters(name: str, model: Model, models: Mapping[str, Model], lua: Any) -> list[Any]:
    # `x-mom-*` covers our internals; `x-envoy-*` and `x-forwarded-*` would tell a provider about the inside.
    requests: list[Any] = [
        "# Headers that an earlier attempt set for its own provider are still on the request: all go first.",
        *({"remove": header} for header in credential_headers(models)),
        *({"remove_on_match": {"key_matcher": {"prefix": p}}} for p in ("x-mom-", "x-envoy-", "x-forwarded-")),
        "# Token usage is read from uncompressed answers only.",
        set_header("accept-encoding", "identity"),
        set_header("x-mom-upstream", cluster_of(name, model)),
    ]
    if model.provider is Provider.ANTHROPIC:
        requests.append(set_header("anthropic-version", model.api_version or ANTHROPIC_VERSION, "ADD_IF_ABSENT"))
    if model.auth is not None and model.auth.passthrough:
        requests.append("# auth.passthrough: the client's own credentials, never those of an earlier attempt.")
        requests += [set_header(h, f"%FILTER_STATE({client_state(h)}:PLAIN)%") for h in CLIENT_CREDENTIALS]
    responses = [
        {"remove_on_match": {"key_matcher": {"prefix": "x-mom-"}}},
        set_header("x-mom-model", name),
    ]
    filters: list[Any] = [
        extension(
            "envoy.filters.http.header_mutation",
            "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
            mutations={"request_mutations": requests, "response_mutations": responses},
        )
    ]
    if model.auth is not None and not model.auth.passthrough:
        header, prefix = key_header(model)
        filters.append(
            extension(
                "envoy.filters.http.credential_injector",
                "envoy.extensions.filters.http.credential_injector.v3.CredentialInjector",
                overwrite=True,
                credential=extension(
                    "envoy.http.injected_credentials.generic",
                    "envoy.extensions.http.injected_credentials.generic.v3.Generic",
                    credential={"name": secret_name(name)},
                    header=header,
                    **({"header_value_prefix": prefix} if prefix else {}),
                ),
            )
        )
    filters.append(
        extension("envoy.filters.http.lua", "envoy.extensions.filters.http.lua.v3.Lua", default_source_code=lua)
    )
    filters.append(
        extension(
            "envoy.filters.http.upstream_codec",
            "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec",
        )
    )
    return filters


def reachable(cluster: str, endpoint: Endpoint, ca_file: str, *, tell_host: bool = False) -> dict[str, Any]:
    """A cluster without its protocol options. `ca_file` verifies it if it speaks TLS.

    `tell_host` is for routes with `auto_host_rewrite`, which put the host of whichever endpoint an attempt goes to.
    """
    named = endpoint.address == "name"
    address = {"socket_address": {"address": endpoint.host, "port_value": endpoint.port}}
    hostname = {"hostname": endpoint.authority} if tell_host else {}
    localities: list[Any] = [{"lb_endpoints": [{"endpoint": {**hostname, "address": address}}]}]
    if named:
        nowhere = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
        localities += [
            "# Used when the name has no address: a refused connection moves on by the plan, an empty cluster does "
            "not. Nobody can listen on port 0.",
            {"priority": 1, "lb_endpoints": [{"endpoint": {"address": nowhere}}]},
        ]
    assignment: dict[str, Any] = {"cluster_name": cluster, "endpoints": localities}
    if named:
        assignment |= {
            "# Only then: by default a part of the traffic goes there as soon as some addresses are ejected.": None,
            "policy": {"overprovisioning_factor": 100_000},
        }
    found: dict[str, Any] = {
        "name": cluster,
        "type": "STRICT_DNS" if named else "STATIC",
        "connect_timeout": "2s",
        "# The default allows 3 retries at a time in a whole cluster.": None,
        "circuit_breakers": _BREAKERS,
        "upstream_connection_options": {"tcp_keepalive": {"keepalive_time": 60, "keepalive_interval": 15}},
        "load_assignment": assignment,
    }
    if named:
        found["dns_lookup_family"] = "V4_PREFERRED"
    if endpoint.tls:
        san = {"san_type": "IP_ADDRESS" if endpoint.address == "ip" else "DNS", "matcher": {"exact": endpoint.host}}
        found["transport_socket"] = extension(
            "envoy.transport_sockets.tls",
            "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            **({"sni": endpoint.host} if endpoint.address == "name" else {}),
            common_tls_context={
                "validation_context": {
                    "trusted_ca": {"filename": ca_file},
                    "match_typed_subject_alt_names": [san],
                }
            },
        )
    return found


def protocol(endpoint: Endpoint, attempt_seconds: float | None) -> dict[str, Any]:
    """HTTP options of a model's cluster. No attempt lasts longer than `attempt_seconds`."""
    # Servers such as uvicorn close idle connections after 5 s; a request sent just then would fail, and move on to
    # another model for no reason.
    common: dict[str, Any] = {"idle_timeout": "60s" if endpoint.tls else "4s"}
    if attempt_seconds is not None:
        common["max_stream_duration"] = f"{attempt_seconds:g}s"
    both: dict[str, Any] = {"http_protocol_options": {}, "http2_protocol_options": {}}
    return {
        "common_http_protocol_options": common,
        **({"auto_config": both} if endpoint.tls else {"explicit_http_config": {"http_protocol_options": {}}}),
    }


def _sidecar_address(address: str) -> dict[str, Any]:
    path = socket_path(address)
    return {"pipe": {"path": path}} if path is not None else socket_address(address)


def socket_address(address: str) -> dict[str, Any]:
    """Envoy's form of `HOST:PORT` (IPv6 in brackets). Raises BadValue for anything else."""
    host, port = host_and_port(address)
    return {"socket_address": {"address": host, "port_value": port}}


def _is_ip(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdecimal()
