"""Where facts about exchanges go: metrics, one canonical log line, and whoever listens (the live view)."""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from router_extproc.domain import Decision, LlmRequest, Outcome, Plan, SignalSet
from router_extproc.telemetry.metrics import Metrics

log = logging.getLogger("router_extproc.exchange")

REMEMBERED = 4096
"""Decisions kept until their outcome arrives. Beyond it the oldest outcome is reported without its decision."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision with what led to it. `seconds` is from the last byte of the body to the decision."""

    decision_id: str
    request: LlmRequest
    signals: SignalSet
    decision: Decision
    plan: Plan
    seconds: float
    generation: int


class Priced(Protocol):
    """A `ledger.Entry`, as far as metrics need it: USD."""

    @property
    def route(self) -> str:
        """Route."""

    @property
    def model(self) -> str:
        """The model that answered."""

    @property
    def cost(self) -> Decimal:
        """The model's price."""

    @property
    def router(self) -> Decimal:
        """Our own cost."""

    @property
    def saved(self) -> Decimal:
        """Against the baseline; may be negative."""


class Recorder:
    """Takes facts from the event loop. Cheap: nothing here waits or writes to disk but the log handler."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._waiting: OrderedDict[str, Decided] = OrderedDict()
        self.listeners: list[Callable[[Outcome, Decided | None], None]] = []
        """Told of each outcome, on the event loop: they must not wait."""

    def decided(self, decided: Decided) -> None:
        """A request was routed."""
        decision, metrics = decided.decision, self._metrics
        metrics.decisions.add(1, {"route": decision.route, "band": str(decision.band), "model": decided.plan.pick})
        metrics.decision_seconds.record(decided.seconds, {"api": decided.request.api})
        for name, reason in decided.signals.absent.items():
            metrics.absent.add(1, {"signal": name, "reason": reason})
        self._waiting[decided.decision_id] = decided
        while len(self._waiting) > REMEMBERED:
            self._waiting.popitem(last=False)

    def refused(self, api: str, code: str) -> None:
        """A client error was answered."""
        self._metrics.refused.add(1, {"api": api, "code": code})

    def failed(self, api: str, reason: str) -> None:
        """An error of ours: the default model serves. `reason` is one of a few words."""
        self._metrics.failed.add(1, {"api": api, "reason": reason})

    def client_gone(self, api: str) -> None:
        """The client left before its body was complete."""
        self._metrics.gone.add(1, {"api": api})

    def unusable_mode(self, mode: str) -> None:
        """The filter's body mode does not let the body decide the route."""
        self._metrics.unusable.add(1, {"mode": mode})

    def reloaded(self, generation: int, *, accepted: bool) -> None:
        """A new file was tried; `generation` is the one that serves now."""
        self._metrics.reloads.add(1, {"result": "accepted" if accepted else "refused"})
        self._metrics.reload_ok.set(1 if accepted else 0)
        self._metrics.generation.set(generation)

    def priced(self, entry: Priced) -> None:
        """An exchange has been priced. Called on the ledger's thread."""
        metrics, labels = self._metrics, {"model": entry.model, "route": entry.route}
        metrics.cost.add(float(entry.cost + entry.router), labels)
        metrics.savings.add(float(entry.saved), labels)

    def outcome(self, outcome: Outcome) -> None:
        """An exchange has ended, according to Envoy."""
        decided = self._waiting.pop(outcome.decision_id, None)
        metrics, model = self._metrics, outcome.model or "none"
        metrics.outcomes.add(1, {"model": model, "status": str(outcome.status)})
        metrics.answer_seconds.record(outcome.duration_seconds, {"model": model})
        if outcome.attempts:
            metrics.attempts.add(outcome.attempts, {"model": model})
        if outcome.usage is not None:
            metrics.tokens.add(outcome.usage.input, {"model": model, "type": "input"})
            metrics.tokens.add(outcome.usage.output, {"model": model, "type": "output"})
        log.info("%s", json.dumps(_line(outcome, decided), separators=(",", ":")))
        for listener in self.listeners:
            listener(outcome, decided)


def _line(outcome: Outcome, decided: Decided | None) -> dict[str, object]:
    """The canonical log line: everything about one exchange but its texts."""
    line: dict[str, object] = {
        "decision_id": outcome.decision_id,
        "api": outcome.api,
        "route": outcome.route,
        "band": outcome.band,
        "status": outcome.status,
        "model": outcome.model,
        "attempts": outcome.attempts,
        "ms": round(outcome.duration_seconds * 1000, 1),
        "flags": outcome.flags,
    }
    if outcome.first_byte_seconds is not None:
        line["first_byte_ms"] = round(outcome.first_byte_seconds * 1000, 1)
    if outcome.usage is not None:
        line["tokens"] = {"input": outcome.usage.input, "output": outcome.usage.output, "cached": outcome.usage.cached}
    if decided is not None:
        line |= {
            "plan": decided.plan.models,
            "reason": decided.decision.reason,
            "decision_ms": round(decided.seconds * 1000, 2),
            "signals": {
                name: [value.label, round(value.confidence, 3)] for name, value in decided.signals.values.items()
            },
            "absent": dict(decided.signals.absent),
            "generation": decided.generation,
        }
    return line
