"""What a head of a classifier says."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from router_extproc.domain import SignalValue
from router_extproc.errors import ConfigMistakes, Mistake
from router_extproc.signals.base import SHIPPED, Heads, SignalInputs
from router_extproc.validation import did_you_mean


class ClassifierParams(BaseModel):
    """Which head of which classifier."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    head: str = Field(description="The head, for instance `intent`, `domain`, `guard`.")
    classifier: str = Field(SHIPPED, description="The classifier that it belongs to.")


class ClassifierSignal:
    """What a head of a classifier says of the prompt: the most probable label, its calibrated confidence, and in
    `scores` the probability of every label."""

    Params = ClassifierParams

    def __init__(self, params: ClassifierParams, heads: Heads) -> None:
        self.classifier = params.classifier
        self.labels = head_labels(params.classifier, params.head, heads)
        self._head = params.head

    def evaluate(self, inputs: SignalInputs) -> SignalValue | None:
        """The head's answer; None when the classifier's pass is missing."""
        return read_head(inputs, self.classifier, self._head)


def head_labels(classifier: str, head: str, heads: Heads) -> tuple[str, ...]:
    """The labels of a head. Raises ConfigMistakes when there is no such classifier or head."""
    known = heads.get(classifier)
    if known is None:
        message = f"unknown classifier `{classifier}`{did_you_mean(classifier, heads)}"
        raise ConfigMistakes([Mistake(("classifier",), message)])
    if head not in known:
        message = f"the classifier `{classifier}` has no head `{head}`{did_you_mean(head, known)}"
        raise ConfigMistakes([Mistake(("head",), message)])
    return known[head]


def read_head(inputs: SignalInputs, classifier: str, head: str) -> SignalValue | None:
    """One head of a pass as a signal value; None when the pass or the head is missing."""
    classified = inputs.classified.get(classifier)
    result = classified.heads.get(head) if classified is not None else None
    if result is None:
        return None
    pieces = tuple(inputs.request.prompt[span.start : span.end] for span in result.spans)
    return SignalValue(result.label, result.confidence, result.value, result.probs, pieces)
