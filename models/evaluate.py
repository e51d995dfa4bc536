"""Measures a classifier on a folder of labelled data, through the same forward that serves requests.

    python -m models.evaluate --data DIR --out file.json --pred DIR [--model DIR] [--split auto|all|val|test]

`auto`: figures over `test` rows where a file has training rows (without any `test` rows, over those that are not for
training), over all rows where it has none. A file without rows of the split that is asked for gives no figures, and a
line says so; a file whose rows name no split is measured whole.
Rows without what their task needs are left out, and a line says how many. With --pred every row of a file is predicted,
one line each in file order.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from models import routing
from models.data import (
    LABEL_FILES,
    LLMROUTER_FILE,
    LLMROUTER_NAMES,
    PII_FILE,
    ROUTELLM_FILES,
    STRONG,
    WEAK,
    llmrouter_outcomes,
    read_outcomes,
    read_rows,
    reference_models,
    routellm_outcomes,
)
from models.metrics import detection_metrics, ece, label_metrics, reliability, span_metrics
from router_extproc.inference.base import HeadResult, Prompt
from router_extproc.inference.encoder import load
from router_extproc.inference.windows import cut

MAX_WINDOWS = 16
"""Windows read of one text; the product's default."""

ATTACKS = ("jailbreak", "injection")

Row = dict[str, Any]
Answers = list[dict[str, HeadResult]]


