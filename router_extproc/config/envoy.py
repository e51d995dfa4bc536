"""Renders Envoy's configuration from router.yaml: the same file that the sidecar routes by.

What it relies on was measured with Envoy 1.40. The listener is here, the route table in `envoy_routes`, the clusters
with the filters that prepare each attempt in `envoy_clusters`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

from router_extproc.config import envoy_compatible
from router_extproc.config.access_log import LINE
from router_extproc.config.catalogue import check_catalogue
from router_extproc.config.envoy_clusters import (
    CLIENT_CREDENTIALS,
    NAMESPACE,
    client_state,
    extension,
    model_clusters,
    passthrough_cluster,
    secrets,
    sidecar_cluster,
    socket_address,
)
from router_extproc.config.envoy_routes import AI_MANAGER, EXT_PROC, error_mappers, virtual_host
from router_extproc.config.envoy_tls import SidecarTls
from router_extproc.config.schema import RouterConfig
from router_extproc.config.yaml_text import dump
from router_extproc.errors import ConfigError
from router_extproc.flags import BadValue, address, address_or_socket, number, whole

# Set by the sidecar or by Envoy itself, never by a client. `x-mom-prefer` and `x-mom-deadline` are the client's.
_OUR_HEADERS = (
    "x-mom-attempts",
    "x-mom-band",
    "x-mom-cluster",
    "x-mom-confidence",
    "x-mom-decision-id",
    "x-mom-model",
    "x-mom-plan",
    "x-mom-reason",
    "x-mom-route",
    "x-mom-upstream",
)
# The sidecar keeps its own deadline; this much later Envoy takes it for stuck.
_MESSAGE_MARGIN_SECONDS = 2.0


class BodyMode(StrEnum):
    """How the request body reaches the sidecar."""

    STREAMED = "streamed"
    FULL_DUPLEX = "full_duplex"
    BUFFERED = "buffered"


class Profile(StrEnum):
    """What the Envoy can run."""

    FULL = "full"
    COMPATIBLE = "compatible"


@dataclass(frozen=True, slots=True)
class EnvoyOptions:
    """What is not in router.yaml because it belongs to this Envoy.

    Addresses are `HOST:PORT`; a sidecar may also be `unix:/path`. `message_timeout_seconds` defaults to the deadline
    of router.yaml and 2 s. `access_log` is a path (`/dev/stdout` too) for one JSON line per request, besides what the
    sidecar gets. `ca_file` holds the certificates that https providers are verified with. Without `sidecar_tls` the
    connections to the sidecars are plaintext. `backups` are for the compatible profile, which cannot fail over by plan.
    `max_connections` (1 to 1,000,000; the flag checks it) bounds the connections of clients, any more are closed.
    """

    listen: str = "127.0.0.1:10000"
    admin: str = "127.0.0.1:9901"
    sidecars: tuple[str, ...] = ("127.0.0.1:50051",)
    body_mode: BodyMode = BodyMode.STREAMED
    failure_mode_allow: bool = True
    message_timeout_seconds: float | None = None
    access_log: str | None = None
    ca_file: str = "/etc/ssl/certs/ca-certificates.crt"
    max_connections: int = 20_000
    sidecar_tls: SidecarTls | None = None
    profile: Profile = Profile.FULL
    backups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Adds a flag per option, with the same defaults."""
        defaults = EnvoyOptions()
        at: dict[str, Any] = {"type": address, "metavar": "HOST:PORT"}
        parser.add_argument("--listen", **at, default=defaults.listen, help="where clients connect")
        parser.add_argument("--envoy-admin", **at, default=defaults.admin, help="Envoy's admin page")
        parser.add_argument(
            "--sidecar",
            type=address_or_socket,
            metavar="HOST:PORT",
            action="append",
            help=f"a sidecar's --listen, also unix:/PATH; once for each (default: {defaults.sidecars[0]})",
        )
        parser.add_argument(
            "--body-mode",
            type=BodyMode,
            choices=list(BodyMode),
            default=defaults.body_mode,
            help="how the body reaches the sidecar (default: streamed)",
        )
        parser.add_argument("--fail-closed", action="store_true", help="answer 503 or 504 when no sidecar does")
        parser.add_argument(
            "--message-timeout",
            type=number(0.001, 3600),
            metavar="SECONDS",
            help="longest wait for the sidecar (default: deadline + 2)",
        )
        parser.add_argument("--access-log", metavar="PATH", help="one JSON line per request, for instance /dev/stdout")
        parser.add_argument("--ca-file", metavar="PATH", default=defaults.ca_file, help="verifies https providers")
        parser.add_argument(
            "--max-connections",
            type=whole(1, 1_000_000),
            metavar="COUNT",
            default=defaults.max_connections,
            help="clients' connections at once; more are closed (default: %(default)s)",
        )
        parser.add_argument(
            "--profile",
            type=Profile,
            choices=list(Profile),
            default=defaults.profile,
            help="full needs Envoy 1.40; compatible runs with 1.36, without failover to other models",
        )
        parser.add_argument(
            "--backup",
            metavar="MODEL=OTHER[,OTHER]",
            action="append",
            default=[],
            help="compatible: models that take over from one with the same name upstream, key and path",
        )
        for name, metavar, text in (
            ("ca", "PATH", "TLS to the sidecars: verifies their certificate"),
            ("name", "NAME", "the DNS name that their certificate is for"),
            ("cert", "PATH", "shown to sidecars that ask for a client's certificate"),
            ("key", "PATH", "its key"),
            ("sds", "DIRECTORY", "write files there through which Envoy follows renewed certificates"),
        ):
            parser.add_argument(f"--sidecar-{name}", metavar=metavar, default=None, help=text)

    @staticmethod
    def from_arguments(arguments: argparse.Namespace) -> EnvoyOptions:
        """The options that a command line gave."""
        return EnvoyOptions(
            listen=arguments.listen,
            admin=arguments.envoy_admin,
            sidecars=tuple(arguments.sidecar or EnvoyOptions().sidecars),
            body_mode=arguments.body_mode,
            failure_mode_allow=not arguments.fail_closed,
            message_timeout_seconds=arguments.message_timeout,
            access_log=arguments.access_log,
            ca_file=arguments.ca_file,
            max_connections=arguments.max_connections,
            sidecar_tls=_sidecar_tls(arguments),
            profile=arguments.profile,
            backups=_backups(arguments.backup),
        )


