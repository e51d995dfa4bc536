"""Cost, latency, quality and load in one score."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from router_extproc.domain import Considered, LlmRequest, SignalSet
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

    def rank(
        self, candidates: Sequence[str], request: LlmRequest, signals: SignalSet, now: datetime
    ) -> list[Considered]:
        """Highest score first."""
        weights = self._params
        unused: list[float | None] = [None] * len(candidates)
        quality = [self._quality.of(name, signals) for name in candidates] if weights.quality else unused
        cost = [self._cost.of(name, request, now) for name in candidates] if weights.cost else unused
        latency = [self._observed.latency(name) for name in candidates] if weights.latency else unused
        load = [self._observed.load(name) for name in candidates] if weights.load else unused
        scores = [0.0] * len(candidates)
        columns = (
            (weights.quality, quality),
            (-weights.cost, cost),
            (-weights.latency, latency),
            (-weights.load, load),
        )
        for weight, values in columns:
            if weight:
                scores = [score + weight * scaled for score, scaled in zip(scores, _scaled(values), strict=True)]
        rows = [
            Considered(name, "weighted", *figures)
            for name, *figures in zip(candidates, scores, quality, cost, latency, load, strict=True)
        ]
        rows.sort(key=_score, reverse=True)
        return rows


def _score(row: Considered) -> float:
    return row.score or 0.0


def _scaled(values: Sequence[float | None]) -> list[float]:
    known = [value for value in values if value is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    if low == high:
        return [MIDDLE] * len(values)
    return [MIDDLE if value is None else (value - low) / (high - low) for value in values]
