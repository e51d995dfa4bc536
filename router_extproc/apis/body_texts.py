"""What people, tools and documents wrote in a JSON body, in plain UTF-8, and where each byte of it stands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from router_extproc.apis.content import BROUGHT_KEYS, PICTURES, printable
from router_extproc.apis.json_marks import escapes, safe_cut

TEXT_KEYS: Final = frozenset(key.encode() for key in BROUGHT_KEYS - {"result"}) | frozenset(
    {b"input", b"prompt", b"system", b"instructions", b"arguments", b"suffix", b"documents"}
)
"""Keys whose strings, at any depth of arrays below them, hold what people or tools wrote. So do `DEPENDING`, and the
variables of a prompt that the provider keeps. No others: names, roles and identifiers must stay what they are."""

DEPENDING: Final = frozenset({b"data", b"result"})
"""Keys of a text or of base64, as the `type` beside them says."""

BLOCK: Final = 256 * 1024
"""Bytes of the body looked at at a time."""

EDGE: Final = b"\xff"
"""Stands between two strings: no byte of UTF-8, so that no text goes from one to the next."""

_QUOTE: Final = 0x22
_NEXT: Final = re.compile(rb'["{}\[\]]')
_COLON: Final = re.compile(rb"[ \t\n\r]*:")
_INSIDE: Final = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_SHORT: Final = np.zeros(256, np.uint8)
_SHORT[list(b'"\\/bfnrt')] = list(b'"\\/\b\f\n\r\t')
_HEX: Final = np.zeros(256, np.intp)
for _digit in b"0123456789abcdefABCDEF":
    _HEX[_digit] = int(chr(_digit), 16)


class Value(NamedTuple):
    """A string that is a text: body[start:end], without its quotes. `json` says that it holds JSON again."""

    start: int
    end: int
    json: bool


@dataclass(frozen=True, slots=True)
class Block:
    """A part of the texts: `text` begins and ends with `EDGE`, and the character of which text[i] is the first byte
    begins at body[at[i]], written as it is or as an escape. `json` says that the texts hold JSON again.

    `cut_before` and `cut_after` say that it is a part of one long string.
    """

    text: bytes
    at: npt.NDArray[np.intp]
    json: bool
    cut_before: bool = False
    cut_after: bool = False


def blocks(body: bytes, overlap: int) -> Iterator[Block]:
    """All texts of `body`, a whole JSON object, in turn. Of a string that is cut, the end of one block stands in the
    next one too: `overlap` bytes of text, or more."""
    size = max(BLOCK, 12 * overlap)
    waiting: tuple[list[Value], list[Value]] = ([], [])
    sizes = [0, 0]
    for value in text_values(body):
        start = value.start
        if value.end - start > size:
            while value.end - start > size:
                stop = safe_cut(body, start, start + size)
                yield _block(body, [value._replace(start=start, end=stop)], start > value.start, True)
                start = safe_cut(body, start, stop - 6 * overlap)  # an escape of a byte takes six
            yield _block(body, [value._replace(start=start)], True, False)
            continue
        waiting[value.json].append(value)
        sizes[value.json] += value.end - start + 1
        if sizes[value.json] > size:
            yield _block(body, waiting[value.json])
            waiting[value.json].clear()
            sizes[value.json] = 0
    for values in filter(None, waiting):
        yield _block(body, values)


def _block(body: bytes, values: Sequence[Value], cut_before: bool = False, cut_after: bool = False) -> Block:
    starts, lengths = (np.array(of) for of in zip(*((v.start, v.end + 1 - v.start) for v in values), strict=True))
    ends = np.cumsum(lengths)
    raw = bytearray(EDGE)
    raw += b"".join(body[value.start : value.end + 1] for value in values)
    codes = np.frombuffer(raw, np.uint8)
    codes[ends] = EDGE[0]  # in place of the closing quotes
    at = np.arange(-1, len(codes) - 1)
    at[1:] += np.repeat(starts - (ends - lengths), lengths)
    kept = np.ones(len(codes), np.bool_)
    if b"\\" in raw:
        _unescape(codes, kept)
        codes, at = codes[kept], at[kept]
    return Block(codes.tobytes(), at, values[0].json, cut_before, cut_after)


def _unescape(codes: npt.NDArray[np.uint8], kept: npt.NDArray[np.bool_]) -> None:
    """Writes what each escape means over its beginning, and marks the rest of it as not kept."""
    slashes = escapes(codes)
    long = codes[slashes + 1] == ord("u")
    short = slashes[~long]
    codes[short] = _SHORT[codes[short + 1]]
    kept[short + 1] = False
    at = slashes[long]
    if not len(at):
        return
    units = _HEX[codes[at[:, np.newaxis] + np.arange(2, 6)]] @ np.array([1 << 12, 1 << 8, 1 << 4, 1])
    high, low = units & 0xFC00 == 0xD800, units & 0xFC00 == 0xDC00
    pair = np.zeros(len(at), np.bool_)
    pair[:-1] = high[:-1] & low[1:] & (np.diff(at) == 6)
    second = np.roll(pair, 1)
    points = np.where(high | low, ord("\ufffd"), units)
    points[pair] = 0x10000 + ((units[pair] & 0x3FF) << 10) + (units[second] & 0x3FF)
    kept[at[:, np.newaxis] + np.arange(6)] = False
    at, points = at[~second], points[~second]
    sizes = 1 + (points >= 0x80) + (points >= 0x800) + (points >= 0x10000)
    for size, mark in ((1, 0), (2, 0xC0), (3, 0xE0), (4, 0xF0)):
        places, bits = at[sizes == size], points[sizes == size]
        for index in range(size):
            shifted = bits >> 6 * (size - 1 - index)
            codes[places + index] = shifted & 0x3F | 0x80 if index else shifted | mark
            kept[places + index] = True


@dataclass(slots=True)
class _Open:
    """An object or array that is being read. In `variables` every string is a text."""

    is_object: bool
    variables: bool = False
    kind: bytes = b""
    depending: list[tuple[bytes, Value]] = field(default_factory=list)

    def texts(self) -> Iterator[Value]:
        """Those of its strings that are a text as its type, which is known by now, says."""
        for key, value in self.depending:
            if self.kind == b"text" if key == b"data" else self.kind != PICTURES.encode():
                yield value


def text_values(body: bytes) -> Iterator[Value]:
    """Where texts stand in `body`, a whole JSON object."""
    around, key = _Open(False), b""
    outer: list[tuple[_Open, bytes]] = []
    at = _next(body, 0)
    while at >= 0:
        position = at + 1
        bracket = body[at]
        if bracket == _QUOTE:
            end = _string_end(body, position)
            if around.is_object and _COLON.match(body, end + 1):
                key = _plain(body[position:end])
            elif around.variables or key in TEXT_KEYS:
                yield Value(position, end, key == b"arguments")
            elif key in DEPENDING:
                around.depending.append((key, Value(position, end, False)))
            elif key == b"type" and around.is_object:
                around.kind = _plain(body[position:end])
            position = end + 1
        elif bracket in b"{[":
            outer.append((around, key))
            variables = key == b"variables" and len(outer) == 3 and outer[1][1] == b"prompt"
            around = _Open(bracket == 0x7B, variables)
        else:
            yield from around.texts()
            around, key = outer.pop()
        at = _next(body, position)


def _next(body: bytes, position: int) -> int:
    """The next quote or bracket, -1 if there is none."""
    while position < len(body):  # step by step, since a search holds up all other threads
        found = _NEXT.search(body, position, position + BLOCK)
        if found is not None:
            return found.start()
        position += BLOCK
    return -1


def _string_end(body: bytes, position: int) -> int:
    """The quote that ends the string within which `position` is, not in an escape."""
    while body[position] != _QUOTE:
        found = _INSIDE.match(body, position, position + BLOCK)
        position = found.end() if found is not None else position
    return position


def _plain(string: bytes) -> bytes:
    """A key or a type without escapes."""
    return string if b"\\" not in string else printable(str(json.loads(b'"' + string + b'"'))).encode()
