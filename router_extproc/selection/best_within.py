"""The highest quality for the money."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from router_extproc.domain import Considered, LlmRequest, SignalSet
from router_extproc.selection.base import SelectionInputs
from router_extproc.selection.cost import Cost
from router_extproc.selection.quality import WIN, Quality, QualitySignal


class BestParams(BaseModel):
    """Where quality comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quality_signal: QualitySignal = WIN


class Best:
    """The candidate of the highest quality; of equal ones the cheaper. One of which nothing is known comes last."""

    Params = BestParams

    def __init__(self, params: BestParams, inputs: SelectionInputs) -> None:
        self._quality = Quality(params.quality_signal, inputs)
        self._cost = Cost(inputs.models)

    def rank(
        self, candidates: Sequence[str], request: LlmRequest, signals: SignalSet, now: datetime
    ) -> list[Considered]:
        """Best first."""
        rows = []
        for name in candidates:
            quality = self._quality.of(name, signals)
            rows.append(Considered(name, "quality", quality, quality, self._cost.of(name, request, now)))
        rows.sort(key=_best_first)
        return rows


def _best_first(row: Considered) -> tuple[float, float]:
    return (1.0 if row.quality is None else -row.quality), row.cost or 0.0


def _cheapest_first(row: Considered) -> float:
    return row.cost or 0.0


class BestWithinParams(BestParams):
    """The budget."""

    price: float = Field(gt=0, description="USD that the request may cost, by its estimated tokens.")


class BestWithin:
    """The candidate of the highest quality among those that cost at most `price`; when all cost more, the cheapest."""

    Params = BestWithinParams

    def __init__(self, params: BestWithinParams, inputs: SelectionInputs) -> None:
        self._price = params.price
        self._best = Best(BestParams(quality_signal=params.quality_signal), inputs)

    def rank(
        self, candidates: Sequence[str], request: LlmRequest, signals: SignalSet, now: datetime
    ) -> list[Considered]:
        """The affordable by quality, then the others by cost."""
        affordable: list[Considered] = []
        dear: list[Considered] = []
        for row in self._best.rank(candidates, request, signals, now):
            if (row.cost or 0.0) <= self._price:
                affordable.append(row)
            else:
                dear.append(row._replace(by="cost", score=row.cost))
        # Of equal ones the first of the file, as everywhere.
        dear.sort(key=lambda row: candidates.index(row.model))
        dear.sort(key=_cheapest_first)
        return affordable + dear
