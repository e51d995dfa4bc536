"""What the classifier said of a window, known to all replicas through the store.

Looking up takes its own time while the window waits for the classifier, and writing happens a moment later in batches:
neither holds anybody up. Values lie under hashes of model, text and context, and hold no text.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence

from router_extproc.inference.answers import packed, unpacked
from router_extproc.inference.base import Classified
from router_extproc.stores.base import Store, StoreError

MAX_LOOKUPS = 32
"""Texts that are looked up at once; more go to the classifier alone."""
MAX_WAITING = 1000
"""Answers that wait to be written; more are dropped."""
WRITE_SECONDS = 0.05
MAX_BATCH = 200


class SharedAnswers:
    """An `inference.memory.Elsewhere` over a store. Used on the event loop."""

    def __init__(self, store: Store, seconds: int, on_state: Callable[[bool], None] = lambda _answers: None) -> None:
        """Answers are kept for `seconds`. `on_state` is told whether the store answers, when that changes."""
        self._store, self._seconds, self._on_state = store, seconds, on_state
        self._lookups = 0
        self._waiting: dict[str, bytes] = {}
        self._task: asyncio.Task[None] | None = None
        self._answers: bool | None = None
        self.dropped = 0
        """Answers that were never written: too many at once, or the store gave no answer."""

    def start(self) -> None:
        """Begins to write. Call it on the loop."""
        self._task = asyncio.create_task(self._write())

    async def aclose(self) -> None:
        """Stops writing; what waits is lost."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def recall(
        self, keys: Sequence[Sequence[bytes]], version: str, labels: Mapping[str, tuple[str, ...]]
    ) -> list[Classified | None]:
        """See `inference.memory.Elsewhere.recall`."""
        nothing: list[Classified | None] = [None] * len(keys)
        if self._lookups >= MAX_LOOKUPS:
            return nothing
        self._lookups += 1
        flat = [name(key) for each in keys for key in each]
        try:
            found = dict(zip(flat, await self._store.get(flat), strict=True))
        except StoreError:
            self._told(answers=False)
            return nothing
        finally:
            self._lookups -= 1
        self._told(answers=True)
        return [self._first([found[name(key)] for key in each], version, labels) for each in keys]

    def keep(self, key: bytes, answer: Classified, labels: Mapping[str, tuple[str, ...]]) -> None:
        """See `inference.memory.Elsewhere.keep`."""
        if len(self._waiting) >= MAX_WAITING:
            self.dropped += 1
            return
        self._waiting[name(key)] = packed(answer, labels)

    def _first(
        self, contents: Sequence[bytes | None], version: str, labels: Mapping[str, tuple[str, ...]]
    ) -> Classified | None:
        for content in contents:
            answer = unpacked(content, version, labels) if content is not None else None
            if answer is not None:
                return answer
        return None

    async def _write(self) -> None:
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            while self._waiting:
                batch = {key: self._waiting.pop(key) for key in list(self._waiting)[:MAX_BATCH]}
                try:
                    await self._store.put(batch, self._seconds)
                except StoreError:
                    self.dropped += len(batch)
                    self._told(answers=False)
                    break
                self._told(answers=True)

    def _told(self, *, answers: bool) -> None:
        if answers != self._answers:
            self._answers = answers
            self._on_state(answers)


def name(key: bytes) -> str:
    """The store's key."""
    return f"c:{key.hex()}"
