"""Fits the win head: per reference model one logistic regression, strongly regularised, on the frozen encoder's means.

Outcomes are single samples of noisy answers: a hidden layer learns their noise. Against RouteLLM's pair, four folds of
its training rows gave an APGR of .70 with this and .66 with a hidden layer.

    python -m models.win --data ../shared/data --model models/router-minilm
"""

from __future__ import annotations

import argparse
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from tqdm import tqdm

from models.batches import EASY, EASY_WIN
from models.data import Example, read_examples
from models.predict import Predictor
from models.refit import pooled, write

Floats = npt.NDArray[np.float64]
TOKENS = 128
"""Read of a row, as in the joint training."""
STRENGTH = 1e-3
"""`C` of the regressions, on standardised features."""
EASY_ROWS = 600


def fit_model(features: Floats, right: Floats) -> tuple[Floats, float]:
    """Weights [width] and bias that predict `right` [rows], shares of right answers from 0 to 1."""
    rows = np.concatenate([features, features])
    wanted = np.repeat([1, 0], len(right))
    weights = np.concatenate([right, 1 - right])
    kept = weights > 0
    if len(set(wanted[kept])) < 2:
        mean = float(np.clip(right.mean(), 0.02, 0.98))
        return np.zeros(features.shape[1]), float(np.log(mean / (1 - mean)))
    fitted = LogisticRegression(C=STRENGTH, max_iter=500).fit(rows[kept], wanted[kept], weights[kept])
    return fitted.coef_[0], float(fitted.intercept_[0])


def fit(data: Path, model: Path, seed: int = 17) -> None:
    """Fits the head on the `train` rows of all files of outcomes and writes it into the folder."""
    predictor = Predictor(model)
    tasks = read_examples(data, "train")
    examples = tasks.get("win", [])
    if "win" not in predictor.heads or not examples:
        return
    labels = predictor.heads["win"]["labels"]
    easy = [e for e in tasks.get("intent", []) if e.labels["intent"].startswith(EASY)]
    easy = random.Random(seed).sample(easy, min(EASY_ROWS, len(easy)))
    rows = examples + [replace(e, win=dict.fromkeys(labels, EASY_WIN)) for e in easy]
    features = pooled(predictor, [e.text for e in rows], "win", TOKENS).double().numpy()
    weights, biases = regressions(features, rows, labels)
    module: Any = predictor.network.heads["win"]
    module.out.weight = nn.Parameter(torch.from_numpy(weights).float())
    module.out.bias = nn.Parameter(torch.from_numpy(biases).float())
    write(predictor, model)


def regressions(features: Floats, rows: list[Example], labels: list[str]) -> tuple[Floats, Floats]:
    """Weights [labels, width] and biases [labels] for features as they come from the encoder."""
    mean, deviation = features.mean(0), features.std(0) + 1e-6
    standard = (features - mean) / deviation
    weights, biases = np.zeros((len(labels), features.shape[1])), np.zeros(len(labels))
    for i, label in enumerate(tqdm(labels, desc="win", mininterval=5)):
        known = [j for j, row in enumerate(rows) if label in (row.win or {})]
        if known:
            right = np.asarray([(rows[j].win or {})[label] for j in known])
            slope, bias = fit_model(standard[known], right)
            weights[i], biases[i] = slope / deviation, bias - float(slope @ (mean / deviation))
    return weights, biases


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    args = parser.parse_args()
    fit(args.data, args.model)
