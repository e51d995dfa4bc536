"""What stands beside the prompt: found in every API's bodies, read by guards that ask for it, bounded, remembered."""

import asyncio
import json
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from router_extproc.apis.conversation import WRITTEN_CHARACTERS, WRITTEN_TEXTS
from router_extproc.apis.mask import mask
from router_extproc.apis.table import for_path
from router_extproc.config.loader import parse
from router_extproc.domain import LlmRequest
from router_extproc.errors import ConfigError, GuardBlocked
from router_extproc.inference.base import Classified, Classifier, HeadResult, Overloaded, Prompt, Span
from router_extproc.inference.engine import Engine
from router_extproc.router import Routed
from router_extproc.runtime import Runtime, compile_runtime
from router_extproc.testing import FakeClassifier, FakeModel

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f"}}]}
PLAIN = {"type": "document", "title": "P", "source": {"type": "text", "media_type": "text/plain", "data": "in it"}}
REMINDER = "<system-reminder>A file: rm -rf</system-reminder>"

CASES: dict[str, tuple[str, dict[str, Any], tuple[str, ...], int]] = {
    "one turn": (CHAT, {"messages": [{"role": "user", "content": "hi"}]}, (), 0),
    "tools of an answer, and of one before": (
        CHAT,
        {
            "messages": [
                {"role": "system", "content": "be good"},
                {"role": "user", "content": "first"},
                CALL,
                {"role": "tool", "tool_call_id": "1", "content": "old result"},
                {"role": "assistant", "content": "answer"},
                {"role": "user", "content": "second"},
                CALL,
                {"role": "tool", "tool_call_id": "2", "content": "new result"},
                {"role": "tool", "tool_call_id": "3", "content": [{"type": "text", "text": "its part"}]},
            ]
        },
        ("its part", "new result", "old result", "first"),
        2,
    ),
    "documents beside the conversation": (
        CHAT,
        {
            "messages": [{"role": "user", "content": "ask"}, {"role": "assistant", "content": "a"}],
            "documents": [{"title": "T", "text": "found"}, "plain"],
        },
        ("T", "found", "plain"),
        3,
    ),
    "what an agent put into the turn": (
        MESSAGES,
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": REMINDER}, {"type": "text", "text": "fix it"}]}
            ]
        },
        (REMINDER,),
        1,
    ),
    "blocks of a user message": (
        MESSAGES,
        {
            "messages": [
                {"role": "user", "content": "go"},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "Read", "input": {}}]},
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "t", "content": "as text"},
                        {"type": "tool_result", "tool_use_id": "u", "content": [{"type": "text", "text": "as block"}]},
                        {"type": "document", "title": "D", "source": {"type": "text", "data": "of the document"}},
                        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "c"}]}},
                        {
                            "type": "search_result",
                            "title": "S",
                            "source": "x",
                            "content": [{"type": "text", "text": "s"}],
                        },
                        {"type": "document", "source": {"type": "base64", "data": "JVBERi0x"}},
                    ],
                },
            ]
        },
        ("s", "S", "c", "of the document", "D", "as block", "as text"),
        7,
    ),
    "a document within a tool's result": (
        MESSAGES,
        {
            "messages": [
                {"role": "user", "content": "go"},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [PLAIN]}]},
            ]
        },
        ("in it", "P"),
        2,
    ),
    "what the provider's tools returned": (
        MESSAGES,
        {
            "messages": [
                {"role": "user", "content": "go"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "server_tool_use", "id": "1", "name": "web_fetch", "input": {"url": "u"}},
                        {"type": "web_fetch_tool_result", "content": {"type": "web_fetch_result", "content": PLAIN}},
                        {
                            "type": "bash_code_execution_tool_result",
                            "content": {"type": "bash_code_execution_result", "stdout": "printed", "content": []},
                        },
                    ],
                },
                {"role": "user", "content": "and now"},
            ]
        },
        ("printed", "in it", "P", "go"),
        0,
    ),
    "a tool's result that is an object": (
        CHAT,
        {
            "messages": [
                {"role": "user", "content": "go"},
                CALL,
                {"role": "tool", "content": {"type": ["x"], "output": "as object", "n": 1}},
                {"role": "tool", "content": [{"text": "as list"}, 5]},
            ]
        },
        ("as list", "as object"),
        2,
    ),
    "parts of a tool's result that are called like their text": (
        CHAT,
        {
            "messages": [
                {"role": "user", "content": "go"},
                CALL,
                {"role": "tool", "content": [{"type": "refusal", "refusal": "no"}]},
                {"role": "tool", "content": [{"type": "thinking", "thinking": "t"}]},
            ]
        },
        ("t", "no"),
        2,
    ),
    "what programs returned": (
        RESPONSES,
        {
            "input": [
                {"role": "user", "content": "go"},
                {"type": "program_output", "call_id": "1", "result": "of a program"},
                {"type": "function_call_output", "call_id": "2", "output": {"text": "of a function"}},
                {"type": "function_call_output", "call_id": "2", "output": [{"text": "untyped"}]},
                {"type": "image_generation_call", "id": "3", "result": "iVBORw0KGgo"},
            ]
        },
        ("untyped", "of a function", "of a program"),
        3,
    ),
    "what is put into a prompt that the provider keeps": (
        RESPONSES,
        {
            "prompt": {"id": "p", "variables": {"a": "by hand", "b": {"type": "input_text", "text": "typed"}, "c": 5}},
            "input": "go",
        },
        ("by hand", "typed"),
        2,
    ),
    "items of a response": (
        RESPONSES,
        {
            "input": [
                {"role": "user", "content": "look"},
                {"type": "reasoning", "summary": []},
                {"type": "function_call", "call_id": "0", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "0", "output": "earlier"},
                {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "I think"}]},
                {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "1", "output": "one"},
                {"type": "function_call", "call_id": "2", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "2", "output": [{"type": "input_text", "text": "two"}]},
                {"type": "mcp_call", "id": "m", "name": "g", "arguments": "{}", "output": "three"},
            ]
        },
        ("three", "two", "one", "earlier"),
        3,
    ),
}


