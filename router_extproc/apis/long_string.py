"""Long strings of a body: their middle is checked and left out."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from json.decoder import scanstring  # type: ignore[attr-defined]  # the C scanner of one string; typeshed omits it
from typing import Final

import numpy as np

from router_extproc.apis.json_marks import excess, safe_cut
from router_extproc.errors import MalformedBody

HEAD: Final = 62 * 1024
"""Bytes kept of the beginning of a long string."""

TAIL: Final = 2 * 1024
"""Bytes kept of its end: at least this many, at most twice. Little, since it is all of a very long prompt that cannot
be classified before the last byte is there."""

PROBE: Final = 512
"""Bytes after which a string is judged to be base64 or text; all that is kept of base64."""

SHORTEST_LINE: Final = 30
"""Bytes per line break, `\\r` and `\\n` counted each, that lines of base64 have on average: words set below each other
have fewer."""

LEFT_OUT: Final = "\n[...]\n"
"""Stands in a decoded string for its middle."""

_MARK: Final = json.dumps(LEFT_OUT)[1:-1].encode()
# A data URL, or 256 characters without a space among which are capitals, small letters and digits. PHP writes `/` as
# `\/`, and some encoders break the lines.
_BASE64: Final = re.compile(
    rb"data:[^,\"]{0,120};base64,"
    rb"|(?=[^A-Z]{0,255}[A-Z])(?=[^a-z]{0,255}[a-z])(?=[^0-9]{0,255}[0-9])(?:[A-Za-z0-9+/_=-]|\\[/nr]){256}"
)
_FOREIGN: Final = re.compile(rb"[^A-Za-z0-9+/_=\\-]|\\(?![/nr])")
WORD: Final = 64
"""Bytes before the first that cannot be base64 which are read with it: they may be the first word of the text."""

_ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_=-"


@dataclass(frozen=True, slots=True)
class Gap:
    """Where in the buffer `missing` bytes of the body are left out; `opaque` of them are base64, and the rest is by
    `escaped` longer than in UTF-8."""

    position: int
    missing: int
    opaque: int
    escaped: int = 0


class LongString:
    """Writes a string into a buffer piece by piece, shortened if it turns out to be long. Used again for each string.

    `start` is where in the buffer it begins; whoever removes bytes before it moves it. `opaque` counts the bytes of
    base64 left out of all strings so far.
    """

    def __init__(self, buffer: bytearray) -> None:
        self.start = 0
        self.opaque = 0
        self._buffer = buffer
        self._number = 0
        self._tail: bytearray | None = None  # the end so far, once the head is full
        self._base64: bool | None = None  # None until PROBE bytes are there
        self._breaks = 0
        self._dropped = 0
        self._escaped = 0
        self._before: tuple[int, int] | None = None  # where from `start`, and how much base64 was left out before text

    @property
    def full(self) -> int | None:
        """The number of the open string, from 1, once its next bytes change nothing of what `unfinished` gives."""
        return None if self._tail is None else self._number

    def begin(self) -> None:
        """A string begins at the end of the buffer."""
        self.start = len(self._buffer)
        self._number += 1

    def add(self, data: bytes, start: int, end: int) -> None:
        """Takes data[start:end] as its next bytes. Both are ends of whole characters and escapes."""
        buffer = self._buffer
        while start < end and self._tail is None:
            kept = len(buffer) - self.start
            if kept >= PROBE and self._base64 is None:
                self._base64 = _BASE64.match(buffer, self.start) is not None
            limit = HEAD if self._base64 is False else PROBE
            if kept >= limit:
                self._tail = bytearray()
                break
            stop = start + limit - kept + 12  # 12: past any one escape, so that the cut cannot fall back to start
            stop = end if stop >= end else safe_cut(data, start, stop)
            buffer += data[start:stop]
            start = stop
        if start == end or self._tail is None:
            return
        if self._base64:
            stop = end if self._goes_on(data[start:end]) else _ends(data, start, end)
            if stop > start:
                self.opaque += stop - start
                self._drop(data[start:stop])
            if stop < end:
                self._turn_to_text()
                self.add(data, stop, end)
            return
        self._tail += data[start:end]
        if len(self._tail) > 2 * TAIL:
            tail = bytes(self._tail)
            cut = safe_cut(tail, 0, len(tail) - TAIL)
            self._drop(tail[:cut])
            del self._tail[:cut]

    def end(self) -> list[Gap]:
        """The string is complete. Returns what is missing of it, in order."""
        gaps = []
        if self._before is not None:
            position, dropped = self._before
            gaps.append(Gap(self.start + position, dropped - len(_MARK), dropped))
        if self._tail is not None:
            if self._dropped:
                missing = self._dropped - len(_MARK)
                gaps.append(Gap(len(self._buffer), missing, self._dropped if self._base64 else 0, self._escaped))
                self._buffer += _MARK
            self._buffer += self._tail
        self._tail = self._before = self._base64 = None
        self._dropped = self._breaks = self._escaped = 0
        return gaps

    def _goes_on(self, piece: bytes) -> bool:
        """Whether base64 goes on with this: whatever only begins like it is text that somebody may have to read."""
        others = piece.translate(None, _ALPHABET)
        if not others:
            return True
        breaks = piece.count(b"\\n") + piece.count(b"\\r")
        if breaks + piece.count(b"\\/") != len(others) or others.strip(b"\\"):
            return False
        self._breaks += breaks
        return self._breaks <= 2 + (self._dropped + len(piece)) // SHORTEST_LINE

    def _turn_to_text(self) -> None:
        """The string goes on as any other; of the base64 a mark stays."""
        if self._dropped:
            self._before = len(self._buffer) - self.start, self._dropped
            self._buffer += _MARK
        self._tail = None
        self._base64 = False
        self._dropped = 0

    def _drop(self, piece: bytes) -> None:
        """Checks what is left out as `json` would."""
        self._dropped += len(piece)
        self._escaped += excess(piece)
        try:
            if b"\\" in piece or not piece.isascii():
                scanstring(piece.decode() + '"', 0, True)
            elif int(np.frombuffer(piece, np.uint8).min()) < 0x20:
                raise MalformedBody("The request body is not valid JSON: Invalid control character.")
        except UnicodeDecodeError:
            raise MalformedBody("The request body is not valid UTF-8.") from None
        except json.JSONDecodeError as error:
            raise MalformedBody(f"The request body is not valid JSON: {error.msg}.") from None


def _ends(data: bytes, start: int, end: int) -> int:
    """Where in data[start:end] base64 ends; `start` where nothing tells, as in words set below each other."""
    foreign = _FOREIGN.search(data, start, end)
    return start if foreign is None else safe_cut(data, start, max(start, foreign.start() - WORD))
