"""What a gateway makes of the rendered objects, as an Envoy configuration that the real proxy runs.

Istio's and Envoy Gateway's own translations need their control planes, which do not run here. These two functions do
what their documentation says with the kinds of object that the chart renders, and refuse everything else.
"""

from __future__ import annotations

import re
from copy import deepcopy
from typing import Any

from tests.helm.rendering import Object, one

TYPE = "type.googleapis.com/"
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
ROUTER = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": TYPE + "envoy.extensions.filters.http.router.v3.Router"},
}
Addresses = dict[str, tuple[str, int]]
"""Where a cluster really is, by its name."""


def cluster(name: str, address: tuple[str, int], *, http2: bool = False) -> Object:
    """A cluster with one address."""
    host, port = address
    found: Object = {
        "name": name,
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}]}
            ],
        },
    }
    if http2:
        found["typed_extension_protocol_options"] = {
            HTTP_OPTIONS: {"@type": TYPE + HTTP_OPTIONS, "explicit_http_config": {"http2_protocol_options": {}}}
        }
    return found


def gateway(listen: int, admin: int, routes: list[Object], filters: list[Object]) -> Object:
    """A gateway before anything of ours is attached."""
    return {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "static_resources": {
            "listeners": [
                {
                    "name": "gateway",
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": listen}},
                    "filter_chains": [
                        {
                            "filters": [
                                {
                                    "name": "envoy.filters.network.http_connection_manager",
                                    "typed_config": {
                                        "@type": TYPE + "envoy.extensions.filters.network.http_connection_manager.v3."
                                        "HttpConnectionManager",
                                        "stat_prefix": "gateway",
                                        "route_config": {
                                            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]
                                        },
                                        "http_filters": [*filters, ROUTER],
                                    },
                                }
                            ]
                        }
                    ],
                }
            ],
            "clusters": [],
        },
    }


def _merge(into: Any, value: Any) -> Any:
    """As protobuf merges: messages field by field, lists one after the other."""
    if isinstance(into, dict) and isinstance(value, dict):
        return {
            key: _merge(into[key], value[key]) if key in into and key in value else into.get(key, value.get(key))
            for key in {**into, **value}
        }
    return into + value if isinstance(into, list) and isinstance(value, list) else value


def through_istio(found: list[Object], listen: int, admin: int, addresses: Addresses) -> Object:
    """The gateway with the EnvoyFilter's patches applied. `addresses` are those of Istio's own clusters."""
    other = {"match": {"prefix": "/"}, "direct_response": {"status": 404, "body": {"inline_string": "istio"}}}
    config = gateway(listen, admin, [other], [])
    listener = config["static_resources"]["listeners"][0]
    for patch in one(found, "EnvoyFilter")["spec"]["configPatches"]:
        operation, value = patch["patch"]["operation"], deepcopy(patch["patch"]["value"])
        network = listener["filter_chains"][0]["filters"][0]
        manager = network["typed_config"]
        match patch["applyTo"], operation:
            case "NETWORK_FILTER", "MERGE":
                listener["filter_chains"][0]["filters"][0] = _merge(network, value)
            case "LISTENER", "MERGE":
                listener.update(value)
            case "HTTP_FILTER", "INSERT_BEFORE":
                chain = patch["match"]["listener"]["filterChain"]["filter"]
                names = [entry["name"] for entry in manager["http_filters"]]
                manager["http_filters"].insert(names.index(chain["subFilter"]["name"]), value)
            case "HTTP_FILTER", "INSERT_FIRST":
                manager["http_filters"].insert(0, value)
            case "HTTP_ROUTE", "INSERT_FIRST":
                manager["route_config"]["virtual_hosts"][0]["routes"].insert(0, value)
            case "CLUSTER", "ADD":
                config["static_resources"]["clusters"].append(value)
            case unknown:
                raise AssertionError(unknown)
    config["static_resources"]["clusters"] += [
        cluster(name, address, http2=name.startswith("outbound|50051|")) for name, address in addresses.items()
    ]
    return config


