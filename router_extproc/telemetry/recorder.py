"""Where facts about exchanges go: metrics, and whoever listens (ledger, decision log, live view)."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Protocol

from opentelemetry.context import Context

from router_extproc.domain import Decision, LlmRequest, Outcome, Plan, SignalSet, Wishes
from router_extproc.telemetry import instruments
from router_extproc.telemetry.context import Sampler, TraceContext
from router_extproc.telemetry.instruments import Instrument
from router_extproc.telemetry.metrics import Metrics, Values

KEPT_PROMPT = 4096
REMEMBERED = 16_384
"""Decisions kept until their outcome arrives, 10 KiB each with a long prompt. Beyond it the oldest is reported without
an outcome."""
PATIENCE_SECONDS = 660.0

OPERATIONS = {
    "chat_completions": "chat",
    "responses": "chat",
    "messages": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
}
NO_WISHES = Wishes()
CLIENT_LEFT = ("DC", "DR")
"""Envoy's response flags of an answer that the client did not wait for."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision with what led to it. `seconds` is from the last byte of the body to the decision.

    `stages` are its parts by name, in seconds. `at` is when, in seconds since 1970 (UTC). `session` is the key of the
    conversation, "" if unknown.
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
    session: str = ""
    wishes: Wishes = NO_WISHES


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that was read and answered with an error. `guards` are those that held; otherwise as in `Decided`.

    `request_id` is Envoy's, by which its access log tells of the answer.
    """

    decision_id: str
    request_id: str
    request: LlmRequest
    signals: SignalSet
    status: int
    code: str
    guards: tuple[str, ...]
    generation: int
    tenant: str = ""
    session: str = ""
    wishes: Wishes = NO_WISHES
    at: float = 0.0


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
Work = Callable[[], None]


class Recorder:
    """Takes facts on the event loop. Cheap: nothing here waits, formats, measures or touches a disk."""

    def __init__(
        self, metrics: Metrics, *, remembered: int = REMEMBERED, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`remembered` decisions wait for their outcome; `clock` counts seconds."""
        self._metrics, self._remembered, self._clock = metrics, remembered, clock
        self._waiting: OrderedDict[str, tuple[Decided, float]] = OrderedDict()
        """With the time after which nobody will tell the outcome."""
        self._serving: dict[Instrument, float] = {}
        self.later: Callable[[Work], object] = _at_once
        """Where measuring is done: OpenTelemetry takes some 10 microseconds for each of the fifteen of a request."""
        self.trace: Callable[[Outcome | None, Decided, Served | None], None] | None = None
        """Makes the spans of a sampled exchange, where the measuring is done."""
        self.served: Callable[[], Mapping[str, Served]] = dict
        """The models that serve now, by catalogue name."""
        self.patience: Callable[[], float] = lambda: PATIENCE_SECONDS
        """Seconds that a decision may wait for its outcome: a little longer than a request can last."""
        self.sampler = Sampler(0, on=False)
        """Which exchanges are traced."""
        self.listeners: list[Listener] = []
        """Told of each outcome with its decision, where known, and of decisions whose outcome never came (None)."""
        self.on_decision: list[Callable[[Decided], None]] = []
        """Told of each decision when it is made, while Envoy waits for the answer."""
        self.on_refusal: list[Callable[[Refused], None]] = []
        """The same for requests that are refused after they have been read."""
        self._stores: Values = {}
        metrics.watch(instruments.STORE_UP, lambda: self._stores)
        for instrument in (instruments.GENERATION, instruments.RELOAD_OK):
            metrics.watch(instrument, partial(self._shown, instrument))

    def decided(self, decided: Decided) -> None:
        """A request was routed."""
        kept = _without_texts(decided.request)
        decided = decided if kept is decided.request else replace(decided, request=kept)
        self.later(partial(self._measure_decision, decided))
        now = self._clock()
        self._waiting[decided.decision_id] = (decided, now + self.patience())
        while self._waiting:
            oldest, until = next(iter(self._waiting.values()))
            if until > now and len(self._waiting) <= self._remembered:
                break
            self._waiting.popitem(last=False)
            self._lost(oldest)
        for listener in self.on_decision:
            listener(decided)

    def refused(self, api: str, code: str, refused: Refused | None = None) -> None:
        """A client error was answered; `refused` where the request had been read."""
        self._count(instruments.REFUSED, api, code)
        if refused is not None:
            refused = replace(refused, request=_without_texts(refused.request))
            for listener in self.on_refusal:
                listener(refused)

    def judged(self, verdict: str, route: str, guards: tuple[str, ...]) -> None:
        """Somebody said what a decision was worth; `guards` are those that had held."""
        for guard in guards or ("",):
            self._count(instruments.FEEDBACK, verdict, route, guard)

    def failed(self, api: str, reason: str) -> None:
        """An error of ours kept a request from being judged. `reason` is one of a few words."""
        self._count(instruments.FAILED, api, reason)

    def client_gone(self, api: str) -> None:
        """The client left before its body was complete."""
        self._count(instruments.GONE, api)

    def unusable_mode(self, mode: str) -> None:
        """The filter's body mode does not let the body decide the route."""
        self._count(instruments.UNUSABLE, mode)

    def serves(self, generation: int, *, newest: bool) -> None:
        """Which generation serves now, and whether it is made of the newest version of all that is watched."""
        self._serving = {instruments.GENERATION: generation, instruments.RELOAD_OK: int(newest)}

    def reloaded(self, *, accepted: bool) -> None:
        """A new file was tried."""
        self._count(instruments.RELOADS, "accepted" if accepted else "refused")

    def budget_acted(self, budget: str, action: str) -> None:
        """A budget changed or refused a plan."""
        self._count(instruments.BUDGET_ACTIONS, budget, action)

    def budget_alone(self, reason: str) -> None:
        """Budgets judged a request without knowing the other replicas' part."""
        self._count(instruments.BUDGET_ALONE, reason)

    def store_answers(self, use: str, answers: bool) -> None:
        """Whether the store answers, for one of its uses."""
        self._stores = {**self._stores, (use,): int(answers)}

    def lagged(self, seconds: float) -> None:
        """The event loop woke up this late."""
        self.later(partial(self._metrics.record, instruments.LOOP_LAG, seconds))

    def priced(self, entry: Priced) -> None:
        """An exchange has been priced. Called on the ledger's thread, so that it measures right here."""
        self._metrics.add(instruments.COST, float(entry.cost + entry.router), entry.model, entry.route)
        self._metrics.add(instruments.SAVINGS, float(entry.saved), entry.model, entry.route)

    def outcome(self, outcome: Outcome) -> None:
        """An exchange has ended, according to Envoy."""
        decided, _ = self._waiting.pop(outcome.decision_id, (None, 0.0))
        self.later(partial(self._measure_exchange, outcome, decided, self.served().get(outcome.model or "")))
        self._tell(outcome, decided)

    def drain(self) -> None:
        """Reports the decisions that still wait for an outcome: the process ends."""
        while self._waiting:
            _, (decided, _) = self._waiting.popitem(last=False)
            self._lost(decided)

    def _lost(self, decided: Decided) -> None:
        """No outcome came."""
        if decided.trace is not None:
            self.later(partial(self._make_spans, None, decided, None))
        self._tell(None, decided)

    def _count(self, instrument: Instrument, *labels: str) -> None:
        self.later(partial(self._metrics.add, instrument, 1, *labels))

    def _shown(self, instrument: Instrument) -> Values:
        return {(): self._serving[instrument]} if self._serving else {}

    def _measure_decision(self, decided: Decided) -> None:
        decision, metrics = decided.decision, self._metrics
        context = decided.trace.within if decided.trace is not None else None
        metrics.add(instruments.DECISIONS, 1, decision.route, decision.band.value, decided.plan.pick, context=context)
        metrics.record(instruments.DECISION_SECONDS, decided.seconds, decided.request.api, context=context)
        for stage, seconds in decided.stages:
            metrics.record(instruments.STAGE_SECONDS, seconds, stage, context=context)
        for name, reason in decided.signals.absent.items():
            metrics.add(instruments.ABSENT, 1, name, reason, context=context)
        for name in decision.guards:
            metrics.add(instruments.GUARD_ACTIONS, 1, name, context=context)
        if decision.affinity:
            metrics.add(instruments.STICKY, 1, decision.route, decision.affinity, context=context)

    def _measure_exchange(self, outcome: Outcome, decided: Decided | None, served: Served | None) -> None:
        metrics, model = self._metrics, outcome.model or "none"
        context = decided.trace.within if decided is not None and decided.trace is not None else None
        metrics.add(instruments.OUTCOMES, 1, model, str(outcome.status), error_type(outcome), context=context)
        metrics.record(instruments.EXCHANGE_SECONDS, outcome.duration_seconds, outcome.route or "none", context=context)
        for tried, attempts in _tried(outcome).items():
            metrics.add(instruments.ATTEMPTS, attempts, tried, context=context)
        self._gen_ai(outcome, served, context)
        if decided is not None and decided.trace is not None:
            self._make_spans(outcome, decided, served)

    def _gen_ai(self, outcome: Outcome, served: Served | None, context: Context | None) -> None:
        """The metrics of OpenTelemetry's conventions, as far as Envoy's access log can tell."""
        metrics, usage = self._metrics, outcome.usage
        operation = OPERATIONS.get(outcome.api, outcome.api)
        answered_by = usage.model if usage else ""
        labels: tuple[str | int, ...] = (operation, "", "", "", "", "")
        if served is not None:
            labels = (operation, served.provider, served.name, answered_by, served.address, served.port or "")
        error = error_type(outcome)
        metrics.record(instruments.OPERATION_SECONDS, outcome.duration_seconds, *labels, error, context=context)
        if usage is None:
            return
        model, estimated = outcome.model or "none", "true" if usage.estimated else "false"
        metrics.add(instruments.TOKENS, usage.input, model, "input", estimated, context=context)
        metrics.add(instruments.TOKENS, usage.output, model, "output", estimated, context=context)
        for kind, tokens in (("cached", usage.cached), ("cache_write", usage.cache_write)):
            if tokens:
                metrics.add(instruments.TOKENS, tokens, model, kind, estimated, context=context)
        if not usage.estimated:
            metrics.record(instruments.TOKEN_USAGE, usage.input, *labels, "input", context=context)
            metrics.record(instruments.TOKEN_USAGE, usage.output, *labels, "output", context=context)
        if outcome.stream and not error and outcome.first_byte_seconds is not None:
            first, rest = outcome.first_byte_seconds, outcome.duration_seconds - outcome.first_byte_seconds
            metrics.record(instruments.FIRST_CHUNK_SECONDS, first, *labels, context=context)
            metrics.record(instruments.FIRST_TOKEN_SECONDS, first, *labels, context=context)
            if usage.output > 1 and not usage.estimated:
                each = max(0.0, rest) / (usage.output - 1)
                metrics.record(instruments.PER_TOKEN_SECONDS, each, *labels, context=context)

    def _make_spans(self, outcome: Outcome | None, decided: Decided, served: Served | None) -> None:
        if self.trace is not None:
            self.trace(outcome, decided, served)

    def _tell(self, outcome: Outcome | None, decided: Decided | None) -> None:
        for listener in self.listeners:
            listener(outcome, decided)


