"""The last exchanges and a few totals, for people who watch. Records are made only when somebody looks."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

from router_extproc.config.schema import RouterConfig
from router_extproc.domain import Outcome
from router_extproc.ledger import price
from router_extproc.records import Record, record
from router_extproc.telemetry.instruments import DECISION_SECONDS
from router_extproc.telemetry.recorder import Decided, Refused
from router_extproc.wire import details

KEPT = 2048
SHOWN = 100
WATCHERS = 16
LATENCY_BOUNDS = DECISION_SECONDS.bounds
BACKLOG = 64
END: Record = {}
"""What `Recent.next` returns when the process ends."""


@dataclass(slots=True)
class Seen:
    """One exchange, as far as it has come."""

    decided: Decided | None = None
    outcome: Outcome | None = None
    at: float = 0.0
    refused: Refused | None = None


class Recent:
    """Keeps the last `KEPT` exchanges, decided or ended, by id. Everything happens on the event loop."""

    def __init__(self, config: Callable[[], RouterConfig], *, prompts: bool = False) -> None:
        self._config, self._prompts = config, prompts
        self._seen: OrderedDict[str, Seen] = OrderedDict()
        self._refused: OrderedDict[str, Refused] = OrderedDict()
        """By decision id: those whose answer Envoy's access log has not told of."""
        self.watchers: set[asyncio.Queue[Record]] = set()
        """The backlogs of those who watch."""
        self.bands: dict[str, int] = {}
        """Decisions by band, since the start."""
        self.latency = [0] * (len(LATENCY_BOUNDS) + 1)
        """Decisions by how long they took: up to each of `LATENCY_BOUNDS`, and longer."""

    def decided(self, decided: Decided) -> None:
        """A decision was made."""
        band = decided.decision.band.value
        self.bands[band] = self.bands.get(band, 0) + 1
        self.latency[bisect_left(LATENCY_BOUNDS, decided.seconds)] += 1
        self._keep(decided.decision_id, Seen(decided, None, decided.at))

    def refused(self, refused: Refused) -> None:
        """A request was refused after it had been read."""
        self._keep(refused.decision_id, Seen(None, None, refused.at, refused))
        self._refused[refused.decision_id] = refused
        if len(self._refused) > KEPT:
            self._refused.popitem(last=False)

    def outcome(self, outcome: Outcome | None, decided: Decided | None) -> None:
        """An exchange has ended."""
        if outcome is None:
            return
        identity = outcome.decision_id or self._answered(outcome) or outcome.request_id
        before = self._seen.get(identity)
        seen = Seen(decided, outcome, time.time(), before.refused if before is not None else None)
        self._keep(identity, seen)
        if self.watchers:
            made = self._record(seen)
            for queue in self.watchers:
                # Who reads too slowly misses some; the page asks for the rest when it is opened again.
                if not queue.full():
                    queue.put_nowait(made)

    def find(self, identity: str) -> Seen | None:
        """The exchange with that decision id (or Envoy's request id), if it is among the last ones."""
        return self._seen.get(identity)

    def describe(self, seen: Seen) -> Record:
        """Its record."""
        return self._record(seen)

    def last(self, count: int = SHOWN) -> list[Record]:
        """The newest exchanges that have ended, newest first."""
        ended = (seen for seen in reversed(self._seen.values()) if seen.outcome is not None)
        return [self._record(seen) for seen, _ in zip(ended, range(count), strict=False)]

    def models(self) -> dict[str, dict[str, Any]]:
        """How each model did in the exchanges that are kept: answers, failures, milliseconds to the first byte."""
        found: dict[str, list[Outcome]] = {}
        for seen in self._seen.values():
            if seen.outcome is not None and seen.outcome.model is not None:
                found.setdefault(seen.outcome.model, []).append(seen.outcome)
        return {name: _health(outcomes) for name, outcomes in found.items()}

    @property
    def full(self) -> bool:
        """Whether as many watch as there is room for."""
        return len(self.watchers) >= WATCHERS

    @contextmanager
    def watching(self) -> Iterator[asyncio.Queue[Record]]:
        """A queue of records as exchanges end. Ask `full` before."""
        queue: asyncio.Queue[Record] = asyncio.Queue(BACKLOG)
        self.watchers.add(queue)
        try:
            yield queue
        finally:
            self.watchers.discard(queue)

    async def next(self, queue: asyncio.Queue[Record], seconds: float) -> Record | None:
        """The next record, None when there was none for so long, `END` when there will be none any more."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                return await queue.get()
        except TimeoutError:
            return None

    def close(self) -> None:
        """Sends everybody home."""
        for queue in self.watchers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(END)

    def _answered(self, outcome: Outcome) -> str:
        """The decision id of the refusal that it is the end of, "" if it is none.

        Envoy's log has none: the answer was not a route. The request id alone would not do, clients may choose it: the
        answer must be this refusal's too, and of several alike the first is taken.
        """
        for identity, refused in self._refused.items():
            if outcome.request_id == refused.request_id and outcome.details == details(refused.code):
                del self._refused[identity]
                return identity
        return ""

    def _keep(self, identity: str, seen: Seen) -> None:
        self._seen[identity] = seen
        self._seen.move_to_end(identity)
        if len(self._seen) > KEPT:
            self._seen.popitem(last=False)

    def _record(self, seen: Seen) -> Record:
        entry = price(seen.outcome, self._config(), seen.at) if seen.outcome is not None else None
        return record(seen.outcome, seen.decided, entry, refused=seen.refused, prompts=self._prompts)


def _health(outcomes: list[Outcome]) -> dict[str, Any]:
    first_bytes = [found.first_byte_seconds for found in outcomes if found.first_byte_seconds is not None]
    return {
        "answers": len(outcomes),
        "failures": sum(found.failed for found in outcomes),
        "retried": sum(found.attempts > 1 for found in outcomes),
        "first_byte_ms": round(median(first_bytes) * 1e3, 1) if first_bytes else None,
        "last_status": outcomes[-1].status,
        "last_broken": outcomes[-1].broken,
    }
