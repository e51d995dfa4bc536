"""A trained folder for the last fits: many rows through its encoder, as it serves, and the heads as trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor

from models import ngrams
from models.network import NGRAMS, first_tokens, load
from router_extproc.inference import artifact
from router_extproc.inference.encoder.bert import Encoder, assemble
from router_extproc.inference.encoder.device import choose
from router_extproc.inference.encoder.int8 import read_steps
from router_extproc.inference.encoder.precision import compute_type

Floats = npt.NDArray[np.float32]
BATCH_TOKENS = 8192
NGRAM_RANGE = {key: value for key, value in NGRAMS.items() if key != "buckets"}


@dataclass(frozen=True, slots=True)
class _Row:
    """Tokens of one segment."""

    ids: list[int]

    @property
    def second(self) -> int:
        return len(self.ids)


class Predictor:
    """The encoder runs where and in the number type in which it would serve here: on a GPU, or in what the CPU
    multiplies fastest. Heads run on the CPU, in float32."""

    def __init__(self, folder: Path) -> None:
        self.network, self.tokenizer, self.described, tables = load(folder)
        self.tables = {head: table.numpy() for head, table in tables.items()}
        self.heads: dict[str, dict[str, Any]] = self.described["heads"]
        self.max_tokens = int(self.described["max_tokens"])
        spec, steps = artifact.read(folder).encoder, read_steps(folder)
        self.width, self._device = spec.width, choose("auto")
        dtype = compute_type(self._device, whole=bool(steps))
        self._encoder = Encoder(spec, load_file(folder / "model.safetensors"), self._device, dtype, steps)

    def passes(self, texts: Sequence[str], limit: int, use: Callable[[list[int], Tensor, Tensor], None]) -> None:
        """Runs the first `limit` tokens of the texts through the encoder, those of similar length together.

        `use` gets the indices of some texts, their last hidden states [texts, tokens, width] and which of these are
        tokens [texts, tokens], 0/1.
        """
        tokens = first_tokens(self.tokenizer, texts, limit)
        order = sorted(range(len(texts)), key=lambda i: len(tokens[i]))
        begin = 0
        while begin < len(order):
            end = begin + 1
            while end < len(order) and len(tokens[order[end]]) * (end + 1 - begin) <= BATCH_TOKENS:
                end += 1
            batch = assemble([_Row(tokens[i]) for i in order[begin:end]], self._device)
            with torch.inference_mode():
                hidden = self._encoder(batch)
                hidden = hidden if batch.aligned else hidden.index_select(0, batch.pad)
                hidden = hidden.view(batch.rows, batch.longest, self.width).float().cpu()
                use(order[begin:end], hidden, batch.mask.cpu())
            begin = end

    def logits(self, texts: Sequence[str], head: str) -> Floats:
        """Logits [texts, labels] of a label or multi_label head that reads the encoder, on the first window."""
        out = np.zeros((len(texts), len(self.heads[head]["labels"])), np.float32)

        def use(rows: list[int], hidden: Tensor, mask: Tensor) -> None:
            out[rows] = self.network.heads[head](hidden, mask).numpy()

        self.passes(texts, self.max_tokens, use)
        return out

    def ngram_logits(self, texts: Sequence[str], head: str) -> Floats:
        """Logits [texts, labels] of a head that reads n-grams alone, without a pass through the encoder."""
        bias = self.network.heads[head].out.bias.detach().numpy()  # type: ignore[union-attr, operator]
        rows = [ngrams.ngram_logits(text, self.tables[head], **NGRAM_RANGE) + bias for text in texts]
        return np.stack(rows).astype(np.float32)