class Evaluation:
    """Runs one model over files and collects figures and predictions."""

    def __init__(self, model: Path, data: Path, split: str, pred: Path | None, limit: int = 0) -> None:
        self.model = load(model)
        self.data, self.split, self.pred, self.limit = data, split, pred, limit
        self.tasks: dict[str, Any] = {}
        self.reliability: dict[str, Any] = {}
        self.remarks: list[str] = []
        """What was left out of the figures and why, a line each."""

    def answers(self, texts: Sequence[str], what: str) -> Answers:
        """Every head's answer for every text: long ones in windows and pooled, exactly as they are served."""
        from router_extproc.inference.pooling import combine

        pieces = [(i, w) for i, text in enumerate(texts) for w in cut(text, limit=MAX_WINDOWS)]
        order = sorted(range(len(pieces)), key=lambda p: len(pieces[p][1].text))
        found: dict[int, list[tuple[int, Any]]] = defaultdict(list)
        size = 64
        for begin in tqdm(range(0, len(order), size), desc=what, mininterval=5):
            part = [pieces[p] for p in order[begin : begin + size]]
            for (i, window), answer in zip(part, self.model.run([Prompt(w.text) for _, w in part]), strict=True):
                found[i].append((window.start, answer))
        return [dict(combine(sorted(found[i], key=lambda x: x[0])).heads) for i in range(len(texts))]

    def measured(self, rows: list[Row]) -> list[bool]:
        """Which rows are of the split that the figures are about: all where none names a split."""
        splits = [r.get("split") for r in rows]
        whole = self.split == "all" or (self.split == "auto" and "train" not in splits)
        if whole or all(split is None for split in splits):
            return [True] * len(rows)
        if self.split == "auto" and "test" not in splits:
            return [split != "train" for split in splits]
        wanted = "test" if self.split == "auto" else self.split
        return [split == wanted for split in splits]

    def predicted(
        self, rows: list[Row], task: str, labelled: Callable[[Row], bool], key: str = "text"
    ) -> tuple[list[Row], Answers]:
        """The measured and `labelled` rows with their answers; where asked to, predictions of all rows are written."""
        measured = self.measured(rows)
        counts = [m and labelled(r) for m, r in zip(measured, rows, strict=True)]
        if not any(measured):
            wanted = "test" if self.split == "auto" else self.split
            self.remarks.append(f"{task}: no figures, none of {len(rows)} rows is of the split `{wanted}`")
        elif sum(counts) < sum(measured):
            skipped = sum(measured) - sum(counts)
            self.remarks.append(
                f"{task}: {skipped} of {sum(measured)} rows skipped: without a usable label, or contaminated"
            )
        if self.limit:
            kept = [i for i, c in enumerate(counts) if c][: self.limit]
            counts = [i in set(kept) for i in range(len(rows))]
        chosen = rows if self.pred else [r for r, c in zip(rows, counts, strict=True) if c]
        answers = self.answers([str(r.get(key) or "") for r in chosen], task)
        if not self.pred:
            return chosen, answers
        head = {"outcomes": "win", "routellm_mmlu": "win", "routellm_gsm8k": "win", "outcomes_llmrouter": "win"}.get(
            task, task
        )
        self.pred.mkdir(parents=True, exist_ok=True)
        with (self.pred / f"{task}.jsonl").open("w", encoding="utf-8") as file:
            for answer in answers:
                file.write(json.dumps(as_prediction(answer[head]), ensure_ascii=False) + "\n")
        pairs = [(r, a) for r, a, c in zip(chosen, answers, counts, strict=True) if c]
        return [r for r, _ in pairs], [a for _, a in pairs]

    def labels(self, task: str) -> None:
        """domain, intent, guard, language."""
        rows = read_rows(self.data, LABEL_FILES[task])
        if not rows or task not in self.model.labels:
            return
        rows, answers = self.predicted(rows, task, lambda r: r.get("label") is not None)
        if not rows:
            return
        results = [a[task] for a in answers]

        def figures(subset: list[int]) -> dict[str, Any]:
            wanted = [str(rows[i]["label"]) for i in subset]
            picked = [results[i] for i in subset]
            found = label_metrics(
                [r.label for r in picked], np.asarray([min(1.0, r.confidence) for r in picked]), wanted
            )
            if task == "guard":
                found |= guard_figures([rows[i] for i in subset], picked)
            return found

        self.tasks[task] = by_source(rows, figures)
        right = np.asarray([float(a.label == r["label"]) for a, r in zip(results, rows, strict=True)])
        confidence = np.asarray([min(1.0, r.confidence) for r in results])
        self.reliability[task] = reliability(confidence, right)
        self.tasks[task]["overall"]["reliability"] = self.reliability[task]

    def pii(self) -> None:
        """Spans of personal data."""
        rows = read_rows(self.data, PII_FILE)
        if not rows or "pii" not in self.model.labels:
            return
        rows, answers = self.predicted(rows, "pii", has_spans)
        if not rows:
            return
        found = [[(s.start, s.end, s.label) for s in a["pii"].spans] for a in answers]
        wanted = [[(s["start"], s["end"], s["type"]) for s in r["spans"]] for r in rows]
        self.tasks["pii"] = by_source(
            rows, lambda subset: span_metrics([found[i] for i in subset], [wanted[i] for i in subset])
        )

    def outcomes(self) -> None:
        """Win probabilities per reference model, and cost against quality."""
        rows = read_outcomes(self.data)
        if not rows or "win" not in self.model.labels:
            return
        counts = self.measured(rows)
        everything = rows
        rows, answers = self.predicted(rows, "outcomes", lambda r: True, "prompt")
        if not rows:
            return
        labels = self.model.labels["win"]
        probs = np.asarray([[a["win"].probs[m] for m in labels] for a in answers])
        right = outcome_matrix(rows, labels)
        overall: dict[str, Any] = {"n": len(rows), **win_figures(probs, right, labels)}
        models = reference_models(self.data)
        known = [i for i, m in enumerate(labels) if m in models and not np.isnan(right[:, i]).all()]
        if known:
            train = [r for r, c in zip(everything, counts, strict=True) if not c and r.get("split") == "train"]
            stacked = np.concatenate([right, outcome_matrix(train, labels)]) if train else right
            fit = np.arange(len(stacked)) >= len(rows)
            padded = np.concatenate([probs, np.zeros((len(train), len(labels)))]) if train else probs
            price = routing.costs(
                [(models[labels[i]]["usd_per_m_in"], models[labels[i]]["usd_per_m_out"]) for i in known]
            )
            category = [str(r.get("category")) for r in rows + train]
            overall["routing"] = routing.cost_quality(padded[:, known], stacked[:, known], price, category, fit)
        self.tasks["outcomes"] = {"overall": overall, "by_source": {}}
        for name in sorted({str(r.get("category")) for r in rows}):
            subset = [i for i, r in enumerate(rows) if str(r.get("category")) == name]
            self.tasks["outcomes"]["by_source"][name] = {
                "n": len(subset), **win_figures(probs[subset], right[subset], labels)
            }  # fmt: skip

    def llmrouter(self) -> None:
        """Win probabilities of the models that both lists have."""
        rows = read_rows(self.data, LLMROUTER_FILE)
        if not rows or "win" not in self.model.labels:
            return
        labels = tuple(label for label in LLMROUTER_NAMES.values() if label in self.model.labels["win"])
        rows, answers = self.predicted(
            rows, "outcomes_llmrouter", lambda r: not llmrouter_outcomes(r).keys().isdisjoint(labels)
        )
        if not rows:
            return
        scores = outcome_matrix([llmrouter_outcomes(r) for r in rows], labels)
        right = np.where(np.isnan(scores), np.nan, scores >= 0.5)
        probs = np.asarray([[a["win"].probs[m] for m in labels] for a in answers])
        for row in rows:
            row["source"] = row.get("task", row.get("source"))
        self.tasks["outcomes_llmrouter"] = by_source(
            rows, lambda s: {"n": len(s), **win_figures(probs[s], right[s], labels)}
        )

    def routellm(self, task: str) -> None:
        """Routing between the two models of RouteLLM by the difference of their win probabilities."""
        rows = read_rows(self.data, ROUTELLM_FILES[task])
        if not rows or "win" not in self.model.labels:
            return
        rows, answers = self.predicted(rows, task, lambda r: bool(routellm_outcomes(r)) and not r.get("contaminated"))
        if not rows:
            return
        lacking = [label for label in (STRONG, WEAK) if label not in self.model.labels["win"]]
        if lacking:
            self.remarks.append(f"{task}: no figures, the win head does not know {' and '.join(lacking)}")
            return
        score = np.asarray([routellm_score(a["win"].probs) for a in answers])
        strong, weak = outcome_matrix([routellm_outcomes(r) for r in rows], (STRONG, WEAK)).T
        groups = [str(r["subject"]) for r in rows] if all(r.get("subject") for r in rows) else None
        compared = routing.compare_routers(score, strong, weak, [str(r.get("text") or "") for r in rows], groups)
        overall = {"n": len(rows), **compared["router"], "compared": compared}
        self.tasks[task] = {"overall": overall, "by_source": {}}

    def run(self) -> dict[str, Any]:
        """All tasks of the folder."""
        for task in LABEL_FILES:
            self.labels(task)
        self.pii()
        self.outcomes()
        self.llmrouter()
        for task in ROUTELLM_FILES:
            self.routellm(task)
        return {"model": self.model.version, "data": self.data.name, "split": self.split, "tasks": self.tasks}


