"""Replaces a few bytes of a body that is held in chunks, without copying the rest."""

from __future__ import annotations

from collections.abc import Sequence


def replace_span(chunks: Sequence[bytes], span: tuple[int, int], value: bytes) -> list[tuple[int, bytes]]:
    """The chunks that change when the bytes span[0]:span[1] of the whole body become `value`: (index, new bytes).

    All other chunks stay as they are. A span over several chunks puts `value` into the first of them; the others lose
    their part and may become empty. Raises ValueError for a span that is empty or not within the body.
    """
    start, end = span
    changed: list[tuple[int, bytes]] = []
    offset = 0
    for index, chunk in enumerate(chunks):
        if offset >= end:
            break
        if chunk and start < offset + len(chunk):
            before, after = chunk[: max(0, start - offset)], chunk[end - offset :]
            changed.append((index, before + (b"" if changed else value) + after))
        offset += len(chunk)
    if not 0 <= start < end <= offset:
        raise ValueError(f"the span {span} is not within a body of {offset} bytes or more")
    return changed
