from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from router_extproc.inference.windows import (
    WINDOW_CHARS,
    Window,
    cut,
    estimate_tokens,
    next_start,
    reading_order,
    spread,
    window_end,
)

WORDS = st.lists(
    st.text(st.characters(codec="utf-8", exclude_categories=["Zs"]), min_size=1, max_size=40), min_size=1, max_size=30
)
TEXTS = st.tuples(WORDS, st.integers(1, 200)).map(lambda parts: " ".join(parts[0] * parts[1])[:20_000])


def while_it_arrives(text: str, steps: list[int]) -> list[Window]:
    """The windows that can be cut from prefixes of the text, then the rest."""
    windows: list[Window] = []
    start, seen = 0, 0
    for step in [*steps, len(text)]:
        seen = min(len(text), seen + step)
        while (end := window_end(text[:seen], start, complete=False)) is not None:
            windows.append(Window(start, text[start:end]))
            start = next_start(text[:seen], start, end)
    rest = cut(text[start:], limit=10**6)
    return windows + [Window(start + window.start, window.text) for window in rest]


@given(TEXTS)
def test_windows_cover_the_whole_text_and_overlap(text: str) -> None:
    windows = cut(text, limit=10**6)
    assert windows[0].start == 0
    for window in windows:
        assert text[window.start : window.start + len(window.text)] == window.text
        assert len(window.text) <= WINDOW_CHARS * 1.5
    for before, after in pairwise(windows):
        assert before.start < after.start <= before.start + len(before.text)
    assert windows[-1].start + len(windows[-1].text) == len(text)


@given(TEXTS, st.lists(st.integers(1, 3000), max_size=20))
def test_cutting_while_the_text_arrives_gives_the_same_windows(text: str, steps: list[int]) -> None:
    assert while_it_arrives(text, steps) == cut(text, limit=10**6)


@given(TEXTS, st.integers(1, 10))
def test_a_limit_keeps_the_last_window_and_spreads_the_rest(text: str, limit: int) -> None:
    windows = cut(text, limit=limit)
    assert 1 <= len(windows) <= limit
    assert windows[-1].start + len(windows[-1].text) == len(text)
    if limit > 1:
        assert windows[0].start == 0
    for window in windows:
        assert text[window.start : window.start + len(window.text)] == window.text


def test_ten_megabytes_give_as_many_windows_as_allowed() -> None:
    windows = cut("lorem ipsum " * 900_000, limit=64)
    assert len(windows) == 64
    assert max(len(window.text) for window in windows) <= WINDOW_CHARS


def test_windows_end_between_words() -> None:
    for window in cut("supercalifragilistic " * 400, limit=64):
        assert window.text.startswith("supercali")
        assert window.text.endswith("listic ")


def test_scripts_that_cost_a_token_per_character_get_shorter_windows() -> None:
    assert max(len(window.text) for window in cut("汉字" * 2000, limit=64)) <= 375


def test_a_short_text_is_one_window() -> None:
    assert cut("", limit=64) == [Window(0, "")]
    assert cut("a" * 1400, limit=64) == [Window(0, "a" * 1400)]


@given(st.integers(1, 300))
def test_the_reading_order_is_a_permutation_that_begins_with_both_ends(count: int) -> None:
    order = reading_order(count)
    assert sorted(order) == list(range(count))
    assert order[0] == count - 1
    assert count == 1 or order[1] == 0


@given(st.integers(1, 500), st.integers(1, 500))
def test_spread_is_strictly_increasing_and_ends_at_the_end(count: int, limit: int) -> None:
    chosen = spread(count, limit)
    assert len(chosen) == min(count, limit)
    assert chosen == sorted(set(chosen))
    assert chosen[-1] == count - 1


def test_estimates_are_of_the_right_size() -> None:
    assert estimate_tokens("hello world, how are you?") in range(5, 12)
    assert estimate_tokens("汉字" * 50) in range(90, 120)
    assert estimate_tokens("\ud800") >= 2
