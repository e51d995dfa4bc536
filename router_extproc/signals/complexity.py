"""How much a strong model is needed."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from router_extproc.domain import SignalValue
from router_extproc.errors import ConfigMistakes, Mistake
from router_extproc.signals.base import SHIPPED, Heads, SignalInputs
from router_extproc.signals.classifier import head_labels, read_head

HEAD = "complexity"


class ComplexityParams(BaseModel):
    """Where `medium` and `high` begin."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classifier: str = Field(SHIPPED, description="The classifier that judges it.")
    medium: float = Field(0.33, ge=0, le=1, description="From this value on the label is `medium`.")
    high: float = Field(0.66, ge=0, le=1, description="From this value on the label is `high`.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.medium > self.high:
            raise ValueError("medium must not be above high")
        return self


class ComplexitySignal:
    """How much a strong model is needed: `value` from 0 (any model answers well) to 1, and the label `low`, `medium`
    or `high`. A number, so its confidence is 1: the thresholds are the caution."""

    Params = ComplexityParams
    labels = ("low", "medium", "high")

    def __init__(self, params: ComplexityParams, heads: Heads) -> None:
        if HEAD not in heads.get(params.classifier, {}):
            head_labels(params.classifier, HEAD, heads)
            raise ConfigMistakes([Mistake(("classifier",), f"`{params.classifier}` does not judge complexity")])
        self.classifier = params.classifier
        self._medium = params.medium
        self._high = params.high

    def evaluate(self, inputs: SignalInputs) -> SignalValue | None:
        """The complexity; None when the classifier's pass is missing."""
        found = read_head(inputs, self.classifier, HEAD)
        if found is None:
            return None
        label = "high" if found.value >= self._high else "medium" if found.value >= self._medium else "low"
        return SignalValue(label, value=found.value)
