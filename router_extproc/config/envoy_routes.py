"""Envoy's route table: two routes per LLM API, the list of models, and what becomes of everything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from router_extproc.config.envoy_clusters import NAMESPACE, extension, typed
from router_extproc.config.model import Api
from router_extproc.config.providers import API_PATHS, UNKNOWN_PATH, UNKNOWN_PATH_CODE, cluster_of, endpoint_of
from router_extproc.config.schema import RouterConfig

EXT_PROC = "envoy.filters.http.ext_proc.mom"
AI_MANAGER = "envoy.filters.http.ai_protocol_manager"

_PRIORITY_GROUP = "envoy.extensions.router.cluster_specifiers.priority_group.v3.PriorityGroupClusterSpecifier"
# Who speaks which protocol, for reading token usage. Completions and embeddings report it as chat completions do.
_USAGE = {Api.RESPONSES: "OPENAI_RESPONSES", Api.MESSAGES: "ANTHROPIC_MESSAGES"}
# Retries move on to another model, so there is nothing to wait for.
BACK_OFF = {"base_interval": "0.025s", "max_interval": "0.25s"}

POST = {"name": ":method", "string_match": {"exact": "POST"}}
"""POST only: a GET here would read stored answers of the account that our key belongs to."""

_METADATA_HEADERS = ("route", "band", "confidence", "reason", "decision_id")


def virtual_host(
    config: RouterConfig, api_routes: Callable[[RouterConfig, Api], list[Any]] | None = None
) -> dict[str, Any]:
    """The one virtual host. `api_routes` are those of an API that some model speaks; by default by the plan."""
    api_routes = api_routes or _planned_routes
    headers = {f"x-mom-{key.replace('_', '-')}": f"%DYNAMIC_METADATA({NAMESPACE}:{key})%" for key in _METADATA_HEADERS}
    headers["x-mom-attempts"] = "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"
    routes: list[Any] = []
    for api in Api:
        routes += api_routes(config, api) if default_order(config, api) else [_unsupported(api)]
    return {
        "name": "mom",
        "domains": ["*"],
        "# What the sidecar decided, told to the client. A header without a value is left out.": None,
        "response_headers_to_add": [
            {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
            for key, value in headers.items()
        ],
        "routes": [*routes, *_other_routes(config)],
    }


def default_order(config: RouterConfig, api: Api) -> list[str]:
    """The clusters of `default_models`."""
    return [cluster_of(name, config.models[name]) for name in default_models(config, api)]


def default_models(config: RouterConfig, api: Api) -> list[str]:
    """Models that speak an API in the order that serves without a plan: the default ones, then the others."""
    names = [*config.default, *(name for name in config.models if name not in config.default)]
    return [name for name in names if name in config.models and api in config.models[name].speaks]


def _planned_routes(config: RouterConfig, api: Api) -> list[Any]:
    clusters = default_order(config, api)
    retry = config.retry
    common: dict[str, Any] = {"timeout": f"{retry.total_seconds:g}s"}
    # One limit for all that has to hold a body: a held request, its replay on a retry, the model's name put in.
    # A little above the sidecar's own limit, so that the sidecar is the one that answers 413.
    buffer = {"request_body_buffer_limit": config.limits.max_body_bytes + 1024 * 1024}
    statuses = sorted(set(retry.statuses))
    usage = {
        AI_MANAGER: typed(
            "envoy.extensions.filters.http.ai_protocol_manager.v3.AiProtocolManagerPerRoute",
            response={"llm_protocol": _USAGE.get(api, "OPENAI_CHAT_COMPLETIONS")},
        )
    }
    single = {
        "# The sidecar wants one model and no other.": None,
        "name": f"{api.value}-single",
        "match": {
            "path": API_PATHS[api],
            "headers": [
                POST,
                {"name": "x-mom-cluster", "present_match": True},
                {"name": "x-mom-plan", "string_match": {"exact": "single"}},
            ],
        },
        **buffer,
        "typed_per_filter_config": usage,
        "route": {
            **common,
            "cluster_header": "x-mom-cluster",
            "retry_policy": {
                "retry_on": "connect-failure,refused-stream",
                "num_retries": 1,
                "retry_back_off": BACK_OFF,
            },
        },
    }
    groups = [{"name": cluster, "clusters": [{"cluster_name": cluster, "weight": 1}]} for cluster in clusters]
    planned = {
        "# By the sidecar's plan: attempt n goes to its n-th model. Without a plan (the sidecar is down) by this "
        "order, the default model first.": None,
        "name": api.value,
        "match": {"path": API_PATHS[api], "headers": [POST]},
        **buffer,
        "typed_per_filter_config": usage,
        "route": {
            **common,
            "inline_cluster_specifier_plugin": {
                "extension": {
                    "name": "envoy.router.cluster_specifier_plugin.priority_group",
                    "typed_config": typed(
                        _PRIORITY_GROUP, override_metadata_namespace=NAMESPACE, priority_groups=groups
                    ),
                }
            },
            "retry_policy": {
                "retry_on": "5xx,connect-failure,reset,refused-stream"
                + (",retriable-status-codes" if statuses else ""),
                **({"retriable_status_codes": statuses} if statuses else {}),
                "num_retries": config.limits.max_attempts - 1,
                "# Only counts until the answer begins: it never cuts a running stream. One that does not stream "
                "begins when it is whole; for streams the sidecar sets a shorter time, in a header.": None,
                "per_try_timeout": f"{retry.attempt_seconds:g}s",
                "refresh_cluster_on_retry": True,
                "retry_back_off": BACK_OFF,
            },
        },
    }
    return [single, planned]


def _unsupported(api: Api) -> dict[str, Any]:
    kind = "not_found_error" if api is Api.MESSAGES else "invalid_request_error"
    return {
        "name": api.value,
        "match": {"path": API_PATHS[api], "headers": [POST]},
        **answered(404, kind, "no model here speaks this API", api),
    }


def answered(status: int, kind: str, message: str, api: Api | None = None, code: str | None = None) -> dict[str, Any]:
    """What makes a route answer by itself, with an error of type `kind` in the shape of an API; None: in OpenAI's."""
    body: dict[str, Any] = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    if api is Api.MESSAGES:
        body = {"type": "error", "error": {"type": kind, "message": message}}
    json_type = {"key": "content-type", "value": "application/json"}
    return {
        "response_headers_to_add": [{"header": json_type, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
        "direct_response": {"status": status, "body": {"inline_string": json.dumps(body)}},
    }


def _other_routes(config: RouterConfig) -> list[Any]:
    onwards = {
        "cluster": "mom-passthrough",
        "timeout": f"{config.retry.total_seconds:g}s",
        "host_rewrite_literal": endpoint_of(config.models[config.default[0]]).authority,
    }
    disabled = {EXT_PROC: typed("envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute", disabled=True)}
    unknown = answered(404, "invalid_request_error", UNKNOWN_PATH, code=UNKNOWN_PATH_CODE)
    return [
        *_list_of_models({"route": onwards} if config.passthrough else None),
        {
            "# Everything else never meets the sidecar: router.yaml's `passthrough` says whether it goes on.": None,
            "name": "passthrough" if config.passthrough else "unknown",
            "match": {"prefix": "/"},
            "typed_per_filter_config": disabled,
            **({"route": onwards} if config.passthrough else unknown),
        },
    ]


def _list_of_models(onwards: dict[str, Any] | None) -> list[Any]:
    """The sidecar answers with the catalogue before a route acts. Without one the request goes `onwards`; None: it is
    refused in the shape of the client's API, for it may bring credentials."""
    get = {"name": ":method", "string_match": {"exact": "GET"}}

    def route(name: str, acts: dict[str, Any], *headers: dict[str, Any]) -> dict[str, Any]:
        return {"name": name, "match": {"path_separated_prefix": "/v1/models", "headers": [get, *headers]}, **acts}

    said = "# Answered by the sidecar with the catalogue; without one"
    if onwards is not None:
        return [{f"{said} by the default model's host.": None, **route("models", onwards)}]
    message = "the list of models is not available now"
    anthropic = {"name": "anthropic-version", "present_match": True}
    return [
        {
            f"{said} it is refused. Anthropic's clients are told apart by this header.": None,
            **route("models-anthropic", answered(503, "overloaded_error", message, Api.MESSAGES), anthropic),
        },
        route("models", answered(503, "server_error", message)),
    ]


def error_mappers() -> list[Any]:
    """Envoy's own errors in the shape of the API that was called. What the sidecar or a route says stays as it is."""
    messages = "xds.route_name.startsWith('messages')"
    ours = (
        "response.code >= 400 && response.code_details != 'direct_response' && "
        "!response.code_details.startsWith('mom_')"
    )
    rules = [
        (f"{messages} && response.code == 413", "request_too_large"),
        (f"{messages} && response.code < 500", "invalid_request_error"),
        (f"{messages} && response.code == 503", "overloaded_error"),
        (f"{messages} && response.code == 504", "timeout_error"),
        (messages, "api_error"),
    ]
    message = "answered by the gateway, not by a model: %RESPONSE_CODE% %LOCAL_REPLY_BODY%"
    found = [
        _mapper(
            f"{ours} && {rule}",
            {"type": "error", "error": {"type": kind, "message": message}, "request_id": "%REQ(X-REQUEST-ID)%"},
        )
        for rule, kind in rules
    ]
    for rule, kind in ((f"{ours} && response.code < 500", "invalid_request_error"), (ours, "server_error")):
        error = {"message": message, "type": kind, "param": None, "code": "gateway_%RESPONSE_CODE%"}
        found.append(_mapper(rule, {"error": error}))
    return found


def _mapper(expression: str, shape: dict[str, Any]) -> dict[str, Any]:
    return {
        "filter": {
            "extension_filter": extension(
                "envoy.access_loggers.extension_filters.cel",
                "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
                expression=expression,
            )
        },
        "body_format_override": {"json_format": shape, "content_type": "application/json"},
    }
