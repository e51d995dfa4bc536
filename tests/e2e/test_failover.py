"""A model fails: the plan's next one answers, under its own name, path, host and key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from router_extproc.config.access_log import LINE
from tests.e2e.stack import Stack, wait_until

CODE = {"model": "auto", "messages": [{"role": "user", "content": "Write a Python function that sorts a list"}]}


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30) as client:
        yield client


@pytest.mark.parametrize(
    ("failure", "how"),
    [
        ("status", {"status": 503}),
        ("status", {"status": 500}),
        ("status", {"status": 429}),
        ("reset", {}),
        ("hang", {"seconds": 60}),
    ],
    ids=["503", "500", "429", "reset", "no answer"],
)
def test_the_next_model_answers(stack: Stack, http: httpx.Client, failure: str, how: dict[str, Any]) -> None:
    stack.server("coder").fail(failure, **how)
    answer = http.post(f"{stack.url}/v1/chat/completions", json=CODE, headers={"authorization": "Bearer sk-client"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-mom-model"] == "general"
    assert answer.headers["x-mom-attempts"] == "2"
    [first], [second] = stack.server("coder").seen, stack.server("general").seen
    assert (json.loads(first.body)["model"], json.loads(second.body)["model"]) == ("coder-32b", "general-70b")
    assert (first.path, second.path) == ("/openai/v1/chat/completions", "/v1/chat/completions")
    assert first.headers["authorization"] == "Bearer sk-coder-0123"
    assert second.headers["authorization"] == "Bearer sk-general-0123"
    assert first.headers["host"] != second.headers["host"]


def test_a_slow_answer_that_does_not_stream_is_waited_for(stack: Stack, http: httpx.Client) -> None:
    """Its first byte comes when it is whole. A stream that is as slow to begin fails over."""
    for stream, model, attempts in ((False, "coder", "1"), (True, "general", "2")):
        stack.server("coder").fail("hang", seconds=2)
        answer = http.post(f"{stack.url}/v1/chat/completions", json={**CODE, "stream": stream})
        assert answer.status_code == 200, answer.text
        assert (answer.headers["x-mom-model"], answer.headers["x-mom-attempts"]) == (model, attempts)


def test_the_access_log_tells_the_decision_and_who_answered(stack: Stack, http: httpx.Client) -> None:
    stack.server("coder").fail("status", status=503)
    answer = http.post(f"{stack.url}/v1/chat/completions", json=CODE)
    decision = answer.headers["x-mom-decision-id"]
    (line,) = wait_until(lambda: [one for one in stack.access_log() if one["mom.decision.id"] == decision], "a line")
    assert set(line) == set(LINE)
    assert (line["status"], line["method"], line["path"]) == (200, "POST", "/v1/chat/completions")
    assert (line["mom.pick"], line["mom.model"], line["mom.attempts"]) == ("coder", "general", 2)
    assert (line["mom.route"], line["mom.band"], line["mom.api"]) == ("code", "recommended", "chat_completions")
    assert (line["mom.reason"], line["mom.confidence"]) == (
        answer.headers["x-mom-reason"],
        answer.headers["x-mom-confidence"],
    )
    said = {name: value for name, value in line.items() if name.startswith("gen_ai.")}
    assert said == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "general-70b",
        "gen_ai.request.stream": False,
    }


def test_keys_never_reach_another_provider(stack: Stack, http: httpx.Client) -> None:
    """Three attempts over two kinds of key header; the simulated models refuse any foreign credential."""
    stack.server("coder").fail("status", status=503)
    stack.server("general").fail("status", status=429)
    client = {"authorization": "Bearer sk-client", "x-api-key": "sk-client", "api-key": "sk-client", "cookie": "a=b"}
    answer = http.post(f"{stack.url}/v1/chat/completions", json=CODE, headers=client)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-mom-model"] == "premium"
    assert answer.headers["x-mom-attempts"] == "3"
    for name in ("coder", "general", "premium"):
        [seen] = stack.server(name).seen
        text = str(dict(seen.headers))
        assert f"sk-{name}-0123" in text
        assert text.count("sk-") == 1, text


def test_a_model_that_does_not_listen(stack: Stack, http: httpx.Client) -> None:
    stack.models.stop("coder")
    try:
        answer = http.post(f"{stack.url}/v1/chat/completions", json=CODE)
    finally:
        stack.models.start("coder")
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-mom-model"] == "general"


def test_all_models_fail(stack: Stack) -> None:
    for name in ("coder", "general", "premium"):
        stack.server(name).fail("status", status=503)
    client = openai.OpenAI(base_url=f"{stack.url}/v1", api_key="sk-client", max_retries=0)
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(**CODE)  # type: ignore[call-overload]
    assert caught.value.status_code == 503
    assert caught.value.response.headers["x-mom-attempts"] == "3"
    assert not stack.server("small").seen


def test_twenty_megabytes_fail_over(stack: Stack, http: httpx.Client) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBORw0K" * 2_500_000}}
    text = {"type": "text", "text": "Write a Python function that draws this"}
    document = {"messages": [{"role": "user", "content": [image, text]}], "model": "auto"}
    stack.server("general").fail("status", status=503)
    answer = http.post(f"{stack.url}/v1/chat/completions", json=document)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-mom-route"] == "code"
    assert answer.headers["x-mom-attempts"] == "2"
    for name, upstream in (("general", "general-70b"), ("premium", "premium-xl")):
        [seen] = stack.server(name).seen
        expected = httpx.Request("POST", "http://x", json=document | {"model": upstream}).read()
        assert (seen.size, seen.sha1) == (len(expected), hashlib.sha1(expected).hexdigest())


def test_a_stream_that_breaks_is_not_repeated(stack: Stack) -> None:
    """Once words have reached the client there is no going back: it must see the break."""
    stack.server("coder").fail("cut", chunks=4)
    client = openai.OpenAI(base_url=f"{stack.url}/v1", api_key="sk-client", max_retries=0)
    stream = client.chat.completions.create(**CODE, stream=True)  # type: ignore[call-overload]
    with pytest.raises((httpx.RemoteProtocolError, openai.APIError)):
        for _ in stream:
            pass
    assert not stack.server("general").seen
