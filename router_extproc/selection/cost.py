"""What a request will probably cost."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from router_extproc.config.model import Model
from router_extproc.config.price import Price
from router_extproc.domain import LlmRequest
from router_extproc.prices import price_at

OUTPUT_TOKENS = 500
"""Output to reckon with when the client's limit is higher or missing: nobody knows it beforehand."""

Rates = tuple[float, float, float]
"""USD per input token, per output token, and per request."""


class Cost:
    """Estimated USD per request. Floats will do: this orders models, it bills nobody. Used on the event loop."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._rates = {name: _rates(model.price) for name, model in models.items()}
        self._hourly = {name: model.price for name, model in models.items() if model.price.windows}
        self._minutes: dict[str, int] = {}
        """For which minute the rates of a price with windows were worked out."""

    def of(self, name: str, request: LlmRequest, now: datetime) -> float:
        """Estimated USD at the prices of `now` (aware)."""
        if name in self._hourly:
            self._turn(name, now)
        price_in, price_out, per_request = self._rates[name]
        output = min(request.max_output_tokens or OUTPUT_TOKENS, OUTPUT_TOKENS)
        return price_in * request.tokens + price_out * output + per_request

    def _turn(self, name: str, now: datetime) -> None:
        # Windows begin and end with a minute. To look for the one that holds takes longer than all the rest.
        minute = int(now.timestamp() // 60)
        if self._minutes.get(name) != minute:
            self._rates[name] = _rates(price_at(self._hourly[name], now))
            self._minutes[name] = minute


def _rates(price: Price) -> Rates:
    return float(price.input) / 1e6, float(price.output) / 1e6, float(price.per_request)
