"""Which model a conversation is on, so that its next turn finds the provider's prompt cache warm.

The seam is small on purpose: what replicas share can stand behind it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple, Protocol

MAX_CONVERSATIONS = 65_536
"""About 200 bytes each."""


class Kept(NamedTuple):
    """The model that a conversation is on, and the confidence band of the decision that put it there."""

    model: str
    band: str


class Affinity(Protocol):
    """Called on the event loop, once each per request of a sticky route. Neither call raises; what cannot be known is
    not known, for then the conversation is placed anew."""

    async def recall(self, session: str) -> Kept | None:
        """Where the conversation is. Answers at once or within very few milliseconds: a decision waits for it."""

    def keep(self, session: str, kept: Kept, seconds: float) -> None:
        """The conversation is there now, and will be remembered for so long unless it goes on. Does not wait."""


class MemoryAffinity:
    """An `Affinity` of this process alone, at most `size` conversations: the one unused for longest goes first."""

    def __init__(self, size: int = MAX_CONVERSATIONS, clock: Callable[[], float] = time.monotonic) -> None:
        self._size, self._clock = size, clock
        self._kept: OrderedDict[str, tuple[Kept, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    async def recall(self, session: str) -> Kept | None:
        """See Affinity."""
        return self.find(session)

    def find(self, session: str) -> Kept | None:
        """The same, without waiting."""
        found = self._kept.get(session)
        if found is None:
            return None
        kept, until = found
        if until <= self._clock():
            del self._kept[session]
            return None
        return kept

    def keep(self, session: str, kept: Kept, seconds: float) -> None:
        """See Affinity."""
        self._kept[session] = (kept, self._clock() + seconds)
        self._kept.move_to_end(session)
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)
