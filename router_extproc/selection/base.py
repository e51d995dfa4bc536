"""The seam of selections: candidates in, candidates in order of preference out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from router_extproc.config.schema import Model
from router_extproc.domain import LlmRequest, SignalSet


class Selection(Protocol):
    """Built once per config generation; called on the event loop, must not block or raise."""

    def order(self, candidates: Sequence[str], request: LlmRequest, signals: SignalSet) -> Sequence[str]:
        """Orders `candidates` (names that passed all filters, at least one), best first, none added or lost."""


class SelectionFactory(Protocol):
    """How the table builds a selection."""

    def __call__(self, models: Mapping[str, Model]) -> Selection:
        """`models` is the whole catalogue."""
