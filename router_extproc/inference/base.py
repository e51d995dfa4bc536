"""What the rest of the sidecar knows of inference: texts in, calibrated head results out. No torch here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from router_extproc.errors import RouterError


class InferenceError(RouterError):
    """A classification that did not happen; `reason` is one short word for headers and metrics."""

    reason = "error"


class Overloaded(InferenceError):
    """The queue is full: refused at the door, nothing was queued."""

    reason = "overloaded"


class DeadlineExceeded(InferenceError):
    """The result was not ready when the caller's deadline passed; the job is skipped when popped."""

    reason = "late"


class ModelFailed(InferenceError):
    """The forward pass of this batch raised. The worker goes on; other batches are not affected."""

    reason = "failed"


class UnusableModel(InferenceError):
    """A model folder that cannot be read, or a model that fails its warm-up. The one that served before serves on."""

    reason = "unusable"


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is classified: the newest human turn (segment A) and what came before it (segment B, may be empty)."""

    text: str
    context: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of personal data: character offsets into `Prompt.text`, end exclusive, confidence in [0, 1]."""

    start: int
    end: int
    label: str
    confidence: float


@dataclass(frozen=True, slots=True)
class HeadResult:
    """One head's calibrated answer. `probs` sums to 1 for label heads; each is its own probability for multi_label.

    For token heads `label` is "none" or the label of the most certain span, `spans` holds them all, and `probs` has the
    best confidence per label found. A text read in several windows keeps, for a head that has the label `benign`, each
    other label's maximum and the minimum of `benign`, so that these may sum to more than 1. `value` is a number in
    [0, 1] where the head is one (complexity).
    """

    label: str
    confidence: float
    probs: Mapping[str, float]
    value: float = 0.0
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Classified:
    """All heads of one prompt, with where the time went (milliseconds) and the batch it was in.

    A long text is read in `windows`. `coverage` in (0, 1] is the part of the text that was read: below 1 when it had
    more windows than the engine reads, or when some of those were not read: the deadline came, or there was no room.
    `cut_short` says the latter. `queue_ms` is the wait of the window that waited longest, `run_ms` the sum over the
    batches' forward passes, `batch_size` the largest batch. `embedding`, where the model gives one, has unit length.
    """

    heads: Mapping[str, HeadResult]
    tokens: int
    version: str
    queue_ms: float = 0.0
    run_ms: float = 0.0
    batch_size: int = 1
    embedding: Sequence[float] = field(default=(), repr=False)
    windows: int = 1
    coverage: float = 1.0
    cut_short: bool = False


class Model(Protocol):
    """A loaded classifier. The methods run on one thread at a time, the attributes may be read from any."""

    @property
    def version(self) -> str:
        """Names weights and calibration; part of cache keys."""

    @property
    def labels(self) -> Mapping[str, tuple[str, ...]]:
        """Labels per head."""

    @property
    def batch_tokens(self) -> int:
        """Tokens (padding included) that one batch should hold on this device: more only adds waiting."""

    @property
    def folds(self) -> bool:
        """Whether the case of ASCII letters and runs of blanks and line ends make no difference to its answers."""

    def warm_up(self) -> None:
        """Runs every shape that traffic will use, so that the first request pays nothing."""

    def run(self, prompts: Sequence[Prompt]) -> list[Classified]:
        """Classifies a batch, in order. May raise; the engine fails the batch's callers then."""


class Classifier(Protocol):
    """The engine as signals see it; called on the event loop."""

    @property
    def labels(self) -> Mapping[str, tuple[str, ...]]:
        """Labels per head of the model that serves now."""

    @property
    def version(self) -> str:
        """Version of the model that serves now."""

    async def classify(self, prompt: Prompt, deadline: float, patience: float = math.inf) -> Classified:
        """Classifies before `deadline` (in `time.monotonic()` seconds).

        `patience` is how many seconds texts have as a rule: batches are kept short by it, also for one with more time.
        Raises Overloaded at once when the queue is full or too long for the deadline, DeadlineExceeded when time is up,
        ModelFailed when the forward pass raised. A text of which some windows were read by then is answered by these,
        also where the queue is full. Cancelling the caller drops the job.
        """
