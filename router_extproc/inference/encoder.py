"""The classifier in PyTorch, and the only module that imports it: one lean BERT pass, all heads on its output.

Rows of different length are laid end to end, so that the linear layers, nine tenths of the work, see no padding; only
attention sees rows padded to the longest of the batch. Weights are kept in the layout that the CPU's matrix kernels
want. Importing this module takes seconds: it is imported, and `load` called, off the event loop.
"""

from __future__ import annotations

import array
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# Read once, when PyTorch brings the OpenMP runtime in. Its threads wait for each other by spinning for milliseconds; on
# cores that are shared with Envoy and the event loop the spinner keeps the very core that the others need (measured on
# 2 busy cores: 412 ms instead of 14 ms for 32 tokens). Spinning shortly and then sleeping costs little on idle ones.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import torch
import torch.nn.functional as F  # noqa: N812 - the name that PyTorch's own documentation uses
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from router_extproc.inference import artifact, ngrams
from router_extproc.inference.artifact import Artifact, HeadSpec
from router_extproc.inference.base import Classified, HeadResult, Prompt, UnusableModel
from router_extproc.inference.cpus import available_cores
from router_extproc.inference.pooling import combine, spans_result
from router_extproc.inference.spans import Bio
from router_extproc.inference.tokens import TokenWindow, TokenWindows

log = logging.getLogger(__name__)

_ROUND = 16
"""Rows are filled up to a multiple of this many tokens: matrix kernels are built and kept per shape."""

_MAX_THREADS = 8


def load(directory: Path, *, digest: str | None = None, device: str = "auto", dtype: str = "auto") -> BertClassifier:
    """Reads a classifier's folder (`models/FORMAT.md`).

    `device` is `auto` (a GPU where there is one), `cpu`, or a CUDA device's name; `dtype` is `auto` (what the device
    multiplies fastest), `float32`, `bfloat16` or `float16`.

    Raises UnusableModel when a file is missing, broken, of an unknown format, or not of the pinned `digest`.
    """
    described = artifact.read(directory, digest=digest)
    chosen = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    if chosen.type == "cpu":
        torch.set_num_threads(min(available_cores(), _MAX_THREADS))
    try:
        encoder = load_file(directory / "model.safetensors", backend="pread")
        heads = load_file(directory / "heads.safetensors", backend="pread")
        return BertClassifier(described, encoder, heads, chosen, compute_type(chosen, dtype))
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        raise UnusableModel(f"{directory}: {type(error).__name__}: {error}") from error


