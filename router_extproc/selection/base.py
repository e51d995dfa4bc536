"""The seam of selections: candidates in, candidates in order of preference and with their figures out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from router_extproc.config.model import Model
from router_extproc.domain import Considered, LlmRequest, SignalSet


class Selection(Protocol):
    """Built once per config generation; called on the event loop, must not block or raise."""

    def rank(
        self, candidates: Sequence[str], request: LlmRequest, signals: SignalSet, now: datetime
    ) -> list[Considered]:
        """Ranks `candidates` (names that passed all filters, at least one), best first, none added or lost.

        `now` is aware: prices depend on the hour. Each comes with the figures that were looked at, and no others: they
        are worked out for every request.
        """


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
