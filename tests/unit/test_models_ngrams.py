"""Character n-grams: the reference that the runtime mirrors must not drift."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # models/ is no installed package

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.ngrams import letters_only, ngram_buckets, ngram_logits


def test_letters_only_squeezes_everything_else() -> None:
    assert letters_only("Hello,  World 42!", 400) == " hello world "
    assert letters_only("12 34 !?", 400) == ""
    assert letters_only("नमस्ते", 400) == " नमस्ते "


def test_characters_are_counted_without_runs_of_blanks() -> None:
    assert letters_only("\n" * 9 + "ab \t cd" + " " * 9, 4) == " ab c "
    assert letters_only("ab\u00a0\u00a0cd", 4) == " ab "


def test_buckets_are_pinned() -> None:
    """A change of the hash would make every shipped table useless."""
    assert ngram_buckets("hi", 24576, 1, 2).tolist() == ngram_buckets("HI!", 24576, 1, 2).tolist()
    codes = [ord(c) for c in " hi "]
    expected = []
    for n in (1, 2):
        for i in range(len(codes) - n + 1):
            h = n
            for j in range(n):
                h = ((h * 0x01000193) & 0xFFFFFFFF) ^ codes[i + j]
            h ^= h >> 15
            h = (h * 0x2C1B3C6D) & 0xFFFFFFFF
            h ^= h >> 12
            expected.append(h % 24576)
    assert ngram_buckets("hi", 24576, 1, 2).tolist() == expected


@given(st.text(max_size=500))
def test_any_text_gives_buckets_in_range(text: str) -> None:
    rows = ngram_buckets(text, 512)
    assert rows.dtype == np.int64
    assert ((rows >= 0) & (rows < 512)).all()


def test_logits_are_the_mean_of_rows() -> None:
    weight = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float16)
    rows = ngram_buckets("abc", 64)
    np.testing.assert_allclose(ngram_logits("abc", weight), weight[rows].astype(np.float32).mean(0), rtol=1e-6)
    assert (ngram_logits("123", weight) == 0).all()
