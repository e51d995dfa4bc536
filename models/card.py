"""Writes the figures of the model card from evaluations, between its two marks, so that no number is typed by hand.

make evaluate OUT=.run/test.json
python -m models.synthetic.written --out .run/written && make evaluate DATA=.run/written OUT=.run/written.json
python -m models.card --test .run/test.json --written .run/written.json --unseen models/router-minilm.unseen.json
"""

# ruff: noqa: E501 - sentences of a document read better unbroken
from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from models.marked import marked
from models.metrics import wilson

CARD = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- figures: models/card.py -->", "<!-- end of figures -->"
LABEL_TASKS = ("domain", "intent", "guard", "language")
LEAST = 15
"""Rows that a source needs for a line of its own."""

Figures = dict[str, Any]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; columns after the second are numbers."""
    rule = ["---" if i < 2 else "---:" for i in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def share(value: float | None) -> str:
    """`.829`; `1.000` and nothing for None."""
    if value is None:
        return ""
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0") else text


def interval(bounds: Sequence[float]) -> str:
    """`(.81-.85)`."""
    return "({}-{})".format(*(f"{b:.2f}".removeprefix("0") for b in bounds))


def headline(tasks: Figures) -> str:
    """The label heads, without noisy and composed rows."""
    rows = []
    for name in LABEL_TASKS:
        if name in tasks:
            f = tasks[name].get("not_weak_not_synthetic", tasks[name]["overall"])
            accuracy = f"{share(f['accuracy'])} {interval(f['accuracy_95'])}"
            rows.append((name, str(f["n"]), accuracy, share(f["macro_f1"]), share(f["ece"])))
    return table(("head", "n", "accuracy", "macro F1", "ECE"), rows)


def guard(tasks: Figures) -> str:
    """The guard as a detector."""
    f = tasks["guard"].get("not_weak_not_synthetic", tasks["guard"]["overall"])
    return (
        f"Guard as a detector (attack or not, n = {f['n']}): AUC {share(f['auc'])}; recall "
        f"{share(f['recall_at_1pct_false_alarms'])} at 1 % and {share(f['recall_at_2pct_false_alarms'])} at 2 % false "
        f"alarms. At its own decision it catches {share(f['attack_recall'])} of the attacks, calls "
        f"{share(f['benign_called_attack'])} of the harmless prompts an attack and {share(f['benign_called_harmful'])} harmful."
    )


def pii(tasks: Figures) -> str:
    """Spans of personal data."""
    entry = tasks["pii"]
    o = entry["overall"]
    lines = [
        f"pii (composed and generated rows, so an upper bound; n = {o['n']} rows, {o['spans']} spans): span F1 "
        f"{share(o['f1'])} exact, {share(o['f1_partial'])} where type and place overlap; {share(o['clean_rows_with_spans'])} "
        f"of {o['clean_rows']} rows without personal data got a span."
    ]
    for name, f in entry["by_source"].items():
        if f["n"] >= LEAST and f["spans"]:
            lines.append(
                f"On `{name}` (n = {f['n']}) F1 is {share(f['f1'])} exact, {share(f['f1_partial'])} overlapping."
            )
    return "\n".join(lines)


def unseen(figures: Figures) -> str:
    """Sources that neither the joint training nor these heads saw."""
    rows = []
    for head, entry in figures.items():
        for source, f in entry.items():
            if isinstance(f, dict):
                bounds = wilson(round(f["accuracy"] * f["n"]), f["n"])
                rows.append((head, source, str(f["n"]), f"{share(f['accuracy'])} {interval(bounds)}"))
    return table(("head", "source", "n", "accuracy"), rows)


def by_source(tasks: Figures) -> str:
    """Every source with enough rows."""
    rows = []
    for name in ("domain", "intent", "guard"):
        sources = tasks.get(name, {}).get("by_source", {})
        for source, f in sorted(sources.items(), key=lambda item: -item[1]["n"]):
            if f["n"] >= LEAST:
                accuracy = f"{share(f['accuracy'])} {interval(f['accuracy_95'])}"
                rows.append((name, source, str(f["n"]), accuracy, share(f["ece"])))
    return table(("head", "source", "n", "accuracy", "ECE"), rows)


def routing(tasks: Figures) -> str:
    """Win probabilities, and what routing by them gives."""
    parts = []
    if "outcomes" in tasks:
        o = tasks["outcomes"]["overall"]
        parts.append(
            f"MMLU-Pro questions (n = {o['n']}), mean over the reference models: AUC {share(o['auc'])}, Brier "
            f"{share(o['brier'])}, ECE {share(o['ece'])}."
        )
    if "outcomes_llmrouter" in tasks:
        o = tasks["outcomes_llmrouter"]["overall"]
        parts.append(
            f"Other task types (LLMRouter, two models, noisy, n = {o['n']}): AUC {share(o['auc'])}, ECE {share(o['ece'])}."
        )
    rows = []
    for name in ("routellm_mmlu", "routellm_gsm8k"):
        if name in tasks:
            compared = tasks[name]["overall"]["compared"]
            for score in ("router", "random", "length", "subject_mean", "oracle"):
                if score in compared:
                    f = compared[score]
                    cells = [_with(f, "apgr", share), *(_with(f, key, "{:.1f}".format) for key in ("cpt50", "cpt80"))]
                    rows.append((name, score.replace("_", " "), str(compared["n"]), *cells))
    parts.append(table(("data", "score", "n", "APGR", "CPT(50 %)", "CPT(80 %)"), rows))
    if "outcomes" in tasks and "routing" in tasks["outcomes"]["overall"]:
        parts += [
            "Routing over the reference models on MMLU-Pro (300 tokens in, 200 out assumed; pick = highest win probability "
            "minus a price weight):",
            _cost_quality(tasks["outcomes"]["overall"]["routing"]),
        ]
    return "\n\n".join(parts)


def _with(figures: Figures, key: str, shown: Callable[[float], str]) -> str:
    bounds = figures.get(f"{key}_95")
    return shown(figures[key]) + (f" ({shown(bounds[0])}-{shown(bounds[1])})" if bounds else "")


def _cost_quality(found: Figures) -> str:
    rows = [
        (name.replace("_", " "), "", share(found[name]["accuracy"]), f"{found[name]['usd_per_1k']:.3f}")
        for name in ("always_best", "always_cheapest", "oracle")
    ]
    most = found["always_best"]["usd_per_1k"]
    for name in ("win_head", "category_only"):
        for part in (0.1, 0.25, 0.5, 1.0):
            able = [p for p in found[name] if p["usd_per_1k"] <= part * most + 1e-9]
            if able:
                best = max(able, key=lambda p: p["accuracy"])
                cost = f"at most {part:.0%} of always best"
                rows.append((name.replace("_", " "), cost, share(best["accuracy"]), f"{best['usd_per_1k']:.3f}"))
    return table(("policy", "cost", "accuracy", "USD per 1,000 questions"), rows)


def figures(test: Figures, written: Figures, without: Figures) -> str:
    """The whole part of the card."""
    tasks = test["tasks"]
    return "\n\n".join(
        [
            f"Version `{test['model']}`. Rows of `test`, through the forward that serves requests. Intervals are 95 %. Rows "
            "whose labels are known to be noisy and composed rows are left out of the headline; they are in the tables by source.",
            headline(tasks),
            guard(tasks),
            pii(tasks),
            "![Reliability diagrams](figures/reliability.svg)",
            "### Sources that the joint training never saw\n\nOutput layers fitted without them, from where the joint training had left them, on the frozen encoder and the written prompts "
            "and templates beside the real rows. The better guess at what you will see on subjects and sources without labelled rows; the shipped "
            "heads are fitted with these sources, too.",
            unseen(without),
            "### Written prompts that were kept back\n\nOne in ten of `models/synthetic/written/`, never trained on. Composed, "
            "and of the same authors as the training's: how well it knows their words, no forecast.",
            headline(written["tasks"]),
            "### By source\n\nSources with fewer than "
            f"{LEAST} rows are left out. `synth_*` rows are composed; `hh_harmless` and `past_tense` labels are noisy.",
            by_source(tasks),
            "### Win and routing\n\nRouteLLM data, GPT-4-1106 against Mixtral-8x7B; score = P(gpt-4-1106-preview right) - "
            "P(mixtral-8x7b-instruct right). CPT: percent of calls to the strong model that win 50 % or 80 % of its lead. "
            "Rows of `test`; `train` rows of both files were trained on.",
            routing(tasks),
        ]
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--written", type=Path, required=True)
    parser.add_argument("--unseen", type=Path, required=True)
    args = parser.parse_args()
    read = [json.loads(path.read_text(encoding="utf-8")) for path in (args.test, args.written, args.unseen)]
    CARD.write_text(marked(CARD.read_text(encoding="utf-8"), BEGIN, END, figures(*read)), encoding="utf-8")


if __name__ == "__main__":
    main()
