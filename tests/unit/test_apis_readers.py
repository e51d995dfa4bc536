"""What the readers make of requests as clients really send them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router_extproc.account_names import account_name
from router_extproc.apis.table import APIS, for_path
from router_extproc.config.model import Api
from router_extproc.domain import Turn
from tests.bodies import CHAT, EMBEDDINGS, MESSAGES, PNG, REMINDER, RESPONSES, TEXT, read

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
    "chat, parts that are called like their text": (
        CHAT,
        {
            "model": "m",
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "Hi"},
                        {"type": "refusal", "refusal": "Build a bomb"},
                        {"type": "thinking", "thinking": "with care", "signature": "x"},
                        {"type": "refusal", "refusal": None},
                        {"refusal": "and hide it", "content": ""},
                    ],
                }
            ],
        },
        {"prompt": "Hi\n\nBuild a bomb\n\nwith care\n\nand hide it", "thoughts": ()},
    ),
    "chat, what the model thought and refused": (
        CHAT,
        {
            "model": "m",
            "messages": [
                {"role": "user", "content": "Build a bomb"},
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "A trap"}, {"text": "Why?"}]},
                {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "Firm"}]},
                {"role": "user", "content": "Please"},
            ],
        },
        {
            "prompt": "Please",
            "context": (Turn("user", "Build a bomb"), Turn("assistant", "Why?"), Turn("assistant", "No.")),
            "thoughts": ("A trap", "Firm"),
            "written": ("Build a bomb",),
        },
    ),
    "chat, what the model thought beside what it said": (
        CHAT,
        {
            "model": "m",
            "messages": [
                {"role": "user", "content": "Hi", "reasoning": "not the model's"},
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "A"}], "reasoning_content": "B"},
                {"role": "assistant", "content": None, "reasoning": "C", "reasoning_content": "C", "tool_calls": []},
                {"role": "assistant", "content": "Yes", "reasoning": None, "reasoning_content": ["D"]},
                {"role": "user", "content": "Please"},
            ],
        },
        {"context": (Turn("user", "Hi"), Turn("assistant", "Yes")), "thoughts": ("A\n\nB", "C"), "written": ("Hi",)},
    ),
    "chat, a part of the prompt as numbers": (
        CHAT,
        {"model": "m", "messages": [{"role": "user", "content": [{"type": "prompt_embeds", "data": "AAAA"}]}]},
        {"prompt": "", "unread": True},
    ),
    "chat, a tool's result as numbers": (
        CHAT,
        {
            "model": "m",
            "messages": [
                {"role": "user", "content": "Hi"},
                {"role": "tool", "content": [{"type": "prompt_embeds", "data": "AAAA"}]},
            ],
        },
        {"prompt": "Hi", "unread": True},
    ),
    "chat, a long name of a user": (
        CHAT,
        {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "user": "u" * 300},
        {"user": "u" * 47 + "~beb0af38b32a4ede"},
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
    "responses, an image by its id": (
        RESPONSES,
        {"model": "m", "input": [{"role": "user", "content": "Hi"}, {"type": "image_generation_call", "id": "ig_1"}]},
        {"prompt": "Hi", "stateful": True},
    ),
    "responses, reasoning by its id": (
        RESPONSES,
        {"model": "m", "input": [{"type": "reasoning", "id": "r_1", "summary": []}, {"role": "user", "content": "Hi"}]},
        {"prompt": "Hi", "stateful": True},
    ),
    "responses, an image and reasoning that are there": (
        RESPONSES,
        {
            "model": "auto",
            "input": [
                {"role": "user", "content": "Hi"},
                {"type": "reasoning", "id": "rs_1", "content": [{"type": "reasoning_text", "text": "Hm"}]},
                {"type": "image_generation_call", "id": "ig_1", "result": "iVBORw0KGgo"},
                {"type": "reasoning", "summary": []},
            ],
        },
        {"prompt": "Hi", "stateful": False},
    ),
    "responses, what the model thought": (
        RESPONSES,
        {
            "model": "m",
            "input": [
                {"role": "user", "content": "Hi"},
                {
                    "type": "reasoning",
                    "summary": [{"type": "summary_text", "text": "In short"}],
                    "content": [{"type": "reasoning_text", "text": "At length"}, 7],
                },
                {"type": "reasoning", "summary": None},
                {"role": "assistant", "content": "Yes"},
                {"role": "user", "content": "Please"},
            ],
        },
        {
            "context": (Turn("user", "Hi"), Turn("assistant", "Yes")),
            "thoughts": ("In short\n\nAt length",),
            "written": ("Hi",),
            "fresh": 0,
            "stateful": False,
        },
    ),
    "responses, code that ran in a container": (
        RESPONSES,
        {
            "model": "m",
            "input": [
                {"type": "code_interpreter_call", "id": "ci_1", "code": "1", "container_id": "cntr_1"},
                {"role": "user", "content": "Hi"},
            ],
        },
        {"prompt": "Hi", "stateful": True},
    ),
    "responses, a command that ran in a container": (
        RESPONSES,
        {
            "model": "m",
            "input": [
                {"type": "shell_call", "environment": {"type": "container_reference", "container_id": "cntr_1"}},
                {"role": "user", "content": "Hi"},
            ],
        },
        {"prompt": "Hi", "stateful": True},
    ),
    "responses, a command that ran with the client": (
        RESPONSES,
        {
            "model": "m",
            "input": [
                {"type": "shell_call", "environment": {"type": "local"}},
                {"type": "code_interpreter_call", "code": "1", "container_id": None},
                {"role": "user", "content": "Hi"},
            ],
            "tools": [{"type": "shell", "environment": {"type": "container_auto"}}],
        },
        {"prompt": "Hi", "stateful": False},
    ),
    "responses, a shell in a container": (
        RESPONSES,
        {"model": "m", "input": "Hi", "tools": [{"type": "shell", "environment": {"container_id": "cntr_1"}}]},
        {"stateful": True},
    ),
    "responses, a shell with files": (
        RESPONSES,
        {"model": "m", "input": "Hi", "tools": [{"type": "shell", "environment": {"file_ids": ["file-1"]}}]},
        {"stateful": True},
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
    "chat, a file of the provider": (
        CHAT,
        {
            "model": "auto",
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "file", "file": {"file_id": "file-1"}}, {"type": "text", "text": "Sum it up"}],
                }
            ],
        },
        {"prompt": "Sum it up", "modalities": frozenset({"text", "file"}), "stateful": True},
    ),
    "chat, a file of the client": (
        CHAT,
        {"model": "auto", "messages": [{"role": "user", "content": [{"type": "file", "file": {"file_data": "x"}}]}]},
        {"modalities": frozenset({"text", "file"}), "stateful": False},
    ),
    "responses, an image and a file of the provider": (
        RESPONSES,
        {"model": "auto", "input": [{"role": "user", "content": [{"type": "input_image", "file_id": "file-1"}]}]},
        {"modalities": frozenset({"text", "image"}), "stateful": True},
    ),
    "responses, a store of the provider": (
        RESPONSES,
        {"model": "auto", "input": "Hi", "tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]},
        {"has_tools": True, "stateful": True},
    ),
    "responses, a container of an earlier answer": (
        RESPONSES,
        {"model": "auto", "input": "Hi", "tools": [{"type": "code_interpreter", "container": "cntr_1"}]},
        {"stateful": True},
    ),
    "responses, a file for a new container": (
        RESPONSES,
        {
            "model": "auto",
            "input": "Hi",
            "tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file-1"]}}],
        },
        {"stateful": True},
    ),
    "responses, a mask of the provider": (
        RESPONSES,
        {
            "model": "auto",
            "input": "Hi",
            "tools": [{"type": "image_generation", "input_image_mask": {"file_id": "file-1"}}],
        },
        {"stateful": True},
    ),
    "responses, a mask of the client": (
        RESPONSES,
        {
            "model": "auto",
            "input": "Hi",
            "tools": [{"type": "image_generation", "input_image_mask": {"image_url": PNG}}],
        },
        {"stateful": False},
    ),
    "chat, a spoken answer of the provider": (
        CHAT,
        {
            "model": "auto",
            "messages": [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "audio": {"id": "audio_1"}},
                {"role": "user", "content": "Louder"},
            ],
        },
        {"prompt": "Louder", "stateful": True},
    ),
    "responses, a new container": (
        RESPONSES,
        {"model": "auto", "input": "Hi", "tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
        {"stateful": False},
    ),
    "messages, a file of the provider": (
        MESSAGES,
        {
            "max_tokens": 5,
            "model": "auto",
            "messages": [
                {"role": "user", "content": [{"type": "document", "source": {"type": "file", "file_id": "file_1"}}]}
            ],
        },
        {"modalities": frozenset({"text", "file"}), "stateful": True},
    ),
    "messages, a container of an earlier answer": (
        MESSAGES,
        {"max_tokens": 5, "model": "auto", "container": "c_1", "messages": [{"role": "user", "content": "Hi"}]},
        {"stateful": True},
    ),
    "messages, a new container": (
        MESSAGES,
        {
            "max_tokens": 5,
            "model": "auto",
            "container": {"skills": []},
            "messages": [{"role": "user", "content": "Hi"}],
        },
        {"stateful": False},
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
    "completions, several": (
        TEXT,
        {"model": "auto", "prompt": ["one", "two"]},
        {"prompt": "one\n\ntwo", "unread": False},
    ),
    "completions, what comes behind": (
        TEXT,
        {"model": "m", "suffix": "and hide it", "prompt": "Build a bomb"},
        {"prompt": "Build a bomb", "written": ("and hide it",), "fresh": 1, "longest": None},
    ),
    "completions, only what comes behind": (
        TEXT,
        {"model": "m", "prompt": "", "suffix": "Build a bomb"},
        {"prompt": "Build a bomb", "written": ()},
    ),
    "completions, token ids": (TEXT, {"model": "auto", "prompt": [1, 2, 3]}, {"prompt": "", "unread": True}),
    "completions, lists of token ids": (TEXT, {"model": "m", "prompt": [[1, 2], [3]]}, {"prompt": "", "unread": True}),
    "completions, embeddings as prompt": (TEXT, {"model": "m", "prompt_embeds": "A"}, {"prompt": "", "unread": True}),
    "completions, several embeddings": (TEXT, {"model": "m", "prompt_embeds": ["A"]}, {"prompt": "", "unread": True}),
    "completions, no embeddings": (
        TEXT,
        {"model": "m", "prompt": "Hi", "prompt_embeds": None},
        {"prompt": "Hi", "unread": False},
    ),
    "embeddings, a text and token ids": (
        EMBEDDINGS,
        {"model": "m", "input": ["Hi", [1]]},
        {"prompt": "Hi", "unread": True},
    ),
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


AGENTS_USER = f"user_{'a1' * 32}_account_0b7c5a5e-7c3e-4a44-9d6d-6f2f2d1c9e11"


@pytest.mark.parametrize(
    ("named", "user"),
    [
        (f"{AGENTS_USER}_session_d2e70091-3007-41a3-a916-cb8b0d3098de", account_name(AGENTS_USER)),
        ("user_a1_account__session_d2e70091", "user_a1_account_"),
        ('{"x": 1, "device_id": "d", "account_uuid": "a", "session_id": "s"}', "a"),
        ('{"device_id": "d", "account_uuid": "", "session_id": "s"}', "d"),
        *(
            (other, other)
            for other in (
                '{"device_id": "", "session_id": "s"}',
                '{"device_id": "d"}',
                '{"device_id": "d", "session_id"',
                "anna_session_1",
                "user_1_account_2",
                "[1]",
            )
        ),
        ('{"a":' * 5_000, account_name('{"a":' * 5_000)),
    ],
)
def test_a_session_of_claude_code_is_no_user(named: str, user: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "metadata": {"user_id": named}}
    found = read(MESSAGES, body)
    assert found.user == user
    assert bool(found.client_session) == (user != account_name(named))


def test_table() -> None:
    assert {api.name for api in APIS.values()} == {str(api) for api in Api}
    for path, api in APIS.items():
        assert api.path == path
        assert for_path(path) is api
        assert for_path(path + "?beta=true") is api
        for other in (path + "/", path.upper(), path[1:], path + "/count_tokens", "/x" + path):
            assert for_path(other) is None
    assert for_path("") is None
