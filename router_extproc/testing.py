"""Test doubles that pass the same contract suites as the real things, for our tests and for plugin authors."""

from __future__ import annotations

import asyncio
import json
import math
import string
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from router_extproc.inference.base import Classified, DeadlineExceeded, HeadResult, Prompt


class FakeClassifier:
    """An `inference.base.Classifier` that answers from a table: prompt text -> head -> label (or (label, confidence)).

    Unknown prompts get each head's first label. A head's remaining probability is shared by its other labels. `error`,
    when set, is raised instead; `delay_seconds` is waited before each answer, up to the caller's deadline. `seen` holds
    what was asked, in order.
    """

    def __init__(
        self,
        answers: Mapping[str, Mapping[str, str | tuple[str, float]]],
        labels: Mapping[str, tuple[str, ...]],
        *,
        version: str = "fake-1",
    ) -> None:
        self._answers = answers
        self._labels = labels
        self._version = version
        self.error: Exception | None = None
        self.delay_seconds = 0.0
        self.seen: list[Prompt] = []

    @property
    def labels(self) -> Mapping[str, tuple[str, ...]]:
        """Labels per head, as given."""
        return self._labels

    @property
    def version(self) -> str:
        """As given."""
        return self._version

    async def classify(self, prompt: Prompt, deadline: float, patience: float = math.inf) -> Classified:
        """Answers from the table."""
        self.seen.append(prompt)
        left = deadline - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded("no time left to classify")
        if self.delay_seconds:
            await asyncio.sleep(min(self.delay_seconds, left))
            if self.delay_seconds >= left:
                raise DeadlineExceeded("not classified in time")
        if self.error is not None:
            raise self.error
        return self._classified(prompt)

    def _classified(self, prompt: Prompt) -> Classified:
        wanted = self._answers.get(prompt.text, {})
        heads = {name: head_result(labels, wanted.get(name, labels[0])) for name, labels in self._labels.items()}
        return Classified(heads, tokens=len(prompt.text) // 4 + 2, version=self._version)


class FakeModel:
    """An `inference.base.Model` that answers like `FakeClassifier`, and raises on texts that hold `poison`."""

    def __init__(
        self,
        answers: Mapping[str, Mapping[str, str | tuple[str, float]]],
        labels: Mapping[str, tuple[str, ...]],
        *,
        version: str = "fake-1",
        batch_tokens: int = 512,
        poison: str | None = None,
        folds: bool = False,
    ) -> None:
        self._fake = FakeClassifier(answers, labels, version=version)
        self._poison = poison
        self.batch_tokens = batch_tokens
        self.folds = folds
        self.batches: list[int] = []

    @property
    def labels(self) -> Mapping[str, tuple[str, ...]]:
        """Labels per head, as given."""
        return self._fake.labels

    @property
    def version(self) -> str:
        """As given."""
        return self._fake.version

    def warm_up(self) -> None:
        """Nothing to warm."""

    def run(self, prompts: Sequence[Prompt]) -> list[Classified]:
        """Answers from the table; the size of every batch is kept in `batches`."""
        self.batches.append(len(prompts))
        if self._poison is not None and any(self._poison in prompt.text for prompt in prompts):
            raise RuntimeError("poisoned")
        return [self._fake._classified(prompt) for prompt in prompts]


def head_result(labels: Sequence[str], wanted: str | tuple[str, float]) -> HeadResult:
    """An answer with the wanted label (at 0.99, or the confidence given)."""
    label, confidence = (wanted, 0.99) if isinstance(wanted, str) else wanted
    rest = (1 - confidence) / max(1, len(labels) - 1)
    probs = {other: confidence if other == label else rest for other in (*labels, label)}
    return HeadResult(label, confidence, probs)


TINY_HEADS: dict[str, dict[str, Any]] = {
    "domain": {
        "kind": "label",
        "labels": ["law", "math", "other"],
        "pooling": "mean",
        "calibration": {"temperature": 1.3},
    },
    "intent": {"kind": "label", "labels": ["code_generation", "factual_qa"], "pooling": "max"},
    "guard": {
        "kind": "label",
        "labels": ["benign", "harmful", "jailbreak"],
        "pooling": "attention",
        "calibration": {"temperature": 0.7},
    },
    "language": {
        "kind": "label",
        "labels": ["de", "en"],
        "pooling": "mean",
        "ngrams": {"buckets": 64, "min_n": 1, "max_n": 3, "max_chars": 50},
    },
    "win": {
        "kind": "multi_label",
        "labels": ["large", "small"],
        "pooling": "mean",
        "calibration": {"scale": [1.5, 0.5], "offset": [0.1, -0.2]},
    },
    "pii": {"kind": "token", "labels": ["O", "B-PERSON", "I-PERSON", "B-EMAIL", "I-EMAIL"]},
}


def tiny_model_directory(
    path: Path, *, heads: Mapping[str, Mapping[str, Any]] | None = None, seed: int = 0, max_tokens: int = 32
) -> Path:
    """Writes a classifier's folder with random weights: 2 layers of width 32, every kind of head, a few kilobytes."""
    path.mkdir(parents=True, exist_ok=True)
    chosen = dict(TINY_HEADS if heads is None else heads)
    random = np.random.default_rng(seed)
    width, inner, layers = 32, 64, 2

    def matrix(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return random.normal(0, 0.3, shape).astype(np.float32)

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "model", "prove", "hello", "##s"]
    vocabulary += [prefix + character for character in string.ascii_lowercase + string.digits for prefix in ("", "##")]
    vocabulary += list(string.punctuation)
    tokenizer = Tokenizer(models.WordPiece({token: i for i, token in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.save(str(path / "tokenizer.json"))
    encoder = {
        "embeddings.word_embeddings.weight": matrix(len(vocabulary), width),
        "embeddings.position_embeddings.weight": matrix(max_tokens, width),
        "embeddings.token_type_embeddings.weight": matrix(2, width),
        "embeddings.LayerNorm.weight": 1 + matrix(width),
        "embeddings.LayerNorm.bias": matrix(width),
    }
    for layer in range(layers):
        prefix = f"encoder.layer.{layer}."
        for name, rows, columns in (
            ("attention.self.query", width, width),
            ("attention.self.key", width, width),
            ("attention.self.value", width, width),
            ("attention.output.dense", width, width),
            ("intermediate.dense", inner, width),
            ("output.dense", width, inner),
        ):
            encoder[f"{prefix}{name}.weight"] = matrix(rows, columns)
            encoder[f"{prefix}{name}.bias"] = matrix(rows)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            encoder[f"{prefix}{name}.weight"] = 1 + matrix(width)
            encoder[f"{prefix}{name}.bias"] = matrix(width)
    save_file(encoder, str(path / "model.safetensors"), metadata={"format": "pt"})
    weights: dict[str, np.ndarray[Any, Any]] = {}
    for name, entry in chosen.items():
        weights[f"{name}.out.weight"] = matrix(len(entry["labels"]), width)
        weights[f"{name}.out.bias"] = matrix(len(entry["labels"]))
        if entry.get("pooling") == "attention":
            weights[f"{name}.attention.weight"] = matrix(1, width)
            weights[f"{name}.dense.weight"] = matrix(width, width)
            weights[f"{name}.dense.bias"] = matrix(width)
        if "ngrams" in entry:
            table = matrix(entry["ngrams"]["buckets"], len(entry["labels"]))
            weights[f"{name}.ngrams.weight"] = table.astype(np.float16)
    save_file(weights, str(path / "heads.safetensors"))
    config = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": len(vocabulary),
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": inner,
        "hidden_act": "gelu",
        "max_position_embeddings": max_tokens,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
    }
    described: dict[str, Any] = {"format": 1, "version": f"tiny-{seed}", "max_tokens": max_tokens, "heads": chosen}
    if "win" in chosen:
        described["complexity"] = {"head": "win", "weak": ["small"], "strong": ["large"], "low": 0.1, "high": 0.9}
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (path / "heads.json").write_text(json.dumps(described), encoding="utf-8")
    return path