def _backups(given: Sequence[str]) -> dict[str, tuple[str, ...]]:
    found = {}
    for text in given:
        name, _, others = text.partition("=")
        if not name or not others:
            raise ConfigError([f"--backup {text}: must be MODEL=OTHER"])
        found[name] = tuple(others.split(","))
    return found


def _sidecar_tls(arguments: argparse.Namespace) -> SidecarTls | None:
    rest = (arguments.sidecar_name, arguments.sidecar_cert, arguments.sidecar_key, arguments.sidecar_sds)
    if arguments.sidecar_ca is None:
        if any(value is not None for value in rest):
            raise ConfigError(["TLS to the sidecar needs --sidecar-ca"])
        return None
    name, certificate, key, directory = rest
    return SidecarTls(arguments.sidecar_ca, name or "", certificate, key, directory)


def render(config: RouterConfig, options: EnvoyOptions) -> str:
    """The whole Envoy configuration as commented YAML.

    Raises ConfigError when the models cannot become clusters (a shared or reserved cluster name, an unusable url) or
    an address is not one.
    """
    mistakes = _mistakes(config, options)
    if mistakes:
        raise ConfigError(mistakes)
    document: dict[str, Any] = {
        "# Generated from router.yaml by `router-extproc envoy`: change that file, not this one.": None,
        "admin": {"address": socket_address(options.admin)},
    }
    if options.sidecar_tls is not None and options.sidecar_tls.sds_directory is not None:
        document["# Secret discovery wants a name for this Envoy, from files too."] = None
        document["node"] = {"id": NAMESPACE, "cluster": NAMESPACE}
    document["overload_manager"] = {
        "resource_monitors": [
            extension(
                "envoy.resource_monitors.global_downstream_max_connections",
                "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                max_active_downstream_connections=options.max_connections,
            )
        ]
    }
    full = options.profile is Profile.FULL
    found = secrets(config) if full else []
    models = (
        model_clusters(config, options.ca_file)
        if full
        else envoy_compatible.clusters(config, options.ca_file, options.backups)
    )
    document["static_resources"] = {
        **(
            {"# Keys, read by Envoy when it starts: restart it after changing one.": None, "secrets": found}
            if found
            else {}
        ),
        "listeners": [_listener(config, options)],
        "clusters": [
            *models,
            *([passthrough_cluster(config, options.ca_file)] if config.passthrough else []),
            sidecar_cluster(options.sidecars, options.sidecar_tls),
        ],
    }
    return dump(document)


