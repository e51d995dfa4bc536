"""The order of the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from router_extproc.config.schema import Model
from router_extproc.domain import LlmRequest, SignalSet


class First:
    """The candidates as the route lists them: the first that can take the request."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        pass

    def order(self, candidates: Sequence[str], request: LlmRequest, signals: SignalSet) -> Sequence[str]:
        """The candidates as they are."""
        return candidates
