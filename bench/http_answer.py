"""Reads one HTTP/1.1 answer from a connection, and what the sidecar said in its headers."""

from __future__ import annotations

from dataclasses import dataclass

MAX_HEAD = 64 * 1024


class BadAnswer(Exception):
    """What came back is no HTTP/1.1 answer that we can read."""


@dataclass(slots=True)
class AnswerReader:
    """Finds the end of one answer in the bytes of a connection. `feed` gives True when it is complete."""

    status: int = 0
    head: bytes = b""
    closes: bool = False
    _data: bytes = b""
    _left: int = -1
    _chunked: bool = False

    def feed(self, data: bytes) -> bool:
        """Takes bytes. Raises BadAnswer, also for bytes behind the answer: nothing was asked that they could answer."""
        if self.status == 0:
            self._data += data
            end = self._data.find(b"\r\n\r\n")
            if end < 0:
                if len(self._data) > MAX_HEAD:
                    raise BadAnswer("a head without end")
                return False
            self._read_head(self._data[:end])
            data, self._data = self._data[end + 4 :], b""
        if self._chunked:
            return self._feed_chunked(data)
        self._left -= len(data)
        if self._left < 0:
            raise BadAnswer("bytes behind the answer")
        return self._left == 0

    def header(self, name: bytes) -> bytes:
        """A header's value; `name` in lower case. Empty when it is not there."""
        at = self.head.lower().find(b"\r\n" + name + b":")
        if at < 0:
            return b""
        start = at + len(name) + 3
        end = self.head.find(b"\r\n", start)
        return self.head[start : end if end >= 0 else None].strip()

    def _read_head(self, head: bytes) -> None:
        if not head.startswith(b"HTTP/1.1 ") or not head[9:12].isdigit():
            raise BadAnswer("not HTTP/1.1")
        self.head, self.status = head, int(head[9:12])
        self.closes = self.header(b"connection").lower() == b"close"
        self._chunked = self.header(b"transfer-encoding").lower() == b"chunked"
        length = self.header(b"content-length")
        if not self._chunked:
            if not length.isdigit():
                raise BadAnswer("an answer without a length")
            self._left = int(length)

    def _feed_chunked(self, data: bytes) -> bool:
        self._data += data
        while True:
            line = self._data.find(b"\r\n")
            if line < 0:
                return False
            try:
                size = int(self._data[:line].partition(b";")[0], 16)
            except ValueError:
                raise BadAnswer("a bad chunk size") from None
            end = line + 2 + size + 2
            if len(self._data) < end:
                return False
            self._data = self._data[end:]
            if size == 0:
                if self._data:
                    raise BadAnswer("bytes behind the answer")
                return True


def verdict(reader: AnswerReader) -> str:
    """What the sidecar did with a request, by the headers of its answer.

    `decided`: by the rules, and by the classifier where they ask it. `late`, `overloaded`, `failed`: without the
    classifier, which was asked. `none`: the sidecar did not answer at all, or there is none.
    """
    if not reader.header(b"x-mom-band"):
        return "none"
    reason = reader.header(b"x-mom-reason").decode("latin-1").split()
    for missing in ("late", "overloaded", "failed", "error"):
        if missing in reason:
            return "failed" if missing == "error" else missing
    return "decided"
