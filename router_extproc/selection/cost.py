"""What a request will probably cost."""

from __future__ import annotations

from collections.abc import Mapping

from router_extproc.config.model import Model
from router_extproc.domain import LlmRequest

OUTPUT_TOKENS = 500
"""Output to reckon with when the client's limit is higher or missing: nobody knows it beforehand."""


class Cost:
    """Estimated USD per request. Floats will do: this orders models, it bills nobody."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._prices = {
            name: (float(model.price.input) / 1e6, float(model.price.output) / 1e6, float(model.price.per_request))
            for name, model in models.items()
        }

    def of(self, name: str, request: LlmRequest) -> float:
        """Estimated USD."""
        price_in, price_out, per_request = self._prices[name]
        output = min(request.max_output_tokens or OUTPUT_TOKENS, OUTPUT_TOKENS)
        return price_in * request.tokens + price_out * output + per_request
