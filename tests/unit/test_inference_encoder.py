"""The encoder against the plain forward pass of transformers, with the heads' arithmetic written out again here."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from transformers import BertModel

from router_extproc.inference import encoder
from router_extproc.inference.artifact import read
from router_extproc.inference.base import Prompt, UnusableModel
from router_extproc.inference.encoder import BertClassifier
from router_extproc.inference.encoder.bert import Batch, Encoder
from router_extproc.inference.encoder.graphs import GraphedPass, shapes
from router_extproc.inference.tokens import TokenWindows
from router_extproc.testing import tiny_model_directory

SHIPPED = Path(__file__).parents[2] / "models" / "router-minilm"
FLOAT32_TOLERANCE = 2e-5
"""Of a probability, between the lean pass and the plain one, both in float32."""
BFLOAT16_TOLERANCE = 0.04
"""Of a probability, between the lean pass in bfloat16 and the plain one in float32: eight bits of mantissa."""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_directory(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def classifier(directory: Path) -> BertClassifier:
    return encoder.load(directory, device="cpu", dtype="float32", threads=1)


class Plain:
    """Labels and probabilities of one token window, by the book."""

    def __init__(self, directory: Path) -> None:
        self._described = json.loads((directory / "heads.json").read_text())["heads"]
        self._weights = {
            name: tensor.astype(np.float32) for name, tensor in load_file(directory / "heads.safetensors").items()
        }
        self._bert = BertModel.from_pretrained(directory, add_pooling_layer=False, dtype=torch.float32)

    @torch.inference_mode()
    def hidden(self, ids: list[int], second: int) -> npt.NDArray[np.float32]:
        types = [int(i >= second) for i in range(len(ids))]
        out = self._bert(input_ids=torch.tensor([ids]), token_type_ids=torch.tensor([types]))
        found: npt.NDArray[np.float32] = out.last_hidden_state[0].numpy()
        return found

    def probabilities(self, head: str, hidden: npt.NDArray[np.float32], extra: float | Any = 0.0) -> Any:
        entry, calibration = self._described[head], self._described[head].get("calibration", {})
        x: Any = hidden
        if entry["kind"] != "token":
            match entry.get("pooling", "mean"):
                case "mean":
                    x = hidden.mean(0)
                case "max":
                    x = hidden.max(0)
                case "attention":
                    score = np.exp(hidden @ self._weights[f"{head}.attention.weight"][0])
                    x = (score / score.sum()) @ hidden
        if f"{head}.dense.weight" in self._weights:
            x = self._weights[f"{head}.dense.weight"] @ x + self._weights[f"{head}.dense.bias"]
            x = x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
        logits = x @ self._weights[f"{head}.out.weight"].T + self._weights[f"{head}.out.bias"] + extra
        if entry["kind"] == "multi_label":
            return 1 / (1 + np.exp(-(np.array(calibration["scale"]) * logits + np.array(calibration["offset"]))))
        exp = np.exp(logits / calibration.get("temperature", 1.0))
        return exp / exp.sum(-1, keepdims=True)


@pytest.fixture(scope="module")
def plain(directory: Path) -> Plain:
    return Plain(directory)


TEXTS = st.lists(st.sampled_from([*"abcdefgh", "hello", "the", "models", "prove", "@", "日本", "é"]), max_size=70).map(
    " ".join
)
PROMPTS = st.lists(st.builds(Prompt, TEXTS, st.one_of(st.just(""), TEXTS)), min_size=1, max_size=7)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PROMPTS)
@example([Prompt(""), Prompt("a a a a", "a")])  # fills the rounded length by its padding alone
@example([Prompt("a a a a a a"), Prompt("b b b b b b")])  # fills it with nothing padded
def test_batched_padded_and_windowed_equal_the_plain_pass(
    classifier: BertClassifier, plain: Plain, directory: Path, prompts: list[Prompt]
) -> None:
    windows = TokenWindows(directory / "tokenizer.json", 32).encode(prompts)
    results = classifier.run(prompts)
    for index, result in enumerate(results):
        rows = [row for row in windows if row.prompt == index]
        assert result.windows == len(rows)
        assert result.tokens == sum(len(row.ids) for row in rows)
        hidden = [plain.hidden(row.ids, row.second) for row in rows]
        weights = np.array([len(row.ids) for row in rows]) / result.tokens
        for head in ("domain", "intent", "win"):
            wanted = sum(w * plain.probabilities(head, h) for w, h in zip(weights, hidden, strict=True))
            assert list(result.heads[head].probs.values()) == pytest.approx(wanted.tolist(), abs=FLOAT32_TOLERANCE)
        guard = np.array([plain.probabilities("guard", h) for h in hidden])
        assert list(result.heads["guard"].probs.values()) == pytest.approx(
            [guard[:, 0].min(), *guard[:, 1:].max(0)], abs=FLOAT32_TOLERANCE
        )
        small = [plain.probabilities("win", h)[1] for h in hidden]
        complexity = sum(w * min(1, max(0, (1 - p - 0.1) / 0.8)) for w, p in zip(weights, small, strict=True))
        assert result.heads["complexity"].value == pytest.approx(complexity, abs=FLOAT32_TOLERANCE)
        if len(rows) == 1:
            mean = hidden[0].mean(0)
            assert list(result.embedding) == pytest.approx((mean / np.linalg.norm(mean)).tolist(), abs=1e-4)


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PROMPTS)
def test_company_does_not_change_an_answer(classifier: BertClassifier, prompts: list[Prompt]) -> None:
    for prompt, together in zip(prompts, classifier.run(prompts), strict=True):
        (alone,) = classifier.run([prompt])
        for name, head in alone.heads.items():
            assert together.heads[name].spans == pytest.approx(head.spans) or [
                (span.start, span.end, span.label) for span in together.heads[name].spans
            ] == [(span.start, span.end, span.label) for span in head.spans]
            if head.spans == ():
                assert dict(together.heads[name].probs) == pytest.approx(dict(head.probs), abs=FLOAT32_TOLERANCE)


def test_the_compute_type_of_this_machine_stays_within_its_tolerance(
    directory: Path, classifier: BertClassifier
) -> None:
    fast = encoder.load(directory, device="cpu", threads=1)
    prompts = [Prompt("hello the models prove"), Prompt("a b c d", "hello")]
    for got, wanted in zip(fast.run(prompts), classifier.run(prompts), strict=True):
        for name in ("domain", "intent", "guard", "language", "win"):
            assert dict(got.heads[name].probs) == pytest.approx(dict(wanted.heads[name].probs), abs=BFLOAT16_TOLERANCE)


def recorded(directory: Path, budget: int = 256) -> BertClassifier:
    """A classifier that runs what a GPU would replay, through the same blocks."""
    classifier = encoder.load(directory, device="cpu", dtype="float32", threads=1)
    classifier._graphs = GraphedPass(classifier._encoder, classifier._heads, classifier._device, 32, budget)
    classifier.warm_up()
    assert classifier._graphs.recorded
    return classifier


@pytest.fixture(scope="module")
def replaying(directory: Path) -> BertClassifier:
    return recorded(directory)


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PROMPTS)
def test_a_pass_through_recorded_shapes_equals_the_eager_one(
    replaying: BertClassifier, classifier: BertClassifier, prompts: list[Prompt]
) -> None:
    # One model for all examples: what an earlier batch left in the blocks must not show.
    for got, wanted in zip(replaying.run(prompts), classifier.run(prompts), strict=True):
        assert list(got.embedding) == pytest.approx(list(wanted.embedding), abs=1e-4)
        assert set(got.heads) == set(wanted.heads)
        for name, head in wanted.heads.items():
            assert dict(got.heads[name].probs) == pytest.approx(dict(head.probs), abs=FLOAT32_TOLERANCE)
            spans = [(span.start, span.end, span.label) for span in head.spans]
            assert [(span.start, span.end, span.label) for span in got.heads[name].spans] == spans


def test_the_smallest_recorded_shape_is_taken(directory: Path) -> None:
    graphs = recorded(directory)._graphs
    assert graphs is not None
    assert graphs.shape(1, 1) == (1, 16)
    assert graphs.shape(3, 17) == (4, 32)
    assert graphs.shape(8, 32) == (8, 32)
    # More rows than fit the budget at 32 tokens, however short they are: the longer shape would be over it.
    assert graphs.shape(16, 16) == (16, 16)
    assert graphs.shape(17, 16) is None
    assert graphs.shape(1, 33) is None


def test_no_recorded_row_is_longer_than_the_encoder_has_positions() -> None:
    assert max(length for _, length in shapes(100, 4096)) == 100
    assert max(length for _, length in shapes(512, 4096)) == 512
    assert all(rows == 1 or rows * length <= 64 for rows, length in shapes(256, 64))
    assert {length for rows, length in shapes(256, 64) if rows == 1} == {16, 32, 64, 128, 256}


def test_a_batch_larger_than_every_recorded_shape_is_cut(directory: Path, classifier: BertClassifier) -> None:
    prompts = [Prompt(f"hello {i}") for i in range(40)]
    for got, wanted in zip(recorded(directory).run(prompts), classifier.run(prompts), strict=True):
        assert got.heads["domain"].probs == pytest.approx(wanted.heads["domain"].probs, abs=FLOAT32_TOLERANCE)


class Unrecordable(Encoder):
    """An encoder that does what a GPU cannot record."""

    def __init__(self) -> None:
        pass

    def __call__(self, batch: Batch) -> torch.Tensor:
        raise RuntimeError("operation not permitted when stream is capturing")


def test_where_recording_fails_the_eager_pass_serves(directory: Path, classifier: BertClassifier) -> None:
    model = encoder.load(directory, device="cpu", dtype="float32", threads=1)
    model._graphs = GraphedPass(Unrecordable(), model._heads, model._device, 32, 256)
    model.warm_up()
    assert not model._graphs.recorded
    (got,), (wanted,) = model.run([Prompt("hello")]), classifier.run([Prompt("hello")])
    assert got.heads == wanted.heads


def test_the_context_keeps_its_end(classifier: BertClassifier, directory: Path) -> None:
    (row,) = TokenWindows(directory / "tokenizer.json", 32).encode([Prompt("hello", "a " * 500 + "b")])
    assert len(row.ids) <= 32
    b = TokenWindows(directory / "tokenizer.json", 32).encode([Prompt("b")])[0].ids[1]
    assert row.ids[-2] == b
    assert row.second == 3


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\x00", "\u202e", " ", "\n" * 500, "a" * 3000, "é" * 999])
def test_odd_texts_are_answered(classifier: BertClassifier, text: str) -> None:
    (result,) = classifier.run([Prompt(text, text)])
    for head in ("domain", "language"):
        assert sum(result.heads[head].probs.values()) == pytest.approx(1, abs=1e-4)


def test_language_hears_the_characters(classifier: BertClassifier, plain: Plain) -> None:
    (result,) = classifier.run([Prompt("日本")])
    alone = plain.probabilities("language", plain.hidden([2, 1, 1, 3], 4))
    assert list(result.heads["language"].probs.values()) != pytest.approx(alone.tolist(), abs=1e-3)


def test_spans_point_into_the_text(classifier: BertClassifier) -> None:
    text = "hello Model, the é 日本 x@y.z prove " * 5
    (result,) = classifier.run([Prompt(text)])
    assert result.windows > 1
    assert result.heads["pii"].spans
    for span in result.heads["pii"].spans:
        assert 0 <= span.start < span.end <= len(text)
        assert text[span.start : span.end].strip() == text[span.start : span.end]
        assert 0 <= span.confidence <= 1.00001


def test_a_pinned_digest_is_checked(directory: Path) -> None:
    digest = read(directory).digest
    assert encoder.load(directory, digest=f"sha256:{digest}", device="cpu").digest == digest
    with pytest.raises(UnusableModel, match="digest"):
        encoder.load(directory, digest="0" * 64, device="cpu")


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    return tiny_model_directory(tmp_path / "broken")


@pytest.mark.parametrize(
    "name", ["config.json", "heads.json", "heads.safetensors", "model.safetensors", "tokenizer.json"]
)
def test_a_missing_or_mangled_file_is_named_or_explained(broken: Path, name: str) -> None:
    path = broken / name
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UnusableModel):
        encoder.load(broken, device="cpu")
    path.unlink()
    with pytest.raises(UnusableModel, match=name.replace(".", r"\.")):
        encoder.load(broken, device="cpu")


def test_weights_that_do_not_fit_the_labels_are_refused(broken: Path) -> None:
    described = json.loads((broken / "heads.json").read_text())
    described["heads"]["domain"]["labels"].append("one more")
    (broken / "heads.json").write_text(json.dumps(described))
    with pytest.raises(UnusableModel, match="domain"):
        encoder.load(broken, device="cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format"),
        ({"complexity": {"head": "win", "weak": ["nobody"], "low": 0, "high": 1}}, "tuple.index"),
        ({"complexity": {"head": "win", "weak": ["small"], "low": 1, "high": 1}}, "low < high"),
        ({"heads": {"x": {"kind": "label", "labels": ["a", "a"]}}}, "different"),
        ({"heads": {"x": {"kind": "label", "labels": ["none", "a"]}}}, "token heads"),
        ({"heads": {"x": {"kind": "label", "labels": ["a"], "calibration": {"temperature": 0}}}}, "temperature"),
        ({"heads": {"x": {"kind": "label", "labels": ["a"], "pooling": "median"}}}, "median"),
    ],
)
def test_descriptions_that_make_no_sense_are_refused(broken: Path, change: dict[str, Any], message: str) -> None:
    described = json.loads((broken / "heads.json").read_text()) | change
    (broken / "heads.json").write_text(json.dumps(described))
    with pytest.raises(UnusableModel, match=message):
        encoder.load(broken, device="cpu")


def test_unknown_heads_and_keys_are_ignored(broken: Path) -> None:
    described = json.loads((broken / "heads.json").read_text()) | {"new": 1}
    described["heads"]["rhyme"] = {"kind": "sonnet", "labels": ["a"]}
    (broken / "heads.json").write_text(json.dumps(described))
    assert "rhyme" not in encoder.load(broken, device="cpu").labels


def test_the_shipped_classifier_agrees_with_the_plain_pass() -> None:
    shipped = encoder.load(SHIPPED, threads=1)
    plain = Plain(SHIPPED)
    prompts = [
        Prompt("Write a Python function that reverses a linked list."),
        Prompt("and in Rust?", "Write a Python function that reverses a linked list."),
        Prompt("Where is my parcel? It should have come on Monday. " * 12),
    ]
    rows = TokenWindows(SHIPPED / "tokenizer.json", read(SHIPPED).max_tokens).encode(prompts)
    for row, result in zip(rows, shipped.run(prompts), strict=True):
        hidden = plain.hidden(row.ids, row.second)
        for head in ("domain", "intent"):
            wanted = plain.probabilities(head, hidden)
            assert list(result.heads[head].probs.values()) == pytest.approx(wanted.tolist(), abs=BFLOAT16_TOLERANCE)
