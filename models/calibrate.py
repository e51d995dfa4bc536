"""Fits calibration, never on `test`: temperatures of label heads, scale and offset per model of the win head.

python -m models.calibrate --data ../shared/data --model models/router-minilm
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize, minimize_scalar  # type: ignore[import-untyped]

from models.data import LABEL_FILES, ROUTELLM_FILES, read_examples, read_rows
from models.files import replace_json
from models.predict import Predictor

Floats = npt.NDArray[np.float64]


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


def calibrate(data: Path, model: Path) -> dict[str, Any]:
    """Fits language and win on `val` and rewrites heads.json; `models/refit.py` does domain, intent and guard."""
    path = model / "heads.json"
    predictor = Predictor(model)
    described = predictor.described
    found: dict[str, Any] = {}
    labels = predictor.heads.get("language", {}).get("labels", [])
    rows = [r for r in read_rows(data, LABEL_FILES["language"]) if r["split"] == "val" and r["label"] in labels]
    if rows:
        logits = predictor.ngram_logits([r["text"] for r in rows], "language").astype(np.float64)
        wanted = np.asarray([labels.index(r["label"]) for r in rows])
        temperature = fit_temperature(logits, wanted, np.ones(len(rows)))
        found["language"] = {"temperature": round(temperature, 4)}
    graded = {"outcomes", *ROUTELLM_FILES}
    wins = [e for e in read_examples(data, "val").get("win", []) if e.source in graded]
    if "win" in predictor.heads and wins:
        labels = predictor.heads["win"]["labels"]
        logits = predictor.logits([e.text for e in wins], "win").astype(np.float64)
        scale, offset = [], []
        for i, label in enumerate(labels):
            known = [j for j, e in enumerate(wins) if e.win is not None and label in e.win]
            wanted = np.asarray([wins[j].win[label] for j in known])  # type: ignore[index]
            a, b = fit_platt(logits[known, i], wanted) if known else (1.0, 0.0)
            scale.append(round(a, 4))
            offset.append(round(b, 4))
        found["win"] = {"scale": scale, "offset": offset}
    for head, calibration in found.items():
        described["heads"][head]["calibration"] = calibration
    replace_json(path, described)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    args = parser.parse_args()
    calibrate(args.data, args.model)
