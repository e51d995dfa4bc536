"""Where facts about exchanges go: metrics, and whoever listens (ledger, decision log, live view)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Protocol

from router_extproc.domain import Decision, LlmRequest, Outcome, Plan, SignalSet
from router_extproc.telemetry.context import Sampler, TraceContext
from router_extproc.telemetry.metrics import Metrics

KEPT_PROMPT = 4096
REMEMBERED = 4096
"""Decisions kept until their outcome arrives. Beyond it the oldest is reported without an outcome."""

OPERATIONS = {
    "chat_completions": "chat",
    "responses": "chat",
    "messages": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
}
CLIENT_LEFT = ("DC", "DR")
"""Envoy's response flags of an answer that the client did not wait for."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision with what led to it. `seconds` is from the last byte of the body to the decision.

    `stages` are its parts by name, in seconds. `at` is when, in seconds since 1970 (UTC).
    """

    decision_id: str
    request: LlmRequest
    signals: SignalSet
    decision: Decision
    plan: Plan
    seconds: float
    generation: int
    stages: tuple[tuple[str, float], ...] = ()
    tenant: str = ""
    at: float = 0.0
    trace: TraceContext | None = None


@dataclass(frozen=True, slots=True)
class Served:
    """What metrics say of a catalogue model: `provider` in OpenTelemetry's words, `name` as its provider calls it."""

    provider: str
    name: str
    address: str
    port: int


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


Listener = Callable[[Outcome | None, Decided | None], None]


