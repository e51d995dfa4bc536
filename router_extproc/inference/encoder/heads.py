"""All heads on the encoder's output, in float32, with the arithmetic that `models/FORMAT.md` numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


class Heads:
    """Every head on the hidden states."""

    def __init__(self, described: Artifact, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        weights = {name: tensor.to(device, torch.float32) for name, tensor in tensors.items()}
        self._complexity = described.complexity
        self._text_heads = [head for head in described.heads if head.kind != "token"]
        self.token_heads = [(head, Bio(head.labels)) for head in described.heads if head.kind == "token"]
        self._scorers = [_Scorer(head, weights) for head in self._text_heads]
        self._token_scorers = [_Scorer(head, weights) for head, _ in self.token_heads]
        self.reads_text = any(scorer.ngrams is not None for scorer in self._scorers)

    def __call__(
        self, hidden: Tensor, batch: Batch, texts: Sequence[str]
    ) -> tuple[list[list[float]], dict[str, npt.NDArray[np.float32]], Tensor]:
        """Per row the probabilities of all labels; per token head [rows, longest, labels]; the means [rows, width]."""
        padded = hidden.float()
        if not batch.aligned:
            padded = padded.index_select(0, batch.pad)
        padded = padded.view(batch.rows, batch.longest, -1)
        keep = batch.mask[:, :, None]
        mean = padded.masked_fill(~keep, 0.0).sum(1) / batch.lengths[:, None]
        found = [scorer.probabilities(scorer.pooled(padded, keep, mean), texts) for scorer in self._scorers]
        probs: list[list[float]] = torch.cat(found, 1).cpu().tolist() if found else [[] for _ in range(batch.rows)]
        tokens = {
            head.name: scorer.probabilities(padded, texts).cpu().numpy()
            for (head, _), scorer in zip(self.token_heads, self._token_scorers, strict=True)
        }
        return probs, tokens, mean

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
        self._kind, self._pooling, self.ngrams = head.kind, head.pooling, head.ngrams
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
        self._table = weights[f"{head.name}.ngrams.weight"] if head.ngrams is not None else None

    def pooled(self, padded: Tensor, keep: Tensor, mean: Tensor) -> Tensor:
        """[rows, longest, width] -> [rows, width]; `keep` [rows, longest, 1] marks real tokens."""
        if self._pooling == "attention" and self._attention is not None:
            score = (padded @ self._attention[0])[:, :, None].masked_fill(~keep, float("-inf"))
            return (torch.softmax(score, 1) * padded).sum(1)
        if self._pooling == "max":
            return padded.masked_fill(~keep, float("-inf")).amax(1)
        return mean

    def probabilities(self, x: Tensor, texts: Sequence[str]) -> Tensor:
        """Calibrated probabilities over the last dimension of [..., width] -> [..., labels]."""
        if self._dense is not None:
            x = F.gelu(F.linear(x, self._dense, self._dense_bias))
        logits = F.linear(x, self._out, self._bias)
        if self.ngrams is not None and self._table is not None:
            logits = logits + self._from_ngrams(texts, self._table)
        if self._kind == "multi_label":
            return torch.sigmoid(self._scale * logits + self._offset)
        return torch.softmax(logits * self._scale, -1)

    def _from_ngrams(self, texts: Sequence[str], table: Tensor) -> Tensor:
        assert self.ngrams is not None
        rows = [ngrams.buckets(text, self.ngrams) for text in texts]
        ends = np.cumsum([len(row) for row in rows])
        flat = torch.from_numpy(np.concatenate(rows)).to(table.device)
        starts = torch.from_numpy(ends - [len(row) for row in rows]).to(table.device)
        return F.embedding_bag(flat, table, starts, mode="mean")
