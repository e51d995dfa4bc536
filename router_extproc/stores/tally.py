"""Counters that replicas share, without anybody waiting for the store.

What is added counts here at once. One batch at a time is on its way to the store; what is added meanwhile goes with the
next. Each answer brings the totals of all replicas. While the store is down, what was added waits, summed up, and goes
there once it answers again: a batch without an answer is sent again under its own number, which the store counts once.
Without a store everything waits for ever, which is how one process counts alone.

A store that has lost what it held no longer knows us as a writer: then all that this process has ever put into its
counters is put in again, and so does each other replica.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal

from router_extproc.prices import EXACT
from router_extproc.stores.base import Added, Change, Store, StoreError

log = logging.getLogger(__name__)

ZERO = Decimal(0)
MAX_BATCH = 1000
RETRY_SECONDS = 0.1


@dataclass(slots=True, eq=False)
class Counter:
    """A sum that replicas share. `scale`: how many units of the store make one; `seconds` it is kept without a change.

    `known` is the total of all replicas as the store last gave it, `sent` is on its way there, `waiting` still here;
    `own` is the part of `known` that this process put in.
    """

    key: str
    scale: int
    seconds: int
    known: Decimal = ZERO
    sent: Decimal = ZERO
    waiting: Decimal = ZERO
    own: Decimal = ZERO

    @property
    def total(self) -> Decimal:
        """All that is known of."""
        if not self.known and not self.sent:
            return self.waiting  # always so without a store, where thousands of these are summed up at once
        return EXACT.add(EXACT.add(self.known, self.sent), self.waiting)

    def take(self) -> int:
        """Sends what waits, in whole units of the store; a smaller rest waits on."""
        units = int(EXACT.multiply(self.waiting, Decimal(self.scale)).to_integral_value(ROUND_DOWN))
        self.sent = EXACT.divide(Decimal(units), Decimal(self.scale))
        self.waiting = EXACT.subtract(self.waiting, self.sent)
        return units

    def arrived(self, total: int) -> None:
        """The store has counted what was sent."""
        self.own = EXACT.add(self.own, self.sent)
        self.known, self.sent = EXACT.divide(Decimal(total), Decimal(self.scale)), ZERO

    def lost(self) -> None:
        """The store has lost all: our own part waits again, the others' is taken to be as it was until they tell."""
        self.waiting = EXACT.add(self.waiting, self.own)
        self.known, self.own = EXACT.subtract(self.known, self.own), ZERO


@dataclass(frozen=True, slots=True)
class Batch:
    """What is sent in one step."""

    writer: str
    number: int
    changes: tuple[Change, ...]


@dataclass(slots=True, eq=False)
class _Flight:
    batch: Batch
    counters: list[Counter]
    told: list[asyncio.Future[bool]]
    new: bool
    began: float = field(default_factory=time.monotonic)


