"""The language of the prompt."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from router_extproc.domain import SignalValue
from router_extproc.signals.base import SHIPPED, Heads, SignalInputs
from router_extproc.signals.classifier import head_labels, read_head

HEAD = "language"


class LanguageParams(BaseModel):
    """Which classifier."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classifier: str = Field(SHIPPED, description="The classifier that tells languages apart.")


class LanguageSignal:
    """The language of the prompt, as an ISO 639-1 code such as `en` or `de`."""

    Params = LanguageParams

    def __init__(self, params: LanguageParams, heads: Heads) -> None:
        self.classifier = params.classifier
        self.labels = head_labels(params.classifier, HEAD, heads)

    def evaluate(self, inputs: SignalInputs) -> SignalValue | None:
        """The language; None when the classifier's pass is missing."""
        return read_head(inputs, self.classifier, HEAD)
