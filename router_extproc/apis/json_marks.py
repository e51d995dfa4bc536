"""Where quotes and brackets are in a piece of JSON, and where it may be cut: numpy and `bytes`, no loop over bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

_QUOTE: Final = 0x22
_BACKSLASH: Final = 0x5C


@dataclass(frozen=True, slots=True)
class Marks:
    """The quotes and brackets of a piece that no backslash escapes, in order.

    `at` are their positions, `steps` +1 where one opens a container, -1 where it closes one, else 0. `inside` is 1
    where the piece is within a string after the mark. `quotes` are the positions of the quotes alone.
    """

    at: npt.NDArray[np.intp]
    steps: npt.NDArray[np.int8]
    inside: npt.NDArray[np.int8]
    quotes: npt.NDArray[np.intp]


def find_marks(data: bytes, in_string: bool) -> Marks:
    """The marks of `data`, which starts at a character, not within an escape; `in_string` is the state there."""
    codes = np.frombuffer(data, np.uint8)
    marks = codes | 0x20  # [ ] become { }, which are 0x7b and 0x7d
    marks -= 0x7B
    marks &= 0xFD
    found = marks == 0
    found |= codes == _QUOTE
    if b"\\" in data:
        escaped = escapes(codes) + 1
        found[escaped[escaped < len(data)]] = False
    at = np.flatnonzero(found)
    kinds = codes[at]
    quotes = kinds == _QUOTE
    inside = ((np.cumsum(quotes) + in_string) & 1).astype(np.int8)
    steps = np.where(kinds & 2, 1, -1).astype(np.int8)  # bit 1 is set in { and [, not in } and ]
    steps[quotes | (inside == 1)] = 0
    return Marks(at, steps, inside, at[quotes])


def escapes(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.intp]:
    """The backslashes that begin an escape in text that starts at a character, not within an escape."""
    slashes = np.flatnonzero(codes == _BACKSLASH)
    starts = np.ones(len(slashes), np.bool_)
    np.not_equal(np.diff(slashes), 1, out=starts[1:])
    if starts.all():
        return slashes
    # In a row of backslashes the first, third, ... escape what follows them.
    row_start = slashes[starts][np.cumsum(starts) - 1]
    odd: npt.NDArray[np.intp] = slashes[(slashes - row_start) & 1 == 0]
    return odd


def excess(data: bytes) -> int:
    """How many bytes longer the `\\u` escapes of `data` are than UTF-8, which takes two for those up to 07ff, three for
    the others, and four for two that are a pair. The few up to 0fff that take three count as two. `data` starts at a
    character, not within an escape."""
    if b"\\u" not in data:
        return 0
    data = data.replace(b"\\\\", b"")  # after a backslash that is escaped itself, a `u` is a letter
    pairs = sum(map(data.count, (b"\\ud8", b"\\uD8")))
    return 3 * data.count(b"\\u") + data.count(b"\\u0") + 2 * pairs


def safe_cut(data: bytes, start: int, cut: int) -> int:
    """The last position up to `cut` that is within neither an escape nor a character; `start` is known to be one."""
    slash = data.rfind(b"\\", max(start, cut - 6), cut)
    if slash >= 0:
        row = slash + 1 - start - len(data[start : slash + 1].rstrip(b"\\"))
        if row % 2:
            length = 6 if data[slash + 1 : slash + 2] == b"u" else 2
            if slash + length > cut:
                return slash
    for back in range(1, min(3, cut - start) + 1):
        byte = data[cut - back]
        if byte < 0x80:
            break
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return cut - back if length > back else cut
    return cut
