"""Budgets: what a request will probably cost is reserved when it is admitted and settled when Envoy tells the outcome.

Below `cheaper_at` a plan stays as it is, but for fallbacks that no longer fit. From there on its models are tried
cheapest first. When nothing fits any more, the cheapest goes on alone, or the request is refused until the window ends.
A client that named its model gets that model or a refusal.

Where replicas share a store, the reservation is counted there before the request goes on: what the others have
reserved by then may change the plan. That wait is short and bounded. Without an answer the replica goes by what it
knows, and what it counts reaches the store later (`stores/tally.py`). Envoy may tell the outcome to another replica:
what a request holds travels with it, in the metadata, so that any of them can settle it.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

from router_extproc.config.accounting import Budget, BudgetScope, BudgetWindow, WhenSpent
from router_extproc.config.schema import RouterConfig
from router_extproc.domain import MAX_CONSIDERED, Band, Considered, LlmRequest, Outcome, Plan, Usage
from router_extproc.errors import BudgetSpent, Mistake
from router_extproc.ledger import price
from router_extproc.prices import EXACT, cost_of, plain, price_at
from router_extproc.router import Routed
from router_extproc.routes import DEFAULT_ROUTE, NAMED_ROUTE
from router_extproc.stores.background import Background
from router_extproc.stores.base import Change, Store
from router_extproc.stores.tally import Batch, Counter, Tally
from router_extproc.telemetry.recorder import Decided
from router_extproc.validation import did_you_mean

log = logging.getLogger(__name__)

EXPECTED_OUTPUT = 1000
MAX_OUTPUT = 4096
"""Output tokens to reserve: without a limit of the client's, and at most."""
MAX_ACCOUNTS = 10_000
"""Of one budget."""
ROOM = MAX_ACCOUNTS // 20
"""How many accounts go at once where there is no room: whoever looks for those that used least looks at all."""
SHOWN = 1000
FULLEST_SECONDS = 5.0
SAVE_SECONDS = 0.75
WRITE_SECONDS = 0.25
"""Together how long what was spent or reserved may be missing in the file."""
FILE = "budgets.json"
ZERO = Decimal(0)
USD_UNITS = 10**12
"""The store counts whole units: millionths of a millionth of a dollar, exact for prices of up to six decimals. Smaller
rests wait in each replica until they make a unit."""
TOTAL = "total"
"""The key of a budget for everything."""
OVERTIME = 86_400
"""Seconds that the store keeps an account beyond its window: what was spent while it was down comes late."""
ASKED = 1000
REFRESH_SECONDS = 0.25
AGREED_ROUNDS = 3
"""How often a plan is made anew because other replicas have reserved meanwhile."""

MOST_SHARED_USD = 9_000_000
"""Shared budgets are counted in `USD_UNITS`, in 63 bits."""

Key = tuple[str, str]
Held = tuple[tuple[Key, str, Decimal], ...]
"""What one request holds: for each account that it counts for, the window's beginning and the amount."""


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


@dataclass(slots=True)
class Account:
    """What one budget has seen for one key (a tenant, say) in the window that began at `began` (UTC, ISO)."""

    began: str
    spent: Counter
    reserved: Counter

    @property
    def used(self) -> Decimal:
        """Spent and reserved."""
        return EXACT.add(self.spent.total, self.reserved.total)


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one request holds, in which accounts, and until when (monotonic seconds)."""

    amounts: Held
    accounts: tuple[Account, ...]
    until: float


@dataclass(frozen=True, slots=True)
class Unwritten:
    """What the file holds: the accounts, and what the store has not counted of them."""

    accounts: list[tuple[str, str, str, Decimal]]
    owed: list[Batch]


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the file says of an account that nobody has asked for yet. `counted`: the store knows it, or is told."""

    began: str
    spent: Decimal
    counted: bool