def compute_type(device: torch.device, wanted: str = "auto") -> torch.dtype:
    """The type wanted; by default bfloat16 where the device has units for it, else float16 (GPU) or float32 (CPU)."""
    if wanted != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[wanted]
    if device.type == "cpu":
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows end to end. `pad` [rows * longest] gathers tokens into padded rows and `unpad` [tokens] undoes it."""

    ids: Tensor
    positions: Tensor
    types: Tensor
    rows: int
    longest: int
    lengths: Tensor
    pad: Tensor
    unpad: Tensor
    mask: Tensor
    aligned: bool


class BertClassifier:
    """A `base.Model` over one shipped-format folder. `run` is called on one thread at a time."""

    def __init__(
        self,
        described: Artifact,
        encoder: Mapping[str, Tensor],
        heads: Mapping[str, Tensor],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._artifact = described
        self._device = device
        self._tokens = TokenWindows(described.directory / "tokenizer.json", described.max_tokens)
        self._encoder = _Encoder(described, encoder, device, dtype)
        self._heads = _Heads(described, heads, device)
        self._labels = described.labels
        self._batch_tokens = 16_384 if device.type == "cuda" else 256 * torch.get_num_threads()

    @property
    def version(self) -> str:
        """The artefact's version and the beginning of its digest."""
        return self._artifact.version

    @property
    def digest(self) -> str:
        """SHA-256 of the folder, to pin."""
        return self._artifact.digest

    @property
    def labels(self) -> Mapping[str, tuple[str, ...]]:
        """Labels per head."""
        return self._labels

    @property
    def batch_tokens(self) -> int:
        """On a CPU as many tokens as its cores do in some 40 ms: beyond that a batch gets longer, not better."""
        return self._batch_tokens

    def warm_up(self) -> None:
        """Runs every rounded batch length up to one full row, so that each kernel exists, and one batch of several."""
        for length in range(_ROUND, self._artifact.max_tokens + 1, _ROUND):
            self.run([Prompt("a " * (length - 2))])
        self.run([Prompt("a " * (self._artifact.max_tokens - 2)), Prompt("a", "b"), Prompt("")])

    def run(self, prompts: Sequence[Prompt]) -> list[Classified]:
        """Classifies a batch, in order; texts over the token window are read in several rows and pooled."""
        rows = self._tokens.encode(prompts)
        parts: list[list[Classified]] = [[] for _ in prompts]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
        answers: dict[int, Classified] = {}
        with torch.inference_mode():
            for chunk in self._chunks(rows, order):
                passed = self._pass([rows[i] for i in chunk], prompts)
                answers.update(zip(chunk, passed, strict=True))
        for i, row in enumerate(rows):
            parts[row.prompt].append(answers[i])
        return [combine([(0, part) for part in found]) for found in parts]

    def _chunks(self, rows: Sequence[TokenWindow], order: Sequence[int]) -> list[list[int]]:
        """Rows of like length together, each chunk within the device's budget of padded tokens."""
        chunks: list[list[int]] = []
        for i in order:
            if chunks and len(rows[i].ids) * (len(chunks[-1]) + 1) <= self._batch_tokens:
                chunks[-1].append(i)
            else:
                chunks.append([i])
        return chunks

    def _pass(self, rows: Sequence[TokenWindow], prompts: Sequence[Prompt]) -> list[Classified]:
        batch = _assemble(rows, self._device)
        hidden = self._encoder(batch)
        texts = [row.text(prompts[row.prompt]) for row in rows] if self._heads.reads_text else []
        probs, tokens, pooled = self._heads(hidden, batch, texts)
        unit = F.normalize(pooled, dim=1).cpu().numpy()
        answers: list[Classified] = []
        for index, row in enumerate(rows):
            heads = self._heads.results(probs[index])
            for head, bio in self._heads.token_heads:
                found = tokens[head.name][index, 1 : row.count + 1]
                if (found.argmax(axis=1) == bio.outside).all():
                    spans = []
                else:
                    text = prompts[row.prompt].text
                    spans = bio.decode(found, row.encoding.offsets[row.first : row.first + row.count], text)
                nothing = float(found[:, bio.outside].min()) if len(found) else 1.0
                heads[head.name] = spans_result(spans, certainty=nothing)
            answers.append(
                Classified(
                    heads=heads,
                    tokens=len(row.ids),
                    version=self.version,
                    embedding=array.array("f", unit[index].tobytes()),
                )
            )
        return answers


def _assemble(rows: Sequence[TokenWindow], device: torch.device) -> _Batch:
    lengths = np.array([len(row.ids) for row in rows])
    longest = int(lengths.max())
    real = int(lengths.sum())
    total = -(-real // _ROUND) * _ROUND
    starts = np.cumsum(lengths) - lengths
    ids = np.zeros(total, dtype=np.int64)
    types = np.zeros(total, dtype=np.int64)
    ids[:real] = np.concatenate([row.ids for row in rows])
    for start, length, row in zip(starts, lengths, rows, strict=True):
        types[start + row.second : start + length] = 1
    column = np.arange(longest)
    mask = column[None, :] < lengths[:, None]
    pad = np.where(mask, starts[:, None] + column[None, :], 0)
    positions = np.zeros(total, dtype=np.int64)
    positions[:real] = np.broadcast_to(column, mask.shape)[mask]
    unpad = np.zeros(total, dtype=np.int64)
    unpad[:real] = np.flatnonzero(mask)

    def put(values: npt.NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(values)
        return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)

    return _Batch(
        ids=put(ids),
        positions=put(positions),
        types=put(types),
        rows=len(rows),
        longest=longest,
        lengths=put(lengths),
        pad=put(pad.reshape(-1)),
        unpad=put(unpad),
        mask=put(mask),
        aligned=len(rows) == 1 and longest == total,
    )


class _Linear:
    """`x @ weight.T + bias`, with what follows it fused in where the CPU's kernels can."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._bias = bias
        self._weight = weight.contiguous()
        self._packed = weight.device.type == "cpu" and _packs(self._weight, bias)
        if self._packed:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(self._weight, 0)

    def __call__(self, x: Tensor) -> Tensor:
        if self._packed:
            found: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "none")
            return found
        return F.linear(x, self._weight, self._bias)

    def gelu(self, x: Tensor) -> Tensor:
        """Followed by the exact GELU."""
        if self._packed:
            found: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "gelu", [], "none")
            return found
        return F.gelu(F.linear(x, self._weight, self._bias))

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """Plus `residual`."""
        if self._packed:
            found: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, residual, self._weight, self._bias, "add")
            return found
        return F.linear(x, self._weight, self._bias) + residual


def _packs(weight: Tensor, bias: Tensor) -> bool:
    """Whether this build of PyTorch packs such weights. The operators are its compiler's; they may go or change."""
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight[:16, :16].contiguous(), 0)
        x = torch.ones(2, 16, dtype=weight.dtype)
        got = torch.ops.mkldnn._linear_pointwise(x, packed, bias[:16], "none", [], "none")
        return torch.allclose(got, F.linear(x, weight[:16, :16], bias[:16]), atol=0.1, rtol=0.1)
    except (AttributeError, RuntimeError, TypeError):
        log.info("weights are not packed for the CPU: this build of PyTorch cannot")
        return False