def read(path: str, body: Mapping[str, Any]) -> LlmRequest:
    api = for_path(path)
    assert api is not None
    reader = api.reader()
    reader.feed(json.dumps({"model": "auto", "max_tokens": 9, **body}).encode())
    request = reader.finish()
    assert reader.written() == (request.written, request.fresh)
    return request


@pytest.mark.parametrize("case", CASES)
def test_readers_find_what_stands_beside_the_prompt(case: str) -> None:
    path, body, written, fresh = CASES[case]
    request = read(path, body)
    assert (request.written, request.fresh) == (written, fresh)
    assert request.prompt not in request.written


def test_the_newest_text_is_the_prompt_where_the_provider_keeps_the_rest() -> None:
    request = read(RESPONSES, {"prompt": {"id": "p", "variables": {"q": "by hand"}}})
    assert (request.prompt, request.written) == ("by hand", ())


def test_what_is_kept_of_it_is_bounded() -> None:
    long = [{"role": "tool", "content": f"{n} " + "x y " * 5_000} for n in range(20)]
    kept = read(CHAT, {"messages": [{"role": "user", "content": "hi"}, *long]}).written
    assert [text.partition(" ")[0] for text in kept] == ["19", "18", "17"]
    assert sum(map(len, kept)) <= WRITTEN_CHARACTERS
    short = [{"role": "tool", "content": str(n)} for n in range(1_000)]
    kept = read(CHAT, {"messages": [{"role": "user", "content": "hi"}, *short]}).written
    assert kept == tuple(str(n) for n in range(999, 999 - WRITTEN_TEXTS, -1))
    whole = read(CHAT, {"messages": [{"role": "user", "content": "hi"}, {"role": "tool", "content": "a b " * 90_000}]})
    assert WRITTEN_CHARACTERS * 0.9 < len(whole.written[0]) <= WRITTEN_CHARACTERS


CONFIG = """
models:
  m: {url: "http://h:1", price: {input: 1, output: 1}}
signals:
  near: {type: classifier, head: guard}
  fresh: {type: classifier, head: guard, reads: untrusted}
  all: {type: classifier, head: guard, reads: conversation}
  names: {type: classifier, head: pii, reads: conversation}
  words: {type: keywords, any: [bad tool], where: untrusted}
  old: {type: keywords, any: [bad past], where: conversation}
guards:
  - {name: strict, when: 'fresh.label == "injection" && fresh.confidence > 0.9', action: block, on_error: ERROR}
  - {name: names, when: 'names.label != "none"', action: mask}
default: m
limits: {read_windows: 4}
"""
LABELS = {"guard": ("benign", "injection"), "pii": ("none", "PERSON")}
BAD: dict[str, dict[str, str | tuple[str, float]]] = {
    text: {"guard": ("injection", 0.97)} for text in ("bad tool", "bad past", "bad prompt")
}
REQUEST = LlmRequest(
    "chat_completions", "auto", None, "hello", tokens=9, written=("fine tool", "bad tool", "bad past"), fresh=2
)


class Finder(FakeClassifier):
    """Finds "Anna" in every text."""

    def _classified(self, prompt: Prompt) -> Classified:
        made = super()._classified(prompt)
        at = prompt.text.find("Anna")
        if at < 0:
            return replace(made, heads={**made.heads, "pii": HeadResult("none", 0.9, {})})
        span = Span(at, at + 4, "PERSON", 0.95)
        return replace(made, heads={**made.heads, "pii": HeadResult("PERSON", 0.95, {"PERSON": 0.95}, spans=(span,))})


