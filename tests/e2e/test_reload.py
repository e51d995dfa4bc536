"""router.yaml changes while clients keep asking."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.load import Answered, load
from tests.e2e.stack import Stack, get, wait_until

PROMPT = "Write a Python function that sorts a list"


def served(stack: Stack) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(get(f"{stack.sidecars[0].admin}/config"))
    return found


def answered_by(model: str) -> Any:
    def condition(answer: Answered) -> bool:
        return answer.status == 200 and answer.model == model

    return condition


@pytest.fixture
def policy(stack: Stack) -> Iterator[str]:
    """The text of router.yaml, which is put back afterwards."""
    text = stack.config.read_text()
    digest = served(stack)["digest"]
    yield text
    replace(stack, text)
    wait_until(lambda: served(stack)["digest"] == digest and not served(stack)["rejected"], "the policy put back")


def replace(stack: Stack, text: str) -> None:
    """As editors and ConfigMaps do it: a new file takes the name of the old one."""
    new = stack.config.with_suffix(".new")
    new.write_text(text)
    new.rename(stack.config)


def test_a_changed_policy_takes_over_without_a_failed_request(stack: Stack, policy: str) -> None:
    other = policy.replace("    models: coder\n", "    models: general\n")
    assert other != policy
    with load(stack.url, PROMPT) as clients:
        clients.wait(answered_by("coder"), 20, "answers by the old policy")
        for text, model in ((other, "general"), (policy, "coder"), (other, "general")):
            replace(stack, text)
            clients.wait(answered_by(model), 20, f"answers by {model}")
    assert not clients.failed
    assert {answer.route for answer in clients.answers} == {"code"}


NEWCOMER = "  newcomer: {url: 'http://127.0.0.1:1', price: {input: 1, output: 1}}\n\nsignals:\n"
FIRST = {"models: coder\n    fallback: general": "models: [newcomer, coder]"}
SECOND = {"models: coder\n    fallback: general": "models: [coder, newcomer, small]"}
ALONE = {"default: [": "guards: [{name: own, when: 'true', action: reroute, models: newcomer}]\ndefault: ["}


@pytest.mark.parametrize(
    ("edits", "coder_fails", "status", "model"),
    [(FIRST, False, 200, "premium"), (SECOND, True, 200, "general"), (ALONE, False, 503, None)],
    ids=["first", "second", "alone"],
)
def test_a_model_that_envoy_does_not_know_is_answered_by_its_own_order(
    stack: Stack, policy: str, edits: dict[str, str], coder_fails: bool, status: int, model: str | None
) -> None:
    """Attempt n then goes to the n-th of Envoy's own order, premium and general first; a plan of one gets a 503."""
    changed = policy.replace("\nsignals:\n", NEWCOMER, 1)
    for old, new in edits.items():
        assert old in changed
        changed = changed.replace(old, new, 1)
    before = served(stack)["generation"]
    replace(stack, changed)
    wait_until(lambda: served(stack)["generation"] > before, "the new policy")
    assert "run `router-extproc envoy` again" in served(stack)["envoy"]
    if coder_fails:
        stack.server("coder").fail("status", status=503)
    body = {"model": "auto", "messages": [{"role": "user", "content": PROMPT}]}
    answer = httpx.post(f"{stack.url}/v1/chat/completions", json=body, timeout=30)
    assert (answer.status_code, answer.headers.get("x-mom-model")) == (status, model)
    assert answer.headers["x-mom-route"] == "code"


def test_a_bad_policy_is_refused_and_the_old_one_serves(stack: Stack, policy: str) -> None:
    before = served(stack)
    with load(stack.url, PROMPT) as clients:
        clients.wait(answered_by("coder"), 10, "answers before")
        replace(stack, policy.replace("models: coder", "models: codr"))
        said = wait_until(lambda: served(stack)["rejected"], "the refusal")
        clients.wait(answered_by("coder"), 10, "answers by the old policy")
    assert not clients.failed
    assert "codr" in said
    assert (served(stack)["generation"], served(stack)["digest"]) == (before["generation"], before["digest"])
    assert re.search(r"^mom_config_last_reload_successful\S* 0", stack.sidecars[0].metrics(), re.MULTILINE)
