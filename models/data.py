"""Reads a folder of training data and turns its rows into examples for the heads.

The folder may hold only some of the files, and rows may carry keys that are not known here.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

LABEL_FILES = {
    "domain": "domain.jsonl.gz",
    "intent": "intent.jsonl.gz",
    "guard": "jailbreak.jsonl.gz",
    "language": "language.jsonl.gz",
}
PII_FILE = "pii.jsonl.gz"
OUTCOMES_FILE = "outcomes.parquet"
OUTCOME_MODELS_FILE = "outcomes_models.json"
ROUTELLM_FILES = {
    "routellm_mmlu": "routellm_mmlu.jsonl.gz",
    "routellm_gsm8k": "routellm_gsm8k.jsonl.gz",
}
LLMROUTER_FILE = "outcomes_llmrouter.jsonl.gz"
GUARD_LABELS = ("benign", "harmful", "jailbreak", "injection")
STRONG, WEAK = "gpt-4-1106-preview", "mixtral-8x7b-instruct"
"""The labels of the win head for RouteLLM's pair. The first is in its files alone, the second in both lists."""
LLMROUTER_NAMES = {
    "llama-3.1-8b-instruct": "llama-3.1-8b-instruct",
    "mistral-7b-instruct-v0.3": "mistral-7b-instruct-v0.2",
}
HELD_OUT = (
    "notinject_one,gptfuzz,trivia_qa,bbh_web_of_lies,ori_mmlu-sociology,ori_mmlu-marketing,ori_mmlu-astronomy,"
    "ori_mmlu-machine_learning,ori_mmlu-human_sexuality"
)
"""Sources and sub-sources that are never trained on: the only honest look at unseen text before the release."""
WEAK_ROW = 0.5
"""Loss weight of rows whose label is known to be noisy."""


@dataclass
class Example:
    """One prompt with what is known about it: label per head, win per model, personal-data spans."""

    text: str
    source: str
    labels: dict[str, str] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    win: dict[str, float] | None = None
    spans: list[tuple[int, int, str]] | None = None
    context: str = ""


def read_rows(folder: Path, name: str) -> list[dict[str, Any]]:
    """All rows of a `.jsonl.gz` file in file order; empty when the folder lacks it."""
    path = folder / name
    if not path.exists():
        return []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def question_text(question: str, options: Iterable[str] | None) -> str:
    """A multiple-choice question as one prompt: the options below it as `A. ...`, `B. ...`."""
    lines = [question]
    lines += [f"{chr(65 + i)}. {option}" for i, option in enumerate(options or ())]
    return "\n".join(lines)


def read_outcomes(folder: Path) -> list[dict[str, Any]]:
    """Rows of outcomes.parquet with the prompt under `prompt`; empty when the folder lacks it."""
    path = folder / OUTCOMES_FILE
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    for row in rows:
        row["prompt"] = question_text(row["text"], row.get("options"))
    return rows


def reference_models(folder: Path) -> dict[str, dict[str, Any]]:
    """The models of the win head (`recommended`), in the order of the file."""
    path = folder / OUTCOME_MODELS_FILE
    if not path.exists():
        return {}
    described: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return {name: entry for name, entry in described.items() if entry.get("recommended")}


def head_labels(folder: Path) -> dict[str, tuple[str, ...]]:
    """Labels of every head that the folder can train."""
    found: dict[str, tuple[str, ...]] = {}
    for head, name in LABEL_FILES.items():
        labels = {row["label"] for row in read_rows(folder, name) if row["split"] == "train"}
        if head == "guard" and labels:
            found[head] = tuple(label for label in GUARD_LABELS if label in labels)
        elif labels:
            found[head] = tuple(sorted(labels))
    if (folder / OUTCOMES_FILE).exists() and reference_models(folder):
        found["win"] = tuple(reference_models(folder))
        if any((folder / name).exists() for name in ROUTELLM_FILES.values()):
            found["win"] += (STRONG,)
    types = {span["type"] for row in read_rows(folder, PII_FILE) for span in row["spans"]}
    if types:
        found["pii"] = ("O", *(f"{p}-{kind}" for kind in sorted(types) for p in ("B", "I")))
    return found


