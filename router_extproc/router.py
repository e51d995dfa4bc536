"""request -> signals -> route -> selection -> plan, under one deadline. What it returns is all that Envoy must know."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from router_extproc.config.schema import Model, RouterConfig
from router_extproc.domain import Band, Decision, LlmRequest, Plan, SignalSet, SignalValue
from router_extproc.errors import ClientError, ContextTooLong, UnknownModel, UnsupportedModel
from router_extproc.guards import Guards
from router_extproc.inference.base import Classified, Classifier, InferenceError, Prompt
from router_extproc.policy import Policy
from router_extproc.preferences import Preferences
from router_extproc.selection.base import Selection
from router_extproc.signals.base import Signal, SignalInputs

CONTEXT_TURNS = 3
CONTEXT_TURN_CHARS = 600
"""How much of the turns before the newest one the classifier reads: enough for "and in Rust?", not to drown it."""

SURE_TOKENS = 0.5
"""Part of the token estimate that is there for certain: text and code rarely need more than 8 bytes a token."""


@dataclass(frozen=True, slots=True)
class Routed:
    """A request with everything that was decided about it. `stages` says how many seconds each part of it took.

    `held` is what it holds of budgets that replicas share: it travels with the request and comes back with its outcome.
    """

    request: LlmRequest
    signals: SignalSet
    decision: Decision
    plan: Plan
    stages: tuple[tuple[str, float], ...] = ()
    held: str = ""


def classifier_prompt(request: LlmRequest) -> Prompt:
    """What the classifier reads of a request: the newest human turn, and the end of what was said before it."""
    turns = [turn.text[-CONTEXT_TURN_CHARS:] for turn in request.context[-CONTEXT_TURNS:] if turn.role != "tool"]
    return Prompt(request.prompt, "\n".join(turns))


def misfit(model: Model, request: LlmRequest) -> type[ClientError] | None:
    """Why `model` cannot take `request`, as the error that says so; None when it can."""
    needed = request.tokens + (request.max_output_tokens or 0)
    if request.api not in model.speaks:
        return UnsupportedModel
    if not request.modalities <= model.modalities:
        return UnsupportedModel
    if (request.has_tools and not model.tools) or (request.json_mode and not model.json_mode):
        return UnsupportedModel
    return ContextTooLong if needed > model.context_window else None


class Router:
    """One configuration generation, compiled. Immutable; used on the event loop only."""

    def __init__(
        self,
        config: RouterConfig,
        policy: Policy,
        guards: Guards,
        preferences: Preferences,
        signals: Mapping[str, Signal],
        selections: Mapping[str, Selection],
        classifiers: Mapping[str, Classifier],
        picked: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`picked` is told of each model that a plan begins with."""
        self._config = config
        self._picked = picked
        self._policy = policy
        self._guards = guards
        self._preferences = preferences
        self._signals = signals
        self._selections = selections
        needed = {signal.classifier for signal in signals.values()} - {None}
        self._classifiers = {name: classifier for name, classifier in classifiers.items() if name in needed}

    async def classify(self, prompt: Prompt, deadline: float) -> dict[str, Classified | str]:
        """Every classifier's result on `prompt`, or the reason why there is none ("late", "overloaded", "failed")."""
        if not self._classifiers or not prompt.text:
            return dict.fromkeys(self._classifiers, "no text")
        results = await asyncio.gather(*(self._one(c, prompt, deadline) for c in self._classifiers.values()))
        return dict(zip(self._classifiers, results, strict=True))

    async def _one(self, classifier: Classifier, prompt: Prompt, deadline: float) -> Classified | str:
        try:
            return await classifier.classify(prompt, deadline)
        except InferenceError as error:
            return error.reason

    async def route(
        self,
        request: LlmRequest,
        headers: Mapping[str, str],
        deadline: float,
        early: asyncio.Task[dict[str, Classified | str]] | None = None,
    ) -> Routed:
        """Decides before `deadline` (`time.monotonic()` seconds); a signal that is late is absent, never waited for.

        `early` is a classification of the same text that is already under way. Raises UnknownModel, UnsupportedModel or
        ContextTooLong when no model of the catalogue may or can take the request.
        """
        began = time.monotonic()
        results = await self._classified_by(request, deadline, early)
        classified = time.monotonic()
        signals = self.signals(request, headers, results)
        evaluated = time.monotonic()
        decision, plan = self.plan_for(request, signals, headers)
        self._picked(plan.pick)
        stages = (
            ("classify", classified - began),
            ("signals", evaluated - classified),
            ("policy", time.monotonic() - evaluated),
        )
        return Routed(request, signals, decision, plan, stages)

    def plan_for(self, request: LlmRequest, signals: SignalSet, headers: Mapping[str, str]) -> tuple[Decision, Plan]:
        """The decision on signals that are known, and the plan. Raises what `route` raises."""
        decision = self._guards.apply(self._decide(request, signals), request, signals)
        decision = self._preferences.apply(decision, request.model or "", headers, datetime.now(UTC))
        return decision, self._plan(request, decision, signals)

    async def _classified_by(
        self, request: LlmRequest, deadline: float, early: asyncio.Task[dict[str, Classified | str]] | None
    ) -> dict[str, Classified | str]:
        if early is not None:
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    results = await early
            except TimeoutError:
                return dict.fromkeys(self._classifiers, "late")
            if all(isinstance(result, Classified) for result in results.values()):
                return results
            # Refused while the body was still arriving: there may be room now.
        return await self.classify(classifier_prompt(request), deadline)

    def signals(
        self, request: LlmRequest, headers: Mapping[str, str], results: Mapping[str, Classified | str]
    ) -> SignalSet:
        """Evaluates every configured signal on what is known."""
        inputs = SignalInputs(
            request=request,
            headers=headers,
            now=datetime.now(UTC),
            classified={name: result for name, result in results.items() if isinstance(result, Classified)},
            missing={name: result for name, result in results.items() if isinstance(result, str)},
        )
        values: dict[str, SignalValue] = {}
        absent: dict[str, str] = {}
        for name, signal in self._signals.items():
            value = signal.evaluate(inputs)
            if value is None:
                absent[name] = inputs.missing.get(signal.classifier or "", "absent")
            else:
                values[name] = value
        return SignalSet(values, absent)

    def _decide(self, request: LlmRequest, signals: SignalSet) -> Decision:
        name = request.model or ""
        if name in self._config.virtual_models:
            return self._policy.decide(request, signals, name)
        model = self._config.models.get(name)
        if model is None:
            raise UnknownModel(f"the model `{name}` does not exist")
        return Decision(
            route="named",
            band=Band.NAMED,
            confidence=1.0,
            candidates=(name,),
            reason="the client named the model",
            fallbacks=tuple(model.fallback or self._config.default),
        )

    def _plan(self, request: LlmRequest, decision: Decision, signals: SignalSet) -> Plan:
        candidates = self._able(decision.candidates, request, decision.allowed)
        if decision.band is Band.NAMED and not candidates:
            candidates = self._roomiest(decision.candidates, request, decision.allowed)
            if not candidates:
                raise self._nobody(decision.candidates, request)
        if len(candidates) > 1:
            candidates = list(self._selections[decision.selection].order(candidates, request, signals))
            candidates.sort(key=lambda name: name not in decision.favourites)
        others = self._able((*decision.fallbacks, *self._config.default), request, decision.allowed)
        ordered = [*candidates, *others]
        if not ordered:
            everyone = (*decision.candidates, *decision.fallbacks, *self._config.default)
            ordered = self._roomiest(everyone, request, decision.allowed)
            if not ordered:
                raise self._nobody(everyone, request)
        return Plan(tuple(dict.fromkeys(ordered))[: self._config.limits.max_attempts])

    def _able(self, names: Iterable[str], request: LlmRequest, allowed: Container[str] | None) -> list[str]:
        return [
            name
            for name in names
            if (allowed is None or name in allowed) and misfit(self._config.models[name], request) is None
        ]

    def _roomiest(self, names: Iterable[str], request: LlmRequest, allowed: Container[str] | None) -> list[str]:
        """The models that may still have room, largest context window first: the estimate is an upper one.

        Only what is too long for certain is refused here; for the rest the provider's own count decides.
        """
        surely = replace(request, tokens=int(request.tokens * SURE_TOKENS))
        models = self._config.models
        return sorted(self._able(names, surely, allowed), key=lambda name: -models[name].context_window)

    def _nobody(self, names: Iterable[str], request: LlmRequest) -> ClientError:
        """The error to raise when none of `names` can take `request`: too long only if a shorter one would fit."""
        if any(misfit(self._config.models[name], request) is ContextTooLong for name in names):
            asked = f" and {request.max_output_tokens} output tokens" if request.max_output_tokens else ""
            return ContextTooLong(f"about {request.tokens} input tokens{asked} fit no model's context window")
        return UnsupportedModel(
            f"no model for this request takes {request.api} with "
            f"{', '.join(sorted(request.modalities))}{' and tools' if request.has_tools else ''}"
        )
