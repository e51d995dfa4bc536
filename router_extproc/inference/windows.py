"""Cutting a long text into windows by characters, so that windows can be cut and read before the text is complete.

A window is about as long as the encoder's token window; the encoder cuts further by tokens where a script needs more
tokens for its characters. Windows lie on a grid: where window i begins and ends depends on the text's first window (for
its script) and on the characters at its own borders, and on nothing else. So every window but the last of half a body
is a window of the whole body, and any window is cut without looking at the ones before it.
"""

from __future__ import annotations

from dataclasses import dataclass

WINDOW_CHARS = 1000
"""Characters of a window of plain ASCII: about 230 tokens of English prose, and 250 to 330 of code."""

OVERLAP_CHARS = 120
"""Neighbouring windows share up to this many characters: the border falls between words where there are any."""

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


def count_windows(text: str) -> int:
    """How many windows a text has."""
    pitch = _pitch(text)
    return max(1, (len(text) + pitch // 2) // pitch)


def cut(text: str, *, limit: int) -> list[Window]:
    """The windows of a text, at least one and at most `limit` (>= 1), in order.

    The last may be half as long again as the others, so that no text ends in a scrap. Of a text with more than `limit`
    windows every second (fourth, eighth...) and the last are taken: as a text grows, the windows taken of it thin out,
    but no window is taken that was not before, except at the end. The cost does not grow with the text.
    """
    pitch, count = _pitch(text), count_windows(text)
    return [_window(text, index, count, pitch) for index in taken(count, limit)]


def settled(text: str) -> int:
    """Length of the part of a growing text that can be read already: its windows are windows of whatever it becomes.

    0 when there is none: for a text shorter than about a window and a half.
    """
    pitch = _pitch(text)
    if len(text) < WINDOW_CHARS:
        return 0
    count = (len(text) + pitch // 2) // pitch - 1
    if count * pitch + _overlap(pitch) > len(text):
        count -= 1
    end = _border(text, count * pitch, pitch)[1] if count > 0 else 0
    # The grid is laid by the first `WINDOW_CHARS` characters, which a shorter part does not have.
    return end if end >= WINDOW_CHARS or text[:WINDOW_CHARS].isascii() else 0


def taken(count: int, limit: int) -> list[int]:
    """Which of `count` windows are read when at most `limit` may be: every 2^k-th, and the last."""
    stride = 1
    while -(-(count - 1) // stride) + 1 > limit and stride < count:
        stride *= 2
    return [*range(0, count - 1, stride), count - 1] if limit > 1 else [count - 1]


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


def _window(text: str, index: int, count: int, pitch: int) -> Window:
    start = 0 if index == 0 else _border(text, index * pitch, pitch)[0]
    end = len(text) if index == count - 1 else _border(text, (index + 1) * pitch, pitch)[1]
    return Window(start, text[start:end])


def _overlap(pitch: int) -> int:
    """Less than half a pitch: what ends with a window's end must not count as having another window."""
    return min(OVERLAP_CHARS, pitch // 2 - 1)


def _border(text: str, at: int, pitch: int) -> tuple[int, int]:
    """Around the grid line `at`: where the window after it begins and the window before it ends (not before that)."""
    begin, end = at, at + _overlap(pitch)
    first, last = text.find(" ", begin, end), text.rfind(" ", begin, end)
    return (first + 1, last + 1) if first >= 0 else (begin, end)


def _pitch(text: str) -> int:
    """Distance of the grid's lines. Scripts outside the encoder's vocabulary cost up to a token per character; their
    UTF-8 is longer, which tells."""
    head = text[:WINDOW_CHARS]
    if head.isascii():
        return WINDOW_CHARS - OVERLAP_CHARS
    width = len(head.encode("utf-8", "replace")) / len(head)
    share = min(1.0, (width - 1.0) / (_FULL_SCRIPT_BYTES - 1.0))
    return int(WINDOW_CHARS - share * (WINDOW_CHARS - _SMALLEST)) - OVERLAP_CHARS
