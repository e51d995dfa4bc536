"""Envoy's access log entries -> `Outcome`s. The response itself never passes through this process."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import ListValue, Struct

from router_extproc.apis.table import for_path
from router_extproc.domain import Outcome, Usage
from router_extproc.patterns import NAME
from router_extproc.pb import access_log_pb2 as pb
from router_extproc.wire import METADATA_NAMESPACE

USAGE_NAMESPACE = "envoy.ai.token_usage"
REQUEST_NAMESPACE = "mom.request"
"""Where the rendered Envoy configuration keeps the client's path: attempts change `:path`, each for its provider."""

FLAGS = {
    "no_healthy_upstream": "UH",
    "upstream_request_timeout": "UT",
    "local_reset": "LR",
    "upstream_remote_reset": "UR",
    "upstream_connection_failure": "UF",
    "upstream_connection_termination": "UC",
    "upstream_overflow": "UO",
    "no_route_found": "NR",
    "downstream_connection_termination": "DC",
    "upstream_retry_limit_exceeded": "URX",
    "stream_idle_timeout": "SI",
    "downstream_protocol_error": "DPE",
    "upstream_max_stream_duration_reached": "UMSDR",
    "duration_timeout": "DT",
    "upstream_protocol_error": "UPE",
    "no_cluster_found": "NC",
    "overload_manager": "OM",
    "dns_resolution_failure": "DF",
    "downstream_remote_reset": "DR",
}
"""Envoy's short names of response flags, as its text access log prints them."""


def outcome_of(entry: pb.HTTPAccessLogEntry, models_by_cluster: Callable[[], Mapping[str, str]]) -> Outcome | None:
    """The finished exchange of one access log entry; None for what is no POST to a client API."""
    common = entry.common_properties
    api = for_path(_client_path(entry))
    # A browser asks by OPTIONS before it posts.
    posted = entry.request.request_method in (pb.POST, pb.METHOD_UNSPECIFIED)
    if api is None or not posted or common.intermediate_log_entry:
        return None
    facts = common.metadata.filter_metadata.get(METADATA_NAMESPACE)
    text: Mapping[str, object] = dict(facts) if facts is not None else {}
    cluster = common.upstream_cluster if common.upstream_request_attempt_count else ""
    return Outcome(
        decision_id=str(text.get("decision_id", "")),
        api=api.name,
        status=entry.response.response_code.value,
        model=models_by_cluster().get(cluster) or _elsewhere(cluster, text),
        attempts=common.upstream_request_attempt_count,
        duration_seconds=_seconds(common.duration),
        first_byte_seconds=(
            _seconds(common.time_to_first_downstream_tx_byte)
            if common.HasField("time_to_first_downstream_tx_byte")
            else None
        ),
        usage=_usage(entry, api.name, text),
        flags=_flags(common) if common.HasField("response_flags") else "",
        route=str(text.get("route", "")),
        band=str(text.get("band", "")),
        details=entry.response.response_code_details,
        request_id=entry.request.request_id,
        tenant=str(text.get("tenant", "")),
        stream=text.get("stream") is True,
        held=str(text.get("held", "")),
        plan=_plan(text, models_by_cluster()),
    )


def _flags(common: pb.AccessLogCommon) -> str:
    return ",".join(short for field, short in FLAGS.items() if getattr(common.response_flags, field))


def _plan(facts: Mapping[str, object], models: Mapping[str, str]) -> tuple[str, ...]:
    groups = facts.get("priority_groups")
    clusters = [group["name"] for group in groups if isinstance(group, Struct)] if isinstance(groups, ListValue) else []
    return tuple(models.get(str(cluster), str(cluster)) for cluster in clusters)


def _elsewhere(cluster: str, facts: Mapping[str, object]) -> str | None:
    """The model behind a cluster that is not the catalogue's.

    Istio and Envoy Gateway name theirs themselves, with `|` and `/`; some stand for a model and its backups. None of
    them can fail over to another model, so the pick is what answered. Without a decision, the cluster's name; so too
    where that may be a model's: one that the catalogue lost, to which Envoy, not told yet, came by its own order.
    """
    picked = facts.get("model")
    if not cluster or not isinstance(picked, str):
        return cluster or None
    backed = (f"mom-backed-{picked}", f"mom-{picked}")
    return picked if cluster in backed or not re.search(NAME, cluster) else cluster


def _client_path(entry: pb.HTTPAccessLogEntry) -> str:
    kept = entry.common_properties.metadata.filter_metadata.get(REQUEST_NAMESPACE)
    path = dict(kept).get("path") if kept is not None else None
    return path if isinstance(path, str) else entry.request.original_path or entry.request.path


STREAMED_BYTES_PER_TOKEN = {"chat_completions": 220, "completions": 160, "responses": 200, "messages": 120}
"""Server-sent events carry about one token each, in an envelope of about this size."""
ENVELOPE_BYTES = 400
BYTES_PER_TOKEN = 4


def _usage(entry: pb.HTTPAccessLogEntry, api: str, facts: Mapping[str, object]) -> Usage | None:
    """What the provider counted, else an estimate. Half a count may be the first of many events, which says one token:
    the output is then at least what the bytes that came back stand for."""
    counted = _counted(entry.common_properties.metadata)
    if counted is not None and not counted.estimated:
        return counted
    estimated = _estimated(entry, api, facts)
    if counted is None or estimated is None:
        return counted or estimated
    return replace(counted, output=max(counted.output, estimated.output))


def _estimated(entry: pb.HTTPAccessLogEntry, api: str, facts: Mapping[str, object]) -> Usage | None:
    """Tokens of an answered exchange whose provider counted none: it sent no usage, or the client left before the end.

    Input as estimated when the request was read; output by the bytes that came back. Rough, and marked as such.
    """
    common = entry.common_properties
    tokens = facts.get("tokens")
    answered = 200 <= entry.response.response_code.value < 300 and common.upstream_request_attempt_count
    if not answered or not isinstance(tokens, int | float):
        return None
    size = entry.response.response_body_bytes
    if api == "embeddings":
        output = 0
    elif facts.get("stream") is False:
        output = max(0, size - ENVELOPE_BYTES) // BYTES_PER_TOKEN
    else:
        # Also where the body was not read so far: a stream taken for a whole answer would cost fifty times as much.
        output = size // STREAMED_BYTES_PER_TOKEN.get(api, 200)
    return Usage(input=int(tokens), output=output, estimated=True)


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def _counted(metadata: pb.Metadata) -> Usage | None:
    if USAGE_NAMESPACE not in metadata.typed_filter_metadata:
        return None
    usage = pb.TokenUsage.FromString(metadata.typed_filter_metadata[USAGE_NAMESPACE].value)
    if not usage.HasField("input_tokens") and not usage.HasField("output_tokens"):
        return None
    return Usage(
        input=usage.input_tokens.value,
        output=usage.output_tokens.value,
        # Parts of the input, also of Anthropic's, who counts them beside it: Envoy adds them up.
        cached=usage.input_token_details.cached_tokens.value,
        cache_write=usage.input_token_details.cache_creation_tokens.value,
        model=usage.model,
        estimated=usage.extraction_status == pb.TokenUsage.PARTIAL,
    )
