from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from router_extproc.inference.windows import (
    OVERLAP_CHARS,
    WINDOW_CHARS,
    Window,
    cut,
    estimate_tokens,
    reading_order,
    settled,
    spread,
    taken,
)

WORDS = st.lists(
    st.text(st.characters(codec="utf-8", exclude_categories=["Zs"]), min_size=1, max_size=40), min_size=1, max_size=30
)
TEXTS = st.tuples(WORDS, st.integers(1, 200)).map(lambda parts: " ".join(parts[0] * parts[1])[:20_000])


@given(TEXTS)
def test_windows_cover_the_whole_text_and_overlap(text: str) -> None:
    windows = cut(text, limit=10**6)
    assert windows[0].start == 0
    for window in windows:
        assert text[window.start : window.start + len(window.text)] == window.text
        assert len(window.text) <= WINDOW_CHARS * 1.5
    for before, after in pairwise(windows):
        assert before.start < after.start <= before.start + len(before.text) <= after.start + OVERLAP_CHARS
    assert windows[-1].start + len(windows[-1].text) == len(text)


@given(TEXTS, st.integers(WINDOW_CHARS, 20_000))
def test_windows_of_a_part_are_windows_of_the_whole_but_for_the_last(text: str, length: int) -> None:
    settled = cut(text[:length], limit=10**6)[:-1]
    whole = cut(text, limit=10**6)
    # A part that ends right at a border may see fewer of the blanks that the border is laid between.
    assert settled[:-1] == whole[: len(settled)][:-1]


@given(TEXTS, st.integers(0, 20_000))
def test_what_is_settled_of_a_growing_text_is_read_as_it_will_be_in_the_end(text: str, length: int) -> None:
    part = text[:length]
    end = settled(part)
    assert 0 <= end <= len(part)
    whole = cut(text, limit=10**6)
    if end and len(part) >= WINDOW_CHARS:
        read = cut(part[:end], limit=10**6)
        assert read == whole[: len(read)]
    # Little is left for the end: the last window, which may be half as long again, and what a border may reach over.
    if text[:WINDOW_CHARS].isascii():
        assert len(part) - end <= 2 * WINDOW_CHARS


def test_nothing_is_settled_before_there_is_a_window_and_a_half() -> None:
    assert settled("") == settled("word " * 200) == 0
    assert settled("word " * 300) == 1000


@given(TEXTS, st.integers(WINDOW_CHARS, 20_000), st.integers(4, 12))
def test_what_is_taken_of_a_growing_text_thins_out_and_nothing_old_is_taken_anew(
    text: str, length: int, limit: int
) -> None:
    before = cut(text[:length], limit=limit)
    after = cut(text, limit=limit)
    seen = before[-1].start
    new = [window for window in after if window.start < seen - 2 * WINDOW_CHARS and window not in before]
    assert new == []


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
    assert len(windows) in range(33, 65)
    assert max(len(window.text) for window in windows) <= 1.5 * WINDOW_CHARS


def test_windows_end_between_words() -> None:
    for window in cut("supercalifragilistic " * 400, limit=64):
        assert window.text.startswith("supercali")
        assert window.text.endswith("listic ")
    assert [len(window.text) for window in cut("x" * 5000, limit=64)] == [1000] * 5 + [600]


def test_scripts_that_cost_a_token_per_character_get_shorter_windows() -> None:
    assert max(len(window.text) for window in cut("汉字" * 2000, limit=64)) <= 375


def test_a_short_text_is_one_window() -> None:
    assert cut("", limit=64) == [Window(0, "")]
    assert cut("a" * 1300, limit=64) == [Window(0, "a" * 1300)]


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


@given(st.integers(1, 5000), st.integers(2, 64))
def test_at_least_half_of_what_may_be_taken_is_taken(count: int, limit: int) -> None:
    chosen = taken(count, limit)
    assert min(count, limit // 2) <= len(chosen) <= limit
    assert chosen == sorted(set(chosen))
    assert chosen[-1] == count - 1
