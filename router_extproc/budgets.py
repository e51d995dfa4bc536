"""Budgets: what a request will probably cost is reserved when it is admitted and settled when Envoy tells the outcome.

What the accounts leave of its plan is judged in `budget_plans.py`.

Where replicas share a store, the reservation is counted there before the request goes on: what the others have
reserved by then may change the plan. That wait is short and bounded. Without an answer the replica goes by what it
knows, and what it counts reaches the store later (`stores/tally.py`). Envoy may tell the outcome to another replica:
what a request holds travels with it, in the metadata, so that any of them can settle it.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal

from router_extproc.account_names import account_name
from router_extproc.budget_accounts import MOST_SHARED_USD, TOTAL, ZERO, Account, Accounts, Part
from router_extproc.budget_plans import Scale, Verdict, considered, costs, judged, takes
from router_extproc.budget_windows import seconds_left
from router_extproc.config.accounting import Budget, BudgetScope
from router_extproc.config.schema import RouterConfig
from router_extproc.domain import Outcome, Plan
from router_extproc.errors import BudgetSpent, Mistake
from router_extproc.ledger import price
from router_extproc.prices import EXACT, plain
from router_extproc.router import Routed
from router_extproc.routes import DEFAULT_ROUTE, NAMED_ROUTE
from router_extproc.validation import did_you_mean

MAX_RESERVED = 100_000
"""Requests under way that hold something. Beyond it the oldest counts as one whose outcome never comes."""
AGREED_ROUNDS = 3
"""How often a plan is made anew because other replicas have reserved meanwhile."""

Held = tuple[Part, ...]
"""What one request holds."""


def check_budgets(config: RouterConfig) -> list[Mistake]:
    """Names that stand twice, budgets that count nothing, and those that cannot be shared."""
    mistakes: list[Mistake] = []
    routes = (DEFAULT_ROUTE, NAMED_ROUTE, *(route.name for route in config.routes))
    shared = config.store.url is not None and config.store.budgets
    seen: set[str] = set()
    for index, budget in enumerate(config.budgets):
        at = ("budgets", index)
        if budget.name in seen:
            mistakes.append(Mistake((*at, "name"), f"another budget is called `{budget.name}` too"))
        seen.add(budget.name)
        if budget.per is BudgetScope.TENANT and config.ledger.tenant_header is None:
            mistakes.append(Mistake((*at, "per"), "a budget per tenant needs `ledger.tenant_header`"))
        if budget.per is BudgetScope.TOTAL and budget.only is not None:
            wanted = "counts nothing without `per`: say whether these are tenants, users or routes"
            mistakes.append(Mistake((*at, "only"), wanted))
        for place, name in enumerate(budget.only or () if budget.per is BudgetScope.ROUTE else ()):
            if name not in routes:
                mistakes.append(Mistake((*at, "only", place), f"unknown route `{name}`{did_you_mean(name, routes)}"))
        if shared and budget.usd is not None and budget.usd > MOST_SHARED_USD:
            mistakes.append(Mistake((*at, "usd"), f"over {MOST_SHARED_USD:,} USD, too large to be shared"))
    return mistakes


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one request holds, in which accounts, and until when (monotonic seconds)."""

    held: Held
    accounts: tuple[Account, ...]
    until: float


