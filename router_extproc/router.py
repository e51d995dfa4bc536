"""request -> signals -> route -> selection -> plan, under one deadline. What it returns is all that Envoy must know."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import urlsplit

from router_extproc.config.model import Api, Model
from router_extproc.config.schema import RouterConfig
from router_extproc.domain import (
    MAX_CONSIDERED,
    Band,
    Considered,
    Decision,
    LlmRequest,
    Outcome,
    Plan,
    SignalSet,
    SignalValue,
    Wishes,
)
from router_extproc.errors import ClientError, ContextTooLong, UnknownModel, UnsupportedModel
from router_extproc.facts import Facts
from router_extproc.guards import Guards
from router_extproc.inference.base import Classified, Classifier, InferenceError, Prompt
from router_extproc.inference.windows import count_windows
from router_extproc.policy import Policy
from router_extproc.preferences import Preferences
from router_extproc.routes import MAX_REASON, expand
from router_extproc.selection.base import Selection
from router_extproc.sessions import SessionKeys
from router_extproc.signals.base import Reads, Signal, SignalInputs, widest
from router_extproc.stores.affinity import Affinity, Kept, MemoryAffinity

CONTEXT_TURNS = 3
CONTEXT_TURN_CHARS = 600
"""How much of the turns before the newest one the classifier reads: enough for "and in Rust?", not to drown it."""

Early = asyncio.Task[dict[str, Classified | str]]
"""A classification that began while the body was still arriving: every classifier's pass, or why there is none."""

NO_EARLIER: Mapping[str, Early] = {}

LAST_LOOK_SECONDS = 0.005
"""Before the deadline a classification that began early, which has more time, is asked for what it has."""

SURE_TOKENS = 0.5
"""Part of the token estimate that is there for certain: text and code rarely need more than 8 bytes a token."""


NO_WISHES = Wishes()

WORSE: Mapping[str, int] = {Band.NAMED: 0, Band.RECOMMENDED: 0, Band.FALLBACK: 1, Band.DEFAULT: 2}
"""Bands by how unsure they are."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What is known of a request before anything is decided. `session` is its conversation's key, "" if unknown,
    `kept` where that conversation is, and `home` who answered it last, where a provider holds a part of it. `stages`
    says how many seconds each part took."""

    request: LlmRequest
    signals: SignalSet
    session: str = ""
    kept: Kept | None = None
    wishes: Wishes = NO_WISHES
    stages: tuple[tuple[str, float], ...] = ()
    home: Kept | None = None


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
    session: str = ""
    kept: Kept | None = None
    wishes: Wishes = NO_WISHES
    held: str = ""


def classifier_prompt(request: LlmRequest) -> Prompt:
    """What the classifier reads of a request: the newest human turn, and the end of what was said before it."""
    turns = [turn.text[-CONTEXT_TURN_CHARS:] for turn in request.context[-CONTEXT_TURNS:] if turn.role != "tool"]
    return Prompt(request.prompt, "\n".join(turns))


NOT_ALLOWED = "not allowed"
"""Why a default model is left out that a guard, a preference or the route's `require` keeps from the request."""

ELSEWHERE = "another provider"
"""Why a model is left out that cannot see the part of the request which a provider holds."""

OTHER_VECTORS = "another model"
"""Why a model is left out whose embeddings would not be comparable."""

TOO_LONG = "context window"
"""The one misfit that a shorter request would not have."""


def misfit(model: Model, request: LlmRequest) -> str | None:
    """Why `model` cannot take `request`, in a word or two; None when it can."""
    if request.api not in model.speaks:
        return "api"
    if not request.modalities <= model.modalities:
        return "modality"
    if request.has_tools and not model.tools:
        return "tools"
    if request.json_mode and not model.json_mode:
        return "json mode"
    return TOO_LONG if request.context_tokens + (request.max_output_tokens or 0) > model.context_window else None


