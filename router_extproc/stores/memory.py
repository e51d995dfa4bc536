"""A store inside one process: shared by nobody else. What tests and a sidecar without a configured store use."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from router_extproc.stores.base import Added, Change

MAX_KEYS = 100_000
"""The keys not written for longest go first."""


class MemoryStore:
    """A `base.Store` in dictionaries."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._numbers: dict[str, int] = {}
        self._counters: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._values: OrderedDict[str, tuple[bytes, float]] = OrderedDict()

    async def add(self, writer: str, number: int, changes: Sequence[Change]) -> Added:
        """See `base.Store.add`."""
        now, last = self._clock(), self._numbers.get(writer)
        if last is None or number > last:
            self._numbers[writer] = number
            for change in changes:
                if change.amount:
                    self._counters[change.key] = self._total(change.key, now) + change.amount, now + change.seconds
                    self._counters.move_to_end(change.key)
        _bound(self._counters)
        return Added(tuple(self._total(change.key, now) for change in changes), last is not None)

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """See `base.Store.get`."""
        now = self._clock()
        found = [self._values.get(key) for key in keys]
        return [each[0] if each is not None and each[1] > now else None for each in found]

    async def put(self, values: Mapping[str, bytes], seconds: int) -> None:
        """See `base.Store.put`."""
        until = self._clock() + seconds
        for key, value in values.items():
            self._values[key] = value, until
            self._values.move_to_end(key)
        _bound(self._values)

    async def aclose(self) -> None:
        """Nothing is held open."""

    def _total(self, key: str, now: float) -> int:
        total, until = self._counters.get(key, (0, 0.0))
        return total if until > now else 0


def _bound(kept: OrderedDict[str, Any]) -> None:
    while len(kept) > MAX_KEYS:
        kept.popitem(last=False)
