from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from router_extproc.inference.base import Classified
from router_extproc.inference.reading import Reading
from router_extproc.inference.windows import cut

ANSWER = Classified({}, 1, "v1")


def reading(text: str) -> Reading:
    loop = asyncio.new_event_loop()
    try:
        return Reading(loop.create_future(), len(text), 1)
    finally:
        loop.close()


@given(st.integers(1, 30_000), st.data())
def test_coverage_is_the_share_of_characters_that_some_window_showed(length: int, data: st.DataObject) -> None:
    text = ("lorem ipsum " * (length // 12 + 1))[:length]
    windows = cut(text, limit=64)
    chosen = data.draw(st.lists(st.sampled_from(windows), min_size=1, unique=True))
    read = reading(text)
    for window in chosen:
        read.add(window, ANSWER)
    seen = {at for window in chosen for at in range(window.start, window.start + len(window.text))}
    assert read.coverage() == len(seen) / length
    assert (read.coverage() == 1) == (len(seen) == length)
    assert [offset for offset, _ in read.in_order()] == sorted(window.start for window in chosen)


def test_an_empty_text_is_read_whole() -> None:
    read = reading("")
    read.add(cut("", limit=4)[0], ANSWER)
    assert read.coverage() == 1.0
