from __future__ import annotations

import numpy as np
import pytest

from router_extproc.inference.examples import fit


def cloud(center: list[float], count: int, spread: float, seed: int) -> list[list[float]]:
    """Unit vectors around a direction."""
    random = np.random.default_rng(seed)
    points = np.array(center) + random.normal(0, spread, (count, len(center)))
    unit: list[list[float]] = (points / np.linalg.norm(points, axis=1, keepdims=True)).tolist()
    return unit


X, Y, Z = [1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0]


def test_new_prompts_get_the_label_that_they_are_like() -> None:
    head = fit({"a": cloud(X, 12, 0.1, 0), "b": cloud(Y, 12, 0.1, 1), "c": cloud(Z, 12, 0.1, 2)})
    assert head.labels == ("a", "b", "c")
    assert head.report.accuracy == 1.0
    for center, label in ((X, "a"), (Y, "b"), (Z, "c")):
        for vector in cloud(center, 20, 0.1, 9):
            result = head.classify(vector)
            assert result.label == label
            assert result.confidence > 0.8
            assert sum(result.probs.values()) == pytest.approx(1, abs=1e-5)


def test_few_examples_do_not_make_certain() -> None:
    head = fit({"a": cloud(X, 4, 0.05, 0), "b": cloud(Y, 4, 0.05, 1)})
    assert head.report.accuracy == 1.0
    assert 0.8 < head.classify(X).confidence < 0.97


def test_labels_that_cannot_be_told_apart_are_named_and_not_trusted() -> None:
    head = fit({"a": cloud(X, 12, 0.1, 0), "b": cloud(Y, 12, 0.1, 1), "also b": cloud(Y, 12, 0.1, 2)})
    assert head.report.accuracy < 0.9
    assert {head.report.confusions[0].label, head.report.confusions[0].other} == {"b", "also b"}
    assert max(head.classify(vector).confidence for vector in cloud(Y, 20, 0.1, 9)) < 0.8
    assert head.classify(X).label == "a"


def test_confidence_is_calibrated_on_overlapping_labels() -> None:
    head = fit({"a": cloud(X, 40, 0.6, 0), "b": cloud(Y, 40, 0.6, 1)})
    results = [(head.classify(v), label) for c, label in ((X, "a"), (Y, "b")) for v in cloud(c, 500, 0.6, 7)]
    accuracy = float(np.mean([result.label == label for result, label in results]))
    confidence = float(np.mean([result.confidence for result, _ in results]))
    assert 0.7 < accuracy < 0.98
    assert confidence == pytest.approx(accuracy, abs=0.07)


def test_the_leave_one_out_report_is_what_refitting_without_each_example_gives() -> None:
    examples = {"a": cloud(X, 6, 0.7, 0), "b": cloud(Y, 6, 0.7, 1)}
    right = 0
    for label, vectors in examples.items():
        for index, vector in enumerate(vectors):
            rest = {**examples, label: vectors[:index] + vectors[index + 1 :]}
            right += fit(rest).classify(vector).label == label
    assert fit(examples).report.accuracy == pytest.approx(right / 12, abs=0.2)


def test_too_few_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="two labels"):
        fit({"a": cloud(X, 5, 0.1, 0)})
    with pytest.raises(ValueError, match="`b`"):
        fit({"a": cloud(X, 5, 0.1, 0), "b": cloud(Y, 1, 0.1, 0)})
