from __future__ import annotations

import numpy as np
import pytest

from router_extproc.inference.base import Span
from router_extproc.inference.spans import Bio

LABELS = ["O", "B-PER", "I-PER", "B-MAIL", "I-MAIL"]


def spans(text: str, *tokens: tuple[str, str, float]) -> list[Span]:
    """Decodes tokens given as (text, label, probability of the label); they are found in the text one after another."""
    probs = np.zeros((len(tokens), len(LABELS)), dtype=np.float32)
    offsets, at = [], 0
    for row, (piece, label, probability) in enumerate(tokens):
        at = text.index(piece, at)
        offsets.append((at, at + len(piece)))
        at += len(piece)
        probs[row] = (1 - probability) / len(LABELS)
        probs[row, LABELS.index(label)] += probability
    return Bio(LABELS).decode(probs, offsets, text)


def places(text: str, *tokens: tuple[str, str, float]) -> list[tuple[str, str]]:
    return [(text[span.start : span.end], span.label) for span in spans(text, *tokens)]


def test_a_span_goes_on_over_inside_labels() -> None:
    text = "I am Ann Lee today"
    tokens = (("I", "O", 1.0), ("am", "O", 1.0), ("Ann", "B-PER", 0.9), ("Lee", "I-PER", 0.9), ("today", "O", 1.0))
    assert places(text, *tokens) == [("Ann Lee", "PER")]


def test_an_inside_label_after_another_type_begins_a_span() -> None:
    assert places("Ann a@b", ("Ann", "I-PER", 1.0), ("a@b", "I-MAIL", 1.0)) == [("Ann", "PER"), ("a@b", "MAIL")]


def test_a_beginning_label_begins_a_new_span() -> None:
    assert places("Ann Bob", ("Ann", "B-PER", 1.0), ("Bob", "B-PER", 1.0)) == [("Ann", "PER"), ("Bob", "PER")]


@pytest.mark.parametrize(
    ("between", "joined"),
    [("", True), (".", True), ("-", True), (" ", False), (",", False), ("\n", False), ("--", False)],
)
def test_neighbours_that_all_but_touch_are_one(between: str, joined: bool) -> None:
    text = f"x{between}y"
    found = places(text, ("x", "B-MAIL", 1.0), ("y", "B-MAIL", 1.0))
    assert found == ([(text, "MAIL")] if joined else [("x", "MAIL"), ("y", "MAIL")])


def test_confidence_is_the_mean_of_both_labels_of_the_type() -> None:
    (span,) = spans("Ann Lee", ("Ann", "B-PER", 0.5), ("Lee", "I-PER", 1.0))
    assert span.confidence == pytest.approx((0.5 + 2 * 0.1 + 1.0) / 2)


def test_nothing_found_is_nothing() -> None:
    assert spans("a b", ("a", "O", 1.0), ("b", "O", 0.6)) == []
    assert Bio(LABELS).decode(np.zeros((0, 5), dtype=np.float32), [], "") == []
