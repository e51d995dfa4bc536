"""Why a request goes where it goes, rule by rule: for the page, for /decisions/{id} and for a prompt to try."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router_extproc.domain import LlmRequest, SignalSet
from router_extproc.facts import Facts
from router_extproc.records import considered
from router_extproc.runtime import Runtime

VERDICTS = {True: "matched", False: "no match", None: "not judged"}


def rules(runtime: Runtime, request: LlmRequest, signals: SignalSet) -> list[dict[str, str]]:
    """What became of each route, in the file's order. Empty when the client named a model: no rule was asked."""
    if request.model not in runtime.config.virtual_models:
        return []
    return [
        {"route": result.route, "verdict": VERDICTS[result.matched], "why": result.why}
        for result in runtime.policy.explain(Facts(request, signals, request.model))
    ]


def figures(row: Mapping[str, Any]) -> str:
    """What a record says of one model that was considered, in words: `cost 0.0012 (quality 0.8)`, or why it is out."""
    found = {name: row[name] for name in ("quality", "cost", "latency", "load") if name in row}
    by, score = row.get("by", ""), row.get("score")
    decided = f"{by} {found.pop(by, score)}" if by and score is not None else by
    others = ", ".join(f"{name} {value}" for name, value in found.items())
    words = [decided, f"({others})" if others else "", "favourite" if row.get("favourite") else ""]
    return " ".join([*filter(None, words), *([f"left out: {row['out']}"] if "out" in row else [])])


async def tried(runtime: Runtime, request: LlmRequest, headers: Mapping[str, str], deadline: float) -> dict[str, Any]:
    """Decides as for a real request, sends nothing. Raises ClientError where a client would get one.

    `deadline` is in `time.monotonic()` seconds.
    """
    routed = await runtime.router.route(request, headers, deadline)
    return {
        "generation": runtime.generation,
        "signals": {
            name: {"label": value.label, "confidence": value.confidence, "value": value.value}
            for name, value in routed.signals.values.items()
        },
        "absent": dict(routed.signals.absent),
        "routes": rules(runtime, request, routed.signals),
        "route": routed.decision.route,
        "band": routed.decision.band.value,
        "confidence": routed.decision.confidence,
        "reason": routed.decision.reason,
        "guards": list(routed.decision.guards),
        "selection": routed.decision.selection,
        "affinity": routed.decision.affinity,
        "session": routed.session,
        "considered": considered(routed.decision),
        "plan": list(routed.plan.models),
        "ms": {stage: seconds * 1e3 for stage, seconds in routed.stages},
    }
