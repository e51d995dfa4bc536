"""The lowest cost that is good enough."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from router_extproc.domain import Considered, LlmRequest, SignalSet
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

    def rank(
        self, candidates: Sequence[str], request: LlmRequest, signals: SignalSet, now: datetime
    ) -> list[Considered]:
        """The good enough by cost, then the others by quality."""
        good: list[Considered] = []
        weak: list[Considered] = []
        for name in candidates:
            cost = self._cost.of(name, request, now)
            quality = self._quality.of(name, signals) if self._least else None
            if (quality or 0.0) >= self._least:
                good.append(Considered(name, "cost", cost, quality, cost))
            else:
                weak.append(Considered(name, "quality", quality, quality, cost))
        good.sort(key=_cost)
        weak.sort(key=_quality)
        return good + weak


def _cost(row: Considered) -> float:
    return row.cost or 0.0


def _quality(row: Considered) -> float:
    return -(row.quality or 0.0)
