from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_extproc.apis.rewrite import replace_span
from router_extproc.apis.table import for_path


def apply(chunks: list[bytes], changed: list[tuple[int, bytes]]) -> list[bytes]:
    new = dict(changed)
    return [new.get(index, chunk) for index, chunk in enumerate(chunks)]


@given(st.lists(st.binary(max_size=6), max_size=8), st.data(), st.binary(max_size=9))
def test_equals_slicing_the_whole_body(chunks: list[bytes], data: st.DataObject, value: bytes) -> None:
    body = b"".join(chunks)
    if not body:
        return
    start = data.draw(st.integers(0, len(body) - 1))
    end = data.draw(st.integers(start + 1, len(body)))
    changed = replace_span(chunks, (start, end), value)
    assert b"".join(apply(chunks, changed)) == body[:start] + value + body[end:]
    offset = 0
    touched = [index for index, _ in changed]
    for index, chunk in enumerate(chunks):
        overlaps = bool(chunk) and offset < end and start < offset + len(chunk)
        assert (index in touched) == overlaps
        offset += len(chunk)


@pytest.mark.parametrize("span", [(3, 3), (2, 1), (-1, 2), (4, 9), (8, 9)])
def test_refuses_spans_that_are_not_in_the_body(span: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="not within a body"):
        replace_span([b"abc", b"de"], span, b"x")


@given(
    st.dictionaries(
        st.text(max_size=5), st.none() | st.integers() | st.floats(allow_nan=False) | st.text(), max_size=4
    ),
    st.lists(st.integers(0, 400), max_size=5),
    st.booleans(),
    st.booleans(),
)
def test_only_the_model_changes(extra: dict[str, Any], cuts: list[int], ascii_only: bool, first: bool) -> None:
    api = for_path("/v1/chat/completions")
    assert api is not None
    extra = {f"x-{key}": value for key, value in extra.items() if value == value and value not in (1e999, -1e999)}
    needed = {"model": "auto", "messages": [{"role": "user", "content": '\u00e9\\"}{ \U0001f600'}]}
    body = {**needed, **extra} if first else {**extra, **needed}
    raw = json.dumps(body, ensure_ascii=ascii_only).encode("utf-8", "replace")
    borders = sorted({0, len(raw), *(cut % len(raw) for cut in cuts)})
    chunks = [raw[start:end] for start, end in itertools.pairwise(borders)]
    reader = api.reader()
    for chunk in chunks:
        reader.feed(chunk)
    span = reader.finish().model_span
    assert span is not None
    new = b"".join(apply(chunks, replace_span(chunks, span, b'"cheap-1"')))
    assert json.loads(new) == {**json.loads(raw), "model": "cheap-1"}
    assert new == raw.replace(b'"model": "auto"', b'"model": "cheap-1"')
