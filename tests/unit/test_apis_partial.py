"""What is known of a request before its body is complete."""

from __future__ import annotations

import json

import pytest

from router_extproc.apis.conversation import CONTEXT_CHARACTERS, CONTEXT_TURNS, PROMPT_CHARACTERS
from router_extproc.apis.long_string import LEFT_OUT
from tests.bodies import CHAT, MESSAGES, RESPONSES, TEXT, read, reader


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
    assert seen[-2] is seen[-10]  # what is left out costs no further look


def test_a_long_turn_after_another_grows_too() -> None:
    taking = reader(CHAT)
    taking.feed(b'{"model":"m","messages":[{"role":"user","content":"' + b"first " * 30_000)
    assert taking.growing().startswith("first")
    taking.feed(b'"},{"role":"user","content":"' + b"second " * 30_000)
    assert taking.growing().startswith("second")


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