@dataclass(slots=True)
class _Scale:
    """A budget as a request finds it: what is left, and what each model of its plan would take of it."""

    budget: Budget
    key: Key
    account: Account
    takes: dict[str, Decimal] = field(default_factory=dict)
    held: Decimal = ZERO
    """Of what is reserved, the request's own part."""

    @property
    def used(self) -> Decimal:
        return EXACT.subtract(self.account.used, self.held)

    @property
    def share(self) -> Decimal:
        return self.used / self.budget.limit

    def fits(self, model: str) -> bool:
        return self.used + self.takes[model] <= self.budget.limit


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What the budgets leave of a plan, and which of them did what. No models: `by` refuses."""

    models: tuple[str, ...]
    actions: tuple[tuple[str, str], ...]
    reason: str = ""
    by: Budget | None = None
    out: Mapping[str, str] = field(default_factory=dict)
    """Models that it left out, and the budget that did."""


class Budgets:
    """All accounts. Used on the event loop, but for the file, which a thread of its own writes once a second.

    Outlives configurations: an account belongs to the budget's name and key. Each budget has at most `MAX_ACCOUNTS`:
    those whose window is over go first, then those that have used least, so that nobody gets a spent budget back by
    making up users. `directory` keeps what was spent over restarts, and of requests under way what they reserved; with
    a `store` its replicas have the accounts in common. `acted` is told of each budget that changed or refused a plan,
    and how; `alone` of each request that was judged without the other replicas' part, and why.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        store: Store | None = None,
        wait_seconds: float = 0.01,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        acted: Callable[[str, str], None] = lambda _budget, _action: None,
        alone: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        self._now, self._acted, self._alone, self._wait_seconds = now, acted, alone, wait_seconds
        self._accounts: dict[str, OrderedDict[str, Account]] = {}
        """By budget, then by key: the one used last is the last."""
        self._reserved: OrderedDict[str, Reservation] = OrderedDict()
        self._tally = Tally(store, self._counters)
        self._owed: list[Batch] = []
        self._unopened: dict[str, dict[str, _Kept]] = {}
        self._path = directory / FILE if directory is not None else None
        self._saver: Background[Unwritten] = Background("budgets", self._save, seconds=WRITE_SECONDS, max_waiting=10)
        self._dirty = False
        self._fullest: tuple[float, RouterConfig, dict[str, float]] | None = None
        self.evicted: dict[str, int] = {}
        """Accounts that went, for want of room, while their window went on; by budget."""

    def start(self) -> None:
        """Reads what was spent. Blocks for that."""
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            kept = json.loads(self._path.read_bytes())
            counted = "owed" in kept
            self._unopened = _newest(
                (str(name), str(key), _Kept(str(began), Decimal(spent), counted))
                for name, key, began, spent in kept["accounts"]
            )
            self._owed = [
                Batch(str(writer), int(number), tuple(Change(str(key), int(units), int(s)) for key, units, s in rows))
                for writer, number, rows in kept.get("owed", ())
            ]
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
            log.error("%s cannot be used, budgets begin anew: %s", self._path, error)
        self._saver.start()

    def share(self) -> None:
        """Begins to agree with the other replicas. Call it on the event loop, after `start`."""
        self._tally.start(self._owed)

    async def leave(self) -> None:
        """Tells the other replicas what they do not know yet, for a second at most. Then `close`."""
        await self._tally.aclose()

    def close(self) -> None:
        """Writes what was spent. Blocks for that."""
        if self._path is not None:
            self._dirty = True
            self.save()
            self._saver.close()

    @property
    def trouble(self) -> str | None:
        """Why other replicas' part is not known; empty while it is, None when nothing is shared."""
        return self._tally.trouble if self._tally.shared else None

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
        verdict = self._judged(scales, routed)
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
            raise BudgetSpent(
                f"the {window.value}'s budget `{verdict.by.name}` is spent", retry_after=self._left(window)
            )
        amounts = tuple((scale.key, scale.account.began, scale.held) for scale in scales)
        if self._tally.shared:
            routed = replace(routed, held=_written(amounts))
        else:
            accounts = tuple(scale.account for scale in scales)
            until = time.monotonic() + config.retry.total_seconds + 60
            self._reserved[identity] = Reservation(amounts, accounts, until)
            self._dirty = True
        if not verdict.reason:
            return routed
        reason = f"{routed.decision.reason}; {verdict.reason}{f' (known here: store {why})' if why else ''}"
        considered = _considered(routed.decision.considered, verdict.out)
        decision = replace(routed.decision, reason=reason[:199], considered=considered)
        return replace(routed, decision=decision, plan=Plan(verdict.models))

    def settle(self, outcome: Outcome | None, decided: Decided | None, config: RouterConfig) -> None:
        """Replaces a reservation by what the answer cost. Without an outcome what was reserved counts as spent."""
        identity = outcome.decision_id if outcome is not None else decided.decision_id if decided is not None else ""
        reservation = self._reserved.pop(identity, None)
        holders: tuple[Account | None, ...]
        if reservation is not None:
            amounts, holders = reservation.amounts, reservation.accounts
        elif outcome is not None and self._tally.shared:
            amounts = _read_held(outcome.held)
            holders = (None,) * len(amounts)
        else:
            return
        entry = price(outcome, config, self._now().timestamp()) if outcome is not None else None
        by_name = {budget.name: budget for budget in config.budgets}
        for (key, began, reserved), holder in zip(amounts, holders, strict=True):
            budget = by_name.get(key[0])
            spent = reserved
            if entry is not None and budget is not None:
                spent = entry.cost if budget.usd is not None else Decimal(entry.input + entry.output)
            self._settle(key, began, reserved, spent, budget, holder)

    def ask(self, config: RouterConfig) -> None:
        """Wants to know what other replicas have spent of the accounts that are in use; soon `shown` has it."""
        if self._tally.shared:
            for budget in config.budgets:
                if budget.per is BudgetScope.TOTAL:
                    self._account((budget.name, TOTAL), budget)
                began = self._began(budget.window)
                kept = self._unopened.get(budget.name, {}).items()
                for key in [key for key, found in kept if found.began == began]:
                    self._account((budget.name, key), budget)
        for counter in self._latest():
            self._tally.ask(counter)

    async def refresh(self, config: RouterConfig) -> None:
        """The same, and waits for it for a moment."""
        self.ask(config)
        seconds = max(self._wait_seconds, REFRESH_SECONDS)
        await self._tally.agreed(self._latest(), seconds, seconds)

    def lose(self, identity: str) -> None:
        """Nobody will tell what became of a request: what was reserved counts as spent."""
        reservation = self._reserved.pop(identity, None)
        if reservation is not None:
            self._lost(reservation)

    def shown(self, config: RouterConfig) -> list[dict[str, Any]]:
        """The accounts of the budgets that are configured, fullest first, `SHOWN` at most."""
        parts: list[tuple[float, Budget, str, Decimal, Decimal]] = []
        for budget in config.budgets:
            limit = float(budget.limit)
            for key, spent, reserved in self._in_window(budget):
                parts.append(((float(spent) + float(reserved)) / limit, budget, key, spent, reserved))
        return [
            {
                "budget": budget.name,
                "key": key,
                "window": self._began(budget.window),
                "unit": "USD" if budget.usd is not None else "tokens",
                "limit": plain(budget.limit),
                "spent": plain(spent),
                "reserved": plain(reserved),
                "percent": round(part * 100, 2),
            }
            for part, budget, key, spent, reserved in heapq.nlargest(SHOWN, parts, key=lambda row: row[0])
        ]

    def fullest(self, config: RouterConfig) -> dict[str, float]:
        """Of each budget that is configured, the part that its fullest account has used. Up to `FULLEST_SECONDS` old:
        whoever asks need not be known, and there may be thousands of accounts to look at."""
        at = time.monotonic()
        if self._fullest is None or self._fullest[1] is not config or at - self._fullest[0] >= FULLEST_SECONDS:
            found = {}
            for budget in config.budgets:
                used = max((EXACT.add(spent, reserved) for _, spent, reserved in self._in_window(budget)), default=None)
                if used is not None:
                    found[budget.name] = float(used / budget.limit)
            self._fullest = (at, config, found)
        return self._fullest[2]

    def save(self) -> None:
        """Hands the accounts to the thread that writes them, if they have changed. To be called every `SAVE_SECONDS`.

        Alone, what is reserved counts: nobody will settle it for a process that was killed. In a store it lives on.
        """
        if self._path is not None and self._dirty:
            self._dirty, shared = False, self._tally.shared
            accounts = [
                (name, key, account.began, account.spent.total if shared else account.used)
                for name, table in self._accounts.items()
                for key, account in table.items()
            ]
            accounts += [
                (name, key, kept.began, kept.spent)
                for name, table in self._unopened.items()
                for key, kept in table.items()
            ]
            self._saver.put(Unwritten(accounts, self._tally.left()))

    def _in_window(self, budget: Budget) -> Iterator[tuple[str, Decimal, Decimal]]:
        """Key, spent and reserved of each account, also of those that only the file knows so far."""
        began = self._began(budget.window)
        for key, account in self._accounts.get(budget.name, {}).items():
            if account.began == began:
                yield key, account.spent.total, account.reserved.total
        for key, kept in self._unopened.get(budget.name, {}).items():
            if kept.began == began:
                yield key, kept.spent, ZERO

    def _scales(self, routed: Routed, tenant: str, config: RouterConfig) -> Iterator[_Scale]:
        """The budgets that a request counts for."""
        now = self._now()
        for budget in config.budgets:
            key = _key(budget, routed, tenant)
            if key is None or (budget.only is not None and key not in budget.only):
                continue
            scale = _Scale(budget, (budget.name, key), self._account((budget.name, key), budget))
            for model in routed.plan.models:
                usage = expected(routed.request)
                usd = budget.usd is not None
                price_now = price_at(config.models[model].price, now)
                amount = cost_of(price_now, usage) if usd else Decimal(usage.input + usage.output)
                scale.takes[model] = amount
            yield scale

    def _judged(self, scales: list[_Scale], routed: Routed) -> _Verdict:
        """What all budgets together leave of the plan."""
        models, reason, actions, out = list(routed.plan.models), "", [], dict[str, str]()
        named = routed.decision.band is Band.NAMED
        for scale in scales:
            kept, action = self._kept(scale, models, named)
            if action:
                actions.append((scale.budget.name, action))
                reason = reason or f"budget {scale.budget.name} at {scale.share * 100:.0f} %"
            if not kept:
                return _Verdict((), tuple(actions), reason, scale.budget)
            out.update((model, f"budget {scale.budget.name}") for model in models if model not in kept)
            models = kept
        return _Verdict(tuple(models), tuple(actions), reason, out=out)

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

    def _hold(self, scales: list[_Scale], verdict: _Verdict | None) -> None:
        """Reserves what the plan that is left may take, instead of what is held; nothing for a refused one."""
        models = verdict.models if verdict is not None else ()
        for scale in scales:
            # Any of them may answer in the end.
            amount = max((scale.takes[model] for model in models), default=ZERO)
            if amount != scale.held:
                self._tally.add(scale.account.reserved, EXACT.subtract(amount, scale.held))
                scale.held = amount

    async def _agreed(self, scales: list[_Scale], routed: Routed, verdict: _Verdict) -> tuple[_Verdict, str]:
        """The verdict once the other replicas' part is known, and why it is not known (empty when it is)."""
        if not self._tally.shared:
            return verdict, ""
        until = time.monotonic() + self._wait_seconds
        left = self._wait_seconds
        for turn in range(AGREED_ROUNDS):
            counters = [counter for scale in scales for counter in (scale.account.spent, scale.account.reserved)]
            if not await self._tally.agreed(counters, left, self._wait_seconds):
                if turn or not self._wait_seconds:
                    break
                self._alone(self._tally.trouble)
                return verdict, self._tally.trouble
            again = self._judged(scales, routed)
            if again.models == verdict.models:
                return again, ""
            verdict = again
            self._hold(scales, verdict)
            left = until - time.monotonic()
        return verdict, ""

    def _settle(
        self, key: Key, began: str, reserved: Decimal, spent: Decimal, budget: Budget | None, holder: Account | None
    ) -> None:
        """`holder` is the account that the amount was reserved in, where this process did that."""
        account = self._accounts.get(key[0], OrderedDict[str, Account]()).get(key[1])
        if account is None and budget is not None:
            account = self._account(key, budget)
        # The window that a request began in pays for it; when that is over, nobody asks any more.
        if account is not None and account.began == began:
            # An account that went for want of room took its reservations along; in a store they live on.
            if self._tally.shared or account is holder:
                self._tally.add(account.reserved, -reserved)
            self._tally.add(account.spent, spent)
            self._dirty = True

    def _lost(self, reservation: Reservation) -> None:
        """An outcome that never came: what was reserved counts as spent."""
        for (key, began, reserved), holder in zip(reservation.amounts, reservation.accounts, strict=True):
            self._settle(key, began, reserved, reserved, None, holder)

    def _expire(self) -> None:
        now = time.monotonic()
        while self._reserved:
            identity, reservation = next(iter(self._reserved.items()))
            if reservation.until > now:
                return
            del self._reserved[identity]
            self._lost(reservation)

    def _account(self, key: Key, budget: Budget) -> Account:
        began = self._began(budget.window)
        table = self._accounts.setdefault(key[0], OrderedDict())
        account = table.get(key[1])
        if account is None or account.began != began or account.spent.scale != _scale(budget):
            if account is None:
                self._make_room(table, budget, began)
            account = table[key[1]] = self._opened(key, began, _scale(budget), self._left(budget.window))
        table.move_to_end(key[1])
        return account

    def _make_room(self, table: OrderedDict[str, Account], budget: Budget, began: str) -> None:
        """For one more account."""
        if len(table) < MAX_ACCOUNTS:
            return
        gone = [key for key, account in table.items() if account.began != began]
        if not gone:
            gone = heapq.nsmallest(ROOM, table, key=lambda key: table[key].used)
            if budget.name not in self.evicted:
                log.warning(
                    "budget %s has over %d accounts in one window: those that have used least go",
                    budget.name,
                    MAX_ACCOUNTS,
                )
            self.evicted[budget.name] = self.evicted.get(budget.name, 0) + len(gone)
        for key in gone:
            del table[key]

    def _opened(self, key: Key, began: str, scale: int, seconds: int) -> Account:
        # Tenants and users are no business of who can list the store's keys.
        named = hashlib.sha256("\n".join((*key, began, str(scale))).encode()).hexdigest()[:32]
        spent, reserved = (Counter(f"b:{named}:{part}", scale, seconds + OVERTIME) for part in "sr")
        kept = self._unopened.get(key[0], {}).pop(key[1], None)
        if kept is not None and kept.began == began:
            if self._tally.shared and kept.counted:
                spent.known = kept.spent
            else:
                self._tally.add(spent, kept.spent)
        return Account(began, spent, reserved)

    def _counters(self) -> Iterator[Counter]:
        for table in self._accounts.values():
            for account in table.values():
                yield account.spent
                yield account.reserved

    def _latest(self) -> list[Counter]:
        """The counters of the accounts that were used last, about `ASKED`, as many of each budget."""
        each = ASKED // 2 // max(1, len(self._accounts)) + 1
        accounts = (account for table in self._accounts.values() for account in islice(reversed(table.values()), each))
        return [counter for account in accounts for counter in (account.spent, account.reserved)]

    def _began(self, window: BudgetWindow) -> str:
        return _bounds(window, self._now())[0].isoformat()

    def _left(self, window: BudgetWindow) -> int:
        """Whole seconds until the window ends, at least one."""
        now = self._now()
        return max(1, int((_bounds(window, now)[1] - now).total_seconds()) + 1)

    def _save(self, batch: list[Unwritten]) -> None:
        if self._path is None or not batch:
            return
        newest = batch[-1]
        rows = [[name, key, began, plain(spent)] for name, key, began, spent in newest.accounts]
        kept: dict[str, Any] = {"version": 1, "accounts": rows}
        if self._tally.shared:
            kept["owed"] = [
                [each.writer, each.number, [[change.key, change.amount, change.seconds] for change in each.changes]]
                for each in newest.owed
            ]
        draft = self._path.with_suffix(".draft")
        try:
            draft.write_text(json.dumps(kept), encoding="utf-8")
            draft.replace(self._path)
        except OSError as error:
            log.error("what was spent of the budgets cannot be written: %s", error)


def _newest(rows: Iterable[tuple[str, str, _Kept]]) -> dict[str, dict[str, _Kept]]:
    """By budget and key; of each budget the newest `MAX_ACCOUNTS`, first those that have spent most."""
    by_name: dict[str, dict[str, _Kept]] = {}
    for name, key, kept in rows:
        by_name.setdefault(name, {})[key] = kept
    for name, table in by_name.items():
        newest = heapq.nlargest(MAX_ACCOUNTS, table.items(), key=lambda item: (item[1].began, item[1].spent))
        by_name[name] = dict(newest)
    return by_name


def _scale(budget: Budget) -> int:
    return USD_UNITS if budget.usd is not None else 1


def _written(amounts: Held) -> str:
    """As the metadata carries it to whoever is told the outcome."""
    return json.dumps([[*key, began, plain(amount)] for key, began, amount in amounts], separators=(",", ":"))


def _read_held(text: str) -> Held:
    """What a request held; nothing where the metadata does not say so."""
    try:
        rows = json.loads(text) if text else []
        return tuple(((str(name), str(key)), str(began), Decimal(amount)) for name, key, began, amount in rows)
    except (ValueError, TypeError, ArithmeticError):
        return ()


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
            return TOTAL
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
