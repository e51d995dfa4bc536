from __future__ import annotations

import numpy as np
import pytest

from router_extproc.inference.base import Span
from router_extproc.inference.spans import Bio, as_bio, entity_types

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


@pytest.mark.parametrize(
    ("labels", "bio"),
    [
        ("O B-PER I-PER E-PER S-PER", "O B-PER I-PER I-PER B-PER"),
        ("O B-PER I-PER L-PER U-PER", "O B-PER I-PER I-PER B-PER"),
        ("O B-PER M-PER E-PER S-PER", "O B-PER I-PER I-PER B-PER"),
        ("O I-PER B-E-MAIL S-E-MAIL X", "O I-PER B-E-MAIL B-E-MAIL X"),
        ("O PER E-MAIL", "O I-PER I-E-MAIL"),
    ],
)
def test_every_scheme_of_labels_is_read_as_one(labels: str, bio: str) -> None:
    found = as_bio(labels.split())
    assert " ".join(found) == bio
    assert entity_types(found) == (("PER", "E-MAIL") if "MAIL" in labels else ("PER",))


def test_entities_of_one_token_and_last_tokens_are_seen() -> None:
    labels = ["O", "B-PER", "I-PER", "E-PER", "S-PER"]
    text = "Ann met Bob Lee Ray"
    probs = np.eye(5, dtype=np.float32)[[labels.index(label) for label in ("S-PER", "O", "B-PER", "I-PER", "E-PER")]]
    found = Bio(as_bio(labels)).decode(probs, [(0, 3), (4, 7), (8, 11), (12, 15), (16, 19)], text)
    assert [(text[span.start : span.end], span.label) for span in found] == [("Ann", "PER"), ("Bob Lee Ray", "PER")]
