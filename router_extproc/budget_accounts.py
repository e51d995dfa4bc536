"""The accounts of budgets: what was spent and reserved, for each key (a tenant, say) in the window that is now.

They outlive the process in a file (`budget_file.py`), and replicas that share a store have them in common
(`stores/tally.py`).
"""

from __future__ import annotations

import hashlib
import heapq
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from router_extproc.budget_file import BudgetFile, Kept, Unwritten
from router_extproc.budget_windows import began, seconds_left
from router_extproc.config.accounting import Budget, BudgetScope
from router_extproc.config.schema import RouterConfig
from router_extproc.prices import EXACT, plain
from router_extproc.stores.base import Store
from router_extproc.stores.tally import Batch, Counter, Tally

log = logging.getLogger(__name__)

MAX_ACCOUNTS = 10_000
"""Of one budget."""
ROOM_PARTS = 20
"""One in so many accounts goes at once where there is no room: whoever looks for those that used least looks at all."""
SHOWN = 1000
FULLEST_SECONDS = 5.0
ZERO = Decimal(0)
USD_UNITS = 10**12
UNITS = {"USD": USD_UNITS, "tokens": 1}
"""By what a budget counts. The store counts whole units: millionths of a millionth of a dollar, exact for prices of up
to six decimals. Smaller rests wait in each replica until they make a unit."""
MOST_SHARED_USD = 9_000_000
"""Shared budgets are counted in `USD_UNITS`, in 63 bits."""
TOTAL = "total"
"""The key of a budget for everything."""
OVERTIME = 86_400
"""Seconds that the store keeps an account beyond its window: what was spent while it was down comes late."""
ASKED = 1000
REFRESH_SECONDS = 0.25

Key = tuple[str, str]
"""The budget's name, and what it counts for: the tenant's, user's or route's name, or `TOTAL`."""


@dataclass(slots=True)
class Account:
    """What one budget has seen for one key in the window that began at `began` (UTC, ISO), in its `unit`."""

    began: str
    unit: str
    spent: Counter
    reserved: Counter

    @property
    def used(self) -> Decimal:
        """Spent and reserved."""
        return EXACT.add(self.spent.total, self.reserved.total)


class Part(NamedTuple):
    """What one request holds in one account, in the window that began at `began`. `unit` is that of the amount, ""
    where an older sidecar has not said it."""

    key: Key
    began: str
    amount: Decimal
    unit: str = ""


