"""The last word on a plan, by what it costs: requests that can wait go where it is cheap now, and budgets hold.

A client says with `x-mom-deadline` that it can wait: a duration (`90s`, `30m`, `12h`, `2d`) or a time (RFC 3339). It is
answered at once all the same, by the cheapest model of its plan at the prices of the hour.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from router_extproc.budget_plans import expected
from router_extproc.budgets import Budgets
from router_extproc.config.schema import RouterConfig
from router_extproc.domain import Band, Plan
from router_extproc.preferences import DEADLINE_HEADER
from router_extproc.prices import cost_of, price_at
from router_extproc.router import Routed
from router_extproc.stores.affinity import Kept

DEFERRABLE = timedelta(minutes=10)
"""Who leaves less time than this is in a hurry."""
_DURATION = re.compile(r"(\d{1,7})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Admission:
    """Called by the processor for each plan, on the event loop."""

    def __init__(self, budgets: Budgets, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._budgets, self._now = budgets, now

    async def admit(
        self, identity: str, routed: Routed, headers: Mapping[str, str], tenant: str, config: RouterConfig
    ) -> Routed:
        """The plan to follow. Raises BudgetSpent."""
        routed = deferred(routed, headers, config, self._now())
        routed = await self._budgets.admit(identity, routed, tenant, config)
        return _elsewhere(routed, "moved")


def deferred(routed: Routed, headers: Mapping[str, str], config: RouterConfig, now: datetime) -> Routed:
    """The plan of a client that can wait: its models, the cheapest at `now` (aware) first. That of others as it is.

    A conversation of a sticky route comes back after it: only this turn can wait.
    """
    deadline = headers.get(DEADLINE_HEADER)
    due = due_at(deadline, now) if deadline is not None and routed.decision.band is not Band.NAMED else None
    if due is None or due - now < DEFERRABLE:
        return routed
    usage = expected(routed.request)
    costs = {name: cost_of(price_at(config.models[name].price, now), usage) for name in routed.plan.models}
    models = tuple(sorted(costs, key=lambda name: costs[name]))
    if models == routed.plan.models:
        return routed
    decision = replace(routed.decision, reason=f"{routed.decision.reason}; can wait, cheapest now"[:199])
    if decision.affinity in ("new", "moved") and models[0] != routed.plan.pick:
        # The next turn finds the conversation where this one would have taken it.
        home = Kept(routed.plan.pick, decision.band.value)
        routed, decision = replace(routed, kept=home), replace(decision, affinity="kept")
    return _elsewhere(replace(routed, decision=decision, plan=Plan(models)), "away")


def _elsewhere(routed: Routed, affinity: str) -> Routed:
    """Calls a conversation `affinity` that is said to be kept, though its plan begins with another model by now."""
    kept, decision = routed.kept, routed.decision
    if decision.affinity != "kept" or kept is None or kept.model == routed.plan.pick:
        return routed
    return replace(routed, decision=replace(decision, affinity=affinity))


def due_at(deadline: str, now: datetime) -> datetime | None:
    """When an answer is wanted at the latest; None when the text says nothing that we understand."""
    found = _DURATION.fullmatch(deadline.strip())
    try:
        if found is not None:
            return now + timedelta(**{_UNITS[found[2]]: int(found[1])})
        due = datetime.fromisoformat(deadline.strip())
    except (ValueError, OverflowError):
        return None
    return due if due.tzinfo is not None else due.replace(tzinfo=UTC)
