"""Overwrites pieces of text in a JSON body, wherever they stand in it, without changing its length.

All pieces are looked for at once: how long it takes depends on the body, not on how many pieces there are.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final

import numpy as np
import numpy.typing as npt

from router_extproc.apis.body_texts import blocks
from router_extproc.apis.content import printable
from router_extproc.words import goes_on, in_word

QUICK_BYTES: Final = 16 * 1024
"""A body up to this size is masked in few milliseconds. A larger one is for another thread."""

_NUMBER: Final = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_PREFIXES: Final = (16, 8, 4, 2, 1)


def mask(chunks: Sequence[bytes], texts: Iterable[str]) -> dict[int, bytes]:
    """The chunks, by index, that change when every occurrence of `texts` is overwritten.

    Finds them however the client escaped them, in JSON that stands in a string too (`LEVELS`), as whole words, also
    across chunk borders. As many asterisks as they have bytes stand in their place, so that offsets into the body stay
    right; in the arguments of a tool's call, which are JSON, a number becomes another number. `chunks` together are a
    whole JSON object. Bytecode and calls of a millisecond: other threads get their turn.
    """
    pieces = Pieces(text for text in texts if text.strip())
    if not pieces:
        return {}
    body = b"".join(chunks)
    starts = list(accumulate(map(len, chunks), initial=0))
    changed: dict[int, bytearray] = {}
    for start, end, filler in _found(body, pieces):
        index = bisect_right(starts, start) - 1
        while start < end:
            stop = min(end, starts[index + 1])
            chunk = changed.get(index) or changed.setdefault(index, bytearray(chunks[index]))
            chunk[start - starts[index] : stop - starts[index]] = filler * (stop - start)
            start, index = stop, index + 1
    return {index: bytes(chunk) for index, chunk in changed.items() if chunk != chunks[index]}


def _found(body: bytes, pieces: Pieces) -> Iterator[tuple[int, int, bytes]]:
    """Start and end of each occurrence in the body, and what to put there."""
    for block in blocks(body, pieces.longest + 1):
        for start, end in pieces.find(block.text):
            # Of a string that goes on, the block before or after has this one whole, with what is around it.
            if (block.cut_before and start == 1) or (block.cut_after and end == len(block.text) - 1):
                continue
            number = block.json and _NUMBER.fullmatch(block.text, start, end)
            yield int(block.at[start]), int(block.at[end]), b"1" if number else b"*"


class Pieces:
    """Texts to look for: false where there are none. `longest` is in bytes of UTF-8."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._pieces = frozenset(printable(text).encode() for text in texts)
        self.longest = max(map(len, self._pieces), default=0)
        self._starts = np.zeros(1 << 16, np.bool_)  # by their first two bytes
        lengths: dict[int, dict[bytes, set[int]]] = {}
        for piece in self._pieces:
            self._starts[piece[0] << 8 | piece[1] if len(piece) > 1 else slice(piece[0] << 8, (piece[0] + 1) << 8)] = (
                True
            )
            prefix = next(size for size in _PREFIXES if size <= len(piece))
            lengths.setdefault(prefix, {}).setdefault(piece[:prefix], set()).add(len(piece))
        self._lengths = [(prefix, lengths[prefix]) for prefix in sorted(lengths, reverse=True)]

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def candidates(self, text: bytes) -> npt.NDArray[np.intp]:
        """Where a piece may begin: by its first two bytes, and not within a word. `text` is between two `EDGE`s."""
        codes = np.frombuffer(text, np.uint8)
        pairs = codes[1:-1].astype(np.uint16)
        pairs <<= 8
        pairs |= codes[2:]
        found = self._starts[pairs]
        found &= ~goes_on(codes[:-1])
        return np.flatnonzero(found) + 1

    def find(self, text: bytes) -> Iterator[tuple[int, int]]:
        """Start and end of all occurrences in `text`, which is between two `EDGE`s. They may overlap."""
        for start in self.candidates(text).tolist():
            for prefix, lengths in self._lengths:
                for length in lengths.get(text[start : start + prefix], ()):
                    end = start + length
                    if text[start:end] in self._pieces and not (in_word(text[end - 1]) and in_word(text[end])):
                        yield start, end
