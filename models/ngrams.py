"""Hashed character n-grams: the extra input of the language head.

The encoder's vocabulary is English and uncased, so most other scripts reach it as `[UNK]`. Character
n-grams carry what it cannot see. This file is the reference of FORMAT.md; the runtime mirrors it.
"""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import numpy.typing as npt

_PRIME = np.uint32(0x01000193)
_MIX = np.uint32(0x2C1B3C6D)
# Runs of characters that are neither letters nor combining marks. `\w` minus digits and underscore
# is letters plus a few marks; marks (vowel signs of Indic scripts) are tested on their own below.
_ASCII_GAP = re.compile(r"[^a-z]+")
_BLANKS = re.compile(r"[ \t\r\n]+")


def letters_only(text: str, max_chars: int) -> str:
    """The first `max_chars` characters in lower case, non-letters squeezed to single spaces, padded by one space.

    They are counted in the text with every run of blanks and line ends as one space and none at either end, so that
    texts which the encoder cannot tell apart give the same. Returns "" when no letter is left.
    """
    lowered = _BLANKS.sub(" ", text).strip(" ")[:max_chars].lower()
    if lowered.isascii():
        squeezed = _ASCII_GAP.sub(" ", lowered)
    else:
        kept = [c if c.isalpha() or unicodedata.category(c).startswith("M") else " " for c in lowered]
        squeezed = "".join(kept)
    words = squeezed.split(" ")
    joined = " ".join(word for word in words if word)
    return f" {joined} " if joined else ""


def ngram_buckets(
    text: str, buckets: int, min_n: int = 1, max_n: int = 4, max_chars: int = 400
) -> npt.NDArray[np.int64]:
    """Bucket index in [0, buckets) of every n-gram occurrence, shape [occurrences]; may be empty."""
    letters = letters_only(text, max_chars)
    if not letters:
        return np.empty(0, dtype=np.int64)
    codes = np.frombuffer(letters.encode("utf-32-le"), dtype=np.uint32)
    found: list[npt.NDArray[np.uint32]] = []
    with np.errstate(over="ignore"):
        for n in range(min_n, min(max_n, len(codes)) + 1):
            count = len(codes) - n + 1
            hashed = np.full(count, n, dtype=np.uint32)
            for j in range(n):
                hashed = (hashed * _PRIME) ^ codes[j : j + count]
            hashed ^= hashed >> np.uint32(15)
            hashed *= _MIX
            hashed ^= hashed >> np.uint32(12)
            found.append(hashed % np.uint32(buckets))
    return np.concatenate(found).astype(np.int64)


def ngram_logits(
    text: str,
    weight: npt.NDArray[np.float16],
    min_n: int = 1,
    max_n: int = 4,
    max_chars: int = 400,
) -> npt.NDArray[np.float32]:
    """Mean of the rows of `weight` [buckets, labels] over the text's n-grams, shape [labels]."""
    rows = ngram_buckets(text, weight.shape[0], min_n, max_n, max_chars)
    if rows.size == 0:
        return np.zeros(weight.shape[1], dtype=np.float32)
    mean: npt.NDArray[np.float32] = weight[rows].astype(np.float32).mean(axis=0)
    return mean
