"""Guards, preferences, labels, schedules and selections, through Envoy and into the answer's headers."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import LIMITS, registered
from tests.e2e.stack import Stack, running, write_config

SIGNALS = """signals:
  weapon: {type: keywords, any: [flux bomb], where: all}
  project: {type: keywords, any: [Bluebird, Zoë Weiß], where: all, mark: true}
  inside: {type: keywords, any: [for our eyes only], where: all}
  odd: {type: keywords, any: [sudo]}
  plain: {type: keywords, any: [alpha question]}
  any_tier: {type: keywords, any: [beta question]}
  house: {type: keywords, any: [gamma question]}
  budget: {type: keywords, any: [delta question]}
"""

ROUTES = """routes:
  - {name: plain, when: 'plain.label == "true"', models: [general, small], fallback: premium}
  - {name: tiers, when: 'any_tier.label == "true"', models: {tier: light}, selection: cheapest}
  - {name: house, when: 'house.label == "true"', models: coder, require: {where: house}}
  - name: budget
    when: budget.label == "true"
    models: [premium, general]
    selection: {type: best_within, price: 0.005}
"""

POLICY = """
guards:
  - {name: weapons, when: 'weapon.label == "true"', action: block, message: Not here., status: 400}
  - {name: eyes-only, when: 'inside.label == "true"', action: reroute, models: {where: house}}
  - {name: names, when: 'project.label == "true"', action: mask}
  - {name: oddities, when: 'odd.label == "true"', action: tag}
preferences:
  header: x-tenant
  users:
    picky: {favourite: small}
    poor: {forbidden: premium}
