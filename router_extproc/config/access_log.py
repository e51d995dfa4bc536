"""What Envoy logs of each exchange: the decision and what became of it, by OpenTelemetry's names where it has any.

Not in it: tokens. Envoy keeps them as typed metadata, which its formats cannot print; the decision log has them, under
the same `mom.decision.id`.
"""

from __future__ import annotations

from collections.abc import Mapping

from router_extproc.config.envoy_clusters import NAMESPACE
from router_extproc.config.envoy_routes import EXT_PROC


def _decided(key: str) -> str:
    return f"%DYNAMIC_METADATA({NAMESPACE}:{key})%"


def _answered(key: str) -> str:
    """Of the model whose cluster the last attempt went to."""
    return f"%CLUSTER_METADATA({NAMESPACE}:{key})%"


LINE: Mapping[str, str] = {
    "time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "path": f"%DYNAMIC_METADATA({NAMESPACE}.request:path)%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "duration_ms": "%DURATION%",
    "first_byte_ms": "%RESPONSE_DURATION%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "traceparent": "%REQ(TRACEPARENT)%",
    "ext_proc": f"%FILTER_STATE({EXT_PROC}:PLAIN)%",
    "mom.decision.id": _decided("decision_id"),
    "mom.route": _decided("route"),
    "mom.band": _decided("band"),
    "mom.confidence": _decided("confidence"),
    "mom.reason": _decided("reason"),
    "mom.pick": _decided("model"),
    "mom.model": _answered("model"),
    "mom.tenant": _decided("tenant"),
    "mom.api": _decided("api"),
    "mom.attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "gen_ai.operation.name": _decided("operation"),
    "gen_ai.provider.name": _answered("provider"),
    "gen_ai.request.model": _answered("upstream_model"),
    "gen_ai.request.stream": _decided("stream"),
}
"""What the rendered configuration logs. Values keep their types: numbers are numbers, what is not there is null."""

GATEWAY_LINE: Mapping[str, str] = {
    **{key: value for key, value in LINE.items() if "CLUSTER_METADATA" not in value and key != "ext_proc"},
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
}
"""For gateways whose clusters are not ours: a failed request is not sent to another model there, the pick answers."""