def through_envoy_gateway(found: list[Object], listen: int, admin: int, addresses: Addresses) -> Object:
    """What Envoy Gateway makes of HTTPRoutes and the EnvoyExtensionPolicy.

    The filter stands in the chain disabled and is enabled by each route that the policy targets. Routes, one per match,
    are sorted: whole paths before prefixes, then by length of the path, then by number of headers, the method counted
    as one.
    """
    spec = one(found, "EnvoyExtensionPolicy")["spec"]
    process = spec["extProc"][0]
    assert set(process) <= {
        "backendRefs", "backendSettings", "failOpen", "messageTimeout", "processingMode", "metadata"
    }  # fmt: skip
    name = "envoy.filters.http.ext_proc/envoyextensionpolicy/mom/router-extproc/extproc/0"
    filter_ = {
        "name": name,
        "disabled": True,
        "typed_config": {
            "@type": TYPE + "envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
            "grpc_service": {"envoy_grpc": {"cluster_name": "ext_proc"}},
            "failure_mode_allow": process["failOpen"],
            "message_timeout": f"{milliseconds(process['messageTimeout']) / 1000:.3f}s",
            "processing_mode": {
                "request_header_mode": "SEND",
                "request_body_mode": {"Buffered": "BUFFERED"}[process["processingMode"]["request"]["body"]],
                "response_header_mode": "SKIP",
            },
            "metadata_options": {"receiving_namespaces": {"untyped": process["metadata"]["writableNamespaces"]}},
        },
    }
    targets = {target["name"] for target in spec["targetRefs"]}
    routes, clusters = [], {"ext_proc": addresses["ext_proc"]}
    for route in (o for o in found if o["kind"] == "HTTPRoute"):
        for index, rule in enumerate(route["spec"]["rules"]):
            title = f"httproute/mom/{route['metadata']['name']}/rule/{index}"
            if "backendRefs" in rule:
                clusters[title] = addresses[_backend(rule["backendRefs"][0])]
            made = _rule(rule, title, found)
            if route["metadata"]["name"] in targets:
                enabled = {"@type": TYPE + "envoy.config.route.v3.FilterConfig", "config": {}}
                enabled["config"] = {
                    "@type": TYPE + "envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute",
                    "overrides": {},
                }
                made["typed_per_filter_config"] = {name: enabled}
            routes += [{**made, "match": _match(match)} for match in rule["matches"]]
    routes.sort(key=_precedence)
    config = gateway(listen, admin, routes, [filter_])
    listener = config["static_resources"]["listeners"][0]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    traffic = one(found, "ClientTrafficPolicy")["spec"]
    listener["per_connection_buffer_limit_bytes"] = int(traffic["connection"]["bufferLimit"])
    manager["early_header_mutation_extensions"] = [
        {
            "name": "early",
            "typed_config": {
                "@type": TYPE + "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
                "mutations": [{"remove": header} for header in traffic["headers"]["earlyRequestHeaders"]["remove"]],
            },
        }
    ]
    json_log, setting = one(found, "EnvoyProxy")["spec"]["telemetry"]["accessLog"]["settings"]
    (file,), (sink,) = json_log["sinks"], setting["sinks"]
    assert (file["type"], json_log["format"]["type"]) == ("File", "JSON")
    assert (sink["type"], sink["als"]["type"]) == ("ALS", "HTTP")
    common = {"log_name": sink["als"]["logName"], "grpc_service": {"envoy_grpc": {"cluster_name": "ext_proc"}}}
    log = TYPE + "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig"
    file_log = {
        "@type": TYPE + "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": file["file"]["path"],
        "log_format": {"json_format": json_log["format"]["json"]},
    }
    manager["access_log"] = [
        {"name": "als", "typed_config": {"@type": log, "common_config": common}},
        {"name": "file", "typed_config": file_log},
    ]
    config["static_resources"]["clusters"] = [
        cluster(title, address, http2=title == "ext_proc") for title, address in clusters.items()
    ]
    return config


