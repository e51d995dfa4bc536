"""The seam of signals: everything needed is gathered first, so that evaluating one is a fast, pure function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from pydantic import Field

from router_extproc.domain import LlmRequest, SignalValue
from router_extproc.inference.base import Classified

SHIPPED = "shipped"
"""Name of the classifier that the project ships."""

Heads = Mapping[str, Mapping[str, tuple[str, ...]]]
"""Labels by classifier name and head name: what signals are checked against when they are built."""

TRUE = SignalValue("true", value=1.0)
FALSE = SignalValue("false")
TRUTH = ("true", "false")


class Reads(StrEnum):
    """What a signal reads of a request."""

    PROMPT = "prompt"
    UNTRUSTED = "untrusted"
    CONVERSATION = "conversation"


READS = Field(
    Reads.PROMPT,
    description="`prompt`: the newest human turn. `untrusted`: also what tools, documents and agents brought since the "
    "model last spoke. `conversation`: also what people and tools wrote before, newest first, within "
    "`limits.read_windows`. The worst text speaks for all. For heads that look for what must not be overlooked: "
    "`guard`, `pii`, one with the label `benign`.",
)


@dataclass(frozen=True, slots=True)
class SignalInputs:
    """What signals may look at. `headers` has lower-case names, `now` is timezone-aware UTC.

    `classified` holds the forward passes that were ready at the deadline, by classifier name; `missing` says why the
    others are not there ("late", "overloaded", "failed"). `beside` has texts of `request.written`, in that order, each
    with its passes by classifier name, or why there is none.
    """

    request: LlmRequest
    headers: Mapping[str, str]
    now: datetime
    classified: Mapping[str, Classified] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    beside: Sequence[tuple[str, Mapping[str, Classified | str]]] = ()

    def why_absent(self, classifier: str | None) -> str:
        """In a word, for a signal that reads this classifier's passes."""
        if classifier is None:
            return "absent"
        why = self.missing.get(classifier)
        others = (passes.get(classifier) for _, passes in self.beside)
        return next((found for found in (why, *others) if isinstance(found, str)), "absent")


class Signal(Protocol):
    """One configured signal. Built once per config generation, called on the event loop, must not block."""

    @property
    def classifier(self) -> str | None:
        """The classifier whose pass it reads, or None for a fact that costs nothing."""

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Every value that `label` can take, so that rules can be checked; None when open-ended."""

    def evaluate(self, inputs: SignalInputs) -> SignalValue | None:
        """The fact, or None when it is absent (its classifier was late). Must not raise on any request."""


def known_labels(names: Iterable[str], signals: Mapping[str, Signal]) -> dict[str, tuple[str, ...] | None]:
    """The labels that each of these signals can have; None for open-ended ones and those that could not be built."""
    return {name: signals[name].labels if name in signals else None for name in names}


def marks(signal: Signal) -> bool:
    """Whether the signal points at parts of the text, which can be masked. One without `marks` points at nothing."""
    return bool(getattr(signal, "marks", False))


def widest(signals: Iterable[Signal]) -> Reads:
    """What has to be read so that all of them can be evaluated. A signal without `reads` reads the prompt."""
    order = list(Reads)
    return max((getattr(signal, "reads", Reads.PROMPT) for signal in signals), key=order.index, default=Reads.PROMPT)
