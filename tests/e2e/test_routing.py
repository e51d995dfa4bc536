"""Where requests go: by intent, domain and band, with the real SDKs, streamed and not."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import anthropic
import httpx
import openai
import pytest

from tests.e2e.conftest import LIMITS, registered, shown
from tests.e2e.stack import Stack, running, wait_until, write_config

# Written for this test; no training set has them.
PROMPTS = [
    ("Write a Python function that reads a CSV file and returns the rows as dictionaries.", "code", "coder"),
    ("My unit test fails with KeyError: 'id' on line 12 of this function. Find the bug.", "code", "coder"),
    ("Where is my parcel? I ordered it last week and it still has not arrived.", "support", "small"),
    ("A patient has high blood pressure and diabetes. Which drugs lower the risk of a stroke?", "expert", "premium"),
    ("A defendant is charged with burglary. Is intent required for a conviction?", "expert", "premium"),
    ("Solve 3x^2 - 12x + 9 = 0 and show every step of the calculation.", "reasoning", "premium"),
]


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="sk-client", max_retries=0) as found:
        yield found


@pytest.mark.parametrize(("prompt", "route", "model"), PROMPTS)
def test_intent_and_domain_choose_the_model(
    stack: Stack, client: openai.OpenAI, prompt: str, route: str, model: str
) -> None:
    answer = client.chat.completions.with_raw_response.create(
        model="auto", messages=[{"role": "user", "content": prompt}]
    )
    assert answer.headers["x-mom-route"] == route
    assert answer.headers["x-mom-model"] == model, answer.headers["x-mom-reason"]
    assert answer.headers["x-mom-attempts"] == "1"
    assert 0 < float(answer.headers["x-mom-confidence"]) <= 1
    assert answer.headers["x-mom-decision-id"]
    [seen] = stack.server(model).seen
    assert answer.parse().model == json.loads(seen.body)["model"] == stack.server(model).model


def test_the_conversation_is_sent_byte_by_byte_but_for_the_models_name(stack: Stack) -> None:
    body = (
        b' {"stream":false ,"messages":[{"role":"user","content":"A bash script \\u00e9 \\"model\\": 1 \xc3\xa9"}],'
        b'"temperature":1.0e0,"unknown":{"model":"x","n":12345678901234567890},"model" : "auto"}\n'
    )
    answer = httpx.post(f"{stack.url}/v1/chat/completions", content=body, headers={"x-mine": "kept"}, timeout=30)
    assert answer.status_code == 200, answer.text
    [seen] = stack.server("coder").seen
    assert seen.body == body.replace(b'"auto"', b'"coder-32b"')
    assert seen.headers["x-mine"] == "kept"
    assert int(seen.headers["content-length"]) == seen.size


def test_a_named_model_is_taken_at_its_word(stack: Stack, client: openai.OpenAI) -> None:
    answer = client.chat.completions.with_raw_response.create(
        model="general", messages=[{"role": "user", "content": "Write a Python function"}]
    )
    assert answer.headers["x-mom-model"] == "general"
    assert answer.headers["x-mom-band"] == "named"
    assert not stack.server("coder").seen


def test_streams_arrive_event_by_event(stack: Stack, client: openai.OpenAI) -> None:
    stack.server("coder").chunk_seconds = 0.1
    try:
        stream = client.chat.completions.create(
            model="auto",
            messages=[{"role": "user", "content": "Write a function in Rust that reverses a string"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        times, words, usage = [], [], None
        for event in stream:
            times.append(time.monotonic())
            words += [choice.delta.content or "" for choice in event.choices]
            usage = event.usage or usage
    finally:
        stack.server("coder").chunk_seconds = 0.03
    assert "".join(words).startswith("This is coder-32b")
    assert usage is not None
    assert usage.completion_tokens == 13
    # A stream that is held back anywhere arrives all at once.
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert sum(gap > 0.03 for gap in gaps) >= len(gaps) * 2 // 3, gaps


def test_usage_reaches_the_sidecar_for_every_api(stack: Stack, client: openai.OpenAI) -> None:
    ask = "Write a Python function that adds two numbers"
    client.chat.completions.create(model="auto", messages=[{"role": "user", "content": f"chat: {ask}"}])
    with client.chat.completions.create(
        model="auto",
        messages=[{"role": "user", "content": f"stream: {ask}"}],
        stream=True,
        stream_options={"include_usage": True},
    ) as chat_stream:
        assert list(chat_stream)
    client.responses.create(model="auto", input=f"responses: {ask}")
    with client.responses.create(model="auto", input=f"events: {ask}", stream=True) as response_stream:
        assert [event for event in response_stream if event.type == "response.completed"]
    anthropic_client = anthropic.Anthropic(base_url=stack.url, api_key="sk-client")
    anthropic_client.messages.create(
        model="auto", max_tokens=50, messages=[{"role": "user", "content": f"messages: {ask}"}]
    )
    with anthropic_client.messages.stream(
        model="auto", max_tokens=50, messages=[{"role": "user", "content": f"anthropic: {ask}"}]
    ) as message_stream:
        assert message_stream.get_final_text().startswith("This is premium-xl")
    for kind in ("chat", "stream", "responses", "events", "messages", "anthropic"):
        line = wait_until(partial(shown, stack, f"{kind}: {ask}"[:48]), f"the line of {kind}")
        assert "+13 " in line, line


def test_anthropic_requests_go_to_a_model_that_speaks_it(stack: Stack) -> None:
    client = anthropic.Anthropic(base_url=stack.url, api_key="sk-client")
    answer = client.messages.with_raw_response.create(
        model="auto", max_tokens=50, messages=[{"role": "user", "content": "Write a Python function"}]
    )
    assert answer.headers["x-mom-model"] == "premium"
    [seen] = stack.server("premium").seen
    assert seen.headers["x-api-key"] == "sk-premium-0123"


def test_other_apis(stack: Stack, client: openai.OpenAI) -> None:
    answer = client.completions.create(model="auto", prompt="Once upon a time")
    assert answer.model == "small-8b"
    vectors = client.embeddings.create(model="auto", input=["one", "two"])
    assert [item.embedding[0] for item in vectors.data] == [1.0, 2.0]
    names = {model.id for model in client.models.list()}
    assert names == {"auto", "small", "general", "coder", "premium"}
    assert client.models.retrieve("auto").id == "auto"


def test_a_client_cannot_pick_its_cluster(stack: Stack) -> None:
    spoofed = {"x-mom-cluster": "small", "x-mom-plan": "single", "x-mom-model": "small", "x-mom-upstream": "small"}
    answer = httpx.post(
        f"{stack.url}/v1/chat/completions",
        json={"model": "auto", "messages": [{"role": "user", "content": "Write a Python function"}]},
        headers=spoofed,
        timeout=30,
    )
    assert answer.headers["x-mom-model"] == "coder"
    assert not stack.server("small").seen


@pytest.fixture(scope="module")
def banded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Routes whose bands are set so that any confidence falls into the one that a header names."""
    rules = [("sure", 0, 0), ("so-so", 1, 0), ("unsure", 1, 1)]
    routes = [
        f"  - {{name: {name}, when: 'wanted.label == \"{name}\"', confidence: intent, models: small, fallback: coder, "
        f"bands: {{recommended: {high}, fallback: {low}}}}}"
        for name, high, low in rules
    ]

    def edit(text: str) -> str:
        before, rest = text.split("routes:", 1)
        after = rest[rest.index("default:") :]
        wanted = "  wanted: {type: header, name: x-wanted}\n"
        return before.replace("signals:\n", "signals:\n" + wanted) + "routes:\n" + "\n".join(routes) + "\n" + after

    directory: Path = tmp_path_factory.mktemp("banded")
    with running(directory, write_config(directory, LIMITS, edit)) as found, registered(found):
        yield found


@pytest.mark.parametrize(
    ("route", "band", "model"),
    [
        ("sure", "recommended", "small"),
        ("so-so", "fallback", "coder"),
        ("unsure", "default", "premium"),
        ("no such route", "default", "premium"),
    ],
)
def test_the_confidence_picks_the_band(banded: Stack, route: str, band: str, model: str) -> None:
    answer = httpx.post(
        f"{banded.url}/v1/chat/completions",
        json={"model": "auto", "messages": [{"role": "user", "content": "Tell me something"}]},
        headers={"x-wanted": route},
        timeout=30,
    )
    assert answer.headers["x-mom-model"] == model, dict(answer.headers)
    assert answer.headers["x-mom-band"] == band