virtual_models: {auto: {}, "auto:best": {prefer: best}, "auto:cheap": {prefer: cheap}}
"""


MODELS = (
    ("small", "house", "light", 0.5),
    ("coder", "house", "light", 0.6),
    ("general", "cloud", "middle", 0.7),
    ("premium", "cloud", "premium", 0.95),
)


def edited(text: str) -> str:
    """The quickstart with the signals, routes and labels of this test before its own."""
    text = text.replace("signals:\n", SIGNALS, 1).replace("routes: #", f"{ROUTES}#", 1)
    for name, where, tier, quality in MODELS:
        more = f"    quality: {quality}\n    labels: {{where: {where}, tier: {tier}}}\n"
        text = text.replace(f"  {name}:\n", f"  {name}:\n{more}", 1)
    return text


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("policy")
    config = write_config(directory, POLICY + LIMITS, edited)
    with running(directory, config) as found, registered(found):
        yield found


def ask(
    stack: Stack, text: str, model: str = "auto", headers: dict[str, str] | None = None, **more: Any
) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
    return httpx.post(f"{stack.url}/v1/chat/completions", json=body, headers=headers, timeout=30)


def went(answer: httpx.Response) -> tuple[str, str]:
    assert answer.status_code == 200, answer.text
    return answer.headers["x-mom-route"], answer.headers["x-mom-model"]


@pytest.mark.parametrize("model", ["auto", "small"])
def test_a_guard_refuses_in_the_shape_of_the_api(stack: Stack, model: str) -> None:
    answer = ask(stack, "How do I build a flux bomb?", model)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "Not here."
    assert answer.json()["error"]["code"] == "blocked_by_weapons"
    assert answer.headers["x-mom-decision-id"]
    body = {"model": "auto", "max_tokens": 9, "messages": [{"role": "user", "content": "A flux bomb, please."}]}
    anthropic = httpx.post(f"{stack.url}/v1/messages", json=body, timeout=30)
    assert anthropic.status_code == 400
    assert anthropic.json()["error"]["message"] == "Not here."
    assert not any(server.seen for server in stack.models.servers.values())


def test_a_guard_keeps_a_request_in_the_house_with_all_its_fallbacks(stack: Stack) -> None:
    answer = ask(stack, "alpha question, for our eyes only")
    assert went(answer) == ("plain", "small")
    assert answer.headers["x-mom-reason"].endswith("guard eyes-only")
    route, model = went(ask(stack, "Anything, for our eyes only", "premium"))
    assert (route, model) == ("named", "small")
    for name in ("small", "coder"):
        stack.server(name).fail("status", times=9, status=503)
    assert ask(stack, "alpha question, for our eyes only").status_code == 503
    assert not stack.server("premium").seen
    assert not stack.server("general").seen


@pytest.mark.parametrize("spelled", ["Zoë Weiß", "Zo\\u00eb Wei\\u00df", "ZOË WEIß"])
def test_masked_text_never_reaches_a_model(stack: Stack, spelled: str) -> None:
    body = (
        '{"messages": [{"role": "system", "content": "Project Bluebird"},'
        f' {{"role": "assistant", "name": "Bluebird", "content": "{spelled} says hello"}},'
        f' {{"role": "user", "content": "alpha question about bluebird and {spelled}"}}],'
        ' "user": "Bluebird", "model": "auto"}'
    )
    answer = httpx.post(f"{stack.url}/v1/chat/completions", content=body.encode(), timeout=30)
    route, model = went(answer)
    assert (route, model) == ("plain", "general")
    assert answer.headers["x-mom-reason"].endswith("guard names")
    [seen] = stack.server("general").seen
    sent = json.loads(seen.body)
    assert [turn["content"].replace("*", "") for turn in sent["messages"]] == [
        "Project ",
        " says hello",
        "alpha question about  and ",
    ]
    assert sent["user"] == sent["messages"][1]["name"] == "Bluebird"
    assert sent["model"] == stack.server("general").model


def test_masking_holds_on_a_retry_at_another_model(stack: Stack) -> None:
    stack.server("general").fail("status", times=1, status=503)
    assert went(ask(stack, "alpha question about Bluebird")) == ("plain", "small")
    [seen] = stack.server("small").seen
    assert json.loads(seen.body)["messages"][0]["content"] == "alpha question about ********"
    assert json.loads(seen.body)["model"] == stack.server("small").model


def test_a_tag_is_said_and_changes_nothing(stack: Stack) -> None:
    answer = ask(stack, "sudo: alpha question")
    assert went(answer) == ("plain", "general")
    assert answer.headers["x-mom-reason"].endswith("guard oddities")


@pytest.mark.parametrize(
    ("model", "headers", "expected"),
    [
        ("auto", {}, "general"),
        ("auto:cheap", {}, "small"),
        ("auto:best", {}, "premium"),
        ("auto", {"x-mom-prefer": "best"}, "premium"),
        ("auto", {"x-mom-prefer": "nonsense"}, "general"),
        ("auto", {"x-tenant": "picky"}, "small"),
        ("auto:best", {"x-tenant": "poor"}, "general"),
    ],
)
def test_preferences_choose_among_what_the_policy_allows(
    stack: Stack, model: str, headers: dict[str, str], expected: str
) -> None:
    assert went(ask(stack, "alpha question", model, headers)) == ("plain", expected)


def test_a_forbidden_model_cannot_be_named(stack: Stack) -> None:
    answer = ask(stack, "hello", "premium", {"x-tenant": "poor"})
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "model_forbidden"


def test_labels_and_selections(stack: Stack) -> None:
    assert went(ask(stack, "beta question")) == ("tiers", "small")
    assert went(ask(stack, "gamma question")) == ("house", "coder")
    assert went(ask(stack, "delta question")) == ("budget", "general")
    # An answer of at most 50 tokens by the premium model costs less than the route's budget.
    assert went(ask(stack, "delta question", max_tokens=50)) == ("budget", "premium")


def test_a_route_with_required_labels_never_falls_back_outside(stack: Stack) -> None:
    stack.server("coder").fail("status", times=9, status=503)
    answer = ask(stack, "gamma question")
    assert answer.status_code == 503
    assert not stack.server("premium").seen
