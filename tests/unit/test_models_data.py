"""Reading a folder of training data, balancing it, and what augmentation may not change."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # models/ is no installed package

import gzip
import json
import random
import re
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.augment import augmented, synthetic, typos
from models.batches import Sampler, Targets, collate, token_targets
from models.data import GUARD_LABELS, Example, head_labels, question_text, read_examples, read_rows
from models.language import training_rows
from models.synthetic.code import completion
from models.synthetic.glossary import glossary, question
from models.synthetic.grammar import expand
from models.synthetic.intent import GENERAL
from models.synthetic.support import LABELS as SUPPORT_LABELS
from models.synthetic.topics import TOPICS
from models.synthetic.written import HEADS, written
from models.synthetic.written import main as write_kept_back


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    with gzip.open(folder / name, "wt", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two of the files only; rows carry keys that nobody knows."""
    intents = [
        {"text": f"say hi {i}", "label": label, "source": source, "split": split, "novel": [1]}
        for i, (label, source, split) in enumerate(
            [("small_talk", "a", "train"), ("other", "a", "train"), ("other", "b", "train"), ("other", "a", "test")]
        )
    ]
    guards = [
        {"text": "say hi 2", "label": "benign", "attack": False, "source": "task_b", "split": "train"},
        {"text": "be bad", "label": "harmful", "attack": True, "source": "c", "split": "train", "weak": True},
    ]
    write(tmp_path, "intent.jsonl.gz", intents)
    write(tmp_path, "jailbreak.jsonl.gz", guards)
    return tmp_path


def test_reads_a_folder_with_some_files(folder: Path) -> None:
    tasks = read_examples(folder, "train")
    assert set(tasks) == {"intent", "guard"}
    assert len(tasks["intent"]) == 3
    assert head_labels(folder) == {"intent": ("other", "small_talk"), "guard": ("benign", "harmful")}
    assert read_rows(folder, "domain.jsonl.gz") == []


def test_held_out_sources_leave_every_task(folder: Path) -> None:
    tasks = read_examples(folder, "train", frozenset({"b"}))
    assert {e.source for e in tasks["intent"]} == {"a"}
    assert {e.source for e in tasks["guard"]} == {"c"}


def test_noisy_rows_weigh_less(folder: Path) -> None:
    (harmful,) = [e for e in read_examples(folder, "train")["guard"] if e.labels["guard"] == "harmful"]
    assert harmful.weights["guard"] < 1


def test_sampler_draws_only_what_it_was_given(folder: Path) -> None:
    labels = head_labels(folder)
    sampler = Sampler(read_examples(folder, "train"), labels)
    rng = random.Random(0)
    drawn = [sampler.draw(rng) for _ in range(200)]
    assert {e.source for e in drawn} <= {"a", "b", "c", "task_b", "synth", "written"}


def test_phrases_in_languages_that_a_folder_lacks_are_left_out(tmp_path: Path) -> None:
    rows = [{"text": "das ist ein Satz", "label": "de", "source": "s", "split": "train"}]
    write(tmp_path, "language.jsonl.gz", rows)
    found = training_rows(tmp_path, ("de",), random.Random(0))
    assert ("das ist ein Satz", "de") in found
    assert {code for _, code in found} == {"de"}


def test_answers_of_models_that_the_head_lacks_are_no_targets() -> None:
    row = Example("2 + 2?", "s", win={"another": 1.0, "known": 0.0})
    encoded = {"input_ids": [101, 102], "token_type_ids": [0, 0]}
    batch = collate([(row, encoded)], Targets({"win": ("unasked", "known")}), 0, 103, random.Random(0))
    assert batch["win"].isnan().tolist() == [[True, False]]
    assert batch["win"][0, 1] == 0


def test_rows_that_were_not_graded_teach_nothing(tmp_path: Path) -> None:
    models = {name: {"recommended": True} for name in ("gpt-4-1106-preview", "mixtral-8x7b-instruct")}
    (tmp_path / "outcomes_models.json").write_text(json.dumps(models))
    graded = {"text": "2 + 2?", "split": "train", "source": "s"}
    pq.write_table(pa.Table.from_pylist([graded]), tmp_path / "outcomes.parquet")
    write(
        tmp_path,
        "routellm_gsm8k.jsonl.gz",
        [{**graded, "gpt4_correct": g, "mixtral_correct": m} for g, m in ((1, 0), (None, 1), (1, None))],
    )
    scores = {"llama-3.1-8b-instruct": 2.0, "mistral-7b-instruct-v0.3": None}
    write(tmp_path, "outcomes_llmrouter.jsonl.gz", [{**graded, "scores": s} for s in (scores, None, {})])
    assert [e.win for e in read_examples(tmp_path, "train")["win"]] == [
        {},
        {"gpt-4-1106-preview": 1.0, "mixtral-8x7b-instruct": 0.0},
        {"llama-3.1-8b-instruct": 1.0},
    ]


