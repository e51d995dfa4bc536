"""The sidecar has read a newer router.yaml than Envoy: models that Envoy does not know yet."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from router_extproc.config.envoy import Profile
from tests.e2e.conftest import registered
from tests.e2e.stack import Stack, envoy_of, free_ports, get, running, wait_until

OLD = """
models:
  cloud: {{url: "http://127.0.0.1:{0}", price: {{input: 1, output: 1}}}}
default: cloud
limits: {{deadline_ms: 5000}}
"""
NEW = """
models:
  cloud: {{url: "http://127.0.0.1:{0}", price: {{input: 1, output: 1}}}}
  first: &house
    url: http://127.0.0.1:{0}
    upstream_model: cloud
    price: {{input: 1, output: 1}}
    labels: {{where: house}}
  second: *house
default: cloud
signals:
  inside: {{type: keywords, any: [for our eyes only], where: all}}
  odd: {{type: keywords, any: [odd question]}}
guards: [{{name: in-house, when: 'inside.label == "true"', action: reroute, models: {{where: house}}}}]
routes: [{{name: odd, when: 'odd.label == "true"', models: first, fallback: second}}]
limits: {{deadline_ms: 5000}}
"""
KINDS = [(Profile.FULL, "1.40"), (Profile.COMPATIBLE, "1.36")]


@pytest.fixture(scope="module", params=KINDS, ids=[f"{profile}-{version}" for profile, version in KINDS])
def ahead(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    profile, version = request.param
    directory = tmp_path_factory.mktemp("ahead")
    config = directory / "router.yaml"
    ports = free_ports(1)
    config.write_text(OLD.format(*ports))
    with running(directory, config, profile=profile, proxy=envoy_of(version)) as found, registered(found):
        new = config.with_suffix(".new")
        new.write_text(NEW.format(*ports))
        new.rename(config)
        page = f"{found.sidecars[0].admin}/config"
        wait_until(lambda: json.loads(get(page))["generation"] == 2, "the new file")
        yield found


def ask(stack: Stack, text: str, path: str = "/v1/chat/completions") -> httpx.Response:
    body = {"model": "auto", "max_tokens": 9, "messages": [{"role": "user", "content": text}]}
    return httpx.post(f"{stack.url}{path}", json=body, timeout=30)


def test_what_a_guard_keeps_in_the_house_reaches_no_other_model(ahead: Stack) -> None:
    answer = ask(ahead, "This is for our eyes only")
    assert answer.status_code == 503, answer.text
    assert answer.json()["error"]["type"] == "server_error"
    assert not ahead.server("cloud").seen


def test_what_may_go_anywhere_is_answered_by_the_default_model(ahead: Stack) -> None:
    for text in ("hello", "An odd question"):
        answer = ask(ahead, text)
        assert (answer.status_code, answer.headers["x-mom-model"]) == (200, "cloud"), answer.text
