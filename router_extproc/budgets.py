"""Budgets: what a request will probably cost is reserved when it is admitted and settled when Envoy tells the outcome.

Below `cheaper_at` a plan stays as it is, but for fallbacks that no longer fit. From there on its models are tried
cheapest first. When nothing fits any more, the cheapest goes on alone, or the request is refused until the window ends.
A client that named its model gets that model or a refusal.
"""

from __future__ import annotations

import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from router_extproc.config.schema import Budget, BudgetScope, BudgetWindow, RouterConfig, WhenSpent
from router_extproc.domain import MAX_CONSIDERED, Band, Considered, LlmRequest, Outcome, Plan, Usage
from router_extproc.errors import BudgetSpent
from router_extproc.ledger import price
from router_extproc.prices import EXACT, cost_of, plain, price_at
from router_extproc.router import Routed
from router_extproc.stores.background import Background
from router_extproc.telemetry.recorder import Decided

log = logging.getLogger(__name__)

EXPECTED_OUTPUT = 1000
MAX_OUTPUT = 4096
"""Output tokens to reserve: without a limit of the client's, and at most."""
MAX_ACCOUNTS = 10_000
SAVE_SECONDS = 0.75
WRITE_SECONDS = 0.25
FILE = "budgets.json"
ZERO = Decimal(0)


