"""A plain forward through a shipped model: logits, pooled vectors, probabilities over windows, spans.

Used for calibration and as the reference in evaluation. The product has its own, faster forward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from models import ngrams
from models.network import NGRAMS, fastest_type, load

Floats = npt.NDArray[np.float32]
Span = tuple[int, int, str, float]
"""Start, end (characters), type, confidence."""
MAX_WINDOWS = 8
BATCH_TOKENS = 8192
NGRAM_RANGE = {key: value for key, value in NGRAMS.items() if key != "buckets"}


class Predictor:
    """The shipped model with its calibration. The encoder runs on a GPU where there is one, heads on the CPU."""

    def __init__(self, folder: Path) -> None:
        self.network, self.tokenizer, self.described, tables = load(folder)
        self.tables = {head: table.numpy() for head, table in tables.items()}
        self.heads: dict[str, dict[str, Any]] = self.described["heads"]
        self.max_tokens = int(self.described["max_tokens"])
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network.encoder.to(self.device)
        self.dtype = fastest_type(self.device)

    def passes(self, encoded: Sequence[dict[str, list[int]]], use: Callable[[list[int], Any, Any], None]) -> None:
        """Run rows through the encoder in batches of similar length; `use(rows, hidden, mask)`."""
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]["input_ids"]))
        begin = 0
        while begin < len(order):
            end = begin + 1
            while end < len(order) and len(encoded[order[end]]["input_ids"]) * (end + 1 - begin) <= BATCH_TOKENS:
                end += 1
            rows = order[begin:end]
            width = len(encoded[rows[-1]]["input_ids"])
            ids = torch.zeros((len(rows), width), dtype=torch.long)
            types, mask = torch.zeros_like(ids), torch.zeros_like(ids)
            for i, row in enumerate(rows):
                n = len(encoded[row]["input_ids"])
                ids[i, :n] = torch.tensor(encoded[row]["input_ids"])
                types[i, :n] = torch.tensor(encoded[row]["token_type_ids"])
                mask[i, :n] = 1
            batch = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
            batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
            kind, whole = self.device.type, self.dtype is torch.float32
            with torch.inference_mode(), torch.autocast(kind, self.dtype, enabled=not whole):
                hidden = self.network.hidden(batch)
            with torch.inference_mode():
                use(rows, hidden.float().cpu(), mask)
            begin = end

    def first_window(self, texts: Sequence[str]) -> list[dict[str, list[int]]]:
        """Token rows of the beginnings of the texts."""
        encoded = self.tokenizer(
            [text[: self.max_tokens * 12] for text in texts], truncation=True, max_length=self.max_tokens
        )
        return [{key: encoded[key][i] for key in ("input_ids", "token_type_ids")} for i in range(len(texts))]

    def logits(self, texts: Sequence[str], head: str) -> Floats:
        """Logits [texts, labels] of a label or multi_label head on the first window."""
        return self._logits(self.first_window(texts), texts, [head])[head]

    def _logits(
        self, encoded: Sequence[dict[str, list[int]]], texts: Sequence[str], heads: Sequence[str]
    ) -> dict[str, Floats]:
        out = {h: np.zeros((len(encoded), len(self.heads[h]["labels"])), np.float32) for h in heads}

        def use(rows: list[int], hidden: Any, mask: Any) -> None:
            for head in heads:
                out[head][rows] = self.network.heads[head](hidden, mask).numpy()

        self.passes(encoded, use)
        min_n, max_n, max_chars = NGRAMS["min_n"], NGRAMS["max_n"], NGRAMS["max_chars"]
        for head in heads:
            if head in self.tables:
                for i, text in enumerate(texts):
                    out[head][i] += ngrams.ngram_logits(text, self.tables[head], min_n, max_n, max_chars)
        return out

    def ngram_logits(self, texts: Sequence[str], head: str) -> Floats:
        """Logits [texts, labels] of a head that reads n-grams alone, without a pass through the encoder."""
        bias = self.network.heads[head].out.bias.detach().numpy()  # type: ignore[union-attr, operator]
        rows = [ngrams.ngram_logits(text, self.tables[head], **NGRAM_RANGE) + bias for text in texts]
        return np.stack(rows).astype(np.float32)

    def calibrated(self, logits: Floats, head: str) -> Floats:
        """Probabilities [rows, labels] from logits."""
        calibration = self.heads[head].get("calibration", {})
        if self.heads[head]["kind"] == "multi_label":
            scale = np.asarray(calibration.get("scale", 1.0), np.float32)
            offset = np.asarray(calibration.get("offset", 0.0), np.float32)
            sigmoid: Floats = 1 / (1 + np.exp(-(logits * scale + offset)))
            return sigmoid
        scaled = logits / float(calibration.get("temperature", 1.0))
        scaled = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
        softmax: Floats = scaled / scaled.sum(axis=-1, keepdims=True)
        return softmax

    def probabilities(self, texts: Sequence[str], heads: Sequence[str]) -> dict[str, Floats]:
        """Probabilities [texts, labels] per head, long texts read in windows and pooled as FORMAT.md says."""
        owners: list[int] = []
        encoded: list[dict[str, list[int]]] = []
        cls, sep = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        room = self.max_tokens - 2
        tokens = self.tokenizer([t[:40_000] for t in texts], add_special_tokens=False)["input_ids"]
        for i, ids in enumerate(tokens):
            starts = list(range(0, max(1, len(ids)), room))
            if len(starts) > MAX_WINDOWS:
                starts = [starts[round(j * (len(starts) - 1) / (MAX_WINDOWS - 1))] for j in range(MAX_WINDOWS)]
            for start in starts:
                window = [cls, *ids[start : start + room], sep]
                owners.append(i)
                encoded.append({"input_ids": window, "token_type_ids": [0] * len(window)})
        logits = self._logits(encoded, [texts[i] for i in owners], heads)
        owner = np.asarray(owners)
        weight = np.asarray([len(row["input_ids"]) for row in encoded], np.float32)
        out = {}
        for head in heads:
            probs = self.calibrated(logits[head], head)
            labels = self.heads[head]["labels"]
            total = np.zeros((len(texts), len(labels)), np.float32)
            if "benign" in labels:
                worst = probs.copy()
                worst[:, labels.index("benign")] *= -1
                np.maximum.at(total, owner, np.where(worst < 0, 0, worst))
                benign = np.ones(len(texts), np.float32)
                np.minimum.at(benign, owner, probs[:, labels.index("benign")])
                total[:, labels.index("benign")] = benign
            else:
                np.add.at(total, owner, probs * weight[:, None])
                total /= np.bincount(owner, weight, minlength=len(texts))[:, None].astype(np.float32)
            out[head] = total
        return out

    def spans(self, texts: Sequence[str], head: str = "pii") -> list[list[Span]]:
        """Spans of a token head in the first window of every text."""
        labels = self.heads[head]["labels"]
        encoded = self.tokenizer(list(texts), truncation=True, max_length=self.max_tokens, return_offsets_mapping=True)
        rows = [{k: encoded[k][i] for k in ("input_ids", "token_type_ids")} for i in range(len(texts))]
        found: list[list[Span]] = [[] for _ in texts]

        def use(indices: list[int], hidden: Any, mask: Any) -> None:
            probs = self.calibrated(self.network.heads[head](hidden, mask).numpy(), head)
            for i, index in enumerate(indices):
                offsets = encoded["offset_mapping"][index]
                found[index] = decode_spans(texts[index], offsets, probs[i][: len(offsets)], labels)

        self.passes(rows, use)
        return found


def decode_spans(text: str, offsets: Sequence[tuple[int, int]], probs: Floats, labels: Sequence[str]) -> list[Span]:
    """BIO decoding as FORMAT.md states it. `probs` [tokens, labels]; offsets (0, 0) mark special tokens."""
    spans: list[Span] = []
    confidences: list[list[float]] = []
    kind_before = ""
    best = probs.argmax(-1)
    for (start, end), label_index, row in zip(offsets, best, probs, strict=False):
        label = labels[int(label_index)] if start < end else "O"
        kind = label[2:] if label != "O" else ""
        if kind:
            p = float(row[labels.index(f"B-{kind}")] + row[labels.index(f"I-{kind}")])
            if label[0] == "I" and kind_before == kind:
                confidences[-1].append(p)
                spans[-1] = (spans[-1][0], end, kind, 0.0)
            else:
                spans.append((start, end, kind, 0.0))
                confidences.append([p])
        kind_before = kind
    merged: list[Span] = []
    grouped: list[list[float]] = []
    for span, values in zip(spans, confidences, strict=True):
        if merged and merged[-1][2] == span[2]:
            gap = text[merged[-1][1] : span[0]]
            if len(gap) <= 1 and gap not in (" ", "\n", "\t", ",", "\r"):
                merged[-1] = (merged[-1][0], span[1], span[2], 0.0)
                grouped[-1] += values
                continue
        merged.append(span)
        grouped.append(list(values))
    return [(s, e, k, float(np.mean(v))) for (s, e, k, _), v in zip(merged, grouped, strict=True)]