def same_for_envoy(one: RouterConfig, other: RouterConfig) -> bool:
    """Whether `render` makes the same of both, so that Envoy need not be told of the change.

    The order of `models` counts: behind `default` Envoy tries them so. Some milliseconds per model where the sections
    that it reads differ, for instance in a price: call it off the event loop.
    """
    ordered = list(one.models) == list(other.models)
    if ordered and all(getattr(one, name) == getattr(other, name) for name in RENDERED):
        return True
    try:
        return render(one, EnvoyOptions()) == render(other, EnvoyOptions())
    except ConfigError:
        return False


RENDERED = ("models", "default", "limits", "retry", "passthrough")
"""The sections of router.yaml that Envoy's configuration is made of. Everything else is the sidecar's alone."""


def _mistakes(config: RouterConfig, options: EnvoyOptions) -> list[str]:
    mistakes = [f"{'.'.join(map(str, wrong.path))}: {wrong.message}" for wrong in check_catalogue(config.models)]
    mistakes += [f"default: unknown model {name!r}" for name in config.default if name not in config.models]
    if options.profile is Profile.COMPATIBLE and not mistakes:
        mistakes += envoy_compatible.mistakes(config, options.backups)
    elif options.backups:
        mistakes.append("backups are for the compatible profile; the full one fails over by the routes' fallback")
    if options.sidecar_tls is not None:
        mistakes += options.sidecar_tls.mistakes()
    if not options.sidecars:
        mistakes.append("at least one sidecar address is needed")
    for check, given in ((address, (options.listen, options.admin)), (address_or_socket, options.sidecars)):
        for text in given:
            try:
                check(text)
            except BadValue as error:
                mistakes.append(str(error))
    return mistakes


def _listener(config: RouterConfig, options: EnvoyOptions) -> dict[str, Any]:
    strip = [{"remove": header} for header in _OUR_HEADERS]
    api_routes = None
    limit: dict[str, Any] = {}
    if options.profile is Profile.COMPATIBLE:
        # Old Envoys hold a body up to the connection's limit, whatever the route says.
        limit = {"per_connection_buffer_limit_bytes": config.limits.max_body_bytes + 1024 * 1024}
        api_routes = partial(envoy_compatible.api_routes, backups=options.backups)
    manager = {
        "stat_prefix": "mom",
        "use_remote_address": True,
        "preserve_external_request_id": True,
        "# Routes match whole paths: a model's server would read another spelling of one as the same.": None,
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT",
        "request_headers_timeout": "10s",
        "# Silence on a stream; above the longest wait for an answer to begin, over all attempts.": None,
        "stream_idle_timeout": f"{_idle_seconds(config)}s",
        "# A client's copies of our own headers, and headers that would change Envoy's own retries and timeouts, go "
        "before anything else looks at them: the sidecar could not remove them when it is down.": None,
        "early_header_mutation_extensions": [
            extension(
                "strip-internal-headers",
                "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
                mutations=[*strip, {"remove_on_match": {"key_matcher": {"prefix": "x-envoy-"}}}],
            )
        ],
        "local_reply_config": {
            "# Envoy's own errors in the shape of the API that was called. The sidecar marks its answers by a "
            "code detail that starts with `mom_`: those are in that shape already, and so are answers of routes.": None,
            "mappers": error_mappers(),
        },
        "access_log": _access_logs(options),
        "route_config": {"name": "mom", "virtual_hosts": [virtual_host(config, api_routes)]},
        "http_filters": _http_filters(config, options),
    }
    connection = extension(
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        **manager,
    )
    return {
        "name": "mom",
        "address": socket_address(options.listen),
        **limit,
        "filter_chains": [{"filters": [connection]}],
    }


def _idle_seconds(config: RouterConfig) -> int:
    # Attempts that fail do not count as a sign of life: the timer runs on from the request's last byte. An answer of a
    # plan's only model may begin at any time before the end of the whole exchange.
    return max(300, math.ceil(config.retry.total_seconds) + 60)


