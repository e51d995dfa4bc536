"""What the files of a Hugging Face classifier say before any weight is read. No torch here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from router_extproc.inference.artifact import stamp_of
from router_extproc.inference.base import UnusableModel
from router_extproc.inference.pooling import BENIGN, NO_SPAN
from router_extproc.inference.spans import OUTSIDE, as_bio, entity_types

FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer.*.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "*.model",
    "*.safetensors",
    "*.safetensors.index.json",
)
"""All that decides answers. What a digest is of is what a hub is asked for: so a pin holds for both."""

_NEEDED = ("config.json", "tokenizer.json")
_TOKENS, _SEQUENCES = "ForTokenClassification", "ForSequenceClassification"


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a classifier's outputs mean. `names` are in BIO form where it classifies tokens (`of_tokens`); `sigmoid`
    where each output is a probability of its own, else all are one softmax."""

    names: tuple[str, ...]
    of_tokens: bool
    sigmoid: bool

    @property
    def labels(self) -> tuple[str, ...]:
        """As signals see them: `none` and the entity types where it classifies tokens."""
        return (NO_SPAN, *entity_types(self.names)) if self.of_tokens else self.names

    @property
    def watches(self) -> bool:
        """Whether it looks for what must not be overlooked anywhere, which a label named `none` does not say."""
        return self.of_tokens or BENIGN in self.names

    def with_benign(self, label: str | None) -> Outputs:
        """The same, with the label that stands for nothing found under its common name. Raises UnusableModel."""
        if label is None or (self.of_tokens and label == OUTSIDE):
            return self
        if self.of_tokens:
            raise UnusableModel(f"of a classifier of tokens `{OUTSIDE}` stands for nothing found, not `{label}`")
        if label not in self.names:
            raise UnusableModel(f"the model has no label `{label}`: {', '.join(self.names)}")
        if len(self.names) == 1:
            raise UnusableModel(f"`{label}` is the model's only label, so something is always found")
        if label != BENIGN and BENIGN in self.names:
            raise UnusableModel(f"the model has a label `{BENIGN}` besides `{label}`")
        return replace(self, names=tuple(BENIGN if name == label else name for name in self.names))


def read_outputs(directory: Path) -> Outputs:
    """From `config.json`. Raises UnusableModel where it does not describe a classifier."""
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        architecture = str((config.get("architectures") or [""])[0])
        # `transformers` writes no names down where there are two labels that were given none.
        unnamed = {str(index): f"LABEL_{index}" for index in range(int(config.get("num_labels") or 2))}
        named = sorted((config.get("id2label") or unnamed).items(), key=lambda item: int(item[0]))
        names = tuple(str(name) for _, name in named)
        problem = config.get("problem_type")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UnusableModel(f"{path} does not describe a classifier: {type(error).__name__}: {error}") from error
    several = problem == "multi_label_classification"
    if architecture.endswith(_TOKENS):
        return Outputs(as_bio(names), of_tokens=True, sigmoid=several)
    if not architecture.endswith(_SEQUENCES):
        raise UnusableModel(f"{directory}: `{architecture}` classifies neither sequences nor tokens")
    if problem == "regression":
        raise UnusableModel(f"{directory}: a regression gives numbers, not probabilities of labels")
    if len(set(names)) != len(names):
        raise UnusableModel(f"{directory}: labels must be different: {', '.join(names)}")
    # As in `transformers`: the softmax of one output is 1 whatever was read.
    return Outputs(names, of_tokens=False, sigmoid=several or len(names) == 1)


def deciding_files(directory: Path) -> Sequence[str]:
    """Names of the folder's `FILES`, in order. Raises UnusableModel when one is missing that every classifier has."""
    for name in _NEEDED:
        if not (directory / name).is_file():
            raise UnusableModel(f"{directory}: {name} is missing")
    if not any(directory.glob("*.safetensors")):
        raise UnusableModel(f"{directory}: no *.safetensors file; pickled weights are not read")
    return sorted({path.name for pattern in FILES for path in directory.glob(pattern)})


def stamp(directory: Path) -> str:
    """Another one whenever a file that decides answers was replaced or written. "" where one is missing."""
    try:
        return stamp_of(directory, deciding_files(directory))
    except UnusableModel:
        return ""
