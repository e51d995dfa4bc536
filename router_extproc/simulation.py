"""Replays recorded decisions against another policy: who would move where, what that would cost, and what cannot be
known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from router_extproc.account_names import account_name
from router_extproc.admission import Admission
from router_extproc.budget_accounts import Accounts
from router_extproc.budgets import Budgets
from router_extproc.config.accounting import BudgetScope
from router_extproc.config.loader import LoadedConfig
from router_extproc.config.schema import RouterConfig
from router_extproc.domain import LlmRequest, Outcome, SignalSet, Wishes
from router_extproc.errors import ClientError
from router_extproc.preferences import DEADLINE_HEADER, PREFER_HEADER, STRANGER
from router_extproc.prices import EXACT, cost_of, dollars, plain, price_at
from router_extproc.records import UNREADABLE, outcome_of, request_of, signals_of, wishes_of
from router_extproc.router import Routed, home_key
from router_extproc.runtime import Runtime, compile_runtime
from router_extproc.selection.base import SelectionInputs
from router_extproc.selection.observed import Observed
from router_extproc.selection.quality import WIN, Quality
from router_extproc.signals.base import Heads
from router_extproc.stores.affinity import MemoryAffinity

OF_THE_REQUEST = frozenset({"tokens", "turns", "tools", "modality", "time"})
"""Signal types that the recorded facts of a request suffice for; others need texts, headers or a classifier."""
NOT_RECORDED = "not recorded"

WHOSE = "do not tell whose they are: preferences of users were not applied"
USERS = "do not tell the user of the body: budgets per user were not applied"
NAMED_USERS = "are of users known by a hash alone: budgets for named users were not applied"
TENANTS = "do not tell the tenant: budgets per tenant were not applied"
SESSIONS = "do not tell the conversation: sticky routes placed them anew"
GONE = "went to a model that the catalogue no longer has: they are not in the cost"
SPEED = "have no answer in the log of a model that latency decided about"


@dataclass(slots=True)
class Simulation:
    """What a policy would have done with recorded traffic.

    Costs are for the tokens that were used, at the new catalogue's prices of then: another model is assumed to read and
    write as many. `before` is that of the models that the old policy picked, also where another one answered in the
    end: fallbacks tell of a provider's bad day, not of the policy. `quality` is the mean
    over the requests of whose models something is known: predicted for the prompt where the record has the prediction
    (`predicted` of them), else the catalogue's own figure. `refused` are those that the policy refuses, by code;
    `released` those that were refused and would not be. `not_replayed` counts records by what they lack, `unreadable`
    lines that are no records or damaged ones.
    """

    replayed: int = 0
    skipped: int = 0
    unreadable: int = 0
    released: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    moves: Counter[tuple[str, str]] = field(default_factory=Counter)
    routes: Counter[tuple[str, str]] = field(default_factory=Counter)
    bands: Counter[tuple[str, str]] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    not_replayed: Counter[str] = field(default_factory=Counter)
    budgets: Counter[tuple[str, str]] = field(default_factory=Counter)
    before: Decimal = Decimal(0)
    after: Decimal = Decimal(0)
    priced: int = 0
    predicted: int = 0
    quality_before: list[float] = field(default_factory=list)
    quality_after: list[float] = field(default_factory=list)

    @property
    def moved(self) -> int:
        """Requests that would go to another model."""
        return sum(count for (old, new), count in self.moves.items() if old != new)

    def json(self) -> dict[str, Any]:
        """For machines; money is text, in USD."""
        return {
            "replayed": self.replayed,
            "skipped": self.skipped,
            "unreadable": self.unreadable,
            "moved": self.moved,
            "refused": dict(self.refused),
            "released": self.released,
            "moves": _rows(self.moves),
            "routes": _rows(self.routes),
            "bands": _rows(self.bands),
            "budgets": [{"budget": a, "action": b, "requests": n} for (a, b), n in self.budgets.most_common()],
            "missing_signals": dict(self.missing),
            "not_replayed": dict(self.not_replayed),
            "cost": {"requests": self.priced, "before": plain(self.before), "after": plain(self.after)},
            "quality": {
                "before": _mean(self.quality_before),
                "after": _mean(self.quality_after),
                "requests": len(self.quality_after),
                "predicted": self.predicted,
            },
        }

    def text(self) -> str:
        """For people."""
        lines = [f"{self.replayed:,} requests replayed, {self.skipped:,} records without a decision left out"]
        if self.unreadable:
            lines.append(f"{self.unreadable:,} lines cannot be read and are left out")
        share = f" ({self.moved / self.replayed:.1%})" if self.replayed else ""
        lines.append(f"{self.moved:,} would go to another model{share}")
        lines += [f"{count:,} would be refused: {code}" for code, count in self.refused.most_common()]
        if self.released:
            lines.append(f"{self.released:,} that were refused would not be")
        for title, counts in (("model", self.moves), ("route", self.routes), ("band", self.bands)):
            changed = [(pair, count) for pair, count in counts.most_common() if pair[0] != pair[1]]
            lines += [f"  {title} {old} -> {new}: {count:,}" for (old, new), count in changed[:20]]
        lines += [f"budget {name}, {action}: {count:,}" for (name, action), count in self.budgets.most_common(20)]
        if self.priced:
            change = f" ({(self.after / self.before - 1) * 100:+.1f} %)" if self.before else ""
            lines.append(
                f"cost of {self.priced:,} answered requests: {dollars(self.before)} -> {dollars(self.after)}{change}"
            )
        old, new = _mean(self.quality_before), _mean(self.quality_after)
        if old is not None and new is not None:
            basis = f"predicted for {self.predicted:,} of {len(self.quality_after):,} requests, "
            basis = f"({basis if self.predicted else ''}by the catalogue's figures)"
            lines.append(f"quality: {old:.3f} -> {new:.3f} {basis}")
        for name, count in self.missing.most_common():
            lines.append(f"signal {name} is not in {count:,} records: rules that need it were not judged there")
        lines += [f"{count:,} records {what}" for what, count in self.not_replayed.most_common()]
        return "\n".join(lines)


def _at_once(admitted: Coroutine[Any, Any, Routed]) -> Routed:
    """Its result: budgets that are not shared wait for nobody."""
    try:
        admitted.send(None)
    except StopIteration as done:
        routed: Routed = done.value
        return routed
    raise RuntimeError("a simulation has no store to wait for")


class _Replay:
    """A router as it would have been, on the clock of the records: what it spent, learnt and remembered."""

    def __init__(self, loaded: LoadedConfig, heads: Heads, found: Simulation) -> None:
        self.now = datetime.fromtimestamp(0, UTC)
        self.observed, self.affinity = Observed(self._seconds), MemoryAffinity(clock=self._seconds)
        self.runtime: Runtime = compile_runtime(loaded, heads, {}, observed=self.observed, affinity=self.affinity)
        self.config: RouterConfig = self.runtime.config
        accounts = Accounts(now=lambda: self.now)
        self.budgets = Budgets(accounts, acted=lambda name, action: found.budgets.update([(name, action)]))
        self.admission = Admission(self.budgets, lambda: self.now)
        heads_of = {name: spec.params.get("head") for name, spec in self.config.signals.items()}
        win = next((name for name, head in heads_of.items() if head == WIN), WIN)
        self.quality = Quality(win, SelectionInputs(self.config.models, (win,), self.observed))
        self.sticky = any(route.sticky for route in self.config.routes)
        self._users = {account_name(name): name for name in self.config.preferences.users}

    def _seconds(self) -> float:
        return self.now.timestamp()

    def headers(self, wishes: Wishes | None, tenant: str) -> dict[str, str]:
        """What the sender would have sent to the new policy, as far as the record tells."""
        found: dict[str, str] = {}
        config = self.config
        if wishes is not None:
            found |= {PREFER_HEADER: wishes.prefer, DEADLINE_HEADER: wishes.deadline}
        header = config.preferences.header
        if header is not None:
            member = self._member(wishes, tenant)
            found[header] = member if member is not None and member != STRANGER else ""
        return {name: value for name, value in found.items() if value}

    def _member(self, wishes: Wishes | None, tenant: str) -> str | None:
        """Whose request it is to the preferences; None where the record does not tell."""
        if tenant and self.config.preferences.header == self.config.ledger.tenant_header:
            return self._users.get(tenant, tenant)
        return wishes.member if wishes is not None else None

    def lacking(self, wishes: Wishes | None, tenant: str, session: str) -> list[str]:
        """What the record does not tell, of what the new policy asks."""
        config, lacks = self.config, []
        if config.preferences.users and self._member(wishes, tenant) in (None, STRANGER):
            lacks.append(WHOSE)
        of_users = [budget for budget in config.budgets if budget.per is BudgetScope.USER]
        if of_users and wishes is None:
            lacks.append(USERS)
        if wishes is not None and wishes.user and any(budget.only is not None for budget in of_users):
            lacks.append(NAMED_USERS)
        if not tenant and any(budget.per is BudgetScope.TENANT for budget in config.budgets):
            lacks.append(TENANTS)
        if self.sticky and not session:
            lacks.append(SESSIONS)
        return lacks

    def routed(
        self,
        identity: str,
        request: LlmRequest,
        signals: SignalSet,
        headers: Mapping[str, str],
        session: str,
        tenant: str,
    ) -> Routed:
        """What the new policy would have done. Raises ClientError."""
        router = self.runtime.router
        kept = self.affinity.find(session) if session else None
        home = self.affinity.find(home_key(session)) if session and request.stateful else None
        decision, plan = router.plan_for(request, signals, headers, kept, self.now, home)
        routed = Routed(request, signals, decision, plan, session=session, kept=kept)
        routed = _at_once(self.admission.admit(identity, routed, headers, tenant, self.config))
        router.keep(routed)
        return routed

    def settle(self, identity: str, routed: Routed, outcome: Outcome | None) -> None:
        """The new pick is paid for the tokens that were used; what models really did is learnt from."""
        if outcome is not None:
            self.budgets.settle(replace(outcome, decision_id=identity, model=routed.plan.pick), self.config)
            self.observed.record(outcome)
        else:
            self.budgets.lose(identity)

    def blind(self, routed: Routed) -> bool:
        """Whether latency decided though nothing is known of some candidate's."""
        decided = "latency" in routed.decision.selection
        return decided and any(self.observed.latency(name) is None for name in routed.decision.candidates)


