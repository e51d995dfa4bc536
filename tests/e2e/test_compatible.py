"""The profile for older Envoys: a route per model. Run with the Envoy that we ship for, and with an old one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from simulated_models import SimulatedModel

from router_extproc.config.envoy import BodyMode, Profile
from tests.e2e.conftest import LIMITS, registered
from tests.e2e.stack import Stack, envoy_of, free_ports, running, wait_until, write_config
from tests.e2e.trailers import posted_with_trailers

ENVOYS = [("1.40", BodyMode.STREAMED), ("1.36", BodyMode.STREAMED), ("1.36", BodyMode.BUFFERED)]


def chat(stack: Stack, prompt: str, headers: Mapping[str, str] | None = None, padding: int = 0) -> httpx.Response:
    body = {"model": "auto", "messages": [{"role": "user", "content": prompt}], "metadata": {"x": "x" * padding}}
    return httpx.post(f"{stack.url}/v1/chat/completions?beta=true", json=body, headers=headers, timeout=30)


@pytest.fixture(scope="module", params=ENVOYS, ids=[f"{version}-{mode}" for version, mode in ENVOYS])
def old(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    version, mode = request.param
    directory = tmp_path_factory.mktemp("old")
    config = write_config(directory, LIMITS)
    with (
        running(directory, config, body_mode=mode, profile=Profile.COMPATIBLE, proxy=envoy_of(version)) as found,
        registered(found),
    ):
        yield found


def test_the_picked_model_s_route_sets_its_path_host_and_key(old: Stack) -> None:
    forged = {"x-mom-model": "premium", "x-mom-cluster": "premium", "authorization": "Bearer client"}
    answer = chat(old, "Write a Python function that sorts a list", forged)
    assert (answer.status_code, answer.headers["x-mom-model"], answer.json()["model"]) == (200, "coder", "coder-32b")
    assert answer.headers["x-mom-route"] == "code"
    (seen,) = old.server("coder").seen
    assert seen.path == "/openai/v1/chat/completions?beta=true"
    assert seen.headers["authorization"] == "Bearer sk-coder-0123"
    assert not old.server("premium").seen
    decision = answer.headers["x-mom-decision-id"]
    (line,) = wait_until(lambda: [one for one in old.access_log() if one["mom.decision.id"] == decision], "a line")
    assert (line["mom.pick"], line["mom.model"], line["gen_ai.request.model"]) == ("coder", "coder", "coder-32b")


def test_another_api_and_the_list_of_models(old: Stack) -> None:
    body = {"model": "premium", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
    answer = httpx.post(f"{old.url}/v1/messages", json=body, headers={"x-api-key": "client"}, timeout=30)
    assert (answer.status_code, answer.headers["x-mom-model"]) == (200, "premium")
    (seen,) = old.server("premium").seen
    assert seen.headers["x-api-key"] == "sk-premium-0123"
    assert seen.headers["anthropic-version"]
    listed = httpx.get(f"{old.url}/v1/models", timeout=30).json()["data"]
    assert {"auto", "small", "premium"} <= {entry["id"] for entry in listed}


def test_a_stream_has_to_begin_sooner_than_an_answer_that_does_not_stream(old: Stack) -> None:
    body = {"model": "auto", "messages": [{"role": "user", "content": "Write a Python function that sorts a list"}]}
    for stream, attempts in ((False, "1"), (True, "2")):
        old.server("coder").fail("hang", seconds=2)
        answer = httpx.post(f"{old.url}/v1/chat/completions", json={**body, "stream": stream}, timeout=30)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-mom-attempts"] == attempts


def test_a_body_that_ends_in_trailers_reaches_the_model_once(old: Stack) -> None:
    body = b'{"model":"auto","messages":[{"role":"user","content":"Write a Python function that sorts a list"}]}'
    answer = posted_with_trailers(old, body)
    assert (answer[":status"], answer["x-mom-model"]) == ("200", "coder")
    (seen,) = old.server("coder").seen
    assert seen.body == body.replace(b"auto", b"coder-32b")


def test_a_large_body_is_held_and_kept(old: Stack) -> None:
    answer = chat(old, "Write a Python function that sorts a list", padding=3_000_000)
    assert (answer.status_code, answer.headers["x-mom-route"]) == (200, "code")
    (seen,) = old.server("coder").seen
    assert seen.size > 3_000_000


BACKED = """
models:
  one: {{url: "http://127.0.0.1:{0}", upstream_model: llama, price: {{input: 1, output: 1}}}}
  other: {{url: "http://127.0.0.1:{1}", upstream_model: llama, price: {{input: 1, output: 1}}}}
  theirs:
    {{url: "http://127.0.0.1:{2}", provider: anthropic, upstream_model: llama, auth: {{passthrough: true}},
     price: {{input: 1, output: 1}}}}
default: [one]
limits: {{deadline_ms: 5000}}
retry: {{first_byte_seconds: 5}}
"""


def theirs_wants(servers: dict[str, SimulatedModel]) -> None:
    servers["theirs"].key = "client"


@pytest.mark.parametrize("version", ["1.40", "1.36"])
def test_a_backup_takes_over_and_without_a_sidecar_the_default_model_is_asked(version: str, tmp_path: Path) -> None:
    config = tmp_path / "router.yaml"
    config.write_text(BACKED.format(*free_ports(3)))
    options: dict[str, Any] = {"profile": Profile.COMPATIBLE, "backups": {"one": ("other",)}, "prepare": theirs_wants}
    with running(tmp_path, config, sidecars=0, proxy=envoy_of(version), **options) as stack:
        body = {"model": "llama", "messages": [{"role": "user", "content": "hello"}]}
        stack.server("one").fail("status", status=503)
        answer = httpx.post(f"{stack.url}/v1/chat/completions", json=body, timeout=30)
        assert (answer.status_code, answer.headers["x-mom-attempts"]) == (200, "2"), answer.text
        assert [len(stack.server(name).seen) for name in ("one", "other")] == [1, 1]
        headers = {"x-api-key": "client", "cookie": "a=b", "x-goog-api-key": "client"}
        headers |= {"proxy-authorization": "Basic client"}
        answer = httpx.post(f"{stack.url}/v1/messages", json={**body, "max_tokens": 9}, headers=headers, timeout=30)
        assert answer.status_code == 200, answer.text
        (seen,) = stack.server("theirs").seen
        assert headers.keys() & seen.headers.keys() == {"x-api-key"}
