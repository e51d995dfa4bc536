from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, pre_tokenizers
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    pipeline,
)

from router_extproc.inference.base import Prompt, UnusableModel
from router_extproc.inference.encoder import load_hugging_face
from router_extproc.inference.hugging_face import read_outputs, stamp
from tests.tiny_hugging_face import ARCHITECTURES, save_tokenizer, sequence_classifier, token_classifier

every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)
TEXTS = ["hello", "prove the models", "a b c d e f g"]


@pytest.fixture
def sequence(tmp_path: Path) -> Path:
    return sequence_classifier(tmp_path / "toxicity")


@pytest.fixture
def token(tmp_path: Path) -> Path:
    return token_classifier(tmp_path / "names", "distilbert")


@every_architecture
def test_a_sequence_classifier_answers_as_in_transformers(tmp_path: Path, architecture: str) -> None:
    directory = sequence_classifier(tmp_path / "toxicity", architecture)
    classifier = load_hugging_face(directory, head="toxicity", device="cpu", dtype="float32", temperature=2.0)
    assert classifier.labels == {"toxicity": ("SAFE", "TOXIC", "SPAM")}
    classifier.warm_up()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    plain = AutoModelForSequenceClassification.from_pretrained(directory)
    answers = []
    for text, result in zip(TEXTS, classifier.run([Prompt(text) for text in TEXTS]), strict=True):
        given = {"input_ids": tokenizer(text, return_tensors="pt")["input_ids"]}
        with torch.no_grad():
            wanted = torch.softmax(plain(**given).logits[0] / 2.0, 0)
        answers.append(list(result.heads["toxicity"].probs.values()))
        assert answers[-1] == pytest.approx(wanted.tolist(), abs=1e-5)
    assert answers[0] != pytest.approx(answers[2], abs=1e-3)


@every_architecture
def test_a_token_classifier_answers_as_in_transformers(tmp_path: Path, architecture: str) -> None:
    directory = token_classifier(tmp_path / "names", architecture)
    classifier = load_hugging_face(directory, head="names", device="cpu", dtype="float32")
    classifier.warm_up()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    plain = AutoModelForTokenClassification.from_pretrained(directory)
    for text, result in zip(TEXTS, classifier.run([Prompt(text) for text in TEXTS]), strict=True):
        given = tokenizer(text, return_tensors="pt", return_offsets_mapping=True)
        with torch.no_grad():
            probs = torch.softmax(plain(input_ids=given["input_ids"]).logits[0], -1)[1:-1]
        persons = (probs.argmax(-1) != 0).tolist()
        found = [
            any(span.start <= start and end <= span.end for span in result.heads["names"].spans)
            for start, end in given["offset_mapping"][0, 1:-1].tolist()
        ]
        assert found == persons
        assert result.heads["names"].label == ("PER" if any(persons) else "none")


@every_architecture
def test_the_number_type_of_this_machine_serves_every_architecture(tmp_path: Path, architecture: str) -> None:
    directory = sequence_classifier(tmp_path / "toxicity", architecture)
    prompts = [Prompt(text) for text in TEXTS]
    exact = load_hugging_face(directory, device="cpu", dtype="float32").run(prompts)
    for dtype in ("auto", "bfloat16"):
        for got, wanted in zip(
            load_hugging_face(directory, device="cpu", dtype=dtype).run(prompts), exact, strict=True
        ):
            assert dict(got.heads["label"].probs) == pytest.approx(dict(wanted.heads["label"].probs), abs=0.15)


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


def test_entities_of_one_token_are_seen(tmp_path: Path) -> None:
    directory = token_classifier(tmp_path / "names", labels=("O", "B-PER", "I-PER", "E-PER", "S-PER"))
    weights = load_file(directory / "model.safetensors")
    weights["classifier.bias"][4] += 1000
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    classifier = load_hugging_face(directory, head="names", device="cpu", dtype="float32")
    assert classifier.labels == {"names": ("none", "PER")}
    (result,) = classifier.run([Prompt("hello prove")])
    assert [(span.start, span.end, span.label) for span in result.heads["names"].spans] == [
        (0, 5, "PER"),
        (6, 11, "PER"),
    ]


@pytest.mark.parametrize("splitter", [pre_tokenizers.Metaspace(), pre_tokenizers.ByteLevel(add_prefix_space=False)])
def test_blanks_that_a_tokenizer_counts_to_a_word_are_none_of_a_span(
    tmp_path: Path, splitter: pre_tokenizers.PreTokenizer
) -> None:
    directory = token_classifier(tmp_path / "names")
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.pre_tokenizer = splitter
    tokenizer.save(str(directory / "tokenizer.json"))
    weights = load_file(directory / "model.safetensors")
    weights["classifier.bias"][1] += 1000
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    (result,) = load_hugging_face(directory, device="cpu", dtype="float32").run([Prompt("John Mary  Ann")])
    assert [(span.start, span.end) for span in result.heads["label"].spans if span.end > span.start] == [
        *((0, 4), (5, 9), (11, 14)),
    ]


