"""The profile for an Envoy older than 1.40, or one that allows no Lua: a route per model, taken by `x-mom-model`.

The sidecar has put the picked model's name into the body; its route sets path, host and key. What that cannot do: fail
over to another model, put a name into the body while no sidecar answers, and read token usage. A model may have backups
that take the same name, key and path: an aggregate cluster tries them in turn. Run with Envoy 1.36 and 1.40.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router_extproc.config.envoy_clusters import (
    ANTHROPIC_VERSION,
    CLIENT_CREDENTIALS,
    HTTP_OPTIONS,
    OUTLIERS,
    credential_headers,
    extension,
    protocol,
    reachable,
    says_who,
    typed,
)
from router_extproc.config.envoy_routes import BACK_OFF, POST, answered, default_order
from router_extproc.config.model import Api, Model, Provider
from router_extproc.config.providers import (
    API_PATHS,
    cluster_of,
    endpoint_of,
    key_header,
    upstream_name,
    upstream_path,
)
from router_extproc.config.schema import RouterConfig

Backups = Mapping[str, tuple[str, ...]]
"""Model -> the models that take over from it, in this order."""

# Ours, and what would tell a provider about the inside. Only whole names can be given here.
_INTERNAL = (
    *(f"x-mom-{name}" for name in ("cluster", "model", "plan", "prefer", "deadline")),
    *(f"x-forwarded-{name}" for name in ("for", "proto", "host", "port")),
    *(f"x-envoy-{name}" for name in ("internal", "external-address", "original-path")),
)


def mistakes(config: RouterConfig, backups: Backups) -> list[str]:
    """What this profile cannot do, of what the file asks for."""
    found = []
    for name, model in config.models.items():
        if model.auth is not None and model.auth.file is not None:
            found.append(
                f"models.{name}.auth.file: the compatible profile reads keys from the environment, by auth.env"
            )
        if any("?" in upstream_path(name, model, api) for api in model.speaks):
            found.append(f"models.{name}: the compatible profile cannot add a query to the path")
    for name, others in backups.items():
        for other in (name, *others):
            if other not in config.models:
                found.append(f"backup {name}: unknown model {other!r}")
            elif name in config.models and not _same(config, name, other):
                found.append(f"backup {name}: {other} has another name upstream, key or path")
    return found


def clusters(config: RouterConfig, ca_file: str, backups: Backups) -> list[Any]:
    """One cluster per model, and one over each model with its backups."""
    found: list[Any] = []
    for name, model in config.models.items():
        options = protocol(endpoint_of(model), config.retry.per_try_seconds)
        found.append(
            {
                **reachable(cluster_of(name, model), endpoint_of(model), ca_file, tell_host=True),
                **says_who(name, model),
                "outlier_detection": OUTLIERS,
                "typed_extension_protocol_options": {HTTP_OPTIONS: typed(HTTP_OPTIONS, **options)},
            }
        )
    for name, others in backups.items():
        members = [cluster_of(other, config.models[other]) for other in (name, *others)]
        aggregate = typed("envoy.extensions.clusters.aggregate.v3.ClusterConfig", clusters=members)
        found.append(
            {
                f"# {name} and its backups.": None,
                "name": _backed(name),
                "connect_timeout": "2s",
                "lb_policy": "CLUSTER_PROVIDED",
                "cluster_type": {"name": "envoy.clusters.aggregate", "typed_config": aggregate},
            }
        )
    return found


def api_routes(config: RouterConfig, api: Api, backups: Backups) -> list[Any]:
    """A route per model that speaks the API, then the default model's, for what no sidecar has decided or what may go
    anywhere."""
    speakers = [name for name, model in config.models.items() if api in model.speaks]
    cluster = default_order(config, api)[0]
    default = next(name for name in speakers if cluster_of(name, config.models[name]) == cluster)
    routes = [_route(config, api, name, backups, decided=True) for name in speakers]
    kind = "overloaded_error" if api is Api.MESSAGES else "server_error"
    # The sidecar has read a newer file than this Envoy, and only the model that it picked may take the request.
    unknown = {
        "name": f"{api.value}-unknown",
        "match": {"path": API_PATHS[api], "headers": [POST, {"name": "x-mom-plan", "present_match": True}]},
        **answered(503, kind, "the gateway does not know the model of this request yet", api),
    }
    return [*routes, unknown, _route(config, api, default, backups, decided=False)]


def _route(config: RouterConfig, api: Api, name: str, backups: Backups, *, decided: bool) -> dict[str, Any]:
    model, retry = config.models[name], config.retry
    headers: list[dict[str, Any]] = [POST]
    if decided:
        headers.append({"name": "x-mom-model", "string_match": {"exact": name}})
    kept = CLIENT_CREDENTIALS if model.auth is not None and model.auth.passthrough else ()
    remove = [*_INTERNAL, *(header for header in credential_headers(config.models) if header not in kept)]
    add = []
    if model.auth is not None and model.auth.env:
        header, prefix = key_header(model)
        add.append(_header(header, f"{prefix}%ENVIRONMENT({model.auth.env})%"))
    if model.provider is Provider.ANTHROPIC:
        add.append(_header("anthropic-version", model.api_version or ANTHROPIC_VERSION, "ADD_IF_ABSENT"))
    statuses = sorted(set(retry.statuses))
    policy: dict[str, Any] = {
        "retry_on": "5xx,connect-failure,reset,refused-stream" + (",retriable-status-codes" if statuses else ""),
        **({"retriable_status_codes": statuses} if statuses else {}),
        "num_retries": config.limits.max_attempts - 1,
        "per_try_timeout": f"{retry.attempt_seconds:g}s",
        "retry_back_off": BACK_OFF,
    }
    if name in backups:
        policy["retry_priority"] = extension(
            "envoy.retry_priorities.previous_priorities",
            "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
            update_frequency=1,
        )
    return {
        "name": f"{api.value}-{name if decided else 'default'}",
        "match": {"path": API_PATHS[api], "headers": headers},
        "per_request_buffer_limit_bytes": config.limits.max_body_bytes + 1024 * 1024,
        "request_headers_to_remove": remove,
        **({"request_headers_to_add": add} if add else {}),
        "response_headers_to_add": [_header("x-mom-model", name)],
        "route": {
            "cluster": _backed(name) if name in backups else cluster_of(name, model),
            "auto_host_rewrite": True,
            "prefix_rewrite": upstream_path(name, model, api),
            "timeout": f"{retry.total_seconds:g}s",
            "retry_policy": policy,
        },
    }


def _backed(name: str) -> str:
    return f"mom-backed-{name}"


def _same(config: RouterConfig, one: str, other: str) -> bool:
    return _asked(one, config.models[one]) == _asked(other, config.models[other])


def _asked(name: str, model: Model) -> tuple[Any, ...]:
    paths = {api: upstream_path(name, model, api) for api in model.speaks}
    return upstream_name(name, model), model.auth, key_header(model), paths


def _header(key: str, value: str, action: str = "OVERWRITE_IF_EXISTS_OR_ADD") -> dict[str, Any]:
    return {"header": {"key": key, "value": value}, "append_action": action}
