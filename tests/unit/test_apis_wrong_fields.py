"""What the readers say of wrong requests."""

from __future__ import annotations

from typing import Any

import pytest

from router_extproc.errors import MalformedBody
from tests.bodies import CHAT, EMBEDDINGS, HI, MESSAGES, RESPONSES, TEXT, read, reader

WRONG: list[tuple[str, Any, str]] = [
    (CHAT, {"messages": HI}, "model"),
    (CHAT, {"model": None, "messages": HI}, "model"),
    (CHAT, {"model": "", "messages": HI}, "model"),
    (CHAT, {"model": 5, "messages": HI}, "model"),
    (CHAT, {"model": ["m"], "messages": HI}, "model"),
    (CHAT, {"model": {"m": 1}, "messages": HI}, "model"),
    (CHAT, {"model": "m" * 300, "messages": HI}, "model"),
    (CHAT, {"model": "m" * 300_000, "messages": HI}, "model"),
    (CHAT, {"model": "m"}, "messages"),
    (CHAT, {"model": "m", "messages": []}, "messages"),
    (CHAT, {"model": "m", "messages": None}, "messages"),
    (CHAT, {"model": "m", "messages": "Hi"}, "messages"),
    (CHAT, {"model": "m", "messages": {"role": "user"}}, "messages"),
    (CHAT, {"model": "m", "messages": [*HI, "Hi"]}, "messages[1]"),
    (CHAT, {"model": "m", "messages": [{"content": "Hi"}]}, "messages[0].role"),
    (CHAT, {"model": "m", "messages": [{"role": 1, "content": "Hi"}]}, "messages[0].role"),
    (CHAT, {"model": "m", "messages": [*HI, {"role": "user", "content": 5}]}, "messages[1].content"),
    (CHAT, {"model": "m", "messages": [{"role": "user", "content": {"text": "a"}}]}, "messages[0].content"),
    (CHAT, {"model": "m", "messages": [{"role": "user", "content": [5]}]}, "messages[0].content[0]"),
    (
        CHAT,
        {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
        "messages[0].content[0].text",
    ),
    (CHAT, {"model": "m", "messages": [{"role": "user", "content": [{"type": 5}]}]}, "messages[0].content[0].type"),
    (CHAT, {"model": "m", "messages": HI, "stream": "yes"}, "stream"),
    (CHAT, {"model": "m", "messages": HI, "tools": {"a": 1}}, "tools"),
    (CHAT, {"model": "m", "messages": HI, "max_tokens": "9"}, "max_tokens"),
    (CHAT, {"model": "m", "messages": HI, "max_tokens": True}, "max_tokens"),
    (CHAT, {"model": "m", "messages": HI, "max_completion_tokens": -1}, "max_completion_tokens"),
    (CHAT, {"model": "m", "messages": HI, "max_tokens": 1.5}, "max_tokens"),
    (MESSAGES, {"messages": HI}, "model"),
    (MESSAGES, {"model": "m", "max_tokens": 5}, "messages"),
    (MESSAGES, {"model": "m", "messages": HI, "system": 5}, "system"),
    (RESPONSES, {"model": "m"}, "input"),
    (RESPONSES, {"model": "m", "input": 5}, "input"),
    (RESPONSES, {"model": "m", "input": []}, "input"),
    (RESPONSES, {"model": "m", "input": [5]}, "input[0]"),
    (RESPONSES, {"model": "m", "input": [{"type": ["message"], "role": "user", "content": "Hi"}]}, "input[0].type"),
    (RESPONSES, {"model": "m", "input": [{"type": {}, "role": "user", "content": "Hi"}]}, "input[0].type"),
    (RESPONSES, {"model": "m", "input": [{"id": "x", "output": "Hi"}]}, "input[0].role"),
    (CHAT, {"model": "m", "messages": [{"role": "user", "content": ["a"] * 10_001}]}, "messages[0].content"),
    (CHAT, {"model": "m", "messages": [{"role": "tool", "content": [["a"] * 5_000] * 3}]}, "messages[0].content"),
    (
        MESSAGES,
        {
            "model": "m",
            "messages": [{"role": "user", "content": [{"type": "tool_result", "content": ["a"] * 10_001}]}],
        },
        "messages[0].content[0]",
    ),
    (RESPONSES, {"model": "m", "input": [{"type": "mcp_call", "output": ["a"] * 10_001}]}, "input[0]"),
    (RESPONSES, {"model": "m", "input": "a", "previous_response_id": 5}, "previous_response_id"),
    (TEXT, {"model": "m"}, "prompt"),
    (TEXT, {"model": "m", "prompt": 5}, "prompt"),
    (TEXT, {"model": "m", "prompt": ["a", {}]}, "prompt"),
    (TEXT, {"model": "m", "prompt": [True]}, "prompt"),
    (EMBEDDINGS, {"model": "m"}, "input"),
    (EMBEDDINGS, {"model": "m", "input": {"a": 1}}, "input"),
    (EMBEDDINGS, {"input": "a"}, "model"),
]


@pytest.mark.parametrize(("path", "body", "param"), WRONG)
@pytest.mark.parametrize("chunk", [50, 1 << 20])
def test_names_the_wrong_field(path: str, body: dict[str, Any], param: str, chunk: int) -> None:
    with pytest.raises(MalformedBody) as caught:
        read(path, body, chunk)
    assert caught.value.param == param
    assert f"'{param}'" in caught.value.message


def test_model_missing_is_said_as_openai_says_it() -> None:
    with pytest.raises(MalformedBody, match="You must provide a 'model' parameter"):
        read(CHAT, {"messages": HI})


@pytest.mark.parametrize("literal", [b"1e999", b"-1", b"Infinity", b"1.0"])
def test_strange_limits(literal: bytes) -> None:
    taking = reader(CHAT)
    body = b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"max_tokens":' + literal + b"}"
    if literal == b"1.0":
        taking.feed(body)
        assert taking.finish().max_output_tokens == 1
    else:
        with pytest.raises(MalformedBody):
            taking.feed(body)