def simulate(records: Iterable[Mapping[str, Any]], loaded: LoadedConfig, heads: Heads) -> Simulation:
    """Replays them in their order, at their times. Records of exchanges that were neither decided nor refused are
    skipped, and so is what cannot be read. Requests that were under way at once are replayed one after the other, as
    they ended.

    Raises ConfigError.
    """
    found = Simulation()
    replay = _Replay(loaded, heads, found)
    for made in records:
        if "feedback" in made:
            continue
        if made and "plan" not in made and "refused" not in made:
            found.skipped += 1
            continue
        try:
            request, recorded, outcome = request_of(made), signals_of(made), outcome_of(made)
            old = None if "refused" in made else (str(made["plan"][0]), str(made["route"]), str(made["band"]))
            at = datetime.fromisoformat(made["time"])
        except UNREADABLE:
            found.unreadable += 1
            continue
        found.replayed += 1
        replay.now = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        identity = str(made.get("id") or f"line {found.replayed}")
        wishes, tenant, session = wishes_of(made), str(made.get("tenant") or ""), str(made.get("session") or "")
        headers = replay.headers(wishes, tenant)
        found.not_replayed.update(replay.lacking(wishes, tenant, session))
        if wishes is not None:
            request = replace(request, user=wishes.user or None)
        signals = _signals(replay, request, recorded, found)
        try:
            routed = replay.routed(identity, request, signals, headers, session, tenant)
        except ClientError as error:
            found.refused[error.code] += 1
            continue
        if replay.blind(routed):
            found.not_replayed[SPEED] += 1
        replay.settle(identity, routed, outcome)
        if old is None:
            found.released += 1
            continue
        # The model that the old policy picked; fallbacks tell of a provider's bad day, not of the policy.
        found.moves[old[0], routed.plan.pick] += 1
        found.routes[old[1], routed.decision.route] += 1
        found.bands[old[2], routed.decision.band.value] += 1
        _price(found, outcome, old[0], routed.plan.pick, replay)
        _quality(found, signals, old[0], routed.plan.pick, replay)
    return found


