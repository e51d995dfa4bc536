"""The highest quality for the money."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from router_extproc.domain import LlmRequest, SignalSet
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

    def order(self, candidates: Sequence[str], request: LlmRequest, signals: SignalSet) -> Sequence[str]:
        """Best first."""

        def key(name: str) -> tuple[float, float]:
            quality = self._quality.of(name, signals)
            return (1.0 if quality is None else -quality), self._cost.of(name, request)

        return sorted(candidates, key=key)


class BestWithinParams(BestParams):
    """The budget."""

    price: float = Field(gt=0, description="USD that the request may cost, by its estimated tokens.")


class BestWithin:
    """The candidate of the highest quality among those that cost at most `price`; when all cost more, the cheapest."""

    Params = BestWithinParams

    def __init__(self, params: BestWithinParams, inputs: SelectionInputs) -> None:
        self._price = params.price
        self._cost = Cost(inputs.models)
        self._best = Best(BestParams(quality_signal=params.quality_signal), inputs)

    def order(self, candidates: Sequence[str], request: LlmRequest, signals: SignalSet) -> Sequence[str]:
        """The affordable by quality, then the others by cost."""
        costs = {name: self._cost.of(name, request) for name in candidates}
        affordable = [name for name in candidates if costs[name] <= self._price]
        others = [name for name in candidates if costs[name] > self._price]
        return [*self._best.order(affordable, request, signals), *sorted(others, key=costs.__getitem__)]
