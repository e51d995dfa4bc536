"""Figures of merit, each a plain function of arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import f1_score, roc_auc_score

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Span = tuple[int, int, str]


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    if n == 0:
        return (0.0, 1.0)
    p, square = hits / n, z * z
    middle = (p + square / (2 * n)) / (1 + square / n)
    half = z * math.sqrt(p * (1 - p) / n + square / (4 * n * n)) / (1 + square / n)
    return (max(0.0, middle - half), min(1.0, middle + half))


def reliability(confidence: Floats, right: Floats, bins: int = 15) -> list[dict[str, float]]:
    """Per non-empty bin of equal width: rows, mean confidence, share that is right."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        {
            "n": int((place == b).sum()),
            "confidence": float(confidence[place == b].mean()),
            "right": float(right[place == b].mean()),
        }
        for b in range(bins)
        if (place == b).any()
    ]


def ece(confidence: Floats, right: Floats, bins: int = 15) -> float:
    """Expected calibration error: mean gap of confidence and accuracy, bins weighted by rows (Naeini 2015)."""
    table = reliability(confidence, right, bins)
    total = sum(b["n"] for b in table)
    return sum(b["n"] * abs(b["confidence"] - b["right"]) for b in table) / total if total else float("nan")


def label_metrics(predicted: Sequence[str], confidence: Floats, wanted: Sequence[str]) -> dict[str, Any]:
    """Accuracy with interval, macro F1 over the labels that occur in `wanted`, ECE."""
    right = np.asarray([p == w for p, w in zip(predicted, wanted, strict=True)], dtype=float)
    present = sorted(set(wanted))
    low, high = wilson(int(right.sum()), len(right))
    return {
        "n": len(right),
        "accuracy": float(right.mean()),
        "accuracy_95": [low, high],
        "macro_f1": float(f1_score(list(wanted), list(predicted), labels=present, average="macro", zero_division=0)),
        "ece": ece(confidence, right),
        "mean_confidence": float(confidence.mean()),
    }


def detection_metrics(score: Floats, attack: Ints) -> dict[str, Any]:
    """AUC and recall at fixed false-alarm rates of a yes/no detector; empty where one class is missing."""
    if attack.min() == attack.max():
        return {}
    found: dict[str, Any] = {"auc": float(roc_auc_score(attack, score))}
    benign = np.sort(score[attack == 0])[::-1]
    for percent in (1, 2, 5):
        # The highest threshold that lets at most this share of the harmless rows pass.
        threshold = benign[min(len(benign) - 1, int(len(benign) * percent / 100))]
        found[f"recall_at_{percent}pct_false_alarms"] = float((score[attack == 1] > threshold).mean())
    return found


def span_metrics(predicted: Sequence[Sequence[Span]], wanted: Sequence[Sequence[Span]]) -> dict[str, Any]:
    """Micro precision, recall and F1 of spans: exact (type and both ends), partial (type and overlap), any type."""

    def score(hit: Any) -> tuple[float, float, float]:
        tp_p = tp_w = total_p = total_w = 0
        for p, w in zip(predicted, wanted, strict=True):
            total_p, total_w = total_p + len(p), total_w + len(w)
            tp_p += sum(any(hit(a, b) for b in w) for a in p)
            tp_w += sum(any(hit(a, b) for a in p) for b in w)
        precision, recall = tp_p / total_p if total_p else 0.0, tp_w / total_w if total_w else 0.0
        return precision, recall, 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    exact = score(lambda a, b: tuple(a[:3]) == tuple(b[:3]))
    partial = score(lambda a, b: a[2] == b[2] and a[0] < b[1] and b[0] < a[1])
    anything = score(lambda a, b: a[0] < b[1] and b[0] < a[1])
    clean = [p for p, w in zip(predicted, wanted, strict=True) if not w]
    found: dict[str, Any] = {
        "n": len(wanted),
        "spans": sum(len(w) for w in wanted),
        "precision": exact[0],
        "recall": exact[1],
        "f1": exact[2],
        "f1_partial": partial[2],
        "f1_any_type": anything[2],
        "recall_any_type": anything[1],
    }
    if clean:
        found["clean_rows"] = len(clean)
        found["clean_rows_with_spans"] = sum(bool(p) for p in clean) / len(clean)
    return found
