"""Labels from examples: a small calibrated classifier fitted on the encoder's embeddings of a dozen prompts per label.

Kernel ridge regression on one-against-the-rest targets. Its leave-one-out predictions have a closed form (Rifkin and
Lippert, "Notes on regularized least squares", 2007), so that the regularisation, the temperature that calibrates the
probabilities, and the accuracy reported are all judged on prompts that the fit has not seen, in milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from router_extproc.inference.base import HeadResult

FEWEST = 2
"""Examples that every label needs: with one, leaving it out leaves the label unknown."""

_REGULARISATIONS = (0.03, 0.1, 0.3, 1.0, 3.0)
_TEMPERATURES = tuple(np.geomspace(0.02, 3.0, 40).tolist())

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Confusion:
    """`count` examples of `label` are taken for `other` when they are left out of the fit."""

    label: str
    other: str
    count: int


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """How the head does on each example when fitted on all others. `accuracy` in [0, 1], worst confusions first."""

    accuracy: float
    examples: int
    confusions: tuple[Confusion, ...]


class ExamplesHead:
    """A fitted head. Immutable; safe from any thread."""

    def __init__(
        self,
        labels: tuple[str, ...],
        center: Array,
        weights: Array,
        bias: Array,
        temperature: float,
        report: LeaveOneOut,
    ) -> None:
        self.labels = labels
        self.report = report
        self._center = center.astype(np.float32)
        self._weights = (weights / temperature).astype(np.float32)
        self._bias = (bias / temperature).astype(np.float32)

    def classify(self, embedding: Sequence[float]) -> HeadResult:
        """What a prompt with this embedding (unit length, as `Classified.embedding`) is most like. Some 10 us."""
        x = np.asarray(embedding, dtype=np.float32)
        probs = _softmax((x - self._center) @ self._weights + self._bias)
        best = int(probs.argmax())
        return HeadResult(self.labels[best], float(probs[best]), dict(zip(self.labels, probs.tolist(), strict=True)))


def fit(examples: Mapping[str, Sequence[Sequence[float]]]) -> ExamplesHead:
    """Fits a head on the embeddings of each label's examples.

    Raises ValueError for fewer than two labels, or a label with fewer than `FEWEST` examples.
    """
    labels = tuple(examples)
    if len(labels) < 2:
        raise ValueError("examples of at least two labels are needed")
    for label in labels:
        if len(examples[label]) < FEWEST:
            raise ValueError(f"label `{label}`: at least {FEWEST} examples are needed")
    x = np.array([vector for label in labels for vector in examples[label]], dtype=np.float64)
    truth = np.array([index for index, label in enumerate(labels) for _ in examples[label]])
    targets = np.eye(len(labels))[truth]
    center, bias = x.mean(0), targets.mean(0)
    # Platt's targets (1999): a few examples that are all right do not prove that every prompt will be.
    doubt = 1 / (len(x) + 2)
    smoothed = targets * (1 - doubt) + (1 - targets) * doubt / (len(labels) - 1)
    kernel = (x - center) @ (x - center).T
    best: tuple[float, float, Array, Array] | None = None
    for strength in _REGULARISATIONS:
        inverse = np.linalg.inv(kernel + strength * np.eye(len(x)))
        dual = inverse @ (targets - bias)
        left_out = targets - dual / np.diag(inverse)[:, None]
        for temperature in _TEMPERATURES:
            loss = float(-(smoothed * np.log(_softmax(left_out / temperature) + 1e-12)).sum(1).mean())
            if best is None or loss < best[0]:
                best = loss, temperature, dual, left_out
    assert best is not None
    _, temperature, dual, left_out = best
    return ExamplesHead(labels, center, (x - center).T @ dual, bias, temperature, _report(labels, truth, left_out))


def _report(labels: tuple[str, ...], truth: npt.NDArray[np.int64], left_out: Array) -> LeaveOneOut:
    guesses = left_out.argmax(1)
    wrong: dict[tuple[int, int], int] = {}
    for right, guess in zip(truth.tolist(), guesses.tolist(), strict=True):
        if right != guess:
            wrong[right, guess] = wrong.get((right, guess), 0) + 1
    worst = sorted(wrong.items(), key=lambda item: -item[1])
    return LeaveOneOut(
        accuracy=float((guesses == truth).mean()),
        examples=len(truth),
        confusions=tuple(Confusion(labels[right], labels[guess], count) for (right, guess), count in worst),
    )


def _softmax(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    shifted = np.exp(scores - scores.max(-1, keepdims=True))
    found: npt.NDArray[np.floating] = shifted / shifted.sum(-1, keepdims=True)
    return found