class Recorder:
    """Takes facts on the event loop. Cheap: nothing here waits, formats or touches a disk."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._waiting: OrderedDict[str, Decided] = OrderedDict()
        self.served: Callable[[], Mapping[str, Served]] = dict
        """The models that serve now, by catalogue name."""
        self.sampler = Sampler(0, on=False)
        """Which exchanges are traced."""
        self.listeners: list[Listener] = []
        """Told of each outcome with its decision, where known, and of decisions whose outcome never came (None)."""
        self.on_decision: list[Callable[[Decided], None]] = []
        """Told of each decision when it is made, while Envoy waits for the answer."""

    def decided(self, decided: Decided) -> None:
        """A request was routed."""
        decision, metrics = decided.decision, self._metrics
        metrics.decisions.add(1, decision.route, decision.band.value, decided.plan.pick)
        metrics.decision_seconds.record(decided.seconds, decided.request.api)
        if decided.trace is not None:
            example = (decided.seconds, decided.trace.trace_id, decided.at)
            metrics.decision_seconds.exemplify(*example, decided.request.api)
        for stage, seconds in decided.stages:
            metrics.stage_seconds.record(seconds, stage)
        for name, reason in decided.signals.absent.items():
            metrics.absent.add(1, name, reason)
        for name in decision.guards:
            metrics.guard_actions.add(1, name)
        decided = _without_texts(decided)
        self._waiting[decided.decision_id] = decided
        if len(self._waiting) > REMEMBERED:
            _, oldest = self._waiting.popitem(last=False)
            self._tell(None, oldest)
        for listener in self.on_decision:
            listener(decided)

    def refused(self, api: str, code: str) -> None:
        """A client error was answered."""
        self._metrics.refused.add(1, api, code)

    def failed(self, api: str, reason: str) -> None:
        """An error of ours: the default model serves. `reason` is one of a few words."""
        self._metrics.failed.add(1, api, reason)

    def client_gone(self, api: str) -> None:
        """The client left before its body was complete."""
        self._metrics.gone.add(1, api)

    def unusable_mode(self, mode: str) -> None:
        """The filter's body mode does not let the body decide the route."""
        self._metrics.unusable.add(1, mode)

    def reloaded(self, generation: int, *, accepted: bool) -> None:
        """A new file was tried; `generation` is the one that serves now."""
        self._metrics.reloads.add(1, "accepted" if accepted else "refused")
        self._metrics.reload_ok.set(1 if accepted else 0)
        self._metrics.generation.set(generation)

    def budget_acted(self, budget: str, action: str) -> None:
        """A budget changed or refused a plan."""
        self._metrics.budget_actions.add(1, budget, action)

    def budget_alone(self, reason: str) -> None:
        """Budgets judged a request without knowing the other replicas' part."""
        self._metrics.budget_alone.add(1, reason)

    def lagged(self, seconds: float) -> None:
        """The event loop woke up this late."""
        self._metrics.loop_lag.record(seconds)

    def priced(self, entry: Priced) -> None:
        """An exchange has been priced. Called on the ledger's thread, the only one that writes these two."""
        self._metrics.cost.add(float(entry.cost + entry.router), entry.model, entry.route)
        self._metrics.savings.add(float(entry.saved), entry.model, entry.route)

    def outcome(self, outcome: Outcome) -> None:
        """An exchange has ended, according to Envoy."""
        decided = self._waiting.pop(outcome.decision_id, None)
        metrics, model = self._metrics, outcome.model or "none"
        metrics.outcomes.add(1, model, str(outcome.status))
        metrics.exchange_seconds.record(outcome.duration_seconds, outcome.route or "none")
        if outcome.attempts:
            metrics.attempts.add(outcome.attempts, model)
        if decided is not None and decided.trace is not None:
            example = (outcome.duration_seconds, decided.trace.trace_id, decided.at)
            metrics.exchange_seconds.exemplify(*example, outcome.route or "none")
        self._gen_ai(outcome)
        self._tell(outcome, decided)

    def drain(self) -> None:
        """Reports the decisions that still wait for an outcome: the process ends."""
        while self._waiting:
            self._tell(None, self._waiting.popitem(last=False)[1])

    def _gen_ai(self, outcome: Outcome) -> None:
        """The metrics of OpenTelemetry's conventions, as far as Envoy's access log can tell."""
        metrics, usage, served = self._metrics, outcome.usage, self.served().get(outcome.model or "")
        operation = OPERATIONS.get(outcome.api, outcome.api)
        answered_by = usage.model if usage else ""
        if served is None:
            labels = (operation, "", "", "", "", "")
        else:
            labels = (operation, served.provider, served.name, answered_by, served.address, str(served.port or ""))
        error = error_type(outcome)
        metrics.operation_seconds.record(outcome.duration_seconds, *labels, error)
        if usage is None:
            return
        model, estimated = outcome.model or "none", "true" if usage.estimated else "false"
        metrics.tokens.add(usage.input, model, "input", estimated)
        metrics.tokens.add(usage.output, model, "output", estimated)
        if usage.cached:
            metrics.tokens.add(usage.cached, model, "cached", estimated)
        if not usage.estimated:
            metrics.token_usage.record(usage.input, *labels, "input")
            metrics.token_usage.record(usage.output, *labels, "output")
        if outcome.stream and not error and outcome.first_byte_seconds is not None:
            metrics.first_chunk_seconds.record(outcome.first_byte_seconds, *labels)
            metrics.first_token_seconds.record(outcome.first_byte_seconds, *labels)
            if usage.output > 1 and not usage.estimated:
                rest = outcome.duration_seconds - outcome.first_byte_seconds
                metrics.per_token_seconds.record(max(0.0, rest) / (usage.output - 1), *labels)

    def _tell(self, outcome: Outcome | None, decided: Decided | None) -> None:
        for listener in self.listeners:
            listener(outcome, decided)


def _without_texts(decided: Decided) -> Decided:
    """Thousands of these are kept, and a conversation may be megabytes long: only the prompt's beginning stays."""
    request = decided.request
    if not request.context and not request.system and len(request.prompt) <= KEPT_PROMPT:
        return decided
    return replace(decided, request=replace(request, prompt=request.prompt[:KEPT_PROMPT], context=(), system=""))


def error_type(outcome: Outcome) -> str:
    """OpenTelemetry's `error.type`: the status, or that the client left; empty for a success."""
    if outcome.status == 0 or any(flag in CLIENT_LEFT for flag in outcome.flags.split(",")):
        return "client_disconnected"
    return str(outcome.status) if outcome.status >= 400 else ""
