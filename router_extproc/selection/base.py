"""The seam of selections: candidates in, candidates in order of preference out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from router_extproc.config.schema import Model
from router_extproc.domain import LlmRequest, SignalSet


class Selection(Protocol):
    """Built once per config generation; called on the event loop, must not block or raise."""

    def order(self, candidates: Sequence[str], request: LlmRequest, signals: SignalSet) -> Sequence[str]:
        """Orders `candidates` (names that passed all filters, at least one), best first, none added or lost."""


class Observations(Protocol):
    """How models did lately, as far as their outcomes tell. Read on the event loop."""

    def latency(self, model: str) -> float | None:
        """Recent mean seconds to the first byte, made longer by recent failures; None when nothing recent is known."""

    def load(self, model: str) -> float:
        """How often it was picked lately (0 or more): picks of the last half-minute or so, older ones counting less."""


@dataclass(frozen=True, slots=True)
class SelectionInputs:
    """What selections are built from: the catalogue, the names of the configured signals, and what is observed."""

    models: Mapping[str, Model]
    signals: Collection[str]
    observed: Observations
