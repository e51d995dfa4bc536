"""How long the conversation is, in turns."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from router_extproc.domain import SignalValue
from router_extproc.signals.base import Heads, SignalInputs


class TurnsParams(BaseModel):
    """Takes no parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TurnsSignal:
    """How long the conversation is: `value` is the number of its turns."""

    Params = TurnsParams
    classifier = None
    labels = None

    def __init__(self, params: TurnsParams, heads: Heads) -> None:
        pass

    def evaluate(self, inputs: SignalInputs) -> SignalValue:
        """The number of turns."""
        return SignalValue(str(inputs.request.turns), value=float(inputs.request.turns))