@dataclass(slots=True)
class Account:
    """What one budget has seen for one key (a tenant, say) in the window that began at `began` (UTC, ISO)."""

    began: str
    spent: Decimal = ZERO
    reserved: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one request holds: for each account that it counts for, how much, and until when (monotonic seconds)."""

    amounts: tuple[tuple[tuple[str, str], str, Decimal], ...]
    until: float


@dataclass(slots=True)
class _Scale:
    """A budget as a request finds it: what is left, and what each model of its plan would take of it."""

    budget: Budget
    key: tuple[str, str]
    account: Account
    takes: dict[str, Decimal] = field(default_factory=dict)

    @property
    def used(self) -> Decimal:
        return self.account.spent + self.account.reserved

    @property
    def share(self) -> Decimal:
        return self.used / self.budget.limit

    def fits(self, model: str) -> bool:
        return self.used + self.takes[model] <= self.budget.limit


class Budgets:
    """All accounts. Used on the event loop, but for the file, which a thread of its own writes once a second.

    Outlives configurations: an account belongs to the budget's name and key. At most `MAX_ACCOUNTS`; the one unused for
    longest goes first. `directory` keeps what was spent over restarts. `acted` is told of each budget that changed or
    refused a plan, and how.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        acted: Callable[[str, str], None] = lambda _budget, _action: None,
    ) -> None:
        self._now, self._acted = now, acted
        self._accounts: OrderedDict[tuple[str, str], Account] = OrderedDict()
        self._reserved: OrderedDict[str, Reservation] = OrderedDict()
        self._path = directory / FILE if directory is not None else None
        self._saver: Background[list[tuple[str, str, str, Decimal]]] = Background(
            "budgets", self._save, seconds=WRITE_SECONDS, max_waiting=10
        )
        self._dirty, self._saved_at = False, 0.0

    def start(self) -> None:
        """Reads what was spent. Blocks for that."""
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            for name, key, began, spent in json.loads(self._path.read_bytes())["accounts"]:
                self._accounts[str(name), str(key)] = Account(str(began), Decimal(spent))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, ArithmeticError) as error:
            log.error("%s cannot be used, budgets begin anew: %s", self._path, error)
        self._saver.start()

    def close(self) -> None:
        """Writes what was spent. Blocks for that."""
        if self._path is not None:
            self.save(now=True)
            self._saver.close()

    def admit(self, identity: str, routed: Routed, tenant: str, config: RouterConfig) -> Routed:
        """The plan that the budgets leave; what it will probably cost is reserved. Raises BudgetSpent."""
        if not config.budgets:
            return routed
        self._expire()
        scales = list(self._scales(routed, tenant, config))
        if not scales:
            return routed
        models, reason, out = list(routed.plan.models), "", dict[str, str]()
        named = routed.decision.band is Band.NAMED
        for scale in scales:
            kept, action = self._kept(scale, models, named)
            if action:
                self._acted(scale.budget.name, action)
                percent = f"{scale.share * 100:.0f} %"
                reason = reason or f"budget {scale.budget.name} at {percent}"
            if not kept:
                raise BudgetSpent(
                    f"the {scale.budget.window.value}'s budget `{scale.budget.name}` is spent",
                    retry_after=self._left(scale.budget.window),
                )
            out.update((model, f"budget {scale.budget.name}") for model in models if model not in kept)
            models = kept
        self._reserve(identity, scales, models, config)
        if not reason:
            return routed
        decision = replace(
            routed.decision,
            reason=f"{routed.decision.reason}; {reason}"[:199],
            considered=_considered(routed.decision.considered, out),
        )
        return replace(routed, decision=decision, plan=Plan(tuple(models)))

    def settle(self, outcome: Outcome | None, decided: Decided | None, config: RouterConfig) -> None:
        """Replaces a reservation by what the answer cost. Without an outcome what was reserved counts as spent."""
        identity = outcome.decision_id if outcome is not None else decided.decision_id if decided is not None else ""
        reservation = self._reserved.pop(identity, None)
        if reservation is None:
            return
        entry = price(outcome, config, self._now().timestamp()) if outcome is not None else None
        by_name = {budget.name: budget for budget in config.budgets}
        for key, began, reserved in reservation.amounts:
            budget = by_name.get(key[0])
            spent = reserved
            if entry is not None and budget is not None:
                spent = entry.cost if budget.usd is not None else Decimal(entry.input + entry.output)
            self._settle(key, began, reserved, spent)

    def lose(self, identity: str) -> None:
        """Nobody will tell what became of a request: what was reserved counts as spent."""
        reservation = self._reserved.pop(identity, None)
        for key, began, reserved in reservation.amounts if reservation is not None else ():
            self._settle(key, began, reserved, reserved)

    def shown(self, config: RouterConfig) -> list[dict[str, Any]]:
        """Every account of the budgets that are configured, fullest first."""
        by_name = {budget.name: budget for budget in config.budgets}
        rows = []
        for (name, key), account in self._accounts.items():
            budget = by_name.get(name)
            if budget is None or account.began != self._began(budget.window):
                continue
            used = account.spent + account.reserved
            rows.append(
                {
                    "budget": name,
                    "key": key,
                    "window": account.began,
                    "unit": "USD" if budget.usd is not None else "tokens",
                    "limit": plain(budget.limit),
                    "spent": plain(account.spent),
                    "reserved": plain(account.reserved),
                    "percent": round(float(used / budget.limit * 100), 2),
                }
            )
        return sorted(rows, key=lambda row: -float(str(row["percent"])))

    def save(self, *, now: bool = False) -> None:
        """Hands the accounts to the thread that writes them, if they have changed, at most once a second."""
        at = time.monotonic()
        if self._path is not None and self._dirty and (now or at - self._saved_at >= SAVE_SECONDS):
            self._dirty, self._saved_at = False, at
            self._saver.put([(*key, account.began, account.spent) for key, account in self._accounts.items()])

    def _scales(self, routed: Routed, tenant: str, config: RouterConfig) -> Iterator[_Scale]:
        """The budgets that a request counts for."""
        now = self._now()
        for budget in config.budgets:
            key = _key(budget, routed, tenant)
            if key is None or (budget.only is not None and key not in budget.only):
                continue
            scale = _Scale(budget, (budget.name, key), self._account((budget.name, key), budget.window))
            for model in routed.plan.models:
                usage = expected(routed.request)
                usd = budget.usd is not None
                price_now = price_at(config.models[model].price, now)
                amount = cost_of(price_now, usage) if usd else Decimal(usage.input + usage.output)
                scale.takes[model] = amount
            yield scale

    def _kept(self, scale: _Scale, models: list[str], named: bool) -> tuple[list[str], str]:
        """The models that this budget leaves of `models`, and what it did; none left means that it refuses."""
        fitting = [model for model in models if scale.fits(model)]
        if named and models[0] not in fitting:
            fitting = []
        if not fitting:
            if scale.budget.when_spent is WhenSpent.REFUSE:
                return [], "refused"
            return ([models[0]] if named else [min(models, key=lambda model: scale.takes[model])]), "cheapest"
        if scale.share >= scale.budget.cheaper_at and not named:
            ordered = sorted(fitting, key=lambda model: scale.takes[model])
            return ordered, "cheaper" if ordered != models else ""
        return fitting, "trimmed" if len(fitting) < len(models) else ""

    def _reserve(self, identity: str, scales: list[_Scale], models: list[str], config: RouterConfig) -> None:
        amounts = []
        for scale in scales:
            # Any of them may answer in the end.
            amount = max(scale.takes[model] for model in models)
            scale.account.reserved = EXACT.add(scale.account.reserved, amount)
            amounts.append((scale.key, scale.account.began, amount))
        until = time.monotonic() + config.retry.total_seconds + 60
        self._reserved[identity] = Reservation(tuple(amounts), until)

    def _settle(self, key: tuple[str, str], began: str, reserved: Decimal, spent: Decimal) -> None:
        account = self._accounts.get(key)
        # The window that a request began in pays for it; when that is over, nobody asks any more.
        if account is not None and account.began == began:
            account.reserved = EXACT.subtract(account.reserved, reserved)
            account.spent = EXACT.add(account.spent, spent)
            self._dirty = True

    def _expire(self) -> None:
        """An outcome that never came: what was reserved counts as spent."""
        now = time.monotonic()
        while self._reserved:
            identity, reservation = next(iter(self._reserved.items()))
            if reservation.until > now:
                return
            del self._reserved[identity]
            for key, began, reserved in reservation.amounts:
                self._settle(key, began, reserved, reserved)

    def _account(self, key: tuple[str, str], window: BudgetWindow) -> Account:
        began = self._began(window)
        account = self._accounts.get(key)
        if account is None or account.began != began:
            account = self._accounts[key] = Account(began)
            if len(self._accounts) > MAX_ACCOUNTS:
                self._accounts.popitem(last=False)
        self._accounts.move_to_end(key)
        return account

    def _began(self, window: BudgetWindow) -> str:
        return _bounds(window, self._now())[0].isoformat()

    def _left(self, window: BudgetWindow) -> int:
        """Whole seconds until the window ends, at least one."""
        now = self._now()
        return max(1, int((_bounds(window, now)[1] - now).total_seconds()) + 1)

    def _save(self, batch: list[list[tuple[str, str, str, Decimal]]]) -> None:
        if self._path is None or not batch:
            return
        draft = self._path.with_suffix(".draft")
        rows = [[name, key, began, plain(spent)] for name, key, began, spent in batch[-1]]
        try:
            draft.write_text(json.dumps({"version": 1, "accounts": rows}), encoding="utf-8")
            draft.replace(self._path)
        except OSError as error:
            log.error("what was spent of the budgets cannot be written: %s", error)


