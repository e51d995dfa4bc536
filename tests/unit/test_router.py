"""Filters and plans: which models can take a request, in which order to try them, what to say if none can."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from router_extproc.config.loader import parse
from router_extproc.domain import LlmRequest, Turn
from router_extproc.errors import ClientError, ContextTooLong, ModelForbidden, UnknownModel, UnsupportedModel
from router_extproc.router import Routed, classifier_prompt
from router_extproc.runtime import Runtime, compile_runtime
from router_extproc.signals.base import SHIPPED
from router_extproc.testing import FakeClassifier

CONFIG = """
models:
  tiny: {url: "http://h:1", price: {input: 1, output: 1}, context_window: 1000, tools: false, json_mode: false}
  wide: {url: "http://h:2", price: {input: 2, output: 2}, context_window: 100000, fallback: [seeing]}
  seeing: {url: "http://h:3", price: {input: 3, output: 3}, modalities: [text, image], context_window: 50000}
  claude: {url: "http://h:4", provider: anthropic, price: {input: 4, output: 4}}
signals:
  intent: {type: classifier, head: intent}
routes:
  - {name: talk, when: 'intent.label == "small_talk"', models: [tiny, wide], fallback: [seeing]}
default: [wide, seeing, claude]
virtual_models: {auto: {}, "auto:plain": {routes: [], default: tiny}}
limits: {max_attempts: 3}
"""

REQUEST = LlmRequest(api="chat_completions", model="auto", model_span=None, prompt="hello", tokens=10)


def runtime(text: str = CONFIG) -> Runtime:
    classifier = FakeClassifier({"hello": {"intent": ("small_talk", 0.95)}}, {"intent": ("other", "small_talk")})
    heads = {SHIPPED: classifier.labels}
    return compile_runtime(parse(text.encode(), Path("router.yaml")), heads, {SHIPPED: classifier})


def route(text: str = CONFIG, **changes: Any) -> Routed:
    return asyncio.run(runtime(text).router.route(replace(REQUEST, **changes), {}, time.monotonic() + 5))


@pytest.mark.parametrize(
    ("changes", "plan"),
    [
        ({}, ("tiny", "wide", "seeing")),
        ({"tokens": 2_000}, ("wide", "seeing")),
        ({"tokens": 900, "max_output_tokens": 200}, ("wide", "seeing")),
        ({"has_tools": True}, ("wide", "seeing")),
        ({"json_mode": True}, ("wide", "seeing")),
        ({"tokens": 60_000}, ("wide",)),
        ({"tokens": 60_000, "longest": 900}, ("tiny", "wide", "seeing")),
        ({"tokens": 60_000, "longest": 900, "max_output_tokens": 200}, ("wide", "seeing")),
        ({"tokens": 150_000}, ("wide",)),
        ({"model": "tiny", "tokens": 1_500}, ("tiny", "wide", "seeing")),
        ({"modalities": frozenset({"text", "image"})}, ("seeing",)),
        ({"api": "messages"}, ("claude",)),
        ({"model": "wide"}, ("wide", "seeing")),
        ({"model": "tiny"}, ("tiny", "wide", "seeing")),
        ({"model": "auto:plain"}, ("tiny",)),
    ],
)
def test_the_plan_holds_only_models_that_can_take_the_request(changes: dict[str, Any], plan: tuple[str, ...]) -> None:
    assert route(**changes).plan.models == plan


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"model": "gpt-nobody"}, UnknownModel, "gpt-nobody"),
        ({"model": "claude"}, UnsupportedModel, "chat_completions"),
        ({"model": "tiny", "tokens": 5_000}, ContextTooLong, "5000 input tokens"),
        ({"tokens": 199_999, "max_output_tokens": 60_000}, ContextTooLong, "60000 output tokens"),
        ({"modalities": frozenset({"audio"})}, UnsupportedModel, "audio"),
        ({"modalities": frozenset({"text", "image"}), "tokens": 170_000}, ContextTooLong, "170000"),
    ],
)
def test_a_request_that_no_model_can_take_is_told_why(
    changes: dict[str, Any], error: type[ClientError], words: str
) -> None:
    with pytest.raises(error, match=words):
        route(**changes)


@pytest.mark.parametrize(
    ("more", "plan"),
    [
        ("", ("wide", "seeing")),
        ("preferences: {everyone: {forbidden: tiny}}", ("wide", "seeing")),
        ("preferences: {everyone: {forbidden: seeing}}", ("wide",)),
        ("guards: [{name: g, when: 'true', action: reroute, models: [tiny, seeing]}]", ("seeing", "tiny")),
    ],
)
def test_a_named_model_with_a_fallback_of_its_own_is_not_replaced_by_the_default(
    more: str, plan: tuple[str, ...]
) -> None:
    text = CONFIG.replace("default: [wide, seeing, claude]", "default: [spare, tiny]") + more
    spare = '  spare: {url: "http://h:5", price: {input: 1, output: 1}}\n'
    assert route(text.replace("signals:", f"{spare}signals:"), model="wide").plan.models == plan


VECTORS = """
models:
  chat: {url: "http://h:1", price: {input: 1, output: 1}}
  other: {url: "http://h:2", price: {input: 1, output: 1}}
  emb: {url: "http://h:3", price: {input: 1, output: 1}, apis: [embeddings], context_window: 8000, fallback: twin}
  twin: {url: "http://h:4", price: {input: 1, output: 1}, apis: [embeddings], context_window: 8000}
  alone: {url: "http://h:5", price: {input: 1, output: 1}, apis: [embeddings], context_window: 8000}
