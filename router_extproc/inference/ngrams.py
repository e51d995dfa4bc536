"""Hashed character n-grams, which tell languages apart whose script the encoder's vocabulary does not know.

The arithmetic is the artefact format's (`models/FORMAT.md`, "Character n-grams"); all integers are modulo 2^32.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase

import numpy as np
import numpy.typing as npt

from router_extproc.inference.folding import folded

_ONLY_ASCII_LETTERS = str.maketrans({chr(code): " " for code in range(128) if chr(code) not in ascii_lowercase})


@dataclass(frozen=True, slots=True)
class NgramSpec:
    """Which n-grams are looked at: lengths `min_n`..`max_n` of the folded text's first `max_chars` characters, in
    `buckets` rows."""

    buckets: int
    min_n: int = 1
    max_n: int = 4
    max_chars: int = 400


def letters(text: str, max_chars: int) -> str:
    """The folded text's first `max_chars` characters in lower case, all but letters and marks made single spaces.

    One space is at either end. Empty when there is no letter.
    """
    beginning = folded(text[: 2 * max_chars])
    if len(beginning) < max_chars and len(text) > 2 * max_chars:
        beginning = folded(text)  # so many blanks that twice the characters were not enough
    lowered = beginning[:max_chars].lower()
    if lowered.isascii():
        words = lowered.translate(_ONLY_ASCII_LETTERS)
    else:
        words = "".join(c if c.isalpha() or unicodedata.category(c)[0] == "M" else " " for c in lowered)
    kept = " ".join(filter(None, words.split(" ")))
    return f" {kept} " if kept else ""


def buckets(texts: Sequence[str], spec: NgramSpec) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """The row of every n-gram occurrence, in [0, spec.buckets), text after text, and where each text's rows begin.

    All texts are hashed at once: one by one, a batch of short texts takes longer here than on a GPU. A text without a
    letter has no rows.
    """
    kept = [letters(text, spec.max_chars) for text in texts]
    lengths = np.array([len(each) for each in kept], dtype=np.int32)
    codes = np.frombuffer("".join(kept).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    ends = np.cumsum(lengths, dtype=np.int32)
    # Characters from each on to the end of its own text: an n-gram that needs more would reach into the next one.
    left = np.repeat(ends, lengths) - np.arange(len(codes), dtype=np.int32)
    sizes = range(spec.min_n, spec.max_n + 1)
    found = np.empty((len(codes), len(sizes)), dtype=np.uint32)
    for column, n in enumerate(sizes):
        count = max(0, len(codes) - n + 1)
        hashed = np.full(count, n, dtype=np.uint32)
        for j in range(n):
            hashed *= np.uint32(0x01000193)
            hashed ^= codes[j : count + j]
        hashed ^= hashed >> np.uint32(15)
        hashed *= np.uint32(0x2C1B3C6D)
        hashed ^= hashed >> np.uint32(12)
        found[:count, column] = hashed % np.uint32(spec.buckets)
    rows = found[left[:, None] >= np.arange(spec.min_n, spec.max_n + 1)].astype(np.int32)
    counts = np.maximum(lengths[:, None] - np.arange(spec.min_n - 1, spec.max_n), 0).sum(1)
    return rows, (np.cumsum(counts) - counts).astype(np.int32)
