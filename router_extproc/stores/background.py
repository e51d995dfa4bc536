"""Work that must not hold up the event loop: handed over in a moment, done in batches on a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


class Background(Generic[T]):
    """Calls `handle` with what was `put`, at most `seconds` later, on one thread, in order.

    `handle` is also called with nothing, so that it can do what is due. What it raises is logged, and it goes on. Items
    beyond `max_waiting` are dropped and counted.
    """

    def __init__(self, name: str, handle: Callable[[list[T]], None], *, seconds: float, max_waiting: int) -> None:
        self._name, self._handle, self._seconds, self._max_waiting = name, handle, seconds, max_waiting
        self._waiting: deque[T | threading.Event] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None
        self.dropped = 0

    def start(self) -> None:
        """Starts the thread."""
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Hands an item over; half a microsecond."""
        if len(self._waiting) >= self._max_waiting:
            self.dropped += 1
            return
        self._waiting.append(item)

    def flush(self) -> None:
        """Blocks until everything that was put before has been handled, however much comes meanwhile."""
        if self._thread is None:
            return
        handled = threading.Event()
        self._waiting.append(handled)
        self._wake.set()
        while not handled.wait(FLUSH_SECONDS) and self._thread is not None:
            self._wake.set()

    def close(self) -> None:
        """Handles everything that waits and ends the thread. Blocks for that."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while True:
            self._wake.wait(self._seconds)
            self._wake.clear()
            closing = self._closing
            batch = self._taken()
            try:
                self._handle([item for item in batch if not isinstance(item, threading.Event)])
            except Exception:
                log.exception("%s could not handle what was given to it", self._name)
            for item in batch:
                if isinstance(item, threading.Event):
                    item.set()
            if closing and not self._waiting:
                return

    def _taken(self) -> list[T | threading.Event]:
        # Bounded, so that one batch cannot keep the interpreter busy for long.
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]


def sharing(batch: list[T]) -> Iterator[T]:
    """The items of a batch, giving the interpreter away between some: the event loop would otherwise wait for the
    switch interval, once for each batch and thread. Giving it away after every item costs as much as the work."""
    for number, item in enumerate(batch, 1):
        yield item
        if number % AT_ONCE == 0:
            time.sleep(0)


MAX_BATCH = 10_000
FLUSH_SECONDS = 0.1
AT_ONCE = 4