def expected(request: LlmRequest) -> Usage:
    """The tokens to reserve for: all input, and output up to the client's limit. Rather too many than too few."""
    limit = request.max_output_tokens
    output = 0 if request.api == "embeddings" else EXPECTED_OUTPUT if limit is None else min(limit, MAX_OUTPUT)
    return Usage(request.tokens, output)


def _considered(rows: tuple[Considered, ...], out: Mapping[str, str]) -> tuple[Considered, ...]:
    """`rows` with what the budgets left out, fallbacks that no selection looked at included."""
    marked = [row._replace(out=out[row.model]) if row.model in out else row for row in rows]
    known = {row.model for row in rows}
    return (*marked, *(Considered(model, out=why) for model, why in out.items() if model not in known))[:MAX_CONSIDERED]


def _key(budget: Budget, routed: Routed, tenant: str) -> str | None:
    """What the request is counted under; None when it has no such thing."""
    match budget.per:
        case BudgetScope.TOTAL:
            return "total"
        case BudgetScope.ROUTE:
            return routed.decision.route
        case BudgetScope.USER:
            return (routed.request.user or "")[:64] or None
        case BudgetScope.TENANT:
            return tenant or None


def _bounds(window: BudgetWindow, now: datetime) -> tuple[datetime, datetime]:
    """First moment of the window, and of the one after it. UTC."""
    hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if window is BudgetWindow.HOUR:
        return hour, hour + timedelta(hours=1)
    day = hour.replace(hour=0)
    if window is BudgetWindow.DAY:
        return day, day + timedelta(days=1)
    month = day.replace(day=1)
    return month, (month + timedelta(days=32)).replace(day=1)
