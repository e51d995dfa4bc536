"""How large a request is taken to be."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.bodies import CHAT, EMBEDDINGS, HI, MESSAGES, PNG, TEXT, read, reader


def test_tokens_are_a_quarter_of_the_bytes() -> None:
    text = "word " * 2000
    tools = [{"type": "function", "function": {"name": "f", "description": text}}]
    plain = read(CHAT, {"model": "m", "messages": [{"role": "user", "content": text}]})
    assert 2500 <= plain.tokens <= 2530
    with_tools = read(CHAT, {"model": "m", "messages": [{"role": "user", "content": text}], "tools": tools})
    assert 5000 <= with_tools.tokens <= 5060


@pytest.mark.parametrize("kilobytes", [1, 70, 3000])
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_an_image_is_a_thousand_tokens(kilobytes: int, path: str) -> None:
    data = "iVBORw0KGgo+/A9z" * (kilobytes * 64)
    image: dict[str, Any] = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + data}}
    if path == MESSAGES:
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}
    request = read(path, {"model": "m", "messages": [{"role": "user", "content": [image, image]}]}, 10_000)
    assert 2000 <= request.tokens <= 2100


def test_long_text_counts_whole() -> None:
    assert read(CHAT, {"model": "m", "messages": [{"role": "user", "content": "x" * 400_000}]}).tokens >= 100_000


@pytest.mark.parametrize(
    "ignored", ["feed beef " * 100_000, ["feed beef " * 10_000] * 10, {"a": PNG * 1000}, PNG * 1000]
)
@pytest.mark.parametrize("chunk", [10_000, 10_000_000])
def test_large_fields_that_are_no_input_do_not_count(ignored: Any, chunk: int) -> None:
    words = "word " * 2000
    body = {"x": ignored, "messages": [{"role": "user", "content": words}], "y": ignored, "z": 1, "model": "m"}
    request = read(CHAT, body, chunk)
    assert 2500 <= request.tokens <= 2550
    assert request.model_span is not None
    assert json.dumps(body).encode()[slice(*request.model_span)] == b'"m"'


def test_documents_count() -> None:
    body = {"model": "m", "messages": HI, "documents": [{"text": "word " * 2000}]}
    assert read(CHAT, body).tokens >= 2500


@pytest.mark.parametrize(
    "text", ["\u043f\u0440\u0438\u0432\u0435\u0442 ", "\u4e2d\u6587\u5185\u5bb9", "\ud55c\uad6d\uc5b4 ", "\U0001f600 "]
)
def test_escaped_text_counts_like_utf8(text: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": text * 1000}]}
    request = read(CHAT, body)
    taking = reader(CHAT)
    taking.feed(json.dumps(body, ensure_ascii=False).encode())
    assert request.tokens == taking.finish().tokens


@pytest.mark.parametrize("chunk", [1, 7, 10_000_000])
def test_a_u_behind_a_backslash_that_is_escaped_is_a_letter(chunk: int) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "C:\\users " * 100}]}
    assert read(CHAT, body, chunk).tokens == (len(json.dumps(body)) + 3) // 4


@pytest.mark.parametrize("text", ["\u043f\u0440\u0438 " * 5_000, "\U0001f600\u4e2d " * 20_000])
@pytest.mark.parametrize("shape", [str, lambda text: [text], lambda text: {"a": {text: [text] * 3}}])
@pytest.mark.parametrize("chunk", [10_000, 10_000_000])
def test_escapes_in_fields_that_are_no_input_are_taken_off_once(
    text: str, shape: Callable[[str], Any], chunk: int
) -> None:
    ignored = shape(text)
    body = {"x": ignored, "messages": [{"role": "user", "content": "word " * 2000}], "y": ignored, "model": "m"}
    assert 2500 <= read(CHAT, body, chunk).tokens <= 2550


@pytest.mark.parametrize(
    ("path", "given", "longest"),
    [
        (EMBEDDINGS, ["word " * 100] * 200, 125),
        (EMBEDDINGS, ["a", "\u4e2d" * 400, "b"], 300),
        (EMBEDDINGS, [[7] * 500, [7] * 900], 900),
        (EMBEDDINGS, [7] * 70_000, 70_000),
        (EMBEDDINGS, "word " * 100, None),
        (EMBEDDINGS, ["a", "a long text " * 50_000], None),  # read in part only: how long it is cannot be told
        (TEXT, ["word " * 100, "x"], 125),
        (TEXT, "x", None),
    ],
)
@pytest.mark.parametrize("chunk", [10_000, 10_000_000])
def test_each_text_of_several_has_a_context_of_its_own(path: str, given: Any, longest: int | None, chunk: int) -> None:
    field = "input" if path == EMBEDDINGS else "prompt"
    request = read(path, {"model": "m", field: given}, chunk)
    assert (request.longest, request.context_tokens) == (longest, request.tokens if longest is None else longest)
    assert request.tokens >= len(json.dumps(given)) // 8


def test_a_suffix_is_input_of_each_prompt() -> None:
    assert read(TEXT, {"model": "m", "prompt": ["a", "b"], "suffix": "c" * 400}).longest is None
