"""Cutting a long text into windows by characters, so that windows can be cut before the text is complete.

A window is about as long as the encoder's token window; the encoder cuts further by tokens where a script needs more
tokens for its characters. Cutting by characters is what makes overlap possible: where a window ends depends only on the
characters before its end, so a window that was cut from half a body is a window of the whole body.
"""

from __future__ import annotations

from dataclasses import dataclass

WINDOW_CHARS = 1000
"""Characters of a window of plain ASCII: about 230 tokens of English prose, and 250 to 330 of code."""

OVERLAP_CHARS = 80
"""Characters that neighbouring windows share, so that a name or a sentence on the border is whole in one of them."""

_SMALLEST = 250
_FULL_SCRIPT_BYTES = 2.0


@dataclass(frozen=True, slots=True)
class Window:
    """`text[start : start + len(text)]` of the whole text, offsets in characters."""

    start: int
    text: str


def estimate_tokens(text: str) -> int:
    """About how many tokens `text` has. Cheap: linear only for text that is not ASCII, at memory speed."""
    return 2 + (len(text) // 4 if text.isascii() else len(text.encode("utf-8", "replace")) // 3)


def window_end(text: str, start: int, *, complete: bool) -> int | None:
    """Where the window that begins at `start` ends.

    None when that depends on text still to come: with `complete` false, while the rest could still become the last
    window, which may be half as long again as the others so that no text ends in a scrap.
    """
    ahead = len(text) - start
    if not complete and ahead <= WINDOW_CHARS + WINDOW_CHARS // 2:
        return None
    size = _window_chars(text, start)
    if ahead <= size + size // 2:
        return len(text)
    end = start + size
    gap = max(text.rfind(" ", end - size // 4, end), text.rfind("\n", end - size // 4, end))
    return gap + 1 if gap >= 0 else end


def next_start(text: str, start: int, end: int) -> int:
    """Where the window after `text[start:end]` begins: a little before `end`, at the beginning of a word."""
    begin = max(end - OVERLAP_CHARS, start + 1)
    gap = text.find(" ", begin, end)
    return gap + 1 if gap >= 0 else begin


def cut(text: str, *, limit: int) -> list[Window]:
    """All windows of a complete text, at least one.

    A text with more than `limit` of them gives its first, its last and evenly spread ones between, `limit` in all; only
    those are looked at, so the cost does not grow with the text.
    """
    if len(text) > limit * WINDOW_CHARS:
        return _sample(text, limit)
    windows: list[Window] = []
    start = 0
    while True:
        end = window_end(text, start, complete=True)
        assert end is not None
        windows.append(Window(start, text[start:end]))
        if end == len(text):
            break
        start = next_start(text, start, end)
    return windows if len(windows) <= limit else [windows[i] for i in spread(len(windows), limit)]


def spread(count: int, limit: int) -> list[int]:
    """`limit` indices of `range(count)`, evenly spread, first and last included; all of them if `count` is smaller."""
    if count <= limit:
        return list(range(count))
    if limit == 1:
        return [count - 1]
    return [round(i * (count - 1) / (limit - 1)) for i in range(limit)]


def reading_order(count: int) -> list[int]:
    """In what order to read windows so that stopping early has seen the most: last, first, then the middles of gaps."""
    order = [count - 1, 0][: min(count, 2)]
    gaps = [(0, count - 1)]
    for low, high in gaps:  # grows while it is walked: breadth first
        middle = (low + high) // 2
        if middle not in (low, high):
            order.append(middle)
            gaps += [(low, middle), (middle, high)]
    return order


def _window_chars(text: str, start: int) -> int:
    """Scripts outside the encoder's vocabulary cost up to a token per character; their UTF-8 is longer, which tells."""
    ahead = text[start : start + WINDOW_CHARS]
    if ahead.isascii():
        return WINDOW_CHARS
    width = len(ahead.encode("utf-8", "replace")) / len(ahead)
    share = min(1.0, (width - 1.0) / (_FULL_SCRIPT_BYTES - 1.0))
    return int(WINDOW_CHARS - share * (WINDOW_CHARS - _SMALLEST))


def _sample(text: str, limit: int) -> list[Window]:
    last = len(text) - WINDOW_CHARS
    starts = [round(i * last / max(1, limit - 1)) for i in range(limit)] if limit > 1 else [last]
    return [Window(start, text[start : start + _window_chars(text, start)]) for start in starts[:-1]] + [
        Window(max(last, 0), text[max(last, 0) :])
    ]
