"""The seam of signals: everything needed is gathered first, so that evaluating one is a fast, pure function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from router_extproc.domain import LlmRequest, SignalValue
from router_extproc.inference.base import Classified

SHIPPED = "shipped"
"""Name of the classifier that the project ships."""

Heads = Mapping[str, Mapping[str, tuple[str, ...]]]
"""Labels by classifier name and head name: what signals are checked against when they are built."""

TRUE = SignalValue("true", value=1.0)
FALSE = SignalValue("false")
TRUTH = ("true", "false")


@dataclass(frozen=True, slots=True)
class SignalInputs:
    """What signals may look at. `headers` has lower-case names, `now` is timezone-aware UTC.

    `classified` holds the forward passes that were ready at the deadline, by classifier name; `missing` says why the
    others are not there ("late", "overloaded", "failed").
    """

    request: LlmRequest
    headers: Mapping[str, str]
    now: datetime
    classified: Mapping[str, Classified] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)


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