class Tally:
    """All shared counters of one process. Used on the event loop. `counters` gives those that are in use."""

    def __init__(
        self,
        store: Store | None,
        counters: Callable[[], Iterable[Counter]] = tuple,
    ) -> None:
        self._store, self._counters = store, counters
        self._writer, self._number = secrets.token_hex(8), 0
        self._first = True
        self._due: dict[Counter, None] = {}
        self._asking: list[asyncio.Future[bool]] = []
        self._flight: _Flight | None = None
        self._again: list[Batch] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._slow_over: float | None = None
        self.trouble = ""
        """Why the totals of other replicas are not known: `slow`, `down`, `refused`; empty while they are."""

    @property
    def shared(self) -> bool:
        """Whether there are other replicas to agree with."""
        return self._store is not None

    def start(self, again: Sequence[Batch] = ()) -> None:
        """Begins to send; first of all what an earlier process has left. Call it on the loop."""
        if self._store is not None:
            self._again = list(again)
            self._wake.set()
            self._task = asyncio.create_task(self._run(self._store))

    async def aclose(self, seconds: float = 1.0) -> None:
        """Sends what waits, for so long at most. `left` has the rest."""
        if self._task is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._due or self._flight is not None or self._again:
                    if not await self._next():
                        break
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None

    def left(self) -> list[Batch]:
        """What the store has not been seen to count: sent again by a later process, it is counted once."""
        found = list(self._again)
        if self._flight is not None:
            found.append(self._flight.batch)
        waiting = []
        for counter in self._due:
            units = int(EXACT.multiply(counter.waiting, Decimal(counter.scale)).to_integral_value(ROUND_DOWN))
            if units:
                waiting.append(Change(counter.key, units, counter.seconds))
        return [*found, Batch(self._writer, self._number + 1, tuple(waiting))] if waiting else found

    def add(self, counter: Counter, amount: Decimal) -> None:
        """Counts at once here, and soon everywhere."""
        counter.waiting = EXACT.add(counter.waiting, amount)
        self.ask(counter)

    def ask(self, counter: Counter) -> None:
        """Wants to know its total."""
        if self._store is not None:
            self._due[counter] = None
            self._wake.set()

    async def agreed(self, counters: Iterable[Counter], seconds: float, limit: float) -> bool:
        """Waits until the store has counted what was added to `counters` and told their totals, for `seconds` at most.

        A store that takes longer than `limit`, of which `seconds` may be what is left, is slow: False at once then,
        until it answers within `limit` again.
        """
        if self._store is None or self.trouble or seconds <= 0:
            return False
        for counter in counters:
            self.ask(counter)
        try:
            async with asyncio.timeout(seconds):
                return await self._next()
        except TimeoutError:
            if seconds >= limit:
                self._slow_over = limit
                self.trouble = "slow"
            return False

    async def _next(self) -> bool:
        """Waits for the answer to the batch that has yet to be made up; False when there is none."""
        told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._asking.append(told)
        self._wake.set()
        return await told

    async def _run(self, store: Store) -> None:
        while True:
            if self._flight is None:
                # The first batch may be empty: it connects before anybody waits for it.
                if not self._first and not self._again and not self._due and not self._asking:
                    self._wake.clear()
                    await self._wake.wait()
                self._flight = self._made_up()
            flight = self._flight
            flight.began = time.monotonic()
            try:
                added = await store.add(flight.batch.writer, flight.batch.number, flight.batch.changes)
                self._answered(flight, added)
            except StoreError as error:
                self._unanswered(flight, error.reason)
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                log.exception("the store's answer cannot be used")
                self._unanswered(flight, "refused")
                await asyncio.sleep(RETRY_SECONDS)

    def _made_up(self) -> _Flight:
        if self._again:
            return _Flight(self._again.pop(0), [], [], new=False)
        counters = list(self._due)[:MAX_BATCH]
        for counter in counters:
            del self._due[counter]
        told = []
        if not self._due:  # all that they wait for is in it
            told, self._asking = self._asking, []
        self._number += 1
        changes = tuple(Change(counter.key, counter.take(), counter.seconds) for counter in counters)
        return _Flight(Batch(self._writer, self._number, changes), counters, told, new=True)

    def _answered(self, flight: _Flight, added: Added) -> None:
        self._flight = None
        if flight.new:
            if not added.known and not self._first:
                log.warning("the store has lost what it held: what this replica has counted is put in again")
                for counter in self._counters():
                    counter.lost()
                    self.ask(counter)
            self._first = False
            for counter, total in zip(flight.counters, added.totals, strict=True):
                counter.arrived(total)
        took = time.monotonic() - flight.began
        if self.trouble and (self._slow_over is None or took <= self._slow_over):
            self._slow_over = None
            self.trouble = ""
        _tell(flight.told, answer=True)

    def _unanswered(self, flight: _Flight, reason: str) -> None:
        self.trouble, self._slow_over = reason, None
        _tell(flight.told, answer=False)
        _tell(self._asking, answer=False)


def _tell(told: list[asyncio.Future[bool]], *, answer: bool) -> None:
    for future in told:
        if not future.done():
            future.set_result(answer)
    told.clear()
