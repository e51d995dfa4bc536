"""How long the request is, in tokens."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from router_extproc.domain import SignalValue
from router_extproc.signals.base import Heads, SignalInputs


class TokensParams(BaseModel):
    """Takes no parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TokensSignal:
    """How long the whole input is: `value` is the estimated number of tokens."""

    Params = TokensParams
    classifier = None
    labels = None

    def __init__(self, params: TokensParams, heads: Heads) -> None:
        pass

    def evaluate(self, inputs: SignalInputs) -> SignalValue:
        """The estimate."""
        return SignalValue(str(inputs.request.tokens), value=float(inputs.request.tokens))