class _Layer:
    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        def linear(*names: str) -> _Linear:
            return _Linear(
                torch.cat([tensors[f"{prefix}.{name}.weight"] for name in names]),
                torch.cat([tensors[f"{prefix}.{name}.bias"] for name in names]),
            )

        def norm(name: str) -> tuple[Tensor, Tensor]:
            return tensors[f"{prefix}.{name}.weight"], tensors[f"{prefix}.{name}.bias"]

        self.qkv = linear(*(f"attention.self.{part}" for part in ("query", "key", "value")))
        self.attended = linear("attention.output.dense")
        self.attended_norm = norm("attention.output.LayerNorm")
        self.up = linear("intermediate.dense")
        self.down = linear("output.dense")
        self.norm = norm("output.LayerNorm")


class _Encoder:
    """BERT without its pooler: `_Batch` -> last hidden states [tokens, width], the compute type."""

    def __init__(
        self, described: Artifact, tensors: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype
    ) -> None:
        spec = described.encoder
        moved = {name: tensor.to(device, dtype) for name, tensor in tensors.items()}
        self._width, self._norm_epsilon = spec.width, spec.norm_epsilon
        self._attention_heads = spec.attention_heads
        self._words = moved["embeddings.word_embeddings.weight"]
        self._positions = moved["embeddings.position_embeddings.weight"]
        self._types = moved["embeddings.token_type_embeddings.weight"]
        self._norm = moved["embeddings.LayerNorm.weight"], moved["embeddings.LayerNorm.bias"]
        self._layers = [_Layer(moved, f"encoder.layer.{i}") for i in range(spec.layers)]

    def __call__(self, batch: _Batch) -> Tensor:
        mask = None if batch.rows == 1 else batch.mask[:, None, None, :]
        x = (
            F.embedding(batch.ids, self._words)
            + F.embedding(batch.positions, self._positions)
            + F.embedding(batch.types, self._types)
        )
        x = self._normalised(x, self._norm)
        for layer in self._layers:
            qkv = layer.qkv(x)
            if not batch.aligned:
                qkv = qkv.index_select(0, batch.pad)
            query, key, value = (
                qkv.view(batch.rows, batch.longest, 3, self._attention_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
            )
            seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            seen = seen.transpose(1, 2).reshape(batch.rows * batch.longest, self._width)
            if not batch.aligned:
                seen = seen.index_select(0, batch.unpad)
            x = self._normalised(layer.attended.add(seen, x), layer.attended_norm)
            x = self._normalised(layer.down.add(layer.up.gelu(x), x), layer.norm)
        return x

    def _normalised(self, x: Tensor, norm: tuple[Tensor, Tensor]) -> Tensor:
        return F.layer_norm(x, (self._width,), *norm, self._norm_epsilon)


class _Heads:
    """Every head on the hidden states, in float32. Heads of one pooling without a hidden layer share one product."""

    def __init__(self, described: Artifact, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        weights = {name: tensor.to(device, torch.float32) for name, tensor in tensors.items()}
        self._complexity = described.complexity
        self._text_heads = [head for head in described.heads if head.kind != "token"]
        self.token_heads = [(head, Bio(head.labels)) for head in described.heads if head.kind == "token"]
        self._scorers = [_Scorer(head, weights) for head in self._text_heads]
        self._token_scorers = [_Scorer(head, weights) for head, _ in self.token_heads]
        self.reads_text = any(scorer.ngrams is not None for scorer in self._scorers)

    def __call__(
        self, hidden: Tensor, batch: _Batch, texts: Sequence[str]
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
