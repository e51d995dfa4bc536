"""Which windows run next, and together. Pure policy: no threads, no clock of its own, no torch.

Order is fair queueing by tokens. Every window has a rank: the tokens that had been handed out when its text came, plus
the tokens of the windows before it in the same text; the lowest rank runs first. Texts of one window are thus served in
order of arrival, while the tenth window of a long text waits until about ten windows' worth of others has run: a
30,000-token prompt does not hold up the short ones behind it, and, since ranks of new texts only grow, is not starved.

A batch costs its longest window times its number of windows. Windows are kept in buckets by length, and a batch takes
from the bucket of the lowest rank, then tops up with shorter ones, so that padding stays small.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, TypeVar

BUCKETS = (32, 64, 128, 256, 512)
"""Upper bounds, in tokens, of the length buckets; longer windows share the last one."""

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Job(Generic[T]):
    """One window waiting for its pass. `tokens` is an estimate, `size` bytes held, `deadline` in the caller's clock.

    `taken` jobs are part of a batch: they run, whoever leaves.
    """

    payload: T
    tokens: int
    size: int
    deadline: float
    dropped: bool = field(default=False, init=False)
    queued: bool = field(default=False, init=False)
    taken: bool = field(default=False, init=False)


class BatchQueue(Generic[T]):
    """Bounded queue of windows. Not thread-safe: the engine guards it with its lock."""

    def __init__(self, *, max_jobs: int, max_bytes: int) -> None:
        self._max_jobs = max_jobs
        self._max_bytes = max_bytes
        self._heaps: list[list[tuple[int, int, Job[T]]]] = [[] for _ in BUCKETS]
        self._arrivals = count()
        self._served_tokens = 0
        self._jobs = 0
        self._bytes = 0
        self._tombstones = 0

    def __len__(self) -> int:
        return self._jobs

    @property
    def queued_bytes(self) -> int:
        """Bytes of text that wait."""
        return self._bytes

    def offer(self, jobs: Iterable[Job[T]]) -> bool:
        """Queues the windows of one text, in the order in which they are to run: all of them, or none when full.

        An empty queue takes any one text, however long: its windows are bounded by whoever cut them.
        """
        jobs = list(jobs)
        total = sum(job.size for job in jobs)
        if self._jobs and (self._jobs + len(jobs) > self._max_jobs or self._bytes + total > self._max_bytes):
            return False
        rank = self._served_tokens
        for job in jobs:
            job.queued = True
            heappush(self._heaps[_bucket(job.tokens)], (rank, next(self._arrivals), job))
            rank += job.tokens
        self._jobs += len(jobs)
        self._bytes += total
        return True

    def drop(self, job: Job[T]) -> None:
        """Forgets a job whose caller has gone; its room is free at once. Harmless for one that is no longer queued."""
        job.dropped = True
        if job.queued:
            self._forget(job)
            self._tombstones += 1
            if self._tombstones > self._jobs + 64:
                self._sweep()

    def take(self, budget: int, now: float) -> list[Job[T]]:
        """The next batch: longest x number <= `budget` tokens, or a single job that is over it alone.

        Dropped jobs and jobs whose deadline is not after `now` are discarded unrun. Empty when nothing is left to run.
        """
        for heap in self._heaps:
            self._skip_dead(heap, now)
        waiting = [index for index, heap in enumerate(self._heaps) if heap]
        if not waiting:
            return []
        first = min(waiting, key=lambda index: self._heaps[index][0][:2])
        batch: list[Job[T]] = []
        longest = 0
        for index in range(first, -1, -1):
            heap = self._heaps[index]
            while heap:
                job = heap[0][2]
                if batch and max(longest, job.tokens) * (len(batch) + 1) > budget:
                    break
                heappop(heap)
                self._forget(job)
                job.taken = True
                self._served_tokens += job.tokens
                batch.append(job)
                longest = max(longest, job.tokens)
                self._skip_dead(heap, now)
        return batch

    def clear(self) -> list[Job[T]]:
        """Empties the queue and returns the jobs that were still wanted."""
        left = [job for heap in self._heaps for _, _, job in heap if not job.dropped]
        for job in left:
            self._forget(job)
        for heap in self._heaps:
            heap.clear()
        self._tombstones = 0
        return left

    def _forget(self, job: Job[T]) -> None:
        job.queued = False
        self._jobs -= 1
        self._bytes -= job.size

    def _skip_dead(self, heap: list[tuple[int, int, Job[T]]], now: float) -> None:
        while heap:
            job = heap[0][2]
            if job.dropped:
                self._tombstones -= 1
            elif job.deadline <= now:
                self._forget(job)
            else:
                return
            heappop(heap)

    def _sweep(self) -> None:
        for heap in self._heaps:
            heap[:] = [entry for entry in heap if not entry[2].dropped]
            heapify(heap)
        self._tombstones = 0


def _bucket(tokens: int) -> int:
    return min(bisect_left(BUCKETS, tokens), len(BUCKETS) - 1)
