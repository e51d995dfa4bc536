"""One exchange as a plain record: the decision log's line, the page's row, the answer of /decisions/{id}."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from router_extproc.domain import (
    MAX_CONSIDERED,
    Considered,
    Decision,
    LlmRequest,
    Outcome,
    SignalSet,
    SignalValue,
    Usage,
    Wishes,
)
from router_extproc.ledger import Entry
from router_extproc.prices import plain
from router_extproc.telemetry.recorder import Decided, Refused

VERSION = 1
UNREADABLE = (KeyError, IndexError, TypeError, ValueError, ArithmeticError)
"""What reading a record raises that an older sidecar wrote, or a bad disk changed."""
MAX_PROMPT = 4096
Record = dict[str, Any]


def record(
    outcome: Outcome | None,
    decided: Decided | None,
    entry: Entry | None = None,
    *,
    refused: Refused | None = None,
    prompts: bool = False,
) -> Record:
    """Everything that is known. The prompt's text, at most 4096 characters of it, only where `prompts` says so.

    `outcome` is None while the answer is under way or when Envoy never told; `decided` is None for an exchange that
    this process did not decide, or refused. Money is text, in USD.
    """
    made: Record = {"v": VERSION}
    if decided is not None:
        made |= _decision(decided, prompts)
    elif refused is not None:
        made |= _refusal(refused, prompts)
    if outcome is not None:
        made |= _outcome(outcome, known="id" in made)
    if entry is not None:
        made |= {
            "time": _time(entry.at),
            "cost": plain(entry.cost),
            "baseline": plain(entry.baseline),
            "saved": plain(entry.saved),
        }
    return made


def _decision(decided: Decided, prompts: bool) -> Record:
    decision = decided.decision
    return {
        "id": decided.decision_id,
        "time": _time(decided.at),
        "generation": decided.generation,
        "tenant": decided.tenant,
        "session": decided.session,
        "wishes": _wishes(decided.wishes),
        "request": _asked(decided.request, prompts),
        **_signals(decided.signals),
        "route": decision.route,
        "band": decision.band.value,
        "confidence": round(decision.confidence, 4),
        "reason": decision.reason,
        "guards": list(decision.guards),
        "selection": decision.selection,
        "affinity": decision.affinity,
        "candidates": list(decision.candidates[:MAX_CONSIDERED]),
        "considered": considered(decision),
        "plan": list(decided.plan.models),
        "ms": {
            "decision": round(decided.seconds * 1e3, 3),
            **{stage: round(seconds * 1e3, 3) for stage, seconds in decided.stages},
        },
    }


def _refusal(refused: Refused, prompts: bool) -> Record:
    return {
        "id": refused.decision_id,
        "time": _time(refused.at),
        "generation": refused.generation,
        "tenant": refused.tenant,
        "session": refused.session,
        "wishes": _wishes(refused.wishes),
        "request": _asked(refused.request, prompts),
        **_signals(refused.signals),
        "guards": list(refused.guards),
        "refused": {"status": refused.status, "code": refused.code, "request_id": refused.request_id},
    }


def _signals(signals: SignalSet) -> Record:
    return {
        "signals": {name: _signal(value) for name, value in signals.values.items()},
        "absent": dict(signals.absent),
    }


def _wishes(wishes: Wishes) -> Record:
    found = {"prefer": wishes.prefer, "user": wishes.user, "deadline": wishes.deadline}
    made: Record = {name: value for name, value in found.items() if value}
    return made if wishes.member is None else made | {"member": wishes.member}


def _asked(request: LlmRequest, prompts: bool) -> Record:
    asked: Record = {
        "api": request.api,
        "model": request.model,
        "tokens": request.tokens,
        "max_output_tokens": request.max_output_tokens,
        "turns": request.turns,
        "stream": request.stream,
        "tools": request.has_tools,
        "json_mode": request.json_mode,
        "modalities": sorted(request.modalities),
    }
    if request.stateful:
        asked["stateful"] = True
    if request.longest is not None:
        asked["longest"] = request.longest
    if prompts:
        asked["prompt"] = request.prompt[:MAX_PROMPT]
    return asked


def considered(decision: Decision) -> list[Record]:
    """Candidates with their figures, best first, and the models that were left out, each with the reason."""
    return [_considered(row, row.model in decision.favourites) for row in decision.considered]


def _considered(row: Considered, favourite: bool) -> Record:
    made: Record = {name: value for name, value in row._asdict().items() if value not in ("", None)}
    for name in ("score", "quality", "latency", "load"):
        if name in made:
            made[name] = round(made[name], 6)
    if "cost" in made:
        made["cost"] = f"{made['cost']:.9f}".rstrip("0").rstrip(".")
    return made | {"favourite": True} if favourite else made


def _outcome(outcome: Outcome, *, known: bool) -> Record:
    ended: Record = {
        "status": outcome.status,
        "model": outcome.model,
        "attempts": outcome.attempts,
        "ms": round(outcome.duration_seconds * 1e3, 1),
        "first_byte_ms": None if outcome.first_byte_seconds is None else round(outcome.first_byte_seconds * 1e3, 1),
        "flags": outcome.flags,
        "details": outcome.details,
        "request_id": outcome.request_id,
    }
    if outcome.broken:
        ended["broken"] = True
    if outcome.usage is not None:
        usage = outcome.usage
        ended["tokens"] = {
            "input": usage.input,
            "output": usage.output,
            "cached": usage.cached,
            "cache_write": usage.cache_write,
            "estimated": usage.estimated,
        }
    if known:
        return {"outcome": ended}
    return {
        "id": outcome.decision_id or outcome.request_id,
        "tenant": outcome.tenant,
        "request": {"api": outcome.api},
        "route": outcome.route,
        "band": outcome.band,
        "outcome": ended,
    }


def _signal(value: SignalValue) -> Record:
    made: Record = {"label": value.label, "confidence": round(value.confidence, 4)}
    if value.value:
        made["value"] = round(value.value, 4)
    if value.partial:
        made["partial"] = True
    if value.scores:
        made["scores"] = {label: round(score, 4) for label, score in value.scores.items()}
    return made


def request_of(made: Mapping[str, Any]) -> LlmRequest:
    """The request of a record, without its texts. Raises one of `UNREADABLE` when it is none."""
    asked, limit = as_table(made["request"]), made["request"]["max_output_tokens"]
    return LlmRequest(
        api=str(asked["api"]),
        model=_name(asked["model"]),
        model_span=None,
        prompt=str(asked.get("prompt", "")),
        tokens=int(asked["tokens"]),
        max_output_tokens=None if limit is None else int(limit),
        stream=bool(asked["stream"]),
        modalities=frozenset(map(str, asked["modalities"])),
        has_tools=bool(asked["tools"]),
        json_mode=bool(asked["json_mode"]),
        turns=int(asked["turns"]),
        stateful=bool(asked.get("stateful", False)),
        longest=None if asked.get("longest") is None else int(asked["longest"]),
    )


def wishes_of(made: Mapping[str, Any]) -> Wishes | None:
    """What the sender of a record's request asked for; None where an older sidecar did not record it."""
    found = made.get("wishes")
    if not isinstance(found, dict):
        return None
    member = found.get("member")
    return Wishes(
        prefer=str(found.get("prefer", "")),
        member=None if member is None else str(member),
        user=str(found.get("user", "")),
        deadline=str(found.get("deadline", "")),
    )


