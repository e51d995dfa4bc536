"""A classifier that the operator brings: a local Hugging Face directory."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from router_extproc.domain import SignalValue
from router_extproc.errors import ConfigMistakes, Mistake
from router_extproc.inference.pooling import BENIGN, NO_SPAN
from router_extproc.signals.base import READS, SHIPPED, Heads, Reads, SignalInputs
from router_extproc.signals.classifier import checked_reads, read_head


class HuggingFaceParams(BaseModel):
    """Where the model is, and how its answers are read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(
        min_length=1,
        description="A directory with `config.json`, `tokenizer.json` and safetensors weights of a model for sequence "
        "or token classification. Code that comes with it is never run.",
    )
    benign: str | None = Field(
        None,
        description="The label that stands for nothing found, for instance `SAFE`. Rules call it `benign` then, and "
        "of a long text the worst window decides.",
    )
    temperature: float = Field(
        1.0, gt=0, le=100, description="Divides the logits. Above 1 where the model is surer than it is right."
    )
    digest: str | None = Field(
        None, pattern=r"^(sha256:)?[0-9a-fA-F]{64}$", description="SHA-256 of the directory's files, checked at load."
    )
    reads: Reads = READS

    @property
    def head(self) -> str:
        """Name of the head under which exactly this model answers, whatever it is given to read."""
        model = self.model_dump_json(exclude={"reads"})
        return f"huggingface-{hashlib.sha256(model.encode()).hexdigest()[:12]}"


class HuggingFaceSignal:
    """What your own classifier says of the prompt: any local Hugging Face model for sequence or token classification.
    It runs beside the shipped classifier and adds its own time to every request."""

    Params = HuggingFaceParams
    classifier = SHIPPED

    def __init__(self, params: HuggingFaceParams, heads: Heads) -> None:
        self.labels = _labels(params)
        self._head = params.head
        self.reads = checked_reads(params.reads, self.labels)

    def evaluate(self, inputs: SignalInputs) -> SignalValue | None:
        """The model's answer; None when its pass is missing."""
        return read_head(inputs, SHIPPED, self._head, self.reads)


def _labels(params: HuggingFaceParams) -> tuple[str, ...]:
    path = Path(params.path) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        names = [str(name) for _, name in sorted(config["id2label"].items(), key=lambda item: int(item[0]))]
        architecture = str(config["architectures"][0])
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        message = f"{path} does not describe a classifier: {type(error).__name__}: {error}"
        raise ConfigMistakes([Mistake(("path",), message)]) from None
    if params.benign is not None and params.benign not in names:
        raise ConfigMistakes([Mistake(("benign",), f"the model has no label `{params.benign}`: {', '.join(names)}")])
    if architecture.endswith("ForTokenClassification"):
        types = dict.fromkeys(name.removeprefix("B-").removeprefix("I-") for name in names if name != "O")
        return (NO_SPAN, *types)
    return tuple(BENIGN if name == params.benign else name for name in names)
