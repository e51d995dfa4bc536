"""Words as masking knows them. Signals that point at a part of a text and what overwrites it there go by the same."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

_ALPHANUMERIC: Final = np.array([chr(code).isalnum() and code < 0x80 for code in range(256)])

_INNER: Final = r"(?<=\\)(?<!\\{4})"
_LETTERS: Final = r"00(3\d|[46][1-9a-fA-F]|[57][0-9aA])"

_ESCAPE: Final = re.compile(rf"{_INNER}(?:[bfnrt]|u(?!{_LETTERS})[0-9a-fA-F]{{4}})")
"""The letters of an escape of JSON in a string, or of JSON in a string of that. Masking, which reads these too, knows
the word behind them without them; but for those that stand for a letter or digit of the word."""

_LETTER: Final = re.compile(f"{_INNER}u{_LETTERS}")
"""Without the backslash, the escape of an ASCII letter or digit."""


def in_word(code: int) -> bool:
    """Whether this byte of UTF-8 is of those that words are made of: an ASCII letter or digit."""
    return bool(_ALPHANUMERIC[code])


def goes_on(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Of each byte but the first, whether it goes on with the word of the byte before it."""
    words = _ALPHANUMERIC[codes]
    within: npt.NDArray[np.bool_] = words[1:] & words[:-1]
    return within


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The place in `text` without the white space at both ends. Of white space alone, its end is left."""
    place = text[start:end]
    inner = place.lstrip()
    start = end - len(inner)
    return start, start + len(inner.rstrip())


def whole_words(text: str, places: Iterable[tuple[int, int]]) -> Iterator[str]:
    """What stands at these places of `text`, from start to end, as masking finds it: without white space at both ends,
    and with all of the words that it begins and ends in. Nothing of white space alone."""
    edges = b""
    first = last = 0  # a word that was given: places in it come by the thousand
    for place in places:
        if first <= place[0] and place[1] <= last:
            continue
        start, end = trimmed(text, *place)
        if start == end:
            continue
        edges = edges or _edges(text)
        begin, end = edges.rfind(1, 0, start + 1), edges.find(1, end)
        if escape := _ESCAPE.match(text, begin, start):
            begin = escape.end() if "\\" not in text[start:end] else _unescaped(text, begin)
        if edges.find(1, begin + 1) == end:
            first, last = begin, end
        letter = _LETTER.match(text, begin, end)
        yield chr(int(letter[1], 16)) + text[letter.end() : end] if letter else text[begin:end]


def _unescaped(text: str, at: int) -> int:
    """Before the backslashes that stand before `at`."""
    return len(text[:at].rstrip("\\"))


def _edges(text: str) -> bytes:
    """1 before each character, and after the last, where it is not within a word, else 0."""
    found = np.ones(len(text) + 1, np.uint8)
    found[1:-1] = ~goes_on(np.frombuffer(text.encode("latin-1", "replace"), np.uint8))
    return found.tobytes()