def _http_filters(config: RouterConfig, options: EnvoyOptions) -> list[Any]:
    rules: list[Any] = [
        "# The path and the body's length as the client sent them: attempts change both, each for its own provider.",
        extension(
            "envoy.filters.http.header_to_metadata",
            "envoy.extensions.filters.http.header_to_metadata.v3.Config",
            request_rules=[
                {
                    "header": header,
                    "on_header_present": {"metadata_namespace": f"{NAMESPACE}.request", "key": key, **kind},
                }
                for header, key, kind in ((":path", "path", {}), ("content-length", "length", {"type": "NUMBER"}))
            ],
        ),
    ]
    if any(model.auth is not None and model.auth.passthrough for model in config.models.values()):
        keep = [
            {
                "object_key": client_state(header),
                "factory_key": "envoy.string",
                "format_string": {
                    "text_format_source": {"inline_string": f"%REQ({header})%"},
                    "omit_empty_values": True,
                },
                "skip_if_empty": True,
            }
            for header in CLIENT_CREDENTIALS
        ]
        rules.append("# The client's own credentials, kept for models with auth.passthrough.")
        rules.append(
            extension(
                "envoy.filters.http.set_filter_state",
                "envoy.extensions.filters.http.set_filter_state.v3.Config",
                on_request_headers=keep,
            )
        )
    usage: list[Any] = []
    if options.profile is Profile.FULL:
        usage = [
            "# Reads the token usage of answers, streamed or not; the access log carries it to the sidecar.",
            extension(
                AI_MANAGER,
                "envoy.extensions.filters.http.ai_protocol_manager.v3.AiProtocolManager",
                response_handling={
                    "token_usage": {"limits": {"max_sse_event_size": 1024 * 1024, "max_parsed_sse_events": 1_000_000}}
                },
            ),
        ]
    return [
        *rules,
        _ext_proc(config, options),
        *usage,
        extension(
            "envoy.filters.http.router",
            "envoy.extensions.filters.http.router.v3.Router",
            suppress_envoy_headers=True,
        ),
    ]


def _ext_proc(config: RouterConfig, options: EnvoyOptions) -> dict[str, Any]:
    timeout = options.message_timeout_seconds
    if timeout is None:
        timeout = config.limits.deadline_ms / 1000 + _MESSAGE_MARGIN_SECONDS
    mode: dict[str, Any] = {"request_header_mode": "SEND", "response_header_mode": "SKIP", "response_body_mode": "NONE"}
    hold: dict[str, Any] = {}
    match options.body_mode:
        case BodyMode.STREAMED:
            mode["request_body_mode"] = "STREAMED"
            hold = {"send_body_without_waiting_for_header_response": True}
        case BodyMode.FULL_DUPLEX:
            mode |= {"request_body_mode": "FULL_DUPLEX_STREAMED", "request_trailer_mode": "SEND"}
        case BodyMode.BUFFERED:
            mode["request_body_mode"] = "BUFFERED"
    previous = extension(
        "envoy.retry_host_predicates.previous_hosts",
        "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
    )
    return extension(
        EXT_PROC,
        "envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
        grpc_service={
            "envoy_grpc": {"cluster_name": "mom-sidecar"},
            "# A sidecar that dies while it holds a request costs nothing: another one gets the same stream.": None,
            "retry_policy": {
                "retry_on": "connect-failure,reset,refused-stream,unavailable",
                "num_retries": 3,
                "retry_back_off": {"base_interval": "0.02s", "max_interval": "0.1s"},
                "host_selection_retry_max_attempts": 3,
                "retry_host_predicate": [previous],
            },
        },
        **{
            "# No sidecar, no answer in time: the request goes on by the routes' own order.": None,
            "failure_mode_allow": options.failure_mode_allow,
            "# Where that cannot be (failing closed, or half a body gone in full duplex), clients may try again.": None,
            "status_on_error": {"code": "ServiceUnavailable"},
            "message_timeout": f"{timeout:g}s",
            "# The sidecar asks for more while a client pauses in its upload: no reason to do without it.": None,
            "max_message_timeout": "3600s",
            "# Answers never pass through the sidecar: a stream does not depend on its life.": None,
            "processing_mode": mode,
            **hold,
            "# The route was picked before the sidecar spoke: pick again after its answer.": None,
            "route_cache_action": "CLEAR",
            "# x-envoy-*: how long an attempt at a stream may take to begin.": None,
            "mutation_rules": {"allow_all_routing": True, "allow_envoy": True},
            "metadata_options": {"receiving_namespaces": {"untyped": [NAMESPACE]}},
        },
    )


def _access_logs(options: EnvoyOptions) -> list[Any]:
    logs: list[Any] = [
        "# Outcomes: status, model, attempts, times and token usage, once per request, to the sidecar.",
        extension(
            "envoy.access_loggers.http_grpc",
            "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
            common_config={
                "log_name": NAMESPACE,
                "transport_api_version": "V3",
                "buffer_flush_interval": "0.2s",
                "grpc_service": {"envoy_grpc": {"cluster_name": "mom-sidecar"}},
            },
        ),
    ]
    if options.access_log is not None:
        logs.append(
            extension(
                "envoy.access_loggers.file",
                "envoy.extensions.access_loggers.file.v3.FileAccessLog",
                path=options.access_log,
                log_format={"json_format": dict(LINE)},
            )
        )
    return logs
