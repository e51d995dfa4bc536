from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForTokenClassification,
    PreTrainedTokenizerFast,
)

from router_extproc.inference.base import Prompt, UnusableModel
from router_extproc.inference.encoder import load_hugging_face
from router_extproc.testing import tiny_model_directory

TOKENIZER = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}


def save_tokenizer(directory: Path) -> int:
    """A tokenizer that frames texts as BERT does; returns the size of its vocabulary."""
    from tokenizers import Tokenizer, processors

    tokenizer = Tokenizer.from_file(str(tiny_model_directory(directory.parent / "source") / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **TOKENIZER)  # type: ignore[no-untyped-call]
    fast.save_pretrained(directory)
    return int(tokenizer.get_vocab_size())


@pytest.fixture
def sequence(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    directory = tmp_path / "toxicity"
    size = save_tokenizer(directory)
    config = BertConfig(
        vocab_size=size,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        id2label={0: "SAFE", 1: "TOXIC", 2: "SPAM"},
        label2id={"SAFE": 0, "TOXIC": 1, "SPAM": 2},
        initializer_range=0.8,
    )
    BertForSequenceClassification(config).save_pretrained(directory)
    return directory


@pytest.fixture
def token(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    directory = tmp_path / "names"
    size = save_tokenizer(directory)
    config = DistilBertConfig(
        vocab_size=size,
        dim=16,
        n_layers=1,
        n_heads=2,
        hidden_dim=16,
        max_position_embeddings=32,
        id2label={0: "O", 1: "B-PER", 2: "I-PER"},
        label2id={"O": 0, "B-PER": 1, "I-PER": 2},
        initializer_range=0.8,
    )
    DistilBertForTokenClassification(config).save_pretrained(directory)
    return directory


def test_a_sequence_classifier_answers_as_in_transformers(sequence: Path) -> None:
    classifier = load_hugging_face(sequence, head="toxicity", device="cpu", dtype="float32", temperature=2.0)
    assert classifier.labels == {"toxicity": ("SAFE", "TOXIC", "SPAM")}
    classifier.warm_up()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(sequence)
    plain = AutoModelForSequenceClassification.from_pretrained(sequence)
    texts = ["hello", "prove the models", "a b c d e f g"]
    for text, result in zip(texts, classifier.run([Prompt(text) for text in texts]), strict=True):
        with torch.no_grad():
            wanted = torch.softmax(plain(**tokenizer(text, return_tensors="pt")).logits[0] / 2.0, 0)
        assert list(result.heads["toxicity"].probs.values()) == pytest.approx(wanted.tolist(), abs=1e-5)


def test_the_worst_window_of_a_long_text_decides_where_a_label_is_harmless(sequence: Path) -> None:
    text = "hello the models prove " * 10
    worst = load_hugging_face(sequence, benign="SAFE", device="cpu", dtype="float32").run([Prompt(text)])[0]
    mean = load_hugging_face(sequence, device="cpu", dtype="float32").run([Prompt(text)])[0]
    assert worst.windows == mean.windows > 1
    assert worst.heads["label"].probs["benign"] <= mean.heads["label"].probs["SAFE"]
    assert worst.heads["label"].probs["TOXIC"] >= mean.heads["label"].probs["TOXIC"]


def test_a_token_classifier_finds_spans(token: Path) -> None:
    classifier = load_hugging_face(token, head="names", device="cpu", dtype="float32")
    assert classifier.labels == {"names": ("none", "PER")}
    text = "hello Model the prove a b c d e f " * 4
    (result,) = classifier.run([Prompt(text)])
    assert result.windows > 1
    assert result.heads["names"].spans
    for span in result.heads["names"].spans:
        assert text[span.start : span.end].strip() == text[span.start : span.end] != ""
        assert span.label == "PER"


def test_a_pinned_digest_is_checked(sequence: Path) -> None:
    digest = load_hugging_face(sequence, device="cpu").digest
    assert load_hugging_face(sequence, digest=digest, device="cpu").version.startswith("toxicity+")
    with pytest.raises(UnusableModel, match="pinned"):
        load_hugging_face(sequence, digest="0" * 64, device="cpu")


def test_pickled_weights_are_not_read(sequence: Path) -> None:
    (sequence / "model.safetensors").rename(sequence / "pytorch_model.bin")
    with pytest.raises(UnusableModel, match="pickled"):
        load_hugging_face(sequence, device="cpu")


def test_what_is_no_classifier_is_refused(sequence: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    save_tokenizer(plain)
    BertModel(BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=99)).save_pretrained(
        plain
    )
    with pytest.raises(UnusableModel, match="BertModel"):
        load_hugging_face(plain, device="cpu")
    with pytest.raises(UnusableModel, match="HARMLESS"):
        load_hugging_face(sequence, benign="HARMLESS", device="cpu")
    with pytest.raises(UnusableModel, match=r"config\.json"):
        load_hugging_face(tmp_path / "nowhere", device="cpu")
