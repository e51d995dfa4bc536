"""What people, tools and documents wrote in a JSON body, in plain UTF-8, and where each byte of it stands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from router_extproc.apis.content import BROUGHT_KEYS, PICTURES, THOUGHT_KEYS, printable
from router_extproc.apis.json_marks import escapes, safe_cut

_THOUGHTS: Final = frozenset({b"thinking", *(key.encode() for key in THOUGHT_KEYS)})

DEPENDING: Final = frozenset({b"data", b"result", *_THOUGHTS})
"""Keys of a text or of base64, as the `type` beside them says; or of what must stay as it is, for beside it stands the
`signature` of a provider that refuses what was changed."""

TEXT_KEYS: Final = (
    frozenset(key.encode() for key in BROUGHT_KEYS)
    | frozenset({b"input", b"prompt", b"system", b"instructions", b"arguments", b"suffix", b"documents"})
) - DEPENDING
"""Keys whose strings, at any depth of arrays below them, hold what people or tools wrote. So do `DEPENDING`, the
variables of a prompt that the provider keeps, and what a tool was called with. No others: names, roles and identifiers
must stay what they are."""

_CALLED_WITH: Final = frozenset({b"input", b"arguments"})
"""Keys of what a tool was called with. Where it is no string but an object, all strings in it are the caller's. Its
`type` may come after it, so that only the place tells."""

_TURNS: Final = frozenset({b"messages", b"input"})
"""Keys of a body's turns, the one place where tools are called. A tool's schema may have a property `input`, too."""

LEVELS: Final = 3
"""How often escapes are read: those of the body, those of JSON in a string of it, as tools return it, and in that."""

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
_HEX: Final = np.full(256, -1, np.intp)
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
    begins at body[at[i]], written as it is or as an escape, maybe one of the JSON that the string holds. `json` says
    that the texts hold JSON again.

    `cut_before` and `cut_after` say that it is a part of one long string.
    """

    text: bytes
    at: npt.NDArray[np.intp]
    json: bool
    cut_before: bool = False
    cut_after: bool = False


def blocks(body: bytes, overlap: int) -> Iterator[Block]:
    """All texts of `body`, a whole JSON object, in turn; those in which escapes are left once more without these. Of a
    string that is cut, the end of one block stands in the next one too: `overlap` bytes of text, or more."""
    reach = overlap * (2**LEVELS // 2 + 5)  # an escape of a byte takes that many: \\\\u0041
    size = max(BLOCK, 2 * reach)
    waiting: tuple[list[Value], list[Value]] = ([], [])
    sizes = [0, 0]
    for value in text_values(body):
        start = value.start
        if value.end - start > size:
            while value.end - start > size:
                stop = safe_cut(body, start, start + size)
                yield from _read(body, [value._replace(start=start, end=stop)], start > value.start, True)
                start = safe_cut(body, start, stop - reach)
            yield from _read(body, [value._replace(start=start)], True, False)
            continue
        waiting[value.json].append(value)
        sizes[value.json] += value.end - start + 1
        if sizes[value.json] > size:
            yield from _read(body, waiting[value.json])
            waiting[value.json].clear()
            sizes[value.json] = 0
    for values in filter(None, waiting):
        yield from _read(body, values)


def _read(body: bytes, values: Sequence[Value], cut_before: bool = False, cut_after: bool = False) -> Iterator[Block]:
    starts, lengths = (np.array(of) for of in zip(*((v.start, v.end + 1 - v.start) for v in values), strict=True))
    ends = np.cumsum(lengths)
    raw = bytearray(EDGE)
    raw += b"".join(body[value.start : value.end + 1] for value in values)
    codes = np.frombuffer(raw, np.uint8)
    codes[ends] = EDGE[0]  # in place of the closing quotes
    at = np.arange(-1, len(codes) - 1)
    at[1:] += np.repeat(starts - (ends - lengths), lengths)
    text = bytes(raw)
    for level in range(LEVELS):
        kept = _unescape(codes) if b"\\" in text else None
        if kept is not None:
            codes, at = codes[kept], at[kept]
            text = codes.tobytes()
        elif level:
            return
        yield Block(text, at, values[0].json, cut_before, cut_after)


def _unescape(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_] | None:
    """Writes what each escape means over its beginning, and returns what is to be kept: not the rest of it. None where
    there are no escapes: any text may have backslashes. `codes` end with an `EDGE`."""
    slashes = escapes(codes)
    long = codes[slashes + 1] == ord("u")
    short = slashes[~long]
    short = short[_SHORT[codes[short + 1]] > 0]
    at = slashes[long]
    digits = _HEX[codes[np.minimum(at[:, np.newaxis] + np.arange(2, 6), len(codes) - 1)]]
    right = (digits >= 0).all(axis=1)
    at, digits = at[right], digits[right]
    if not len(short) and not len(at):
        return None
    kept = np.ones(len(codes), np.bool_)
    codes[short] = _SHORT[codes[short + 1]]
    kept[short + 1] = False
    if not len(at):
        return kept
    units = digits @ np.array([1 << 12, 1 << 8, 1 << 4, 1])
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
    return kept


@dataclass(slots=True)
class _Open:
    """An object or array that is being read. In `variables` every string is a text, in a `call` at any depth."""

    is_object: bool
    variables: bool = False
    call: bool = False
    kind: bytes = b""
    signed: bool = False
    depending: list[tuple[bytes, Value]] = field(default_factory=list)

    def texts(self) -> Iterator[Value]:
        """Those of its strings that are a text as what stands beside them, which is known by now, says."""
        for key, value in self.depending:
            if self._is_text(key):
                yield value

    def _is_text(self, key: bytes) -> bool:
        if key in _THOUGHTS:
            return not self.signed
        if key == b"data":
            return self.kind == b"text"
        return self.kind != PICTURES.encode()


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
            elif around.variables or around.call or key in TEXT_KEYS:
                yield Value(position, end, key == b"arguments")
            elif key in DEPENDING:
                around.depending.append((key, Value(position, end, False)))
            elif key == b"type" and around.is_object:
                around.kind = _plain(body[position:end])
            elif key == b"signature" and around.is_object and end > position:
                around.signed = True
            position = end + 1
        elif bracket in b"{[":
            call = around.call or (around.is_object and key in _CALLED_WITH and _among_turns(outer))
            outer.append((around, key))
            variables = key == b"variables" and len(outer) == 3 and outer[1][1] == b"prompt"
            around = _Open(bracket == 0x7B, variables, call)
        else:
            yield from around.texts()
            around, key = outer.pop()
        at = _next(body, position)


def _among_turns(outer: Sequence[tuple[_Open, bytes]]) -> bool:
    """Whether what is in these is in an item of the body's turns, and no property of a schema."""
    return len(outer) > 2 and outer[1][1] in _TURNS and outer[-1][1] != b"properties"


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