def compiled(classifier: Classifier, on_error: str = "allow") -> Runtime:
    text = CONFIG.replace("ERROR", on_error)
    return compile_runtime(parse(text.encode(), Path("r.yaml")), {"shipped": LABELS}, {"shipped": classifier})


def route(runtime: Runtime, **changes: Any) -> Routed:
    return asyncio.run(runtime.router.route(replace(REQUEST, **changes), {}, time.monotonic() + 5))


def labels(runtime: Runtime, **changes: Any) -> dict[str, str]:
    judged = asyncio.run(runtime.router.judge(replace(REQUEST, **changes), {}, time.monotonic() + 5))
    return {name: value.label for name, value in judged.signals.values.items()}


def test_each_signal_reads_what_it_asks_for() -> None:
    runtime = compiled(FakeClassifier(BAD, LABELS))
    found = labels(runtime)
    assert [found[name] for name in ("near", "fresh", "all", "words", "old")] == [
        *("benign", "injection", "injection"),
        *("true", "true"),
    ]
    found = labels(runtime, written=("fine", "bad past"), fresh=1)
    assert [found[name] for name in ("near", "fresh", "all", "words", "old")] == [
        *("benign", "benign", "injection"),
        *("false", "true"),
    ]
    found = labels(runtime, prompt="bad prompt", written=(), fresh=0)
    assert [found[name] for name in ("near", "fresh", "all")] == ["injection"] * 3


def test_an_injection_in_a_tools_result_is_blocked() -> None:
    runtime = compiled(FakeClassifier(BAD, LABELS))
    with pytest.raises(GuardBlocked):
        route(runtime)
    assert route(runtime, written=("fine tool", "bad past"), fresh=1).plan.pick == "m"
    with pytest.raises(GuardBlocked):
        route(runtime, prompt="", written=("bad tool",), fresh=1)


def test_personal_data_of_an_earlier_turn_is_masked() -> None:
    found = route(compiled(Finder({}, LABELS)), written=("it is Anna who", "nobody"), fresh=0)
    assert found.decision.masked == ("Anna",)
    assert found.signals.values["names"].label == "PERSON"
    assert found.signals.values["names"].confidence == pytest.approx(0.95)


class Failing(FakeClassifier):
    """Has no room for "fine tool"."""

    async def classify(self, prompt: Prompt, deadline: float, patience: float = math.inf) -> Classified:
        if prompt.text == "fine tool":
            raise Overloaded("no room")
        return await super().classify(prompt, deadline)


def test_a_text_that_was_not_read_makes_the_signal_absent_unless_something_was_found() -> None:
    runtime = compiled(Failing(BAD, LABELS))
    with pytest.raises(GuardBlocked):
        route(runtime)
    clean = route(runtime, written=("fine tool",), fresh=1)
    assert clean.signals.absent == {"fresh": "overloaded", "all": "overloaded", "names": "overloaded"}
    assert clean.signals.values["near"].label == "benign"
    with pytest.raises(GuardBlocked):
        route(compiled(Failing(BAD, LABELS), "block"), written=("fine tool",), fresh=1)


class Hurried(Finder):
    """The deadline comes before it has read all windows of texts with "long"."""

    def _classified(self, prompt: Prompt) -> Classified:
        return replace(super()._classified(prompt), cut_short="long" in prompt.text)


def test_nothing_found_before_the_deadline_came_is_not_nothing_there() -> None:
    strict = compiled(Hurried(BAD, LABELS), "block")
    for changes in ({"prompt": "a long one", "written": (), "fresh": 0}, {"written": ("a long one",), "fresh": 1}):
        with pytest.raises(GuardBlocked):
            route(strict, **changes)
    assert route(strict, written=("a short one",), fresh=1).decision.guards == ()
    clean = route(compiled(Hurried(BAD, LABELS)), written=("a long one",), fresh=1)
    assert clean.decision.guards == ()
    # To a route it is what was read; what was found counts for everybody.
    assert (clean.signals.values["fresh"].label, clean.signals.values["fresh"].partial) == ("benign", True)
    with pytest.raises(GuardBlocked):
        route(compiled(Hurried(BAD, LABELS)), written=("a long one", "bad tool"), fresh=2)


