"""Whatever is no LLM API: closed unless router.yaml opens it, and no spelling of a path goes around a guard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from router_extproc.config.envoy import Profile
from tests.e2e.conftest import registered
from tests.e2e.stack import Stack, envoy_of, free_ports, running

CONFIG = """
models:
  one: {{url: "http://127.0.0.1:{0}", price: {{input: 1, output: 1}}, apis: [chat_completions]}}
default: one
signals: {{secret: {{type: keywords, any: [for our eyes only], where: all}}}}
guards: [{{name: secrets, when: 'secret.label == "true"', action: block}}]
limits: {{deadline_ms: 5000}}
"""
SECRET = {"model": "auto", "messages": [{"role": "user", "content": "This is for our eyes only"}]}
KINDS = [(Profile.FULL, "1.40"), (Profile.COMPATIBLE, "1.40"), (Profile.COMPATIBLE, "1.36")]


@pytest.fixture(scope="module", params=KINDS, ids=[f"{profile}-{version}" for profile, version in KINDS])
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    profile, version = request.param
    directory = tmp_path_factory.mktemp("guarded")
    config = directory / "router.yaml"
    config.write_text(CONFIG.format(*free_ports(1)))
    with running(directory, config, profile=profile, proxy=envoy_of(version)) as found, registered(found):
        yield found


def post(stack: Stack, path: str) -> httpx.Response:
    """The path is sent as it is written."""
    url = httpx.URL(stack.url).copy_with(raw_path=path.encode())
    return httpx.post(url, json=SECRET, timeout=30, follow_redirects=True)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "//v1/chat/completions",
        "/v1//chat/completions",
        "/v1/chat%2Fcompletions",
        "/v1/chat%5ccompletions",
        "/v1/chat/%63ompletions",
        "/v1/x/../chat/completions",
        "/v1/x/..%2Fchat/completions",
        "/v1\\chat/completions",
    ],
)
def test_another_spelling_of_a_path_meets_the_guard(guarded: Stack, path: str) -> None:
    answer = post(guarded, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "blocked_by_secrets")
    assert not guarded.server("one").seen


@pytest.mark.parametrize("path", ["/v1/chat/completions/", "/V1/chat/completions", "/invocations", "/v1/score", "/"])
def test_any_other_path_is_a_404_in_openai_s_shape(guarded: Stack, path: str) -> None:
    answer = post(guarded, path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "unknown_url", None)
    assert error["message"].startswith("no LLM API at this path")
    assert httpx.get(f"{guarded.url}/v1/chat/completions", timeout=30).status_code == 404
    assert not guarded.server("one").seen


def test_a_model_with_a_slash_in_its_name_is_looked_up(guarded: Stack) -> None:
    answer = httpx.get(f"{guarded.url}/v1/models/some%2Fmodel", timeout=30, follow_redirects=True)
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == "The model 'some/model' does not exist."


@pytest.mark.parametrize("profile", list(Profile))
def test_other_paths_pass_through_untouched_where_the_file_says_so(profile: Profile, tmp_path: Path) -> None:
    config = tmp_path / "router.yaml"
    config.write_text(CONFIG.format(*free_ports(1)) + "passthrough: true\n")
    with running(tmp_path, config, sidecars=0, profile=profile) as stack:
        headers = {"authorization": "Bearer mine", "cookie": "a=b"}
        answer = httpx.put(f"{stack.url}/echo/x?y=1", content=b'{"model": "auto"}', headers=headers, timeout=30)
        seen = answer.json()
        assert seen["path"] == "/echo/x?y=1"
        assert seen["headers"]["authorization"] == "Bearer mine"
        assert seen["headers"]["cookie"] == "a=b"
        assert stack.server("one").seen[0].body == b'{"model": "auto"}'


@pytest.mark.parametrize("profile", list(Profile))
def test_an_api_that_no_model_speaks_is_a_404_in_its_own_shape(profile: Profile, tmp_path: Path) -> None:
    config = tmp_path / "router.yaml"
    config.write_text(CONFIG.format(*free_ports(1)))
    said = "no model here speaks this API"
    with running(tmp_path, config, sidecars=0, profile=profile) as stack:
        messages, embeddings = post(stack, "/v1/messages"), post(stack, "/v1/embeddings")
        assert (messages.status_code, embeddings.status_code) == (404, 404)
        assert messages.json() == {"type": "error", "error": {"type": "not_found_error", "message": said}}
        assert embeddings.json()["error"]["message"] == said