def test_one_output_is_a_probability_as_in_transformers(tmp_path: Path) -> None:
    directory = sequence_classifier(tmp_path / "toxicity", labels=("TOXIC",))
    results = load_hugging_face(directory, device="cpu", dtype="float32").run([Prompt(text) for text in TEXTS])
    wanted = pipeline("text-classification", model=str(directory), device="cpu", dtype="float32")(TEXTS)
    scores = [result.heads["label"].confidence for result in results]
    assert scores == pytest.approx([answer["score"] for answer in wanted], abs=1e-5)
    assert max(scores) - min(scores) > 1e-3
    with pytest.raises(UnusableModel, match="only label"):
        load_hugging_face(directory, benign="TOXIC", device="cpu")


def test_labels_without_names_are_called_as_in_transformers(tmp_path: Path) -> None:
    directory = sequence_classifier(tmp_path / "toxicity", labels=("LABEL_0", "LABEL_1"))
    assert "id2label" not in json.loads((directory / "config.json").read_text())
    assert read_outputs(directory).labels == ("LABEL_0", "LABEL_1")
    (result,) = load_hugging_face(directory, device="cpu").run([Prompt("hello")])
    assert set(result.heads["label"].probs) == {"LABEL_0", "LABEL_1"}


def test_what_gives_no_probabilities_or_labels_is_refused(tmp_path: Path, sequence: Path) -> None:
    path = sequence / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"problem_type": "regression"}))
    with pytest.raises(UnusableModel, match="regression"):
        load_hugging_face(sequence, device="cpu")
    path.write_text(json.dumps(config | {"id2label": {"0": "A", "1": "A", "2": "B"}}))
    with pytest.raises(UnusableModel, match="different"):
        load_hugging_face(sequence, device="cpu")
    twice = sequence_classifier(tmp_path / "twice", labels=("SAFE", "benign"))
    with pytest.raises(UnusableModel, match="besides `SAFE`"):
        load_hugging_face(twice, benign="SAFE", device="cpu")


def test_of_tokens_outside_alone_stands_for_nothing_found(token: Path) -> None:
    assert load_hugging_face(token, benign="O", device="cpu").labels == {"label": ("none", "PER")}
    with pytest.raises(UnusableModel, match="B-PER"):
        load_hugging_face(token, benign="B-PER", device="cpu")


@pytest.mark.parametrize(
    "name", ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt", "spm.model"]
)
def test_the_tokenizer_is_part_of_the_digest(sequence: Path, name: str) -> None:
    digest, stamped = load_hugging_face(sequence, device="cpu").digest, stamp(sequence)
    assert stamped != ""
    with (sequence / name).open("a") as file:
        # Read by nobody but where it is JSON, which blanks do not change.
        file.write(" " if name == "tokenizer_config.json" else "{}")
    assert stamp(sequence) != stamped
    with pytest.raises(UnusableModel, match="pinned"):
        load_hugging_face(sequence, digest=digest, device="cpu")


def test_nothing_of_the_folder_stays_mapped(sequence: Path) -> None:
    classifier = load_hugging_face(sequence, device="cpu", dtype="float32")
    assert str(sequence.resolve()) not in Path("/proc/self/maps").read_text()
    assert classifier.run([Prompt("hello")])


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


def test_code_that_comes_with_a_model_is_never_run(sequence: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (sequence / "modeling_own.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    path = sequence / "config.json"
    config = json.loads(path.read_text())
    own = {"AutoConfig": "modeling_own.Config", "AutoModelForSequenceClassification": "modeling_own.Model"}
    # A known architecture is read by the library's own code, an unknown one not at all.
    path.write_text(json.dumps(config | {"auto_map": own}))
    assert load_hugging_face(sequence, device="cpu").run([Prompt("hello")])
    path.write_text(json.dumps(config | {"auto_map": own, "model_type": "own"}))
    with pytest.raises(UnusableModel, match=r"trust_remote_code|custom code"):
        load_hugging_face(sequence, device="cpu")
    assert not marker.exists()


def test_a_base_model_under_the_name_of_a_classifier_is_refused(sequence: Path) -> None:
    config = BertConfig.from_pretrained(sequence)
    BertModel(config).save_pretrained(sequence)
    path = sequence / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"architectures": ["BertForSequenceClassification"]}))
    with pytest.raises(UnusableModel, match=r"lack.*classifier"):
        load_hugging_face(sequence, device="cpu")


def test_segment_ids_that_a_model_does_not_take_are_left_out(tmp_path: Path) -> None:
    directory = sequence_classifier(tmp_path / "toxicity", "distilbert")
    path = directory / "tokenizer_config.json"
    names = ["input_ids", "token_type_ids", "attention_mask"]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_input_names": names}))
    load_hugging_face(directory, device="cpu").warm_up()
