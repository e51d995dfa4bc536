"""What kinds of input the request carries."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from router_extproc.domain import SignalValue
from router_extproc.signals.base import Heads, SignalInputs

RAREST_FIRST = ("video", "audio", "image", "file", "text")


class ModalityParams(BaseModel):
    """Takes no parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModalitySignal:
    """What kind of input the request carries: `video`, `audio`, `image`, `file` or `text`; of several, the first in
    this order. `scores` has 1 for each that is there."""

    Params = ModalityParams
    classifier = None
    labels = RAREST_FIRST

    def __init__(self, params: ModalityParams, heads: Heads) -> None:
        pass

    def evaluate(self, inputs: SignalInputs) -> SignalValue:
        """The kind."""
        there = inputs.request.modalities
        label = next((kind for kind in RAREST_FIRST if kind in there), "text")
        return SignalValue(label, scores={kind: float(kind in there) for kind in RAREST_FIRST})
