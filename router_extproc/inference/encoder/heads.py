"""All heads on the encoder's output, in float32, with the arithmetic that `models/FORMAT.md` numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - the name that PyTorch's own documentation uses
from torch import Tensor

from router_extproc.inference import artifact, ngrams
from router_extproc.inference.artifact import Artifact, HeadSpec
from router_extproc.inference.base import HeadResult
from router_extproc.inference.encoder.bert import Batch
from router_extproc.inference.spans import Bio

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Scores:
    """What the heads say of some rows, on the CPU. `probs` [rows, labels of all text heads], `unit` [rows, width] the
    embeddings, `tokens` [rows, longest, labels] by token head. Views: to be read before the next pass."""

    probs: Floats
    unit: Floats
    tokens: Mapping[str, Floats]


class Heads:
    """Every head on the hidden states: one flat answer per batch, so that one copy brings it back from a device."""

    def __init__(self, described: Artifact, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        weights = {name: tensor.to(device, torch.float32) for name, tensor in tensors.items()}
        self._complexity = described.complexity
        self._text_heads = [head for head in described.heads if head.kind != "token"]
        self.token_heads = [(head, Bio(head.labels)) for head in described.heads if head.kind == "token"]
        self._scorers = [_Scorer(head, weights) for head in self._text_heads]
        self._token_scorers = [_Scorer(head, weights) for head, _ in self.token_heads]
        self._labels = sum(len(head.labels) for head in self._text_heads)
        self._width = described.encoder.width
        # Looked up on the CPU: what each text needs of these tables is other rows, and as many as it has characters.
        self._tables = [
            (head.ngrams, tensors[f"{head.name}.ngrams.weight"].to("cpu", torch.float32))
            for head in self._text_heads
            if head.ngrams is not None
        ]
        self.from_text_width = sum(table.shape[1] for _, table in self._tables)

    def from_text(self, texts: Sequence[str]) -> Tensor:
        """What character n-grams add to the logits, [texts, `from_text_width`] on the CPU."""
        if not self._tables:
            return torch.zeros(len(texts), 0)
        return torch.cat([_ngram_logits(texts, spec, table) for spec, table in self._tables], 1)

    def __call__(self, hidden: Tensor, batch: Batch, from_text: Tensor) -> Tensor:
        """[tokens, width] -> the answers of all heads in one dimension, to be read by `scores`; on the device."""
        padded = hidden.float()
        if not batch.aligned:
            padded = padded.index_select(0, batch.pad)
        padded = padded.view(batch.rows, batch.longest, -1)
        keep = batch.mask[:, :, None]
        mean = padded.masked_fill(~keep, 0.0).sum(1) / batch.lengths[:, None]
        found: list[Tensor] = []
        at = 0
        for scorer in self._scorers:
            added = None
            if scorer.reads_text:
                added = from_text[:, at : at + scorer.labels]
                at += scorer.labels
            found.append(scorer.probabilities(scorer.pooled(padded, keep, mean), added))
        tokens = [scorer.probabilities(padded).reshape(-1) for scorer in self._token_scorers]
        return torch.cat([torch.cat([*found, F.normalize(mean, dim=1)], 1).reshape(-1), *tokens])

    def scores(self, flat: Floats, rows: int, longest: int) -> Scores:
        """Reads what `__call__` gave for a batch of this shape."""
        at = rows * (self._labels + self._width)
        table = flat[:at].reshape(rows, -1)
        tokens: dict[str, Floats] = {}
        for head, _ in self.token_heads:
            end = at + rows * longest * len(head.labels)
            tokens[head.name] = flat[at:end].reshape(rows, longest, -1)
            at = end
        return Scores(table[:, : self._labels], table[:, self._labels :], tokens)

    def results(self, probs: Sequence[float]) -> dict[str, HeadResult]:
        """One row's answers, and the complexity that follows from them."""
        results: dict[str, HeadResult] = {}
        at = 0
        for head in self._text_heads:
            named = dict(zip(head.labels, probs[at : at + len(head.labels)], strict=True))
            at += len(head.labels)
            best = max(named, key=named.__getitem__)
            results[head.name] = HeadResult(best, named[best], named)
            if self._complexity is not None and self._complexity.head == head.name:
                value = self._complexity.value(named, head.labels)
                label = "high" if value >= 0.5 else "low"
                results[artifact.COMPLEXITY] = HeadResult(
                    label, max(value, 1 - value), {"low": 1 - value, "high": value}, value
                )
        return results


class _Scorer:
    """One head's arithmetic, as `models/FORMAT.md` numbers it."""

    def __init__(self, head: HeadSpec, weights: Mapping[str, Tensor]) -> None:
        self._kind, self._pooling = head.kind, head.pooling
        self.labels, self.reads_text = len(head.labels), head.ngrams is not None
        self._attention = weights.get(f"{head.name}.attention.weight")
        self._dense = weights.get(f"{head.name}.dense.weight")
        self._dense_bias = weights.get(f"{head.name}.dense.bias")
        out, bias = weights[f"{head.name}.out.weight"], weights[f"{head.name}.out.bias"]
        if out.shape[0] != len(head.labels) or bias.shape[0] != len(head.labels):
            raise ValueError(f"head {head.name}: {out.shape[0]} outputs for {len(head.labels)} labels")
        if head.pooling == "attention" and head.kind != "token" and self._attention is None:
            raise ValueError(f"head {head.name}: no attention weights")
        self._out, self._bias = out, bias
        self._scale = out.new_tensor(head.scale)
        self._offset = out.new_tensor(head.offset)

    def pooled(self, padded: Tensor, keep: Tensor, mean: Tensor) -> Tensor:
        """[rows, longest, width] -> [rows, width]; `keep` [rows, longest, 1] marks real tokens."""
        if self._pooling == "attention" and self._attention is not None:
            score = (padded @ self._attention[0])[:, :, None].masked_fill(~keep, float("-inf"))
            return (torch.softmax(score, 1) * padded).sum(1)
        if self._pooling == "max":
            return padded.masked_fill(~keep, float("-inf")).amax(1)
        return mean

    def probabilities(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """Calibrated probabilities over the last dimension of [..., width] -> [..., labels]; `added` to the logits."""
        if self._dense is not None:
            x = F.gelu(F.linear(x, self._dense, self._dense_bias))
        logits = F.linear(x, self._out, self._bias)
        if added is not None:
            logits = logits + added
        if self._kind == "multi_label":
            return torch.sigmoid(self._scale * logits + self._offset)
        return torch.softmax(logits * self._scale, -1)


def _ngram_logits(texts: Sequence[str], spec: ngrams.NgramSpec, table: Tensor) -> Tensor:
    rows, starts = ngrams.buckets(texts, spec)
    return F.embedding_bag(torch.from_numpy(rows), table, torch.from_numpy(starts), mode="mean")
