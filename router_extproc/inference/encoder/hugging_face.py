"""A user's own classifier: any Hugging Face directory for sequence or token classification.

Weights are read from safetensors only, and code that comes with a model is never run. The model is executed by
`transformers` as it is, so it is as fast as that library; the shipped classifier's pass is not shared.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from router_extproc.inference.artifact import check_pin, digest_of
from router_extproc.inference.base import Classified, HeadResult, Prompt, UnusableModel
from router_extproc.inference.encoder.device import batch_tokens, choose, most_threads, use_threads
from router_extproc.inference.encoder.precision import compute_type
from router_extproc.inference.hugging_face import Outputs, deciding_files, read_outputs
from router_extproc.inference.pooling import combine, spans_result
from router_extproc.inference.spans import Bio
from router_extproc.inference.tokens import well_formed
from router_extproc.words import trimmed

log = logging.getLogger(__name__)

MAX_TOKENS = 512
"""Window of a model that does not say how long its own is, and upper bound of one that does."""

_OVERLAP = 32
_HUGE = 10**6


def load_hugging_face(
    directory: Path,
    *,
    head: str = "label",
    benign: str | None = None,
    temperature: float = 1.0,
    digest: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> HuggingFaceClassifier:
    """Reads an `AutoModelForSequenceClassification` or `...ForTokenClassification` directory.

    `head` names its one head. `benign` is the label that stands for "nothing found" ("SAFE", "LEGIT"): it is called
    `benign` then, and the worst window of a long text decides. Raises UnusableModel with what is wrong.
    """
    files = deciding_files(directory)
    outputs = read_outputs(directory).with_benign(benign)
    if temperature <= 0:
        raise UnusableModel(f"{directory}: temperature {temperature} is not positive")
    try:
        found = digest_of(directory, files)
        check_pin(directory, found, digest)
        chosen = choose(device)
        return HuggingFaceClassifier(directory, found, head, outputs, temperature, chosen, compute_type(chosen, dtype))
    except (OSError, KeyError, ValueError, RuntimeError, ImportError, AttributeError) as error:
        raise UnusableModel(f"{directory}: {type(error).__name__}: {error}") from error


class HuggingFaceClassifier:
    """A `base.Model` with one head. `run` is called on one thread at a time; a prompt's context is not read."""

    def __init__(
        self,
        directory: Path,
        digest: str,
        head: str,
        outputs: Outputs,
        temperature: float,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        # Imported here: it takes a second, and only those who bring a model of their own pay for it.
        from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

        kind: Any = AutoModelForTokenClassification if outputs.of_tokens else AutoModelForSequenceClassification
        options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
        # Read, not mapped: a file that is overwritten would change what serves, and one that is cut short end it.
        weights = {"use_safetensors": True, "disable_mmap": True, "dtype": dtype}
        loaded = kind.from_pretrained(directory, output_loading_info=True, **weights, **options)
        self._model: Any = loaded[0]
        if missing := sorted(loaded[1]["missing_keys"]):
            # They would be drawn at random: a base model under the name of a classifier.
            raise UnusableModel(f"{directory}: the weights lack {', '.join(missing[:3])}")
        self._model.eval().to(device)
        self._takes = set(inspect.signature(self._model.forward).parameters)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(directory, use_fast=True, **options)
        if self._model.config.num_labels != len(outputs.names):
            raise UnusableModel(f"{directory}: {self._model.config.num_labels} outputs, {len(outputs.names)} labels")
        self._outputs = outputs
        self._bio = Bio(outputs.names) if outputs.of_tokens else None
        self._head, self._temperature, self._device, self.digest = head, temperature, device, digest
        self._threads = most_threads(device)
        self._version = f"{directory.name}+{digest[:8]}"
        self._batch_tokens = batch_tokens(device, self._threads)
        longest = getattr(self._model.config, "max_position_embeddings", None) or MAX_TOKENS
        stated = self._tokenizer.model_max_length
        self._max_tokens = min(MAX_TOKENS, longest, stated if stated < _HUGE else MAX_TOKENS)
        if dtype is not torch.float32:
            self._fall_back_where_the_code_cannot(dtype)

    @property
    def version(self) -> str:
        """The folder's name and the beginning of its digest."""
        return self._version

    @property
    def labels(self) -> Mapping[str, tuple[str, ...]]:
        """Labels of its one head; entity types (and `none`) for token classification."""
        return {self._head: self._outputs.labels}

    @property
    def batch_tokens(self) -> int:
        """Tokens that a batch should hold, padding included."""
        return self._batch_tokens

    @property
    def folds(self) -> bool:
        """Not known of a model that others have made."""
        return False

    def warm_up(self) -> None:
        """One short and one long text."""
        self.run([Prompt("a"), Prompt("a " * self._max_tokens)])

    def run(self, prompts: Sequence[Prompt]) -> list[Classified]:
        """Classifies a batch, in order; texts over the model's window are read in several and pooled."""
        use_threads(self._threads)
        batch = self._tokenizer(
            [well_formed(prompt.text) for prompt in prompts],
            truncation=True,
            max_length=self._max_tokens,
            stride=min(_OVERLAP, self._max_tokens // 4),
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            padding=True,
            return_tensors="pt",
        )
        owners = batch.pop("overflow_to_sample_mapping").tolist()
        offsets = batch.pop("offset_mapping").tolist()
        special = batch.pop("special_tokens_mask").numpy().astype(bool)
        lengths = batch["attention_mask"].sum(1).tolist()
        # Some tokenizers give segment ids that their models do not take.
        wanted = {name: tensor for name, tensor in batch.items() if name in self._takes}
        rows_at_once = max(1, self._batch_tokens // batch["input_ids"].shape[1])
        found: list[npt.NDArray[np.float32]] = []
        with torch.inference_mode():
            for at in range(0, len(owners), rows_at_once):
                part = {name: tensor[at : at + rows_at_once].to(self._device) for name, tensor in wanted.items()}
                logits = self._model(**part).logits.float() / self._temperature
                probs = torch.sigmoid(logits) if self._outputs.sigmoid else torch.softmax(logits, -1)
                found.append(probs.cpu().numpy())
        windows: list[list[tuple[int, Classified]]] = [[] for _ in prompts]
        for row, probs in enumerate(np.concatenate(found)):
            if self._bio is None:
                answer = self._labelled(probs)
            else:
                keep = np.flatnonzero(~special[row]).tolist()
                text = prompts[owners[row]].text
                # Many tokenizers count the white space before a word to its first token.
                places = [trimmed(text, *offsets[row][i]) for i in keep]
                answer = self._spans(self._bio, probs[keep], places, text)
            windows[owners[row]].append((0, Classified({self._head: answer}, int(lengths[row]), self._version)))
        return [combine(parts) for parts in windows]

    def _fall_back_where_the_code_cannot(self, dtype: torch.dtype) -> None:
        """Some architectures mix number types in their own code and raise in any but float32 (DeBERTa's first)."""
        try:
            self.run([Prompt("a")])
        except RuntimeError as error:
            log.info("%s runs in float32, for it cannot in %s: %s", self._version, dtype, error)
            self._model.float()

    def _labelled(self, probs: npt.NDArray[np.float32]) -> HeadResult:
        named = dict(zip(self._outputs.names, probs.tolist(), strict=True))
        best = max(named, key=named.__getitem__)
        return HeadResult(best, named[best], named)

    def _spans(self, bio: Bio, probs: npt.NDArray[np.float32], offsets: list[tuple[int, int]], text: str) -> HeadResult:
        nothing = float(probs[:, bio.outside].min()) if len(probs) and bio.outside >= 0 else 1.0
        return spans_result(bio.decode(probs, offsets, text), certainty=nothing)
