"""The lowest cost that is good enough."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from router_extproc.domain import LlmRequest, SignalSet
from router_extproc.selection.base import SelectionInputs
from router_extproc.selection.cost import Cost
from router_extproc.selection.quality import WIN, Quality, QualitySignal


class CheapestParams(BaseModel):
    """How good is good enough."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_quality: float = Field(0.0, ge=0, le=1, description="Quality that a model must reach to be preferred.")
    quality_signal: QualitySignal = WIN


class Cheapest:
    """The candidate that costs least for the request's estimated tokens, among those that reach `min_quality` (one of
    which nothing is known does not); when none does, the best."""

    Params = CheapestParams

    def __init__(self, params: CheapestParams, inputs: SelectionInputs) -> None:
        self._least = params.min_quality
        self._quality = Quality(params.quality_signal, inputs)
        self._cost = Cost(inputs.models)

    def order(self, candidates: Sequence[str], request: LlmRequest, signals: SignalSet) -> Sequence[str]:
        """The good enough by cost, then the others by quality."""

        def key(name: str) -> tuple[bool, float]:
            if self._least == 0.0:
                return False, self._cost.of(name, request)
            quality = self._quality.of(name, signals) or 0.0
            return (False, self._cost.of(name, request)) if quality >= self._least else (True, -quality)

        return sorted(candidates, key=key)
