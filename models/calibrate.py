"""Fits each head's calibration on `val` and on sources that training left out, never on `test`.

python -m models.calibrate --data ../shared/data --model models/router-minilm
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize, minimize_scalar  # type: ignore[import-untyped]
from tqdm import tqdm

from models.data import HELD_OUT, LABEL_FILES, read_examples, read_rows
from models.predict import Predictor

Floats = npt.NDArray[np.float64]
MIN_ROWS = 100
"""Fewer rows than this fit no temperature."""


def source_weights(sources: list[str]) -> Floats:
    """A weight per row so that a source counts with the square root of its rows; mean 1."""
    counts = Counter(sources)
    weights: Floats = np.asarray([counts[source] ** -0.5 for source in sources])
    weights /= weights.mean()
    return weights


def fit_temperature(logits: Floats, wanted: npt.NDArray[np.int64], weights: Floats) -> float:
    """The temperature that minimises the weighted negative log-likelihood. `logits` [rows, labels]."""

    def loss(log_t: float) -> float:
        scaled = logits / np.exp(log_t)
        scaled = scaled - scaled.max(1, keepdims=True)
        nll = np.log(np.exp(scaled).sum(1)) - scaled[np.arange(len(wanted)), wanted]
        return float((nll * weights).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-2.0, 2.0), method="bounded").x))


def fit_platt(logits: Floats, wanted: Floats) -> tuple[float, float]:
    """Scale and offset of sigmoid(scale * logit + offset); scale stays positive. Both arrays [rows]."""

    def loss(x: Floats) -> float:
        z = np.exp(x[0]) * logits + x[1]
        return float((np.logaddexp(0, z) - wanted * z).mean() + 1e-4 * (x**2).sum())

    best = minimize(loss, np.zeros(2), method="Nelder-Mead").x
    return float(np.exp(best[0])), float(best[1])


def calibrate(data: Path, model: Path, hold_out: frozenset[str]) -> dict[str, Any]:
    """Fits all heads and rewrites heads.json; returns the calibration per head.

    A label head's temperature is the geometric mean of two: fitted on `val` rows of sources it was trained on, and on
    rows (never `test`) of the sources in `hold_out`, on which it is surer than it should be.
    """
    path = model / "heads.json"
    predictor = Predictor(model)
    described = predictor.described
    found: dict[str, Any] = {}
    for head, name in LABEL_FILES.items():
        if head not in predictor.heads:
            continue
        labels = predictor.heads[head]["labels"]
        rows = [r for r in read_rows(data, name) if not r.get("weak") and r["label"] in labels]
        unseen = [r for r in rows if r["split"] != "test" and {r["source"], r.get("sub")} & hold_out]
        seen = [r for r in rows if r["split"] == "val" and not {r["source"], r.get("sub")} & hold_out]
        fitted: list[float] = []
        for what, part in (("seen", seen), ("unseen", unseen)):
            if len(part) >= MIN_ROWS:
                logits = predictor.logits([r["text"] for r in part], head).astype(np.float64)
                wanted = np.asarray([labels.index(r["label"]) for r in part])
                weights = source_weights([r.get("sub", r["source"]) for r in part])
                fitted.append(fit_temperature(logits, wanted, weights))
                tqdm.write(f"{head}: temperature {fitted[-1]:.3f} on {len(part)} rows of {what} sources")
        if fitted:
            # Traffic is like neither: between what the model learnt from and what it never met.
            found[head] = {"temperature": round(float(np.exp(np.mean(np.log(fitted)))), 4)}
    wins = [e for e in read_examples(data, "val").get("win", []) if e.source == "outcomes"]
    if "win" in predictor.heads and wins:
        labels = predictor.heads["win"]["labels"]
        logits = predictor.logits([e.text for e in wins], "win").astype(np.float64)
        scale, offset = [], []
        for i, label in enumerate(labels):
            known = [j for j, e in enumerate(wins) if e.win is not None and label in e.win]
            wanted = np.asarray([wins[j].win[label] for j in known])  # type: ignore[index]
            a, b = fit_platt(logits[known, i], wanted)
            scale.append(round(a, 4))
            offset.append(round(b, 4))
        found["win"] = {"scale": scale, "offset": offset}
    for head, calibration in found.items():
        described["heads"][head]["calibration"] = calibration
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(described, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--hold-out", default=HELD_OUT, help="sources that training left out, comma separated")
    args = parser.parse_args()
    calibrate(args.data, args.model, frozenset(args.hold_out.split(",")))
