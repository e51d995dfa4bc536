"""What replicas share: counters that several of them add to, and small values that expire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from router_extproc.errors import RouterError


class StoreError(RouterError):
    """The store gave no answer. What was asked of it may have been done all the same.

    `reason` is one word for metrics: `slow` (no answer in time), `down` (no connection), `refused` (by its answer).
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Change:
    """Adds `amount` to the counter `key`; zero only asks. A counter is forgotten `seconds` after its last change."""

    key: str
    amount: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Added:
    """The counters' totals after a batch, in its order. `known`: an earlier batch of this writer is remembered.

    When it is not, and there was one, the store has lost what it held.
    """

    totals: tuple[int, ...]
    known: bool


class Store(Protocol):
    """A place that all replicas reach. Used on the event loop; every call ends within the store's own time limit.

    Counters hold integers up to 2^63. Keys are short and hold nothing that a client wrote. All raise StoreError.
    """

    async def add(self, writer: str, number: int, changes: Sequence[Change]) -> Added:
        """Makes all changes in one step, once: a batch whose `number` is not above the writer's last one only asks.

        So a batch that got no answer can be sent again, under the same number, until it gets one.
        """

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values of `keys`, in order; None where there is none (any more)."""

    async def put(self, values: Mapping[str, bytes], seconds: int) -> None:
        """Keeps values for that long."""

    async def aclose(self) -> None:
        """Lets the connections go."""
