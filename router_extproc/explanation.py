"""Why a request goes where it goes, rule by rule: for the page, for /decisions/{id} and for a prompt to try."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from router_extproc.admission import deferred
from router_extproc.apis.table import APIS
from router_extproc.config.model import Api
from router_extproc.domain import LlmRequest, SignalSet
from router_extproc.errors import ClientError, UnknownModel
from router_extproc.facts import Facts
from router_extproc.records import considered
from router_extproc.router import Judged
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


def guards(runtime: Runtime, request: LlmRequest, signals: SignalSet) -> list[dict[str, str]]:
    """What became of each guard, in the file's order."""
    return [
        {"guard": result.guard, "action": result.action, "verdict": VERDICTS[result.holds], "why": result.why}
        for result in runtime.guards.explain(Facts(request, signals, request.model or ""))
    ]


def as_sent(api: str, model: str, prompt: str, context: str = "") -> LlmRequest:
    """The request of a client that sends `prompt`, after `context` and an answer to it where that is not empty.

    It goes through the API's own reader, so that its length and its texts are those of a real one. Raises ValueError
    for an API that is none, and ClientError where a client would get one.
    """
    called = next((found for found in APIS.values() if found.name == api), None)
    if called is None:
        raise ValueError(f"unknown api `{api}`")
    reader = called.reader()
    reader.feed(json.dumps({"model": model, **_input(api, prompt, context)}).encode())
    return reader.finish()


def _input(api: str, prompt: str, context: str) -> dict[str, Any]:
    said = [("user", context), ("assistant", "")] if context else []
    messages = [{"role": role, "content": text} for role, text in (*said, ("user", prompt))]
    match api:
        case Api.COMPLETIONS:
            return {"prompt": f"{context}\n\n{prompt}" if context else prompt}
        case Api.EMBEDDINGS:
            return {"input": f"{context}\n\n{prompt}" if context else prompt}
        case Api.RESPONSES:
            return {"input": messages}
        case _:
            return {"messages": messages}


def figures(row: Mapping[str, Any]) -> str:
    """What a record says of one model that was considered, in words: `cost 0.0012 (quality 0.8)`, or why it is out."""
    found = {name: row[name] for name in ("quality", "cost", "latency", "load") if name in row}
    by, score = row.get("by", ""), row.get("score")
    decided = f"{by} {found.pop(by, score)}" if by and score is not None else by
    others = ", ".join(f"{name} {value}" for name, value in found.items())
    words = [decided, f"({others})" if others else "", "favourite" if row.get("favourite") else ""]
    return " ".join([*filter(None, words), *([f"left out: {row['out']}"] if "out" in row else [])])


async def tried(runtime: Runtime, request: LlmRequest, headers: Mapping[str, str], deadline: float) -> dict[str, Any]:
    """Decides as for a real request, sends nothing and counts nothing. Budgets are not asked: they would reserve. What
    refuses the request is told as `refused`, beside what led to it. Raises UnknownModel: nothing leads to that.

    `deadline` is in `time.monotonic()` seconds.
    """
    judged = await runtime.router.judge(request, headers, deadline)
    try:
        routed = deferred(runtime.router.choose(judged, headers), headers, runtime.config, datetime.now(UTC))
    except UnknownModel:
        raise
    except ClientError as error:
        refused = {"status": error.status, "code": error.code, "message": error.message}
        return {**_judged(runtime, judged), "refused": refused}
    return {
        **_judged(runtime, judged),
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


def _judged(runtime: Runtime, judged: Judged) -> dict[str, Any]:
    request, signals = judged.request, judged.signals
    return {
        "generation": runtime.generation,
        "tokens": request.tokens,
        "signals": {
            name: {"label": value.label, "confidence": value.confidence, "value": value.value, "partial": value.partial}
            for name, value in signals.values.items()
        },
        "absent": dict(signals.absent),
        "routes": rules(runtime, request, signals),
        "guard_rules": guards(runtime, request, signals),
    }