def guard_figures(rows: list[Row], results: list[HeadResult]) -> dict[str, Any]:
    """The guard as a detector. An attack is aimed at the model (`jailbreak`, `injection`); a harmful wish is none.

    `auc` and recalls: attack or not, by P(jailbreak) + P(injection). `unwelcome_*`: any label but `benign`, by
    1 - P(benign).
    """
    label = [str(r["label"]) for r in rows]
    stated = [r.get("attack") for r in rows]
    attack = np.asarray([int(name in ATTACKS if a is None else a) for a, name in zip(stated, label, strict=True)])
    found = detection_metrics(np.asarray([sum(r.probs.get(a, 0.0) for a in ATTACKS) for r in results]), attack)
    unwelcome = np.asarray([int(name != "benign") for name in label])
    wide = detection_metrics(np.asarray([1 - r.probs["benign"] for r in results]), unwelcome)
    found |= {f"unwelcome_{key}": value for key, value in wide.items()}
    benign = unwelcome == 0
    if benign.any():
        found["benign_called_attack"] = float(
            np.mean([r.label in ATTACKS for r, b in zip(results, benign, strict=True) if b])
        )
        found["benign_called_harmful"] = float(
            np.mean([r.label == "harmful" for r, b in zip(results, benign, strict=True) if b])
        )
    if (attack == 1).any():
        found["attack_recall"] = float(np.mean([r.label in ATTACKS for r, a in zip(results, attack, strict=True) if a]))
    if (np.asarray(label) == "harmful").any():
        found["harmful_recall"] = float(
            np.mean([r.label != "benign" for r, n in zip(results, label, strict=True) if n == "harmful"])
        )
    return found


def has_spans(row: Row) -> bool:
    """Whether the row lists its spans, each with both ends and a type; the list may be empty."""
    spans = row.get("spans")
    return spans is not None and all(s.get(key) is not None for s in spans for key in ("start", "end", "type"))


def routellm_score(win: Any) -> float:
    """How much the strong model of RouteLLM's pair is expected to add: P(GPT-4 right) - P(Mixtral right)."""
    return float(win[STRONG] - win[WEAK])