def milliseconds(duration: str) -> int:
    """A duration of the Gateway API, such as 2s250ms."""
    assert re.fullmatch(r"(\d{1,5}(s|ms)){1,4}", duration), duration
    return sum(int(n) * (1000 if unit == "s" else 1) for n, unit in re.findall(r"(\d+)(s|ms)", duration))


def _backend(reference: Object) -> str:
    """A Backend by its name, a Service with its port."""
    return reference["name"] if reference.get("kind") == "Backend" else f"{reference['name']}:{reference['port']}"


def _match(match: Object) -> Object:
    kind = {"Exact": "path", "PathPrefix": "path_separated_prefix"}[match["path"]["type"]]
    wanted = [(header["name"], _string(header)) for header in match.get("headers", [])]
    wanted += [(":method", {"exact": match["method"]})] if "method" in match else []
    headers = [{"name": name, "string_match": value} for name, value in wanted]
    return {kind: match["path"]["value"], "headers": headers}


def _precedence(route: Object) -> tuple[bool, int, int]:
    match = route["match"]
    path = match.get("path") or match["path_separated_prefix"]
    return "path" not in match, -len(path), -len(match["headers"])


def _rule(rule: Object, title: str, found: list[Object]) -> Object:
    made: Object = {"name": title}
    if "backendRefs" in rule:
        made["route"] = {"cluster": title, "timeout": rule["timeouts"]["request"]}
    for entry in rule["filters"]:
        match entry["type"]:
            case "RequestHeaderModifier":
                changes = entry["requestHeaderModifier"]
                made["request_headers_to_remove"] = changes["remove"]
                made["request_headers_to_add"] = _set(changes.get("set", []))
            case "ResponseHeaderModifier":
                made["response_headers_to_add"] = _set(entry["responseHeaderModifier"]["set"])
            case "URLRewrite":
                rewrite = entry["urlRewrite"]
                if "hostname" in rewrite:
                    made["route"]["host_rewrite_literal"] = rewrite["hostname"]
                if "path" in rewrite:
                    # Only allowed where each match is a prefix.
                    assert {match["path"]["type"] for match in rule["matches"]} == {"PathPrefix"}
                    made["route"]["prefix_rewrite"] = rewrite["path"]["replacePrefixMatch"]
            case "ExtensionRef":
                made = _extended(made, one(found, entry["extensionRef"]["kind"], entry["extensionRef"]["name"])["spec"])
            case unknown:
                raise AssertionError(unknown)
    return made


def _extended(made: Object, spec: Object) -> Object:
    """A route with what an HTTPRouteFilter says."""
    if "urlRewrite" in spec:
        path = spec["urlRewrite"]["path"]
        assert path["type"] == "ReplaceRegexMatch"
        regex = {"regex": path["replaceRegexMatch"]["pattern"]}
        rewrite = {"pattern": regex, "substitution": path["replaceRegexMatch"]["substitution"]}
        return {**made, "route": {**made["route"], "regex_rewrite": rewrite}}
    response = spec["directResponse"]
    assert response["body"]["type"] == "Inline"
    return {
        **made,
        "direct_response": {
            "status": response["statusCode"],
            "body": {"inline_string": response["body"]["inline"]},
        },
        "response_headers_to_add": _set([{"name": "content-type", "value": response["contentType"]}]),
    }


def _string(header: Object) -> Object:
    match header["type"]:
        case "Exact":
            return {"exact": header["value"]}
        case "RegularExpression":
            return {"safe_regex": {"regex": header["value"]}}
        case unknown:
            raise AssertionError(unknown)


def _set(headers: list[Object]) -> list[Object]:
    return [
        {
            "header": {"key": header["name"], "value": header["value"]},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
        for header in headers
    ]