def outcome_of(made: Mapping[str, Any]) -> Outcome | None:
    """What became of a record's request; None when that is not known. Raises what `request_of` raises."""
    if made.get("outcome") is None:
        return None
    ended = as_table(made["outcome"])
    tokens, first = ended.get("tokens"), ended.get("first_byte_ms")
    usage = None
    if tokens is not None:
        tokens = as_table(tokens)
        cached, written = int(tokens.get("cached", 0)), int(tokens.get("cache_write", 0))
        usage = Usage(int(tokens["input"]), int(tokens["output"]), cached, cache_write=written)
    return Outcome(
        decision_id=str(made.get("id", "")),
        api=str(made["request"]["api"]),
        status=int(ended["status"]),
        model=_name(ended["model"]),
        attempts=int(ended["attempts"]),
        duration_seconds=float(ended["ms"]) / 1e3,
        first_byte_seconds=None if first is None else float(first) / 1e3,
        usage=usage,
        flags=str(ended.get("flags", "")),
        plan=tuple(map(str, made.get("plan", ()))),
    )


def signals_of(made: Mapping[str, Any]) -> SignalSet:
    """The signals of a record. Raises one of `UNREADABLE` when it has none."""
    values = {
        name: SignalValue(
            *(str(as_table(value)["label"]), float(value["confidence"]), float(value.get("value", 0))),
            {label: float(score) for label, score in as_table(value.get("scores", {})).items()},
            partial=bool(value.get("partial", False)),
        )
        for name, value in as_table(made["signals"]).items()
    }
    return SignalSet(values, {name: str(why) for name, why in as_table(made["absent"]).items()})


def as_table(value: Any) -> Mapping[str, Any]:
    """`value`, if it is a table. Raises TypeError."""
    if not isinstance(value, dict):
        raise TypeError("not a table")
    return value


def _name(value: Any) -> str | None:
    return None if value is None else str(value)


def note(facts: Mapping[str, Any], at: float) -> Record:
    """A line that is about an exchange and none itself."""
    return {"v": VERSION, "time": _time(at), **facts}


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
