"""Labels that the operator invents, from a dozen example prompts each."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from router_extproc.domain import SignalValue
from router_extproc.inference.examples import FEWEST
from router_extproc.signals.base import SHIPPED, Heads, SignalInputs
from router_extproc.signals.classifier import read_head

MOST_EXAMPLES = 1000


class ExamplesParams(BaseModel):
    """Example prompts per label."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: dict[
        Annotated[str, Field(min_length=1, max_length=64)],
        Annotated[list[Annotated[str, Field(min_length=1, max_length=4000)]], Field(min_length=FEWEST)],
    ] = Field(
        min_length=2,
        description="Example prompts by label, about a dozen each. One of the labels is always the answer: add one "
        "like `other` with prompts that are none of these.",
    )

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if sum(map(len, self.labels.values())) > MOST_EXAMPLES:
            raise ValueError(f"at most {MOST_EXAMPLES} examples in all")
        return self

    @property
    def head(self) -> str:
        """Name of the head that is fitted on exactly these examples."""
        content = json.dumps(self.labels, ensure_ascii=True)
        return f"examples-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


class ExamplesSignal:
    """Which of your own labels the prompt belongs to, learned from a dozen example prompts per label when the file is
    loaded. The confidence is calibrated on the examples themselves, each judged by a fit without it."""

    Params = ExamplesParams
    classifier = SHIPPED

    def __init__(self, params: ExamplesParams, heads: Heads) -> None:
        self.labels = tuple(params.labels)
        self._head = params.head

    def evaluate(self, inputs: SignalInputs) -> SignalValue | None:
        """The label most like the prompt; None when the classifier's pass is missing."""
        return read_head(inputs, SHIPPED, self._head)