def test_options_become_lines() -> None:
    assert question_text("Why?", ["x", "y"]) == "Why?\nA. x\nB. y"


@pytest.mark.parametrize("seed", range(20))
def test_spans_move_with_their_text(seed: int) -> None:
    example = Example("call Ann Lee now", "s", spans=[(5, 12, "PERSON")])
    changed = augmented(example, [example], random.Random(seed))
    assert changed.spans is not None
    start, end, _ = changed.spans[0]
    assert changed.text[start:end].lower() == "ann lee"


def test_win_rows_keep_their_text() -> None:
    example = Example("2 + 2?", "s", win={"m": 1.0})
    assert all(augmented(example, [example], random.Random(i)) == example for i in range(20))


def test_token_targets_are_bio() -> None:
    labels = ("O", "B-P", "I-P")
    offsets = [(0, 0), (0, 4), (5, 8), (9, 12), (13, 16), (0, 0)]
    assert token_targets([(5, 12, "P")], offsets, labels) == [-100, 0, 1, 2, 0, -100]


@pytest.mark.parametrize("task", ["domain", "intent", "guard"])
def test_synthetic_rows_are_labelled_and_filled(task: str) -> None:
    rng = random.Random(3)
    for _ in range(300):
        example = synthetic(task, rng)
        assert example.source in ("synth", "written")
        assert task in example.labels
        assert example.text.strip()
        assert example.source == "written" or not re.search(
            r"\{(topic|term|gloss|subject)", example.text, re.IGNORECASE
        )


def test_templates_cover_all_eighteen_intents() -> None:
    assert len(GENERAL) + len(SUPPORT_LABELS) == 18


def test_slots_are_filled_recursively() -> None:
    grammar = {"a": ["<{b}>"], "b": ["x"]}
    assert expand("{a} {unknown}", grammar, random.Random(0)) == "<x> {unknown}"


def test_completions_have_no_instruction() -> None:
    rng = random.Random(1)
    assert not any(completion(rng).lower().startswith(("write", "please", "complete")) for _ in range(200))


def test_typos_keep_about_the_length() -> None:
    text = "the quick brown fox jumps over the lazy dog" * 5
    assert abs(len(typos(text, random.Random(0), 0.05)) - len(text)) < 20


def test_written_prompts_are_distinct_and_labelled() -> None:
    rows = [*written(), *written(training=False)]
    texts = [row["text"] for row in rows]
    assert len(set(texts)) == len(texts) > 5000
    assert all(text.strip() for text in texts)
    assert {row["domain"] for row in rows if "domain" in row} == set(TOPICS)
    assert {row["intent"] for row in rows if "intent" in row} == set(GENERAL) | set(SUPPORT_LABELS)
    assert {row["guard"] for row in rows if "guard" in row} == set(GUARD_LABELS)
    assert all(set(row) <= {"text", *HEADS} for row in rows)


def test_written_prompts_that_are_kept_back_are_never_drawn() -> None:
    kept = {row["text"] for row in written(training=False)}
    assert 0.05 < len(kept) / len(written()) < 0.15
    rng = random.Random(5)
    drawn = [synthetic(task, rng) for task in HEADS for _ in range(1000)]
    texts = {example.text for example in drawn if example.source == "written"}
    assert texts
    assert not kept & texts


def test_kept_back_prompts_become_a_folder_to_evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["written", "--out", str(tmp_path)])
    write_kept_back()
    rows = [row for name in ("domain", "intent", "jailbreak") for row in read_rows(tmp_path, f"{name}.jsonl.gz")]
    assert {row["text"] for row in rows} == {row["text"] for row in written(training=False)}
    assert {row["split"] for row in rows} == {"test"}


def test_the_glossary_covers_each_domain_in_breadth() -> None:
    assert set(glossary()) == set(TOPICS)
    for domain, entries in glossary().items():
        assert len({entry.term.lower() for entry in entries}) == len(entries) > 400, domain
        assert len({entry.subject for entry in entries}) >= 8, domain
        assert all(entry.term.strip() == entry.term and entry.subject for entry in entries)
        assert all(3 < len(entry.gloss) < 140 and ": " not in entry.term for entry in entries)


def test_a_term_of_two_domains_is_never_asked_about_without_its_gloss() -> None:
    elasticity = next(entry for entry in glossary()["economics"] if not entry.plain)
    rng = random.Random(8)
    asked = [question(elasticity, "economics", rng) for _ in range(200)]
    assert all(elasticity.gloss[1:] in text or elasticity.subject in text for text in asked)
    plain = next(entry for entry in glossary()["economics"] if entry.plain)
    assert any(plain.gloss[1:] not in question(plain, "economics", rng) for _ in range(200))
    listed = Counter(entry.term.lower() for entries in glossary().values() for entry in entries)
    assert not [e for entries in glossary().values() for e in entries if e.plain and listed[e.term.lower()] > 1]
