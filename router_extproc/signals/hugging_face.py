"""A classifier that the operator brings: a local Hugging Face directory, or a model of a hub."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from router_extproc.domain import SignalValue
from router_extproc.errors import ConfigMistakes, Mistake
from router_extproc.inference.base import UnusableModel
from router_extproc.inference.hub import HUB, HubModel
from router_extproc.inference.hugging_face import Outputs, read_outputs
from router_extproc.patterns import HUB_MODEL, HUB_REVISION, SHA256
from router_extproc.signals.base import READS, SHIPPED, Heads, Reads, SignalInputs
from router_extproc.signals.classifier import checked_reads, read_head


class HuggingFaceParams(BaseModel):
    """Where the model is, and how its answers are read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str | None = Field(
        None,
        min_length=1,
        description="A directory with `config.json`, `tokenizer.json` and safetensors weights of a model for sequence "
        "or token classification. Code that comes with it is never run.",
    )
    hub: str | None = Field(
        None,
        pattern=HUB_MODEL,
        description="Instead of `path`: the same from a Hugging Face hub, as `organisation/model`. Downloaded when the "
        "file is loaded, where the hub can be reached; only safetensors, configuration and tokenizer.",
    )
    revision: str | None = Field(
        None,
        pattern=HUB_REVISION,
        description="Commit, tag or branch of the `hub` model, by default the main branch. Only a commit is the same "
        "tomorrow.",
    )
    cache: str | None = Field(
        None,
        min_length=1,
        description="Directory that keeps what was downloaded from the hub, by default that of `HF_HOME`.",
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
        None,
        pattern=SHA256,
        description="SHA-256 of the model's files, checked at load. `router-extproc check` prints it.",
    )
    reads: Reads = READS

    @model_validator(mode="after")
    def _from_one_place(self) -> Self:
        if (self.path is None) == (self.hub is None):
            raise ValueError("give either `path` or `hub`")
        if self.hub is None and (self.revision or self.cache):
            raise ValueError("`revision` and `cache` belong to a `hub` model")
        return self

    @property
    def head(self) -> str:
        """Name of the head under which exactly this model answers, whatever it is given to read."""
        model = self.model_dump_json(exclude={"reads"})
        return f"huggingface-{hashlib.sha256(model.encode()).hexdigest()[:12]}"

    @property
    def source(self) -> str:
        """Where the model comes from, for people."""
        return self.path or f"{self.hub}@{self.revision or 'main'}"

    def directory(self) -> Path:
        """The directory of its files; a hub's model is downloaded, which takes minutes. Raises UnusableModel."""
        if self.hub is None:
            return Path(self.path or "")
        return HUB.fetch(HubModel(self.hub, self.revision, Path(self.cache) if self.cache else None))


class HuggingFaceSignal:
    """What your own classifier says of the prompt: any Hugging Face model for sequence or token classification (BERT,
    DistilBERT, DeBERTa, ModernBERT...), from a directory or a hub. It runs beside the shipped classifier and adds its
    own time to every request."""

    Params = HuggingFaceParams
    classifier = SHIPPED

    def __init__(self, params: HuggingFaceParams, heads: Heads) -> None:
        outputs = _outputs(params)
        self.labels = outputs.labels
        self._head = params.head
        self.reads = checked_reads(params.reads, watching=outputs.watches)
        self.marks = outputs.of_tokens

    def evaluate(self, inputs: SignalInputs) -> SignalValue | None:
        """The model's answer; None when its pass is missing."""
        return read_head(inputs, SHIPPED, self._head, self.reads)


def _outputs(params: HuggingFaceParams) -> Outputs:
    try:
        outputs = read_outputs(params.directory())
    except UnusableModel as error:
        raise ConfigMistakes([Mistake(("path" if params.hub is None else "hub",), str(error))]) from None
    try:
        return outputs.with_benign(params.benign)
    except UnusableModel as error:
        raise ConfigMistakes([Mistake(("benign",), str(error))]) from None