def _signals(replay: _Replay, request: LlmRequest, recorded: SignalSet, found: Simulation) -> SignalSet:
    """The recorded signals that the new configuration has, and those that can be worked out from the record."""
    config = replay.config.signals
    values = {name: value for name, value in recorded.values.items() if name in config}
    absent = {name: why for name, why in recorded.absent.items() if name in config}
    unknown = [name for name in config if name not in values and name not in absent]
    if not unknown:
        return SignalSet(values, absent)
    fresh = replay.runtime.router.signals(request, {}, {}, now=replay.now)
    for name in unknown:
        if config[name].type in OF_THE_REQUEST and name in fresh.values:
            values[name] = fresh.values[name]
        else:
            absent[name] = NOT_RECORDED
            found.missing[name] += 1
    return SignalSet(values, absent)


def _price(found: Simulation, outcome: Outcome | None, old: str, new: str, replay: _Replay) -> None:
    if outcome is None or outcome.usage is None:
        return
    models = replay.config.models
    if old not in models:
        found.not_replayed[GONE] += 1
        return
    found.priced += 1
    found.before = EXACT.add(found.before, cost_of(price_at(models[old].price, replay.now), outcome.usage))
    found.after = EXACT.add(found.after, cost_of(price_at(models[new].price, replay.now), outcome.usage))


def _quality(found: Simulation, signals: SignalSet, old: str, new: str, replay: _Replay) -> None:
    if old not in replay.config.models:
        return
    before, after = replay.quality.of(old, signals), replay.quality.of(new, signals)
    if before is not None and after is not None:
        found.quality_before.append(before)
        found.quality_after.append(after)
        found.predicted += replay.quality.predicts(old, signals) and replay.quality.predicts(new, signals)


def _rows(counts: Counter[tuple[str, str]]) -> list[dict[str, Any]]:
    return [{"from": old, "to": new, "requests": count} for (old, new), count in counts.most_common()]


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
