"""What budgets leave of a plan.

Below `cheaper_at` a plan stays as it is, but for fallbacks that no longer fit. From there on its models are tried
cheapest first. When nothing fits any more, the cheapest goes on alone, or the request is refused until the window ends.
A client that named its model gets that model or a refusal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from router_extproc.budget_accounts import ZERO, Account, Key
from router_extproc.config.accounting import Budget, WhenSpent
from router_extproc.config.schema import RouterConfig
from router_extproc.domain import MAX_CONSIDERED, Band, Considered, LlmRequest, Usage
from router_extproc.prices import EXACT, cost_of, price_at
from router_extproc.router import Routed

EXPECTED_OUTPUT = 1000
MAX_OUTPUT = 4096
"""Output tokens to reserve: without a limit of the client's, and at most."""


def expected(request: LlmRequest) -> Usage:
    """The tokens to reserve for: all input, and output up to the client's limit. Rather too many than too few."""
    limit = request.max_output_tokens
    output = 0 if request.api == "embeddings" else EXPECTED_OUTPUT if limit is None else min(limit, MAX_OUTPUT)
    return Usage(request.tokens, output)


def costs(routed: Routed, config: RouterConfig, now: datetime) -> dict[str, Decimal]:
    """What each model of the plan would probably cost, in dollars at the prices of `now`."""
    usage = expected(routed.request)
    return {model: cost_of(price_at(config.models[model].price, now), usage) for model in routed.plan.models}


def takes(budget: Budget, routed: Routed, costs: Mapping[str, Decimal]) -> Mapping[str, Decimal]:
    """What each model of the plan would probably take of the budget: its costs, or tokens."""
    if budget.usd is not None:
        return costs
    usage = expected(routed.request)
    return dict.fromkeys(costs, Decimal(usage.input + usage.output))


@dataclass(slots=True)
class Scale:
    """A budget as a request finds it: what is left, and what each model of its plan would take of it."""

    budget: Budget
    key: Key
    account: Account
    takes: Mapping[str, Decimal]
    costs: Mapping[str, Decimal]
    """In dollars. Which model is cheaper is a matter of these, also where the budget counts tokens."""
    held: Decimal = ZERO
    """Of what is reserved, the request's own part."""

    @property
    def used(self) -> Decimal:
        """By all other requests."""
        return EXACT.subtract(self.account.used, self.held)

    @property
    def share(self) -> Decimal:
        """The same as a part of the limit, from 0; may be over 1."""
        return self.used / self.budget.limit

    def fits(self, model: str) -> bool:
        """Whether what the model would take is left."""
        return self.used + self.takes[model] <= self.budget.limit


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the budgets leave of a plan, and which of them did what. No models: `by` refuses."""

    models: tuple[str, ...]
    actions: tuple[tuple[str, str], ...]
    reason: str = ""
    by: Budget | None = None
    out: Mapping[str, str] = field(default_factory=dict)
    """Models that it left out, and the budget that did."""


def judged(scales: list[Scale], routed: Routed) -> Verdict:
    """What all budgets together leave of the plan."""
    models, reason, actions, out = list(routed.plan.models), "", [], dict[str, str]()
    named = routed.decision.band is Band.NAMED
    for scale in scales:
        kept, action = _kept(scale, models, named)
        if action:
            actions.append((scale.budget.name, action))
            reason = reason or f"budget {scale.budget.name} at {scale.share * 100:.0f} %"
        if not kept:
            return Verdict((), tuple(actions), reason, scale.budget)
        out.update((model, f"budget {scale.budget.name}") for model in models if model not in kept)
        models = kept
    return Verdict(tuple(models), tuple(actions), reason, out=out)


def _kept(scale: Scale, models: list[str], named: bool) -> tuple[list[str], str]:
    """The models that this budget leaves of `models`, and what it did; none left means that it refuses."""
    fitting = [model for model in models if scale.fits(model)]
    if named and models[0] not in fitting:
        fitting = []
    if not fitting:
        if scale.budget.when_spent is WhenSpent.REFUSE:
            return [], "refused"
        return ([models[0]] if named else [min(models, key=lambda model: scale.costs[model])]), "cheapest"
    if scale.share >= scale.budget.cheaper_at and not named:
        ordered = sorted(fitting, key=lambda model: scale.costs[model])
        return ordered, "cheaper" if ordered != models else ""
    return fitting, "trimmed" if len(fitting) < len(models) else ""


def considered(rows: tuple[Considered, ...], out: Mapping[str, str]) -> tuple[Considered, ...]:
    """`rows` with what the budgets left out, fallbacks that no selection looked at included."""
    marked = [row._replace(out=out[row.model]) if row.model in out else row for row in rows]
    known = {row.model for row in rows}
    return (*marked, *(Considered(model, out=why) for model, why in out.items() if model not in known))[:MAX_CONSIDERED]
