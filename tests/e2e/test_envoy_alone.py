"""The sidecar is down: Envoy's own filters prepare every attempt, and the default model answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import anthropic
import httpx
import openai
import pytest

from tests.e2e.conftest import LIMITS
from tests.e2e.stack import Stack, running, write_config

CHAT = {"model": "auto", "messages": [{"role": "user", "content": 'Say "model": "x"'}]}


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30) as client:
        yield client


def test_the_default_model_answers_a_request_for_auto(bare: Stack) -> None:
    client = openai.OpenAI(base_url=f"{bare.url}/v1", api_key="sk-client")
    answer = client.chat.completions.with_raw_response.create(**CHAT)  # type: ignore[call-overload]
    assert answer.headers["x-mom-model"] == "premium"
    assert answer.headers["x-mom-attempts"] == "1"
    assert answer.parse().model == "premium-xl"
    [seen] = bare.server("premium").seen
    assert seen.headers["x-api-key"] == "sk-premium-0123"
    assert "authorization" not in seen.headers


def test_anthropic_too(bare: Stack) -> None:
    client = anthropic.Anthropic(base_url=bare.url, api_key="sk-client")
    answer = client.messages.create(model="auto", max_tokens=50, messages=[{"role": "user", "content": "hello"}])
    assert answer.model == "premium-xl"


@pytest.mark.parametrize("failure", ["status", "reset", "hang"])
def test_the_next_model_answers_with_its_own_name_path_host_and_key(
    bare: Stack, http: httpx.Client, failure: str
) -> None:
    bare.server("premium").fail(failure)
    bare.server("general").fail("status", status=429)
    answer = http.post(f"{bare.url}/v1/chat/completions?beta=true", json=CHAT, headers={"x-api-key": "sk-client"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-mom-attempts"] == "3"
    assert answer.json()["model"] == "small-8b"
    [seen] = bare.server("small").seen
    assert seen.headers["authorization"] == "Bearer sk-small-0123"
    assert seen.path == "/v1/chat/completions?beta=true"


BODIES = [
    '{"model":"auto","messages":[{"role":"user","content":"x"}]}',
    ' {\n "messages" : [ {"role":"user","content":"\\"model\\": \\"auto\\" \\\\"} ] , "model" : "auto" } \n',
    '{"messages":[{"role":"user","content":"{\\"model\\":\\"auto\\"}","model":"auto"}],"x":{"model":"auto"},"model":"auto"}',
    '{"messages":[{"role":"user","content":"x"}],"m\\u006fdel":"auto"}',
    '{"model":"wrong","messages":[{"role":"user","content":"x"}],"model":"auto"}',
    '{"model":"","messages":[{"role":"user","content":"x"}]}',
    '{"model":"a\\"b\\\\","messages":[{"role":"user","content":"\\u00e9 \\ud83d\\ude00 1e5"}],"n":1.0e+2}',
]


@pytest.mark.parametrize("body", BODIES)
def test_only_the_models_name_changes(bare: Stack, http: httpx.Client, body: str) -> None:
    answer = http.post(f"{bare.url}/v1/chat/completions", content=body.encode())
    assert answer.status_code == 200, answer.text
    [seen] = bare.server("premium").seen
    assert int(seen.headers["content-length"]) == seen.size
    expected = json.loads(body) | {"model": "premium-xl"}
    assert json.loads(seen.body) == expected
    assert seen.body.count(b"premium-xl") == (2 if '"model":"wrong"' in body else 1)


@pytest.mark.parametrize("body", [b"", b"[]", b"not json", b'{"messages": []}', b'{"model": 1}', b'{"model": "auto'])
def test_a_body_without_a_model_goes_on_as_it_is(bare: Stack, http: httpx.Client, body: bytes) -> None:
    answer = http.post(f"{bare.url}/v1/chat/completions", content=body)
    assert answer.status_code == 400
    assert bare.server("premium").seen[0].body == body


def test_a_client_cannot_pick_a_cluster_nor_change_envoys_retries(bare: Stack, http: httpx.Client) -> None:
    bare.server("premium").fail("status")
    spoofed = {"x-mom-cluster": "coder", "x-mom-plan": "single", "x-mom-upstream": "coder", "x-envoy-max-retries": "0"}
    answer = http.post(f"{bare.url}/v1/chat/completions", json=CHAT, headers=spoofed)
    assert answer.status_code == 200
    assert answer.headers["x-mom-model"] == "general"
    assert not bare.server("coder").seen


def test_nobody_else_is_asked_for_the_list_of_models(bare: Stack, http: httpx.Client) -> None:
    """The request may bring the client's credentials."""
    for path in ("/v1/models", "/v1/models/premium-xl"):
        answer = http.get(f"{bare.url}{path}", headers={"authorization": "Bearer sk-client"})
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/json")
        assert answer.json()["error"]["message"] == "the list of models is not available now"
    with pytest.raises(anthropic.APIStatusError) as caught:
        anthropic.Anthropic(base_url=bare.url, api_key="sk-client", max_retries=0).models.list()
    assert caught.value.status_code == 503
    assert caught.value.response.json()["error"]["type"] == "overloaded_error"
    assert not any(server.seen for server in bare.models.servers.values())


