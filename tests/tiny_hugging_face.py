"""Tiny Hugging Face classifiers with random weights, of every architecture that users bring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    DebertaConfig,
    DebertaForSequenceClassification,
    DebertaForTokenClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DebertaV2ForTokenClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    DistilBertForTokenClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    ModernBertForTokenClassification,
    PreTrainedTokenizerFast,
)

from router_extproc.testing import tiny_model_directory

MAX_TOKENS = 32
SEQUENCE_LABELS = ("SAFE", "TOXIC", "SPAM")
TOKEN_LABELS = ("O", "B-PER", "I-PER")

_COMMON = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": MAX_TOKENS,
    "initializer_range": 0.8,
}
_DISENTANGLED = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "pooler_hidden_size": 16}
_SPECIAL = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}

ARCHITECTURES: dict[str, tuple[Any, Any, Any, dict[str, Any]]] = {
    "bert": (BertConfig, BertForSequenceClassification, BertForTokenClassification, _COMMON),
    "distilbert": (
        *(DistilBertConfig, DistilBertForSequenceClassification, DistilBertForTokenClassification),
        {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 16, **_COMMON},
    ),
    "deberta": (
        *(DebertaConfig, DebertaForSequenceClassification, DebertaForTokenClassification),
        _COMMON | _DISENTANGLED,
    ),
    "deberta-v2": (
        *(DebertaV2Config, DebertaV2ForSequenceClassification, DebertaV2ForTokenClassification),
        _COMMON | _DISENTANGLED,
    ),
    "modernbert": (
        *(ModernBertConfig, ModernBertForSequenceClassification, ModernBertForTokenClassification),
        _COMMON | _SPECIAL | {"local_attention": 8, "initializer_cutoff_factor": 2.0},
    ),
}
"""Configuration class, sequence and token classifier, and what makes them tiny."""


def sequence_classifier(
    directory: Path, architecture: str = "bert", *, seed: int = 0, labels: tuple[str, ...] = SEQUENCE_LABELS
) -> Path:
    """A folder with labels SAFE, TOXIC and SPAM, or others."""
    config, kind, _, shape = ARCHITECTURES[architecture]
    return _saved(directory, config, kind, shape, labels, seed)


def token_classifier(
    directory: Path, architecture: str = "bert", *, seed: int = 1, labels: tuple[str, ...] = TOKEN_LABELS
) -> Path:
    """A folder that finds persons, or what it takes for them."""
    config, _, kind, shape = ARCHITECTURES[architecture]
    return _saved(directory, config, kind, shape, labels, seed)


def save_tokenizer(directory: Path) -> int:
    """A tokenizer that frames texts as BERT does; returns the size of its vocabulary."""
    source = tiny_model_directory(directory.parent / f"{directory.name}-source") / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(source))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        model_max_length=MAX_TOKENS,
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        unk_token="[UNK]",
    )
    fast.save_pretrained(directory)
    return int(tokenizer.get_vocab_size())


def _saved(directory: Path, config: Any, kind: Any, shape: dict[str, Any], labels: tuple[str, ...], seed: int) -> Path:
    torch.manual_seed(seed)
    described = config(
        vocab_size=save_tokenizer(directory),
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        **shape,
    )
    kind(described).save_pretrained(directory)
    return directory
