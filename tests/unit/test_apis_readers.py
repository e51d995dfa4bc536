"""What the readers make of requests as clients really send them, and of wrong ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from router_extproc.apis.base import BodyReader
from router_extproc.apis.conversation import CONTEXT_CHARACTERS, CONTEXT_TURNS, PROMPT_CHARACTERS
from router_extproc.apis.long_string import LEFT_OUT
from router_extproc.apis.table import APIS, for_path
from router_extproc.config.model import Api
from router_extproc.domain import LlmRequest, Turn
from router_extproc.errors import MalformedBody

CHAT, TEXT, RESPONSES, EMBEDDINGS, MESSAGES = APIS
REMINDER = "<system-reminder>\nThe todo list is empty.\n</system-reminder>"
PNG = "data:image/png;base64," + "iVBORw0KGgoAAAANSUhEUg" * 20


def reader(path: str) -> BodyReader:
    api = for_path(path)
    assert api is not None
    return api.reader()


def read(path: str, body: Mapping[str, Any], chunk: int = 1 << 20) -> LlmRequest:
    raw = json.dumps(body).encode()
    taking = reader(path)
    for at in range(0, len(raw), chunk):
        taking.feed(raw[at : at + chunk])
        taking.partial()
        taking.growing()
    return taking.finish()


CLAUDE_CODE = {
    "model": "auto",
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": REMINDER}, {"type": "text", "text": "Fix the parser"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Let me think", "signature": "x"},
                {"type": "text", "text": "I look at it."},
                {"type": "tool_use", "id": "t1", "name": "Read", "input": {"file_path": "/a.py"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "def a(): ..."}]},
                {"type": "text", "text": REMINDER},
            ],
        },
    ],
    "system": [{"type": "text", "text": "You are a coding agent.", "cache_control": {"type": "ephemeral"}}],
    "tools": [{"name": "Read", "input_schema": {"type": "object"}}],
    "metadata": {"user_id": "user_1"},
    "max_tokens": 32000,
    "stream": True,
}

CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "chat, shortest": (
        CHAT,
        {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
        {
            "api": "chat_completions",
            "model": "m",
            "prompt": "Hi",
            "context": (),
            "turns": 1,
            "stream": False,
            "max_output_tokens": None,
            "has_tools": False,
            "json_mode": False,
            "user": None,
            "system": "",
        },
    ),
    "chat, a conversation": (
        CHAT,
        {
            "messages": [
                {"role": "developer", "content": "Be short."},
                {"role": "user", "content": "What is Rust?"},
                {"role": "assistant", "content": "A language."},
                {"role": "user", "content": [{"type": "text", "text": "And"}, {"type": "text", "text": "Go?"}]},
            ],
            "model": "auto",
            "stream": True,
            "max_completion_tokens": 100,
            "user": "u",
            "tools": [],
            "temperature": 0.5,
            "unknown": {"a": [1]},
        },
        {
            "prompt": "And\n\nGo?",
            "system": "Be short.",
            "stream": True,
            "max_output_tokens": 100,
            "turns": 2,
            "context": (Turn("user", "What is Rust?"), Turn("assistant", "A language.")),
            "user": "u",
            "has_tools": False,
        },
    ),
    "chat, content before role, tool results last": (
        CHAT,
        {
            "model": "auto",
            "messages": [
                {"content": "Weather in Rome?", "role": "user"},
                {"content": None, "role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {}}]},
                {"content": '{"t": 20}', "role": "tool", "tool_call_id": "1"},
            ],
            "tools": [{"type": "function", "function": {"name": "weather"}}],
            "response_format": {"type": "json_schema", "json_schema": {}},
        },
        {"prompt": "Weather in Rome?", "has_tools": True, "json_mode": True, "turns": 1, "context": ()},
    ),
    "chat, image, audio, file, video": (
        CHAT,
        {
            "model": "auto",
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What?"},
                        {"type": "image_url", "image_url": {"url": PNG}},
                        {"type": "input_audio", "input_audio": {"data": "UklGRg", "format": "wav"}},
                        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0"}},
                        {"type": "video_url", "video_url": {"url": "https://example.com/v.mp4"}},
                        {"type": "from_the_future", "x": 1},
                    ],
                }
            ],
        },
        {"prompt": "What?", "modalities": frozenset({"text", "image", "audio", "file", "video"})},
    ),
    "chat, only an image after a question": (
        CHAT,
        {
            "model": "auto",
            "messages": [
                {"role": "user", "content": "I will send a picture. Describe it."},
                {"role": "assistant", "content": "Go on."},
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG}}]},
            ],
        },
        {"prompt": "I will send a picture. Describe it.", "modalities": frozenset({"text", "image"})},
    ),
    "chat, an unknown role counts as a human": (
        CHAT,
        {"model": "m", "messages": [{"role": "user", "content": "Hi"}, {"role": "human", "content": "Build a bomb"}]},
        {"prompt": "Build a bomb"},
    ),
    "chat, only reminders": (
        CHAT,
        {"model": "m", "messages": [{"role": "user", "content": REMINDER}]},
        {"prompt": REMINDER, "turns": 1},
    ),
    "chat, only a system message": (
        CHAT,
        {"model": "m", "messages": [{"role": "system", "content": "Say hello."}]},
        {"prompt": "", "system": "Say hello."},
    ),
    "chat, lone surrogates": (
        CHAT,
        {"model": "m", "messages": [{"role": "user", "content": "a\ud83d b\ude00"}], "user": "\ud83d"},
        {"prompt": "a\ufffd b\ufffd", "user": "\ufffd"},
    ),
    "chat, null for absent": (
        CHAT,
        {
            "model": "m",
            "messages": [{"role": "user", "content": "Hi"}],
            "tools": None,
            "stream": None,
            "user": None,
            "max_tokens": None,
            "response_format": None,
        },
        {"stream": False, "has_tools": False, "max_output_tokens": None, "json_mode": False, "user": None},
    ),
    "messages, coding agent": (
        MESSAGES,
        CLAUDE_CODE,
        {
            "api": "messages",
            "prompt": "Fix the parser",
            "context": (),
            "system": "You are a coding agent.",
            "turns": 1,
            "has_tools": True,
            "max_output_tokens": 32000,
            "stream": True,
            "user": "user_1",
            "modalities": frozenset({"text"}),
        },
    ),
    "messages, system string, json": (
        MESSAGES,
        {
            "max_tokens": 5,
            "messages": [{"role": "user", "content": "Hi"}],
            "model": "auto",
            "system": "Be short.",
            "output_config": {"format": {"type": "json_schema", "schema": {}}},
        },
        {"prompt": "Hi", "system": "Be short.", "json_mode": True, "max_output_tokens": 5},
    ),
    "messages, image in a tool result, text and pdf documents": (
        MESSAGES,
        {
            "max_tokens": 5,
            "messages": [
                {"role": "user", "content": "Look at the screen"},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "s", "input": {}}]},
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "1",
                            "content": [
                                {
                                    "type": "image",
                                    "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo"},
                                }
                            ],
                        }
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}},
                        {"type": "tool_result", "tool_use_id": "2", "content": "text"},
                    ],
                },
            ],
            "model": "auto",
        },
        {"prompt": "Look at the screen", "modalities": frozenset({"text", "image"})},
    ),
    "messages, pdf": (
        MESSAGES,
        {
            "max_tokens": 5,
            "model": "auto",
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "document",
                            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0"},
                        },
                        {"type": "text", "text": "Summarise"},
                    ],
                }
            ],
        },
        {"prompt": "Summarise", "modalities": frozenset({"text", "file"})},
    ),
    "responses, string": (
        RESPONSES,
        {
            "model": "auto",
            "input": "Hi there",
            "instructions": "Be nice.",
            "max_output_tokens": 9,
            "text": {"format": {"type": "json_object"}},
            "previous_response_id": "resp_1",
        },
        {
            "api": "responses",
            "prompt": "Hi there",
            "system": "Be nice.",
            "max_output_tokens": 9,
            "json_mode": True,
            "stateful": True,
        },
    ),
    "responses, a reference without a type": (
        RESPONSES,
        {"model": "auto", "input": [{"id": "msg_1"}, {"id": "msg_2", "type": None}, {"role": "user", "content": "Hi"}]},
        {"prompt": "Hi", "stateful": True},
    ),
    "responses, a reference": (
        RESPONSES,
        {"model": "auto", "input": [{"type": "item_reference", "id": "rs_1"}, {"role": "user", "content": "Hi"}]},
        {"prompt": "Hi", "stateful": True},
    ),
    "responses, a message whose type is null": (
        RESPONSES,
        {"model": "auto", "input": [{"type": None, "role": "user", "content": "Hi"}]},
        {"prompt": "Hi", "written": (), "stateful": False},
    ),
    "responses, a conversation of the provider": (
        RESPONSES,
        {"model": "auto", "conversation": {"id": "conv_1"}, "input": "Hi", "previous_response_id": None},
        {"stateful": True},
    ),
    "responses, image in a prompt of the provider": (
        RESPONSES,
        {"model": "auto", "prompt": {"id": "p", "variables": {"i": {"type": "input_image", "image_url": PNG}}}},
        {"prompt": "", "modalities": frozenset({"text", "image"}), "stateful": True},
    ),
    "messages, image within a document": (
        MESSAGES,
        {
            "max_tokens": 5,
            "model": "auto",
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "document",
                            "source": {"type": "content", "content": [{"type": "image", "source": {"data": "iVBO"}}]},
                        },
                        {"type": "text", "text": "What?"},
                    ],
                }
            ],
        },
        {"prompt": "What?", "modalities": frozenset({"text", "image"})},
    ),
    "messages, files that a tool lists": (
        MESSAGES,
        {
            "max_tokens": 5,
            "model": "auto",
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "content": [{"type": "file", "content": "words"}]}],
                }
            ],
        },
        {"written": ("words",), "modalities": frozenset({"text"})},
    ),
    "chat, parts without a type": (
        CHAT,
        {
            "model": "auto",
            "messages": [
                {"role": "user", "content": [{"text": "What?"}, {"image_url": PNG}, {"x": 1}, {"type": None}]}
            ],
        },
        {"prompt": "What?", "modalities": frozenset({"text", "image"})},
    ),
    "responses, codex": (
        RESPONSES,
        {
            "model": "auto",
            "instructions": "You are Codex.",
            "input": [
                {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Sandbox: on"}]},
                {
                    "type": "message",
                    "role": "user",
                    "content": [
                        {
                            "type": "input_text",
                            "text": "# AGENTS.md instructions for /a\n\n<INSTRUCTIONS>x</INSTRUCTIONS>",
                        }
                    ],
                },
                {
                    "type": "message",
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "<environment_context><cwd>/a</cwd></environment_context>"}
                    ],
                },
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Add a test"}]},
                {"type": "reasoning", "summary": [], "encrypted_content": "gAAA"},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "On it."}]},
                {"type": "function_call", "name": "shell", "arguments": "{}", "call_id": "1"},
                {"type": "function_call_output", "call_id": "1", "output": "ok"},
            ],
            "tools": [{"type": "function", "name": "shell"}],
            "stream": True,
        },
        {
            "prompt": "Add a test",
            "context": (),
            "system": "You are Codex.\n\nSandbox: on",
            "turns": 1,
            "stateful": True,
        },
    ),
    "responses, easy messages, image, screenshot": (
        RESPONSES,
        {
            "model": "auto",
            "input": [
                {
                    "role": "user",
                    "content": [{"type": "input_text", "text": "See"}, {"type": "input_image", "image_url": PNG}],
                },
                {
                    "type": "computer_call_output",
                    "call_id": "1",
                    "output": {"type": "computer_screenshot", "image_url": PNG},
                },
            ],
        },
        {"prompt": "See", "modalities": frozenset({"text", "image"})},
    ),
    "responses, input elsewhere": (RESPONSES, {"model": "auto", "prompt": {"id": "pmpt_1"}}, {"prompt": ""}),
    "completions": (
        TEXT,
        {"model": "auto", "prompt": "def add(a, b):\n    ", "max_tokens": 16},
        {"api": "completions", "prompt": "def add(a, b):", "max_output_tokens": 16},
    ),
    "completions, several": (TEXT, {"model": "auto", "prompt": ["one", "two"]}, {"prompt": "one\n\ntwo"}),
    "completions, token ids": (TEXT, {"model": "auto", "prompt": [1, 2, 3]}, {"prompt": ""}),
    "completions, lists of token ids": (TEXT, {"model": "auto", "prompt": [[1, 2], [3]]}, {"prompt": ""}),
    "completions, embeddings as prompt": (TEXT, {"model": "auto", "prompt_embeds": "AAAA"}, {"prompt": ""}),
    "embeddings": (
        EMBEDDINGS,
        {"input": ["a", "b"], "model": "e", "encoding_format": "base64"},
        {"api": "embeddings", "model": "e", "prompt": "a\n\nb"},
    ),
}


@pytest.mark.parametrize("chunk", [1, 17, 1 << 20])
@pytest.mark.parametrize("name", CASES)
def test_reads(name: str, chunk: int) -> None:
    path, body, expected = CASES[name]
    request = read(path, body, chunk)
    assert {field: getattr(request, field) for field in expected} == expected
    assert request == read(path, body)
    raw = json.dumps(body).encode()
    assert request.model_span is not None
    assert json.loads(raw[slice(*request.model_span)]) == body["model"]


HI = [{"role": "user", "content": "Hi"}]
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


def test_partial_follows_the_newest_human_turn() -> None:
    taking = reader(CHAT)
    taking.feed(b'{"model":"auto","messages":[{"role":"system","content":"S"},')
    assert taking.partial() is None
    taking.feed(b'{"role":"user","content":"One"}')
    first = taking.partial()
    assert first is not None
    assert (first.prompt, first.model, first.system) == ("One", "auto", "S")
    taking.feed(b',{"role":"assistant",')
    assert taking.partial() is first
    taking.feed(b'"content":"Yes"}')
    assert taking.partial() is None
    taking.feed(b',{"role":"user","content":"Two"}]')
    second = taking.partial()
    assert second is not None
    assert second.prompt == "Two"
    taking.feed(b',"stream":true}')
    request = taking.finish()
    assert (request.prompt, request.stream) == ("Two", True)


def test_partial_before_the_model_is_known() -> None:
    taking = reader(RESPONSES)
    taking.feed(b'{"input":"Hello","tools":[')
    early = taking.partial()
    assert early is not None
    assert (early.prompt, early.model, early.model_span) == ("Hello", None, None)


@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        (CHAT, '{"model":"m","messages":[{"role":"user","content":"', '"}]}'),
        (CHAT, '{"model":"m","messages":[{"content":"', '","role":"user"}]}'),
        (CHAT, '{"messages":[{"role":"user","content":[{"type":"text","text":"', '"}]}],"model":"m"}'),
        (MESSAGES, '{"messages":[{"role":"user","content":[{"type":"text","text":"', '"}]}],"model":"m"}'),
        (RESPONSES, '{"model":"m","input":"', '"}'),
        (RESPONSES, '{"model":"m","input":[{"type":"message","role":"user","content":"', '"}]}'),
        (TEXT, '{"model":"m","prompt":"', '"}'),
    ],
)
def test_a_long_turn_grows(path: str, before: str, after: str) -> None:
    text = "A question of some length, \u00e9t\u00e9 \U0001f600 included.\n" * 4000
    raw = (before + json.dumps(text)[1:-1] + after).encode()
    taking = reader(path)
    seen: list[str] = []
    for at in range(0, len(raw), 4096):
        taking.feed(raw[at : at + 4096])
        seen.append(taking.growing())
    prompt = taking.finish().prompt
    assert len(seen[3]) > 8000
    assert max(map(len, seen)) > 30_000
    assert all(prompt.startswith(text) for text in seen)


def test_what_others_say_does_not_grow() -> None:
    for message in ('{"role":"tool","content":"', '{"role":"assistant","content":"', '{"role":"system","content":"'):
        taking = reader(CHAT)
        taking.feed(b'{"model":"m","messages":[' + message.encode() + b"words " * 1000)
        assert taking.growing() == ""
    taking = reader(MESSAGES)
    taking.feed(b'{"messages":[{"role":"user","content":[{"type":"tool_result","content":"' + b"words " * 1000)
    assert taking.growing() == ""


def test_long_conversations_are_kept_short() -> None:
    long = "words and " * 20_000
    messages = [{"role": ("user", "assistant")[index % 2], "content": f"{index} {long} {index}"} for index in range(31)]
    request = read(CHAT, {"model": "m", "messages": messages}, 65_536)
    assert request.turns == 16
    assert len(request.prompt) == PROMPT_CHARACTERS
    assert request.prompt.startswith("30 words")
    assert request.prompt.endswith(" 30")
    assert LEFT_OUT in request.prompt
    assert len(request.context) == CONTEXT_TURNS
    assert [turn.text.split()[0] for turn in request.context] == [str(number) for number in range(22, 30)]
    assert {len(turn.text) for turn in request.context} == {CONTEXT_CHARACTERS}


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


def test_table() -> None:
    assert {api.name for api in APIS.values()} == {str(api) for api in Api}
    for path, api in APIS.items():
        assert api.path == path
        assert for_path(path) is api
        assert for_path(path + "?beta=true") is api
        for other in (path + "/", path.upper(), path[1:], path + "/count_tokens", "/x" + path):
            assert for_path(other) is None
    assert for_path("") is None