def home_key(session: str) -> str:
    """Under which a conversation's affinity tells who answered it last, whatever the route. Another key than that of
    sticky routes, which do not go by what others did."""
    return f"home:{session}"


def _stuck(decision: Decision, ranked: list[Considered], kept: Kept | None) -> Decision:
    """Puts the model that the conversation is on before the other candidates, where it may stay there."""
    if kept is None:
        return replace(decision, affinity="new")
    if WORSE[decision.band] > WORSE.get(kept.band, 0):
        return replace(decision, affinity="away")
    if kept.model not in [row.model for row in ranked]:
        return replace(decision, affinity="moved")
    if ranked[0].model == kept.model:
        return replace(decision, affinity="kept")
    ranked.sort(key=lambda row: row.model != kept.model)
    return replace(decision, affinity="kept", reason=f"{decision.reason}; the conversation stays"[:MAX_REASON])


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
        keys: SessionKeys | None = None,
        affinity: Affinity | None = None,
    ) -> None:
        """`picked` is told of each model that a plan begins with which is followed. `keys` and `affinity` outlive
        generations."""
        self._config = config
        self._keys = keys or SessionKeys()
        self._affinity = affinity if affinity is not None else MemoryAffinity()
        self._sticky = any(route.sticky for route in config.routes)
        self._own = {
            route.name: frozenset(expand((*route.models, *(route.fallback or ())), config.models))
            for route in config.routes
        }
        self._picked = picked
        self._patience = config.limits.deadline_ms / 1000
        self._policy = policy
        self._guards = guards
        self._preferences = preferences
        self._signals = signals
        self._selections = selections
        needed = {signal.classifier for signal in signals.values()} - {None}
        self._classifiers = {name: classifier for name, classifier in classifiers.items() if name in needed}
        self.classifies = bool(self._classifiers)
        """Whether any signal needs a pass."""
        self.reads = widest(signals.values())
        """What signals read of a request."""

    async def classify(self, prompt: Prompt, deadline: float) -> dict[str, Classified | str]:
        """Every classifier's result on `prompt`, or the reason why there is none ("late", "overloaded", "failed")."""
        if not self._classifiers or not prompt.text:
            return dict.fromkeys(self._classifiers, "no text")
        results = await asyncio.gather(*(self._one(c, prompt, deadline) for c in self._classifiers.values()))
        return dict(zip(self._classifiers, results, strict=True))

    async def _one(self, classifier: Classifier, prompt: Prompt, deadline: float) -> Classified | str:
        try:
            return await classifier.classify(prompt, deadline, self._patience)
        except InferenceError as error:
            return error.reason

    async def route(
        self,
        request: LlmRequest,
        headers: Mapping[str, str],
        deadline: float,
        early: Early | None = None,
    ) -> Routed:
        """Decides before `deadline` (`time.monotonic()` seconds); a signal that is late is absent, never waited for.

        `early` is a classification of the same text that is already under way. Raises UnknownModel, UnsupportedModel or
        ContextTooLong when no model of the catalogue may or can take the request.
        """
        return self.choose(await self.judge(request, headers, deadline, early), headers)

    async def judge(
        self,
        request: LlmRequest,
        headers: Mapping[str, str],
        deadline: float,
        early: Early | None = None,
        ahead: Mapping[str, Early] = NO_EARLIER,
    ) -> Judged:
        """The first half of `route`: everything that has to be waited for. Raises nothing.

        `ahead` are classifications of texts beside the prompt that are under way.
        """
        began = time.monotonic()
        session = self.session(request, headers)
        kept = await self._affinity.recall(session) if self._sticky and session else None
        home = await self._affinity.recall(home_key(session)) if request.stateful and session else None
        beside = self.beside(request.written, request.fresh)
        reading = self._classified_by(classifier_prompt(request), deadline, early)
        if beside:
            others = (self._classified_by(Prompt(text), deadline, ahead.get(text)) for text in beside)
            results, *passes = await asyncio.gather(reading, *others)
        else:
            results, passes = await reading, []
        classified = time.monotonic()
        signals = self.signals(request, headers, results, tuple(zip(beside, passes, strict=True)))
        stages = (("classify", classified - began), ("signals", time.monotonic() - classified))
        wishes = self._preferences.wishes(headers, self._keys.user(request.user))
        return Judged(request, signals, session, kept, wishes, stages, home)

    def choose(self, judged: Judged, headers: Mapping[str, str]) -> Routed:
        """The second half of `route`, and raises what that raises."""
        began = time.monotonic()
        decision, plan = self.plan_for(judged.request, judged.signals, headers, judged.kept, home=judged.home)
        stages = (*judged.stages, ("policy", time.monotonic() - began))
        known = (judged.session, judged.kept, judged.wishes)
        return Routed(judged.request, judged.signals, decision, plan, stages, *known)

    def keep(self, routed: Routed) -> None:
        """Told of each plan that is followed, as admission left it: counts the pick, and remembers where a conversation
        of a sticky route is now; after a turn away from there, where it was. And who answers a request that a later one
        may refer to."""
        decision, kept = routed.decision, routed.kept
        self._picked(routed.plan.pick)
        if routed.request.api == Api.RESPONSES and routed.session:
            self._keep_home(routed.session, Kept(routed.plan.pick, decision.band.value))
        if not decision.sticky or not routed.session:
            return
        stays = decision.affinity == "kept" and kept is not None and kept.model == routed.plan.pick
        if kept is None or not (stays or decision.affinity == "away"):
            kept = Kept(routed.plan.pick, decision.band.value)
        self._affinity.keep(routed.session, kept, self._config.sessions.sticky_seconds)

    def answered(self, outcome: Outcome, session: str) -> None:
        """Remembers who did answer a request of this conversation ("" if unknown): maybe not the pick, but the model
        that came after it."""
        answers = outcome.api == Api.RESPONSES and 200 <= outcome.status < 300
        if answers and session and outcome.model in self._config.models:
            self._keep_home(session, Kept(outcome.model, outcome.band))

    def _keep_home(self, session: str, home: Kept) -> None:
        self._affinity.keep(home_key(session), home, self._config.sessions.sticky_seconds)

    def session(self, request: LlmRequest, headers: Mapping[str, str]) -> str:
        """The key of the request's conversation, "" when nothing tells which one it is."""
        tenant = headers.get(self._config.ledger.tenant_header or "", "")
        return self._keys.key(self._config.sessions, request, headers, tenant)

    def plan_for(
        self,
        request: LlmRequest,
        signals: SignalSet,
        headers: Mapping[str, str],
        kept: Kept | None = None,
        now: datetime | None = None,
        home: Kept | None = None,
    ) -> tuple[Decision, Plan]:
        """The decision on signals that are known, and the plan, at `now` (aware). Raises what `route` raises."""
        facts = Facts(request, signals, request.model or "")
        decision = self._guards.apply(self._decide(facts), facts)
        now = now or datetime.now(UTC)
        decision = self._preferences.apply(decision, request.model or "", headers, now)
        return self._planned(request, decision, signals, now, kept, home)

    def beside(self, written: Sequence[str], fresh: int) -> list[str]:
        """Which of these texts (`LlmRequest.written`) are read beside the prompt: as many as `limits.read_windows`
        allows, and the newest in any case."""
        if self.reads is Reads.PROMPT or not self._classifiers:
            return []
        chosen: dict[str, None] = {}
        room = self._config.limits.read_windows
        for text in written[:fresh] if self.reads is Reads.UNTRUSTED else written:
            room -= 0 if text in chosen else count_windows(text)
            if room < 0 and chosen:
                break
            chosen[text] = None
        return list(chosen)

    async def _classified_by(self, prompt: Prompt, deadline: float, early: Early | None) -> dict[str, Classified | str]:
        if early is not None:
            left = deadline - time.monotonic()
            done, _ = await asyncio.wait([early], timeout=left - min(LAST_LOOK_SECONDS, left / 10))
            if done:
                results = early.result()
                if all(isinstance(result, Classified) for result in results.values()):
                    return results
            # Refused while the body was still arriving: there may be room now. Or not done by now: asked again with the
            # deadline that counts, for what has been read of the text by then.
            early.cancel()
        return await self.classify(prompt, deadline)

    def signals(
        self,
        request: LlmRequest,
        headers: Mapping[str, str],
        results: Mapping[str, Classified | str],
        beside: Sequence[tuple[str, Mapping[str, Classified | str]]] = (),
        now: datetime | None = None,
    ) -> SignalSet:
        """Evaluates every configured signal on what is known."""
        inputs = SignalInputs(
            request=request,
            headers=headers,
            now=now or datetime.now(UTC),
            classified={name: result for name, result in results.items() if isinstance(result, Classified)},
            missing={name: result for name, result in results.items() if isinstance(result, str)},
            beside=beside,
        )
        values: dict[str, SignalValue] = {}
        absent: dict[str, str] = {}
        for name, signal in self._signals.items():
            value = signal.evaluate(inputs)
            if value is None:
                absent[name] = inputs.why_absent(signal.classifier)
            else:
                values[name] = value
        return SignalSet(values, absent)

    def _decide(self, facts: Facts) -> Decision:
        name = facts.virtual
        vectors = facts.request.api == Api.EMBEDDINGS
        if name in self._config.virtual_models:
            decision = self._policy.decide(facts)
            return self._embedding(decision) if vectors else decision
        model = self._config.models.get(name)
        if model is None:
            raise UnknownModel(f"the model `{name}` does not exist")
        return Decision(
            route="named",
            band=Band.NAMED,
            confidence=1.0,
            candidates=(name,),
            reason="the client named the model",
            fallbacks=tuple(model.fallback or (() if vectors else self._config.default)),
            stand_ins=not vectors,
            ends=model.fallback is not None,
        )

    def _embedding(self, decision: Decision) -> Decision:
        """`decision` on texts to embed. Vectors of two models cannot be compared, and nobody would notice: the models
        of a route stand in for each other, and of the default models the first that embeds takes all."""
        own, names = self._own.get(decision.route, frozenset()), decision.candidates
        if own.issuperset(names):
            fallbacks = tuple(name for name in decision.fallbacks if name in own)
            return replace(decision, fallbacks=fallbacks, stand_ins=False)
        models = self._config.models
        first = next((name for name in names if Api.EMBEDDINGS in models[name].speaks), names[0])
        out = [Considered(name, out=OTHER_VECTORS) for name in names if name != first]
        return replace(
            decision,
            candidates=(first,),
            fallbacks=tuple(models[first].fallback or ()),
            considered=(*decision.considered, *out)[:MAX_CONSIDERED],
            stand_ins=False,
        )

    def _planned(
        self,
        request: LlmRequest,
        decision: Decision,
        signals: SignalSet,
        now: datetime,
        kept: Kept | None,
        home: Kept | None,
    ) -> tuple[Decision, Plan]:
        """The decision with what became of each model that it could have taken, and the plan."""
        out: dict[str, str] = {row.model: row.out for row in decision.considered}
        candidates = self._able(decision.candidates, request, decision.allowed, out)
        if decision.band is Band.NAMED and not candidates:
            candidates = self._roomiest(decision.candidates, request, decision.allowed)
            if not candidates:
                raise self._nobody(decision.candidates, request)
        ranked = self._selections[decision.selection].rank(candidates, request, signals, now) if candidates else []
        if decision.favourites:
            ranked.sort(key=lambda row: row.model not in decision.favourites)
        if decision.sticky:
            decision = _stuck(decision, ranked, kept)
        others = self._able(self._spares(decision, request), request, decision.allowed, out)
        ordered = [*(row.model for row in ranked), *others]
        if request.stateful:
            decision, ordered = self._at_home(ordered, request, decision, home, out)
        plan = self._plan(ordered, request, decision)
        rows = [
            *ranked[:MAX_CONSIDERED],
            *(Considered(name, out=why) for name, why in out.items() if name not in plan.models),
        ]
        return replace(decision, considered=tuple(rows[:MAX_CONSIDERED])), plan

    def _plan(self, ordered: list[str], request: LlmRequest, decision: Decision) -> Plan:
        if not ordered:
            everyone = (*decision.candidates, *self._spares(decision, request))
            ordered = self._roomiest(everyone, request, decision.allowed)
            if not ordered:
                raise self._nobody(everyone, request)
        return Plan(tuple(dict.fromkeys(ordered))[: self._config.limits.max_attempts])

    def _spares(self, decision: Decision, request: LlmRequest) -> tuple[str, ...]:
        """The models that come after the candidates."""
        if decision.ends or not decision.stand_ins:
            return decision.fallbacks
        return decision.fallbacks + self._config.default_of(request.model)

    def _at_home(
        self, ordered: list[str], request: LlmRequest, decision: Decision, home: Kept | None, out: dict[str, str]
    ) -> tuple[Decision, list[str]]:
        """`ordered` for a request of which a provider holds a part: the model that answered before (a default model
        where nobody knows, a named one in any case), then others of the same provider and host."""
        first = ordered[:1]
        if decision.band is not Band.NAMED:
            near = [home.model] if home is not None and home.model in self._config.models else []
            near += [name for name in ordered if near and self._place(name) == self._place(near[0])]
            likely = (*near, *self._config.default_of(request.model))
            first = self._able(likely, request, decision.allowed, {})[:1] or first
        if not first:
            return decision, ordered
        there = [name for name in (*first, *ordered) if self._place(name) == self._place(first[0])]
        out.update((name, ELSEWHERE) for name in ordered if name not in there)
        if first != ordered[:1]:
            reason = f"{decision.reason}; a part of it lies with a provider"[:MAX_REASON]
            decision = replace(decision, reason=reason)
        return decision, there

    def _place(self, name: str) -> tuple[str, str]:
        """Who holds what this model was told: provider and host."""
        model = self._config.models[name]
        return model.provider, urlsplit(model.url).netloc

    def _able(
        self, names: Iterable[str], request: LlmRequest, allowed: Container[str] | None, out: dict[str, str]
    ) -> list[str]:
        """Those of `names` that may and can take `request`; why the others do not goes into `out`."""
        able = []
        for name in names:
            why = (
                NOT_ALLOWED
                if allowed is not None and name not in allowed
                else misfit(self._config.models[name], request)
            )
            if why is None:
                able.append(name)
            else:
                out.setdefault(name, why)
        return able

    def _roomiest(self, names: Iterable[str], request: LlmRequest, allowed: Container[str] | None) -> list[str]:
        """The models that may still have room, largest context window first: the estimate is an upper one.

        Only what is too long for certain is refused here; for the rest the provider's own count decides.
        """
        surely = replace(request, longest=int(request.context_tokens * SURE_TOKENS))
        models = self._config.models
        return sorted(self._able(names, surely, allowed, {}), key=lambda name: -models[name].context_window)

    def _nobody(self, names: Iterable[str], request: LlmRequest) -> ClientError:
        """The error to raise when none of `names` can take `request`: too long only if a shorter one would fit."""
        if any(misfit(self._config.models[name], request) == TOO_LONG for name in names):
            asked = f" and {request.max_output_tokens} output tokens" if request.max_output_tokens else ""
            return ContextTooLong(f"about {request.context_tokens} input tokens{asked} fit no model's context window")
        return UnsupportedModel(
            f"no model for this request takes {request.api} with "
            f"{', '.join(sorted(request.modalities))}{' and tools' if request.has_tools else ''}"
        )