class Budgets:
    """Admits requests and settles them, on the event loop. `accounts` keeps count.

    `acted` is told of each budget that changed or refused a plan, and how; `alone` of each request that was judged
    without the other replicas' part, and why.
    """

    def __init__(
        self,
        accounts: Accounts,
        *,
        acted: Callable[[str, str], None] = lambda _budget, _action: None,
        alone: Callable[[str], None] = lambda _reason: None,
        most: int = MAX_RESERVED,
    ) -> None:
        """At most `most` requests (at least 1) hold something here."""
        self.accounts, self._acted, self._alone, self._most = accounts, acted, alone, most
        self._reserved: OrderedDict[str, Reservation] = OrderedDict()

    async def admit(self, identity: str, routed: Routed, tenant: str, config: RouterConfig) -> Routed:
        """The plan that the budgets leave; what it will probably cost is reserved. Raises BudgetSpent.

        Waits for the store for `wait_seconds` at most, and not at all without one.
        """
        if not config.budgets:
            return routed
        self._expire()
        scales = list(self._scales(routed, tenant, config))
        if not scales:
            return routed
        verdict = judged(scales, routed)
        try:
            self._hold(scales, verdict)
            verdict, why = await self._agreed(scales, routed, verdict)
        except BaseException:
            self._hold(scales, None)
            raise
        for name, action in verdict.actions:
            self._acted(name, action)
        if verdict.by is not None:
            window = verdict.by.window
            left = seconds_left(window, self.accounts.now())
            raise BudgetSpent(f"the {window.value}'s budget `{verdict.by.name}` is spent", retry_after=left)
        held = tuple(Part(scale.key, scale.account.began, scale.held, scale.budget.unit) for scale in scales)
        if self.accounts.shared:
            routed = replace(routed, held=_written(held))
        else:
            accounts = tuple(scale.account for scale in scales)
            until = time.monotonic() + config.retry.told_seconds
            self._reserved[identity] = Reservation(held, accounts, until)
        if not verdict.reason:
            return routed
        reason = f"{routed.decision.reason}; {verdict.reason}{f' (known here: store {why})' if why else ''}"
        rows = considered(routed.decision.considered, verdict.out)
        decision = replace(routed.decision, reason=reason[:199], considered=rows)
        return replace(routed, decision=decision, plan=Plan(verdict.models))

    def settle(self, outcome: Outcome, config: RouterConfig) -> None:
        """Replaces a reservation by what the answer cost. One whose outcome never comes counts as spent in the end."""
        reservation = self._reserved.pop(outcome.decision_id, None)
        holders: tuple[Account | None, ...]
        if reservation is not None:
            held, holders = reservation.held, reservation.accounts
        elif self.accounts.shared:
            held = _read_held(outcome.held)
            holders = (None,) * len(held)
        else:
            return
        entry = price(outcome, config, self.accounts.now().timestamp())
        by_name = {budget.name: budget for budget in config.budgets}
        for part, holder in zip(held, holders, strict=True):
            budget = by_name.get(part.key[0])
            spent = part.amount
            if budget is not None:
                unit = part.unit or budget.unit
                if unit != "USD":
                    spent = Decimal(entry.input + entry.output)
                elif entry.priced:  # else it cost something that nobody knows
                    spent = entry.cost
            self.accounts.settle(part, spent, budget, holder)

    def lose(self, identity: str) -> None:
        """Nobody will tell what became of a request: what was reserved counts as spent."""
        reservation = self._reserved.pop(identity, None)
        if reservation is not None:
            self._lost(reservation)

    def _scales(self, routed: Routed, tenant: str, config: RouterConfig) -> Iterator[Scale]:
        """The budgets that a request counts for."""
        priced = costs(routed, config, self.accounts.now()) if config.budgets else {}
        for budget in config.budgets:
            key = _key(budget, routed, tenant)
            if key is None or (budget.counted is not None and key not in budget.counted):
                continue
            account = self.accounts.opened((budget.name, key), budget)
            yield Scale(budget, (budget.name, key), account, takes(budget, routed, priced), priced)

    def _hold(self, scales: list[Scale], verdict: Verdict | None) -> None:
        """Reserves what the plan that is left may take, instead of what is held; nothing for a refused one."""
        models = verdict.models if verdict is not None else ()
        for scale in scales:
            # Any of them may answer in the end.
            amount = max((scale.takes[model] for model in models), default=ZERO)
            if amount != scale.held:
                self.accounts.reserve(scale.account, EXACT.subtract(amount, scale.held))
                scale.held = amount

    async def _agreed(self, scales: list[Scale], routed: Routed, verdict: Verdict) -> tuple[Verdict, str]:
        """The verdict once the other replicas' part is known, and why it is not known (empty when it is)."""
        if not self.accounts.shared:
            return verdict, ""
        left = self.accounts.wait_seconds
        until = time.monotonic() + left
        for turn in range(AGREED_ROUNDS):
            if not await self.accounts.agreed((scale.account for scale in scales), left):
                if turn or not self.accounts.wait_seconds:
                    break
                trouble = self.accounts.trouble or ""
                self._alone(trouble)
                return verdict, trouble
            again = judged(scales, routed)
            if again.models == verdict.models:
                return again, ""
            verdict = again
            self._hold(scales, verdict)
            left = until - time.monotonic()
        return verdict, ""

    def _lost(self, reservation: Reservation) -> None:
        """An outcome that never came: what was reserved counts as spent."""
        for part, holder in zip(reservation.held, reservation.accounts, strict=True):
            self.accounts.settle(part, part.amount, None, holder)

    def _expire(self) -> None:
        now = time.monotonic()
        while self._reserved:
            identity, reservation = next(iter(self._reserved.items()))
            if reservation.until > now and len(self._reserved) < self._most:
                return
            del self._reserved[identity]
            self._lost(reservation)


def _key(budget: Budget, routed: Routed, tenant: str) -> str | None:
    """What the request is counted under; None when it has no such thing."""
    match budget.per:
        case BudgetScope.TOTAL:
            return TOTAL
        case BudgetScope.ROUTE:
            return routed.decision.route
        case BudgetScope.USER:
            return account_name(routed.request.user or "") or None
        case BudgetScope.TENANT:
            return tenant or None


def _written(held: Held) -> str:
    """As the metadata carries it to whoever is told the outcome."""
    rows = [[*part.key, part.began, plain(part.amount), part.unit] for part in held]
    return json.dumps(rows, separators=(",", ":"))


def _read_held(text: str) -> Held:
    """What a request held; nothing where the metadata does not say so."""
    try:
        rows = json.loads(text) if text else []
        return tuple(
            Part((str(name), str(key)), str(began), Decimal(amount), *map(str, unit[:1]))
            for name, key, began, amount, *unit in rows
        )
    except (ValueError, TypeError, ArithmeticError):
        return ()
