from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.ngrams import letters_only, ngram_buckets
from router_extproc.inference.folding import folded
from router_extproc.inference.ngrams import NgramSpec, buckets, letters


@given(st.text(max_size=80), st.integers(1, 5), st.integers(1, 60))
def test_the_same_rows_as_in_training(text: str, max_n: int, max_chars: int) -> None:
    assert letters(text, max_chars) == letters_only(text, max_chars)
    found = buckets(text, NgramSpec(24576, 1, max_n, max_chars))
    assert np.array_equal(found, ngram_buckets(text, 24576, 1, max_n, max_chars))


@given(st.text(alphabet="aB \t\r\n1ßΣİ\u0301\u00a0", max_size=40), st.integers(1, 12))
def test_texts_that_are_one_to_the_encoder_give_the_same_rows(text: str, max_chars: int) -> None:
    spec = NgramSpec(24576, max_chars=max_chars)
    assert np.array_equal(buckets(text, spec), buckets(folded(text), spec))
    assert np.array_equal(buckets(text, spec), ngram_buckets(text, 24576, max_chars=max_chars))


def test_a_lone_surrogate_is_no_letter_and_no_error() -> None:
    assert len(buckets("\ud800", NgramSpec(64))) == 0
    assert len(buckets("a\ud800b", NgramSpec(64))) == len(buckets("a b", NgramSpec(64)))


def test_text_without_letters_has_none() -> None:
    assert len(buckets("123 !?", NgramSpec(64))) == 0
    assert len(buckets("", NgramSpec(64))) == 0