# Labels of one task that follow from those of another: code is computer science, and whatever people
# ask in good faith is benign. Small weights, because there are exceptions.
_DOMAIN_OF_INTENT = {
    "code_generation": "computer science",
    "code_review_debug": "computer science",
    "math_reasoning": "math",
    "small_talk": "other",
}
_EASY_INTENTS = ("small_talk", "other")


def _label_examples(rows: list[dict[str, Any]], head: str) -> list[Example]:
    examples = []
    for row in rows:
        weight = WEAK_ROW if row.get("weak") else 1.0
        if row.get("weak") and row["label"] == "harmful":
            # Half of these are blunt but harmless questions: they must not teach the guard to cry wolf.
            weight /= 2
        example = Example(row["text"], row["source"], {head: row["label"]}, {head: weight})
        if head == "intent":
            example.labels["guard"], example.weights["guard"] = "benign", 0.3
            domain = _DOMAIN_OF_INTENT.get(row["label"])
            if domain:
                example.labels["domain"], example.weights["domain"] = domain, 0.3
        elif head == "domain":
            example.labels["guard"], example.weights["guard"] = "benign", 0.3
        examples.append(example)
    return examples


def read_examples(folder: Path, split: str, hold_out: frozenset[str] = frozenset()) -> dict[str, list[Example]]:
    """Examples per task (`domain`, `intent`, `guard`, `language`, `pii`, `win`) of one split.

    Rows of the sources or sub-sources in `hold_out` are left out, and so are other tasks' copies of them
    (`task_<source>`).
    """

    def kept(row: Mapping[str, Any]) -> bool:
        source = str(row.get("source", "")).removeprefix("task_")
        return row["split"] == split and source not in hold_out and row.get("sub") not in hold_out

    tasks: dict[str, list[Example]] = {}
    for head, name in LABEL_FILES.items():
        tasks[head] = _label_examples([r for r in read_rows(folder, name) if kept(r)], head)
    # Harmless text in every language, so that a foreign script is no sign of an attack.
    for example in tasks["language"]:
        example.labels["guard"], example.weights["guard"] = "benign", 0.3
    tasks["pii"] = [
        Example(
            row["text"],
            row["source"],
            spans=[(s["start"], s["end"], s["type"]) for s in row["spans"]],
        )
        for row in read_rows(folder, PII_FILE)
        if kept(row)
    ]
    tasks["win"] = _win_examples(folder, kept)
    return {task: examples for task, examples in tasks.items() if examples}


def _win_examples(folder: Path, kept: Any) -> list[Example]:
    models = reference_models(folder)
    if not models or not (folder / OUTCOMES_FILE).exists():
        return []
    examples = [
        Example(
            row["prompt"],
            "outcomes",
            win={name: float(row[name]) for name in models if row.get(name) is not None},
        )
        for row in read_outcomes(folder)
        if kept({**row, "source": "outcomes"})
    ]
    for source, name in ROUTELLM_FILES.items():
        examples += [
            Example(row["text"], source, win=routellm_outcomes(row))
            for row in read_rows(folder, name)
            if kept({**row, "source": source}) and not row.get("contaminated") and routellm_outcomes(row)
        ]
    examples += [
        Example(row["text"], row["source"], win=llmrouter_outcomes(row))
        for row in read_rows(folder, LLMROUTER_FILE)
        if kept(row) and llmrouter_outcomes(row)
    ]
    return examples


def routellm_outcomes(row: Mapping[str, Any]) -> dict[str, float]:
    """Right (1) or wrong (0) per label of RouteLLM's pair; empty unless both were graded."""
    strong, weak = row.get("gpt4_correct"), row.get("mixtral_correct")
    return {} if strong is None or weak is None else {STRONG: float(strong), WEAK: float(weak)}


def llmrouter_outcomes(row: Mapping[str, Any]) -> dict[str, float]:
    """Score in [0, 1] per label of the win head; without the models that were not graded."""
    scores = {label: (row.get("scores") or {}).get(name) for name, label in LLMROUTER_NAMES.items()}
    return {label: min(1.0, max(0.0, float(score))) for label, score in scores.items() if score is not None}
