"""The model that answered fastest lately."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from router_extproc.domain import LlmRequest, SignalSet
from router_extproc.selection.base import SelectionInputs

TRIALS = 3.0
"""Recent picks after which a model that has not answered yet is no longer tried first."""


class LowestLatencyParams(BaseModel):
    """Takes no parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LowestLatency:
    """The candidate with the lowest recent time to the first byte, failures counting as slowness. One that has not
    answered in the last minutes gets a few requests first, to find out."""

    Params = LowestLatencyParams

    def __init__(self, params: LowestLatencyParams, inputs: SelectionInputs) -> None:
        self._observed = inputs.observed

    def order(self, candidates: Sequence[str], request: LlmRequest, signals: SignalSet) -> Sequence[str]:
        """Fastest first."""

        def key(name: str) -> tuple[int, float]:
            seconds = self._observed.latency(name)
            if seconds is not None:
                return 1, seconds
            return (0, 0.0) if self._observed.load(name) < TRIALS else (2, 0.0)

        return sorted(candidates, key=key)
