"""What the request will probably cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from router_extproc.config.schema import Model
from router_extproc.domain import LlmRequest, SignalSet

OUTPUT_TOKENS = 500
"""Output to reckon with when the client's limit is higher or missing: nobody knows it beforehand."""


class Cheapest:
    """The candidate that costs least for the request's estimated tokens; equally cheap ones as the route lists them."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._prices = {name: prices(model) for name, model in models.items()}

    def order(self, candidates: Sequence[str], request: LlmRequest, signals: SignalSet) -> Sequence[str]:
        """Cheapest first."""
        return sorted(candidates, key=lambda name: cost(self._prices[name], request))


def prices(model: Model) -> tuple[float, float]:
    """USD per input and per output token. Floats will do: this orders models, it bills nobody."""
    return float(model.price.input) / 1e6, float(model.price.output) / 1e6


def cost(price: tuple[float, float], request: LlmRequest) -> float:
    """Estimated USD of a request."""
    output = min(request.max_output_tokens or OUTPUT_TOKENS, OUTPUT_TOKENS)
    return price[0] * request.tokens + price[1] * output
