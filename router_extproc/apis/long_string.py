"""Long strings of a body: their middle is checked and left out."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from json.decoder import scanstring  # type: ignore[attr-defined]  # the C scanner of one string; typeshed omits it
from typing import Final

import numpy as np

from router_extproc.apis.json_marks import safe_cut
from router_extproc.errors import MalformedBody

HEAD: Final = 62 * 1024
"""Bytes kept of the beginning of a long string."""

TAIL: Final = 2 * 1024
"""Bytes kept of its end: at least this many, at most twice. Little, since it is all of a very long prompt that cannot
be classified before the last byte is there."""

PROBE: Final = 512
"""Bytes after which a string is judged to be base64 or text; all that is kept of base64."""

LEFT_OUT: Final = "\n[...]\n"
"""Stands in a decoded string for its middle."""

_MARK: Final = json.dumps(LEFT_OUT)[1:-1].encode()
# A data URL, or 256 characters without a space among which are capitals, small letters and digits. PHP writes `/` as
# `\/`, and some encoders break the lines.
_BASE64: Final = re.compile(
    rb"data:[^,\"]{0,120};base64,"
    rb"|(?=[^A-Z]{0,255}[A-Z])(?=[^a-z]{0,255}[a-z])(?=[^0-9]{0,255}[0-9])(?:[A-Za-z0-9+/_=-]|\\[/nr]){256}"
)


@dataclass(frozen=True, slots=True)
class Gap:
    """Where in the buffer `missing` bytes of the body are left out; `opaque` of them are base64."""

    position: int
    missing: int
    opaque: int


class LongString:
    """Writes a string into a buffer piece by piece, shortened if it turns out to be long. Used again for each string.

    `start` is where in the buffer it begins; whoever removes bytes before it moves it. `opaque` counts the bytes of
    base64 left out of all strings so far.
    """

    def __init__(self, buffer: bytearray) -> None:
        self.start = 0
        self.opaque = 0
        self._buffer = buffer
        self._tail: bytearray | None = None  # the end so far, once the head is full
        self._base64 = False
        self._dropped = 0

    def begin(self) -> None:
        """A string begins at the end of the buffer."""
        self.start = len(self._buffer)

    def add(self, data: bytes, start: int, end: int) -> None:
        """Takes data[start:end] as its next bytes. Both are ends of whole characters and escapes."""
        buffer = self._buffer
        while start < end and self._tail is None:
            kept = len(buffer) - self.start
            limit = PROBE
            if kept >= PROBE:
                self._base64 = _BASE64.match(buffer, self.start) is not None
                limit = PROBE if self._base64 else HEAD
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
            self.opaque += end - start
            self._drop(data[start:end])
            return
        self._tail += data[start:end]
        if len(self._tail) > 2 * TAIL:
            tail = bytes(self._tail)
            cut = safe_cut(tail, 0, len(tail) - TAIL)
            self._drop(tail[:cut])
            del self._tail[:cut]

    def end(self) -> Gap | None:
        """The string is complete. Returns what is missing of it."""
        gap = None
        if self._tail is not None:
            if self._dropped:
                missing = self._dropped - len(_MARK)
                gap = Gap(len(self._buffer), missing, self._dropped if self._base64 else 0)
                self._buffer += _MARK
            self._buffer += self._tail
        self._tail = None
        self._base64 = False
        self._dropped = 0
        return gap

    def _drop(self, piece: bytes) -> None:
        """Checks what is left out as `json` would."""
        self._dropped += len(piece)
        try:
            if b"\\" in piece or not piece.isascii():
                scanstring(piece.decode() + '"', 0, True)
            elif int(np.frombuffer(piece, np.uint8).min()) < 0x20:
                raise MalformedBody("The request body is not valid JSON: Invalid control character.")
        except UnicodeDecodeError:
            raise MalformedBody("The request body is not valid UTF-8.") from None
        except json.JSONDecodeError as error:
            raise MalformedBody(f"The request body is not valid JSON: {error.msg}.") from None