def _tried(outcome: Outcome) -> dict[str, int]:
    """Attempts by model. A gateway that does not follow the plan tries the model that answers in the end again."""
    tried = outcome.plan[: outcome.attempts]
    if len(tried) == outcome.attempts and tried and tried[-1] == outcome.model:
        return dict.fromkeys(tried, 1)
    return {outcome.model or "none": outcome.attempts} if outcome.attempts else {}


def _at_once(work: Work) -> None:
    work()


def _without_texts(request: LlmRequest) -> LlmRequest:
    """Thousands of these are kept, and a conversation may be megabytes long: only the prompt's beginning stays."""
    texts = request.context or request.system or request.written or request.opening or request.thoughts
    if not texts and len(request.prompt) <= KEPT_PROMPT:
        return request
    prompt = request.prompt[:KEPT_PROMPT]
    return replace(request, prompt=prompt, context=(), system="", written=(), fresh=0, opening="", thoughts=())


def error_type(outcome: Outcome) -> str:
    """OpenTelemetry's `error.type`: the status, that the client left, or that the answer broke off; empty for a
    success."""
    if outcome.status == 0 or any(flag in CLIENT_LEFT for flag in outcome.flags.split(",")):
        return "client_disconnected"
    if outcome.broken:
        return "stream_broken"
    return str(outcome.status) if outcome.status >= 400 else ""