def test_with_passthrough_it_is_asked_for_without_a_key_of_ours(tmp_path: Path) -> None:
    with running(tmp_path, write_config(tmp_path, LIMITS + "passthrough: true\n"), sidecars=0) as stack:
        httpx.get(f"{stack.url}/v1/models/premium-xl", headers={"authorization": "Bearer sk-client"}, timeout=30)
        [seen] = stack.server("premium").seen
        assert seen.headers["authorization"] == "Bearer sk-client"
        assert "x-api-key" not in seen.headers


def test_big_bodies_fail_over_too(bare: Stack, http: httpx.Client) -> None:
    bare.server("premium").fail("status")
    document = {"messages": [{"role": "user", "content": "ä" * 10_000_000}], "model": "auto"}
    answer = http.post(f"{bare.url}/v1/chat/completions", json=document)
    assert answer.status_code == 200, answer.text
    [seen] = bare.server("general").seen
    expected = httpx.Request("POST", "http://x", json=document | {"model": "general-70b"}).read()
    assert seen.size == len(expected)


def test_a_body_over_the_limit_is_a_413_in_the_apis_shape(bare: Stack, http: httpx.Client) -> None:
    huge = b'{"model": "auto", "messages": "' + b"a" * 36_000_000 + b'"}'
    answer = http.post(f"{bare.url}/v1/chat/completions", content=huge)
    assert answer.status_code == 413
    assert answer.json()["error"]["type"] == "invalid_request_error"
    answer = http.post(f"{bare.url}/v1/messages", content=huge)
    assert answer.status_code == 413
    assert answer.json()["error"]["type"] == "request_too_large"


def test_when_no_model_answers_the_error_has_the_apis_shape(bare: Stack, http: httpx.Client) -> None:
    for name in ("premium", "general", "small", "coder"):
        bare.models.stop(name)
    try:
        chat = http.post(f"{bare.url}/v1/chat/completions", json=CHAT)
        messages = http.post(f"{bare.url}/v1/messages", json=CHAT | {"max_tokens": 5})
    finally:
        for name in ("premium", "general", "small", "coder"):
            bare.models.start(name)
    assert (chat.status_code, messages.status_code) == (503, 503)
    assert chat.json()["error"]["type"] == "server_error"
    assert messages.json()["type"] == "error"
    assert messages.json()["error"]["type"] == "overloaded_error"
    assert chat.headers["content-type"] == messages.headers["content-type"] == "application/json"


def test_an_api_that_no_default_model_speaks_goes_to_one_that_does(bare: Stack) -> None:
    client = openai.OpenAI(base_url=f"{bare.url}/v1", api_key="sk-client")
    answer = client.embeddings.create(model="auto", input=["a", "b"])
    assert answer.model == "small-8b"
    assert len(answer.data) == 2