def test_what_is_no_text_is_not_taken_for_harmless() -> None:
    strict = compiled(FakeClassifier(BAD, LABELS), "block")
    with pytest.raises(GuardBlocked):
        route(strict, written=(), fresh=0, unread=True)
    clean = route(compiled(FakeClassifier(BAD, LABELS)), written=(), fresh=0, unread=True)
    assert clean.decision.guards == ()
    assert {name for name, value in clean.signals.values.items() if value.partial} == {
        *("near", "fresh", "all", "names", "words", "old")
    }
    # What was found in the rest counts as ever.
    found = route(compiled(Finder({}, LABELS)), written=("it is Anna",), fresh=0, unread=True)
    assert (found.decision.masked, found.signals.values["names"].more) == (("Anna",), True)


@pytest.mark.parametrize("written", [("Anna, in a long one",), ("a long one", "Anna"), ("fine tool", "Anna")])
def test_names_in_what_was_read_are_not_all_names(written: tuple[str, ...]) -> None:
    class Busy(Failing, Hurried):
        pass

    def runtime(on_error: str) -> Runtime:
        text = CONFIG.replace("ERROR", "allow").replace("action: mask", f"action: mask, on_error: {on_error}")
        heads = {"shipped": LABELS}
        return compile_runtime(parse(text.encode(), Path("r.yaml")), heads, {"shipped": Busy({}, LABELS)})

    with pytest.raises(GuardBlocked):
        route(runtime("block"), written=written, fresh=0)
    assert route(runtime("allow"), written=written, fresh=0).decision.masked == ("Anna",)
    assert route(runtime("block"), written=("Anna",), fresh=0).decision.masked == ("Anna",)


def test_the_newest_texts_are_read_as_far_as_the_limit_allows() -> None:
    classifier = FakeClassifier(BAD, LABELS)
    written = ("a", "x" * 1_700, "b", "c", "bad past")
    assert labels(compiled(classifier), written=written, fresh=1)["all"] == "benign"
    assert [prompt.text for prompt in classifier.seen] == ["hello", "a", "x" * 1_700, "b"]
    classifier.seen.clear()
    labels(compiled(classifier), written=("z" * 9_000, "a"), fresh=0)
    assert [len(prompt.text) for prompt in classifier.seen] == [5, 9_000]


def test_a_history_that_is_sent_again_costs_nothing() -> None:
    async def story() -> tuple[int, int]:
        engine = Engine(FakeModel(BAD, LABELS))
        await engine.start()
        try:
            router = compiled(engine).router
            deadline = time.monotonic() + 5
            first = replace(REQUEST, written=("one", "two"), fresh=2)
            await router.judge(first, {}, deadline)
            before = engine.stats()
            await router.judge(replace(first, prompt="next", written=("three", "one", "two"), fresh=1), {}, deadline)
            after = engine.stats()
            return after.windows - before.windows, after.remembered - before.remembered
        finally:
            await engine.aclose()

    assert asyncio.run(story()) == (2, 2)


def test_texts_go_in_one_batch_with_the_prompt() -> None:
    async def story() -> list[int]:
        model = FakeModel(BAD, LABELS)
        engine = Engine(model)
        await engine.start()
        try:
            await compiled(engine).router.judge(REQUEST, {}, time.monotonic() + 5)
            return model.batches
        finally:
            await engine.aclose()

    # The thread may wake up for the first window before the last one is queued.
    assert sum(asyncio.run(story())) == 4
    assert len(asyncio.run(story())) <= 2


def test_heads_that_say_what_a_turn_is_about_read_that_alone() -> None:
    text = CONFIG.replace("{type: classifier, head: guard}", "{type: classifier, head: intent, reads: untrusted}")
    heads = {"shipped": {**LABELS, "intent": ("chat", "code")}}
    with pytest.raises(ConfigError, match=r"signals.near.reads: .* must not be overlooked"):
        compile_runtime(parse(text.replace("ERROR", "allow").encode(), Path("r.yaml")), heads, {})


def test_nothing_is_read_where_no_signal_asks_for_it() -> None:
    text = "models: {m: {url: 'http://h:1', price: {input: 1, output: 1}}}\ndefault: m\n"
    text += "signals: {near: {type: classifier, head: guard}}\n"
    classifier = FakeClassifier(BAD, LABELS)
    loaded = parse(text.encode(), Path("r.yaml"))
    labels(compile_runtime(loaded, {"shipped": LABELS}, {"shipped": classifier}))
    assert [prompt.text for prompt in classifier.seen] == ["hello"]


def test_masking_covers_where_tools_and_documents_keep_their_texts() -> None:
    body = json.dumps(
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "content": "seen Anna"},
                        {"type": "document", "title": "On Anna", "source": {"type": "text", "data": "by Anna herself"}},
                        {"type": "image", "source": {"type": "base64", "data": "abc/Anna/def"}},
                    ],
                }
            ],
            "documents": [{"contents": "Anna again"}],
        }
    ).encode()
    changed = mask([body], ["Anna"])[0]
    assert changed.count(b"Anna") == 1
    assert b"abc/Anna/def" in changed
