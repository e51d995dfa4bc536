"""Cost, latency, quality and load in one score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from router_extproc.domain import LlmRequest, SignalSet
from router_extproc.selection.base import SelectionInputs
from router_extproc.selection.cost import Cost
from router_extproc.selection.quality import WIN, Quality, QualitySignal

MIDDLE = 0.5
"""The score of what is not known, and of all candidates where they do not differ."""


class WeightedParams(BaseModel):
    """How much each property counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cost: float = Field(0.0, ge=0, le=1000, description="Weight of a low estimated cost.")
    latency: float = Field(0.0, ge=0, le=1000, description="Weight of a low recent time to the first byte.")
    load: float = Field(0.0, ge=0, le=1000, description="Weight of few recent picks: spreads requests.")
    quality: float = Field(0.0, ge=0, le=1000, description="Weight of a high expected quality.")
    quality_signal: QualitySignal = WIN

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.cost + self.latency + self.load + self.quality:
            raise ValueError("give at least one of cost, latency, load, quality a weight above 0")
        return self


class Weighted:
    """The candidate with the highest weighted score. Each property is scaled to 0..1 between the worst and the best of
    the candidates; what is not known of a candidate counts as the middle."""

    Params = WeightedParams

    def __init__(self, params: WeightedParams, inputs: SelectionInputs) -> None:
        self._params = params
        self._cost = Cost(inputs.models)
        self._quality = Quality(params.quality_signal, inputs)
        self._observed = inputs.observed

    def order(self, candidates: Sequence[str], request: LlmRequest, signals: SignalSet) -> Sequence[str]:
        """Highest score first."""
        weights = self._params
        scores = dict.fromkeys(candidates, 0.0)
        columns: list[tuple[float, list[float | None]]] = [
            (-weights.cost, [self._cost.of(name, request) for name in candidates]),
            (-weights.latency, [self._observed.latency(name) for name in candidates]),
            (-weights.load, [self._observed.load(name) for name in candidates]),
            (weights.quality, [self._quality.of(name, signals) for name in candidates]),
        ]
        for weight, values in columns:
            if weight:
                for name, scaled in zip(candidates, _scaled(values), strict=True):
                    scores[name] += weight * scaled
        return sorted(candidates, key=scores.__getitem__, reverse=True)


def _scaled(values: Sequence[float | None]) -> list[float]:
    known = [value for value in values if value is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    if low == high:
        return [MIDDLE] * len(values)
    return [MIDDLE if value is None else (value - low) / (high - low) for value in values]
