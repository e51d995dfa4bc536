from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from models.ngrams import letters_only, ngram_buckets
from router_extproc.inference.folding import folded
from router_extproc.inference.ngrams import NgramSpec, buckets, letters

_BLANKS = st.text(alphabet="aB \t\r\n1ßΣİ\u0301\u00a0", max_size=40)


def rows_of_each(texts: list[str], spec: NgramSpec) -> list[npt.NDArray[np.int32]]:
    """The rows of every text by itself, in ascending order."""
    rows, starts = buckets(texts, spec)
    return [np.sort(part) for part in np.split(rows, starts[1:])]


@given(st.lists(st.text(max_size=80) | _BLANKS, min_size=1, max_size=5), st.integers(1, 5), st.integers(1, 60))
def test_the_same_rows_as_in_training_for_every_text_of_a_batch(texts: list[str], max_n: int, max_chars: int) -> None:
    found = rows_of_each(texts, NgramSpec(24576, 1, max_n, max_chars))
    assert len(found) == len(texts)
    for text, rows in zip(texts, found, strict=True):
        assert letters(text, max_chars) == letters_only(text, max_chars)
        assert np.array_equal(rows, np.sort(ngram_buckets(text, 24576, 1, max_n, max_chars)))


@given(_BLANKS, st.integers(1, 12))
def test_texts_that_are_one_to_the_encoder_give_the_same_rows(text: str, max_chars: int) -> None:
    as_it_stands, as_folded = rows_of_each([text, folded(text)], NgramSpec(24576, max_chars=max_chars))
    assert np.array_equal(as_it_stands, as_folded)


def test_a_lone_surrogate_is_no_letter_and_no_error() -> None:
    alone, between, blank = rows_of_each(["\ud800", "a\ud800b", "a b"], NgramSpec(64))
    assert len(alone) == 0
    assert np.array_equal(between, blank)


def test_text_without_letters_has_none() -> None:
    assert [len(rows) for rows in rows_of_each(["123 !?", "", "a"], NgramSpec(64))] == [0, 0, 6]
    assert [len(rows) for rows in rows_of_each([""], NgramSpec(64))] == [0]