signals:
  long: {type: keywords, any: [hello]}
routes:
  - {name: emb, when: 'request.api == "embeddings" && long.label == "true"', models: emb, fallback: twin}
  - {name: rest, when: 'long.label == "true"', models: chat}
default: [chat, other]
"""


@pytest.mark.parametrize(
    ("changes", "plan"),
    [
        ({"model": "alone"}, ("alone",)),
        ({"model": "emb"}, ("emb", "twin")),
        ({}, ("emb", "twin")),
        ({"tokens": 90_000, "longest": 100}, ("emb", "twin")),
        ({"prompt": "x"}, ("chat",)),
        ({"api": "chat_completions"}, ("chat", "other")),
    ],
)
def test_only_models_that_the_operator_put_together_embed_for_each_other(
    changes: dict[str, Any], plan: tuple[str, ...]
) -> None:
    assert route(VECTORS, **{"api": "embeddings", **changes}).plan.models == plan


@pytest.mark.parametrize(
    ("more", "model", "plan"),
    [
        ("preferences: {everyone: {forbidden: other}}", "auto", ("emb", "twin")),
        ("preferences: {everyone: {forbidden: other}}", "alone", ("alone",)),
        ("preferences: {everyone: {forbidden: emb}}", "auto", ("twin",)),
        ("preferences: {everyone: {only: [alone, emb]}}", "auto", ("emb",)),
        ("guards: [{name: g, when: 'true', action: reroute, models: [alone, emb]}]", "auto", ("emb",)),
        ("guards: [{name: g, when: 'true', action: reroute, models: [alone, twin]}]", "emb", ("twin",)),
        ("preferences: {everyone: {favourite: other}}", "plain", ("chat",)),
    ],
)
def test_neither_preferences_nor_guards_bring_another_embedder(more: str, model: str, plan: tuple[str, ...]) -> None:
    text = VECTORS + "virtual_models: {auto: {}, plain: {routes: []}}\n" + more
    assert route(text, api="embeddings", model=model).plan.models == plan


@pytest.mark.parametrize(
    ("more", "model"),
    [
        ("preferences: {everyone: {forbidden: [emb, twin]}}", "auto"),
        ("preferences: {everyone: {forbidden: chat}}", "plain"),
        ("guards: [{name: g, when: 'true', action: reroute, models: [emb, twin]}]", "alone"),
    ],
)
def test_an_embedder_that_is_not_allowed_is_refused(more: str, model: str) -> None:
    text = VECTORS + "virtual_models: {auto: {}, plain: {routes: []}}\n" + more
    with pytest.raises(ModelForbidden, match="vectors of another one could not be compared"):
        route(text, api="embeddings", model=model)


def test_embeddings_that_are_too_long_go_to_no_other_model() -> None:
    for model in ("auto", "alone"):
        with pytest.raises(ContextTooLong, match="90000"):
            route(VECTORS, api="embeddings", model=model, tokens=90_000)


def test_max_attempts_bounds_the_plan() -> None:
    assert route(CONFIG.replace("max_attempts: 3", "max_attempts: 1")).plan.models == ("tiny",)


def test_a_policy_without_classifier_signals_never_asks_one() -> None:
    text = CONFIG.replace("intent: {type: classifier, head: intent}", "long: {type: keywords, any: [hello]}")
    text = text.replace('intent.label == "small_talk"', 'long.label == "true"')
    classifier = FakeClassifier({}, {"intent": ("other",)})
    classifier.error = AssertionError("was asked")
    compiled = compile_runtime(parse(text.encode(), Path("router.yaml")), {}, {SHIPPED: classifier})
    routed = asyncio.run(compiled.router.route(REQUEST, {}, time.monotonic() + 5))
    assert routed.plan.pick == "tiny"


def test_an_empty_prompt_is_not_classified() -> None:
    routed = route(prompt="")
    assert routed.signals.absent == {"intent": "no text"}
    assert routed.plan.pick == "wide"


def test_the_classifier_reads_the_newest_turn_and_the_end_of_the_last_ones() -> None:
    turns = (
        Turn("user", "old"),
        Turn("user", "Write a sort in Python"),
        Turn("tool", "{}"),
        Turn("assistant", "x" * 700 + "end"),
    )
    prompt = classifier_prompt(replace(REQUEST, prompt="and in Rust?", context=turns))
    assert prompt.text == "and in Rust?"
    assert prompt.context.startswith("Write a sort in Python\n")
    assert prompt.context.endswith("xend")
    assert len(prompt.context) < 700