class Accounts:
    """All accounts. Used on the event loop, but for the file, which a thread of its own writes once a second.

    Outlives configurations: an account belongs to the budget's name and key, and begins anew when the budget counts in
    another unit. Each budget has at most `most` (at least
    1): those whose window is over go first, then a twentieth, those that have used least, so that nobody gets a spent
    budget back by making up users. `directory` keeps what was spent over restarts, and of requests under way what they
    reserved; with a `store` its replicas have the accounts in common, and a decision waits for that for `wait_seconds`
    at most.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        store: Store | None = None,
        wait_seconds: float = 0.01,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        most: int = MAX_ACCOUNTS,
    ) -> None:
        self.now, self.wait_seconds, self._most = now, wait_seconds, most
        self._open: dict[str, OrderedDict[str, Account]] = {}
        """By budget, then by key: the one used last is the last."""
        self._unopened: dict[str, dict[str, Kept]] = {}
        self._tally = Tally(store, lambda: _counters(self._all()))
        self._owed: list[Batch] = []
        self._file = BudgetFile(directory) if directory is not None else None
        self._dirty = False
        self._fullest: tuple[float, RouterConfig, dict[str, float]] | None = None
        self.evicted: dict[str, int] = {}
        """Accounts that went, for want of room, while their window went on; by budget."""

    def start(self) -> None:
        """Reads what was spent. Blocks for that. Raises OSError when there is no place for the file."""
        if self._file is not None:
            self._unopened, self._owed = self._file.start(self._most)

    def share(self) -> None:
        """Begins to agree with the other replicas. Call it on the event loop, after `start`."""
        self._tally.start(self._owed)

    async def leave(self) -> None:
        """Tells the other replicas what they do not know yet, for a second at most. Then `close`."""
        await self._tally.aclose()

    def close(self) -> None:
        """Writes what was spent. Blocks for that."""
        if self._file is not None:
            self._dirty = True
            self.save()
            self._file.close()

    def save(self) -> None:
        """Hands the accounts to the thread that writes them, if they have changed. To be called every `SAVE_SECONDS`.

        Alone, what is reserved counts: nobody will settle it for a process that was killed. In a store it lives on.
        """
        if self._file is not None and self._dirty:
            self._dirty, shared = False, self.shared
            rows = [
                (
                    *(name, key),
                    Kept(account.began, account.spent.total if shared else account.used, shared, account.unit),
                )
                for name, table in self._open.items()
                for key, account in table.items()
            ]
            rows += [
                (name, key, replace(kept, counted=shared and kept.counted))
                for name, table in self._unopened.items()
                for key, kept in table.items()
            ]
            self._file.put(Unwritten(rows, self._tally.left() if shared else None))

    @property
    def shared(self) -> bool:
        """Whether other replicas have them too."""
        return self._tally.shared

    @property
    def trouble(self) -> str | None:
        """Why other replicas' part is not known; empty while it is, None when nothing is shared."""
        return self._tally.trouble if self.shared else None

    def opened(self, key: Key, budget: Budget) -> Account:
        """The account of `key` in the window that is now, which begins with it where there is none."""
        now = self.now()
        window = began(budget.window, now)
        table = self._open.setdefault(key[0], OrderedDict())
        account = table.get(key[1])
        if account is None or account.began != window or account.unit != budget.unit:
            if account is None:
                self._make_room(table, budget, window)
            account = table[key[1]] = self._begun(key, window, budget.unit, seconds_left(budget.window, now))
        table.move_to_end(key[1])
        return account

    def reserve(self, account: Account, amount: Decimal) -> None:
        """Reserves so much more; less where it is negative."""
        self._tally.add(account.reserved, amount)
        # What is reserved in a store is none of the file's business.
        self._dirty = self._dirty or not self.shared

    def settle(self, part: Part, spent: Decimal, budget: Budget | None, holder: Account | None) -> None:
        """What was reserved becomes what was spent, in the part's unit. `holder` is the account that it was reserved
        in, where this process did that; without the `budget`, which may be gone, no account is opened for it."""
        account = self._open.get(part.key[0], OrderedDict[str, Account]()).get(part.key[1])
        if account is None and budget is not None and part.unit in ("", budget.unit):
            account = self.opened(part.key, budget)
        # The window that a request began in pays for it; when that is over, nobody asks any more. Nor does anybody when
        # the budget has come to count in another unit.
        if account is not None and account.began == part.began and part.unit in ("", account.unit):
            # An account that went for want of room took its reservations along; in a store they live on.
            if self.shared or account is holder:
                self._tally.add(account.reserved, -part.amount)
            self._tally.add(account.spent, spent)
            self._dirty = True

    async def agreed(self, accounts: Iterable[Account], seconds: float) -> bool:
        """Waits until what all replicas have counted in `accounts` is known, for `seconds` at most, which is what is
        left of `wait_seconds`. False when it is not known; `trouble` may say why."""
        return await self._tally.agreed(_counters(accounts), seconds, self.wait_seconds)

    def ask(self, config: RouterConfig) -> None:
        """Wants to know what other replicas have spent of the accounts that are in use; soon `shown` has it."""
        if self.shared:
            for budget in config.budgets:
                if budget.per is BudgetScope.TOTAL:
                    self.opened((budget.name, TOTAL), budget)
                for key in [key for key, _ in self._kept(budget)]:
                    self.opened((budget.name, key), budget)
        for counter in _counters(self._latest()):
            self._tally.ask(counter)

    async def refresh(self, config: RouterConfig) -> None:
        """The same, and waits for it for a moment."""
        self.ask(config)
        seconds = max(self.wait_seconds, REFRESH_SECONDS)
        await self._tally.agreed(_counters(self._latest()), seconds, seconds)

    def shown(self, config: RouterConfig) -> list[dict[str, Any]]:
        """The accounts of the budgets that are configured, fullest first, `SHOWN` at most."""
        now = self.now()
        parts: list[tuple[float, Budget, str, Decimal, Decimal]] = []
        for budget in config.budgets:
            limit = float(budget.limit)
            for key, spent, reserved in self._in_window(budget):
                parts.append(((float(spent) + float(reserved)) / limit, budget, key, spent, reserved))
        return [
            {
                "budget": budget.name,
                "key": key,
                "window": began(budget.window, now),
                "unit": budget.unit,
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

    def _in_window(self, budget: Budget) -> Iterator[tuple[str, Decimal, Decimal]]:
        """Key, spent and reserved of each account, also of those that only the file knows so far."""
        window = began(budget.window, self.now())
        for key, account in self._open.get(budget.name, {}).items():
            if account.began == window and account.unit == budget.unit:
                yield key, account.spent.total, account.reserved.total
        for key, kept in self._kept(budget):
            yield key, kept.spent, ZERO

    def _kept(self, budget: Budget) -> Iterator[tuple[str, Kept]]:
        """By key: what the file alone knows so far of the window that is now."""
        window = began(budget.window, self.now())
        for key, kept in self._unopened.get(budget.name, {}).items():
            if kept.began == window and kept.unit in ("", budget.unit):
                yield key, kept

    def _make_room(self, table: OrderedDict[str, Account], budget: Budget, window: str) -> None:
        """For one more account in the window that began at `window`."""
        if len(table) < self._most:
            return
        gone = [key for key, account in table.items() if account.began != window]
        if not gone:
            gone = heapq.nsmallest(-(-self._most // ROOM_PARTS), table, key=lambda key: table[key].used)
            if budget.name not in self.evicted:
                told = "budget %s has over %d accounts in one window: those that have used least go"
                log.warning(told, budget.name, self._most)
            self.evicted[budget.name] = self.evicted.get(budget.name, 0) + len(gone)
        for key in gone:
            del table[key]

    def _begun(self, key: Key, window: str, unit: str, seconds: int) -> Account:
        """A new account, with what was kept of it. Its window began at `window` and goes on for so many seconds."""
        scale = UNITS[unit]
        # Tenants and users are no business of who can list the store's keys. Other units have other keys.
        named = hashlib.sha256("\n".join((*key, window, str(scale))).encode()).hexdigest()[:32]
        spent, reserved = (Counter(f"b:{named}:{part}", scale, seconds + OVERTIME) for part in "sr")
        kept = self._unopened.get(key[0], {}).pop(key[1], None)
        if kept is not None and kept.began == window and kept.unit in ("", unit):
            if self.shared and kept.counted:
                spent.known = kept.spent
            else:
                self._tally.add(spent, kept.spent)
        return Account(window, unit, spent, reserved)

    def _all(self) -> Iterator[Account]:
        for table in self._open.values():
            yield from table.values()

    def _latest(self) -> Iterator[Account]:
        """Those that were used last, as many of each budget, about `ASKED` counters."""
        each = ASKED // 2 // max(1, len(self._open)) + 1
        for table in self._open.values():
            yield from islice(reversed(table.values()), each)


def _counters(accounts: Iterable[Account]) -> Iterator[Counter]:
    for account in accounts:
        yield account.spent
        yield account.reserved
