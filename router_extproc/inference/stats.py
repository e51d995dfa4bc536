"""What the engine counts. Plain numbers: the inference thread and the loop write them, telemetry reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Totals since the start; `queued` and `queued_bytes` are what waits now.

    `texts` were accepted, `refused` found the queue full, `late` got no answer in time, `partial` an answer from some
    of their windows, `cancelled` lost their caller, `failed` is windows whose pass raised, `remembered` windows that
    needed none because they had been read before, and `unknown` all others; of these, `shared` are those of which
    another replica knew before we did, and `unshared` those that it was asked for in vain. `batches` and `windows`
    count what ran, `batch_sizes` batches by their number of windows rounded up to a power of two. `tokens` are real
    ones, `padded_tokens` longest window x windows summed over the batches. Times are summed milliseconds.
    """

    queued: int
    queued_bytes: int
    texts: int
    refused: int
    late: int
    partial: int
    cancelled: int
    failed: int
    remembered: int
    unknown: int
    shared: int
    unshared: int
    batches: int
    windows: int
    tokens: int
    padded_tokens: int
    queue_ms: float
    run_ms: float
    batch_sizes: Mapping[int, int]

    @property
    def padding_waste(self) -> float:
        """Part of the padded tokens that was padding, in [0, 1)."""
        return 1 - self.tokens / self.padded_tokens if self.padded_tokens else 0.0


@dataclass(slots=True)
class Counters:
    """The running totals. Each has one writer: `batch` runs on the inference thread, the rest on the loop."""

    texts: int = 0
    refused: int = 0
    late: int = 0
    partial: int = 0
    cancelled: int = 0
    failed: int = 0
    remembered: int = 0
    unknown: int = 0
    shared: int = 0
    unshared: int = 0
    batches: int = 0
    windows: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    queue_ms: float = 0.0
    run_ms: float = 0.0
    batch_sizes: dict[int, int] = field(default_factory=dict)

    def batch(self, tokens: Sequence[int], waits: Sequence[float], run_ms: float) -> None:
        """Counts one batch: tokens and seconds of waiting per window."""
        self.batches += 1
        self.windows += len(tokens)
        self.tokens += sum(tokens)
        self.padded_tokens += max(tokens) * len(tokens)
        self.queue_ms += sum(waits) * 1e3
        self.run_ms += run_ms
        size = 1 << (len(tokens) - 1).bit_length()
        self.batch_sizes = {**self.batch_sizes, size: self.batch_sizes.get(size, 0) + 1}

    def snapshot(self, *, queued: int, queued_bytes: int) -> EngineStats:
        """A consistent enough copy: fields are read one after the other while the thread may count a batch."""
        return EngineStats(
            queued=queued,
            queued_bytes=queued_bytes,
            texts=self.texts,
            refused=self.refused,
            late=self.late,
            partial=self.partial,
            cancelled=self.cancelled,
            failed=self.failed,
            remembered=self.remembered,
            unknown=self.unknown,
            shared=self.shared,
            unshared=self.unshared,
            batches=self.batches,
            windows=self.windows,
            tokens=self.tokens,
            padded_tokens=self.padded_tokens,
            queue_ms=self.queue_ms,
            run_ms=self.run_ms,
            batch_sizes=self.batch_sizes,
        )
