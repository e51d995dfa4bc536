"""Puts asterisks over pieces of text in a JSON body, wherever they stand in it, without changing its length."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

TEXT_KEYS = frozenset(
    {b"content", b"text", b"input", b"prompt", b"system", b"instructions", b"output", b"arguments", b"suffix"}
    | {b"contents", b"stdout", b"stderr", b"title", b"context", b"results", b"outputs", b"logs"}
)
"""Keys whose strings, at any depth of arrays below them, hold what people or tools wrote. No others are touched: names,
roles and identifiers must stay what they are."""
DOCUMENT_KEY = b"data"
"""The text of a document, or base64, which has no spaces and must stay what it is."""
MAX_TEXTS = 1000
"""More are not looked for: the classifier's own window holds far fewer."""

_TOKEN = re.compile(rb'"([^"\\]*(?:\\.[^"\\]*)*)"|[{}\[\]:,]', re.S)
_SHORT = {'"': b'\\\\"', "\\": rb"\\\\", "/": rb"\\/", "\b": rb"\\b", "\f": rb"\\f", "\n": rb"\\n", "\r": rb"\\r"}
_SHORT["\t"] = rb"\\t"
_BEFORE = rb"(?:(?<![A-Za-z0-9])|(?<=\\[bfnrt])|(?<=\\u[0-9A-Fa-f]{4}))"
_AFTER = rb"(?![A-Za-z0-9])"


def mask(chunks: Sequence[bytes], texts: Iterable[str]) -> dict[int, bytes]:
    """The chunks, by index, that change when every occurrence of `texts` is overwritten by asterisks.

    Finds them however the client escaped them, as whole words, also across chunk borders. The same number of bytes
    stands in their place, so that offsets into the body stay right. `chunks` together are a whole JSON document.
    """
    pattern = _pattern(list(dict.fromkeys(text for text in texts if text.strip()))[:MAX_TEXTS])
    body = b"".join(chunks)
    if pattern is None or pattern.search(body) is None:
        return {}
    edited = bytearray(body)
    for start, end in _text_values(body):
        for found in pattern.finditer(body, start, end):
            edited[found.start() : found.end()] = b"*" * (found.end() - found.start())
    changed: dict[int, bytes] = {}
    offset = 0
    for index, chunk in enumerate(chunks):
        piece = bytes(edited[offset : offset + len(chunk)])
        if piece != chunk:
            changed[index] = piece
        offset += len(chunk)
    return changed


def _text_values(body: bytes) -> Iterator[tuple[int, int]]:
    """Where the strings under `TEXT_KEYS` stand, without their quotes."""
    stack: list[tuple[bool, bytes]] = []  # for each open bracket: whether it is an object, and the key it stands under
    key, last, is_object, value_next = b"", b"", False, True
    for token in _TOKEN.finditer(body):
        symbol = body[token.start()]
        if symbol == 0x22:  # a string: a key where an object expects one
            if is_object and not value_next:
                last = token.group(1)
            else:
                if key in TEXT_KEYS or (key == DOCUMENT_KEY and b" " in token.group(1)):
                    yield token.span(1)
        elif symbol == 0x3A:  # a colon
            key, value_next = last, True
        elif symbol in b"{[":
            stack.append((is_object, key))
            is_object = symbol == 0x7B
            value_next = not is_object
        elif symbol == 0x2C:  # a comma
            value_next = not is_object
        elif stack:
            is_object, key = stack.pop()


def _pattern(texts: Sequence[str]) -> re.Pattern[bytes] | None:
    if not texts:
        return None
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile(b"|".join(_edged(text) for text in longest_first))


def _edged(text: str) -> bytes:
    before = _BEFORE if text[0].isascii() and text[0].isalnum() else b""
    after = _AFTER if text[-1].isascii() and text[-1].isalnum() else b""
    return before + b"".join(_char(char) for char in text) + after


def _char(char: str) -> bytes:
    """All ways in which JSON can spell a character."""
    units = char.encode("utf-16-be", "surrogatepass")
    escaped = b"".join(rb"\\u(?i:%02x%02x)" % (units[i], units[i + 1]) for i in range(0, len(units), 2))
    forms = [escaped]
    if char in _SHORT:
        forms.append(_SHORT[char])
    if char not in '"\\' and char >= " ":
        forms.append(re.escape(char.encode("utf-8", "surrogatepass")))
    return b"(?:" + b"|".join(forms) + b")"