def outcome_matrix(rows: Sequence[Row], labels: Sequence[str]) -> Any:
    """Right (1), wrong (0), not graded (nan): [rows, models]."""
    return np.asarray([[np.nan if r.get(m) is None else float(r[m]) for m in labels] for r in rows])


def win_figures(probs: Any, right: Any, labels: Sequence[str]) -> dict[str, Any]:
    """Mean over models of AUC (within one model), Brier score and ECE, and the same per model."""
    per_model: dict[str, Any] = {}
    for i, model in enumerate(labels):
        known = ~np.isnan(right[:, i])
        p, y = probs[known, i], right[known, i]
        if len(y) == 0:
            continue
        per_model[model] = {
            "n": len(y),
            "accuracy_of_model": float(y.mean()),
            "brier": float(((p - y) ** 2).mean()),
            "ece": ece(p, y),
            **({"auc": detection_metrics(p, y.astype(int))["auc"]} if 0 < y.mean() < 1 else {}),
        }
    if not per_model:
        return {}
    mean: Callable[[str], float] = lambda key: float(  # noqa: E731
        np.mean([m[key] for m in per_model.values() if key in m] or [np.nan])
    )
    return {"auc": mean("auc"), "brier": mean("brier"), "ece": mean("ece"), "models": per_model}


def by_source(rows: list[Row], figures: Callable[[list[int]], dict[str, Any]]) -> dict[str, Any]:
    """Figures over all rows, over those that are neither weak nor synthetic, and per source."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        groups[str(row.get("source", "unknown"))].append(i)
    plain = [i for i, r in enumerate(rows) if not r.get("weak") and not r.get("synthetic")]
    found: dict[str, Any] = {"overall": figures(list(range(len(rows))))}
    if plain and len(plain) < len(rows):
        found["not_weak_not_synthetic"] = figures(plain)
    found["by_source"] = {name: figures(indices) for name, indices in sorted(groups.items())}
    return found


def as_prediction(result: HeadResult) -> dict[str, Any]:
    """One line of a prediction file."""
    line: dict[str, Any] = {
        "pred": result.label,
        "confidence": round(result.confidence, 5),
        "probs": {label: round(p, 5) for label, p in result.probs.items()},
    }
    if result.spans or result.label == "none":
        line["spans"] = [
            {"start": s.start, "end": s.end, "type": s.label, "confidence": round(s.confidence, 5)}
            for s in result.spans
        ]
    return line


def table(tasks: dict[str, Any]) -> str:
    """A plain-text table of the main figures."""
    keys = (
        "accuracy",
        "macro_f1",
        "ece",
        "auc",
        "recall_at_1pct_false_alarms",
        "benign_called_attack",
        "f1",
        "apgr",
        "cpt50",
        "cpt80",
    )
    short = ("acc", "F1", "ECE", "AUC", "rec@1%", "false+", "spanF1", "APGR", "CPT50", "CPT80")
    lines = [f"{'task':<14}{'source':<44}{'n':>6}" + "".join(f"{s:>8}" for s in short)]
    for task, entry in tasks.items():
        sources = {"overall": entry["overall"]}
        if "not_weak_not_synthetic" in entry:
            sources["overall, not weak, not synthetic"] = entry["not_weak_not_synthetic"]
        sources |= entry["by_source"]
        for source, figures in sources.items():
            cells = "".join(f"{figures[k]:8.3f}" if isinstance(figures.get(k), float) else " " * 8 for k in keys)
            lines.append(f"{task:<14}{source[:43]:<44}{figures.get('n', 0):>6}{cells}")
    return "\n".join(lines)


def plain(value: Any) -> Any:
    """`value` with None for what is no number: strict JSON has no NaN."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pred", type=Path, default=None)
    parser.add_argument("--model", type=Path, default=Path(__file__).parent / "router-minilm")
    parser.add_argument("--split", default="auto", choices=("auto", "all", "train", "val", "test"))
    parser.add_argument("--limit", type=int, default=0, help="rows per task, 0: all")
    args = parser.parse_args(argv)
    evaluation = Evaluation(args.model, args.data, args.split, args.pred, args.limit)
    result = evaluation.run()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(plain(result), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print("\n".join([table(result["tasks"]), *evaluation.remarks]))


if __name__ == "__main__":
    main()
