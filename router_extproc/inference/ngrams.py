"""Hashed character n-grams, which tell languages apart whose script the encoder's vocabulary does not know.

The arithmetic is the artefact format's (`models/FORMAT.md`, "Character n-grams"); all integers are modulo 2^32.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from router_extproc.inference.folding import folded

_NOT_ASCII_LETTERS = re.compile(r"[^a-z]+")


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
    lowered = folded(text)[:max_chars].lower()
    if lowered.isascii():
        words = _NOT_ASCII_LETTERS.sub(" ", lowered).split()
    else:
        words = "".join(c if c.isalpha() or unicodedata.category(c)[0] == "M" else " " for c in lowered).split(" ")
    kept = " ".join(word for word in words if word)
    return f" {kept} " if kept else ""


def buckets(text: str, spec: NgramSpec) -> npt.NDArray[np.int64]:
    """The row of every n-gram occurrence in `text`, in [0, spec.buckets); empty when there is no letter."""
    kept = letters(text, spec.max_chars)
    codes = np.frombuffer(kept.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    rows: list[npt.NDArray[np.uint32]] = []
    for n in range(spec.min_n, min(spec.max_n, len(codes)) + 1):
        hashed = np.full(len(codes) - n + 1, n, dtype=np.uint32)
        for j in range(n):
            hashed *= np.uint32(0x01000193)
            hashed ^= codes[j : len(codes) - n + 1 + j]
        hashed ^= hashed >> np.uint32(15)
        hashed *= np.uint32(0x2C1B3C6D)
        hashed ^= hashed >> np.uint32(12)
        rows.append(hashed % np.uint32(spec.buckets))
    if not rows:
        return np.empty(0, dtype=np.int64)
    return np.concatenate(rows).astype(np.int64)
