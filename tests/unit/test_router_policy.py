"""Guards, preferences and selections as the router puts them together into a plan."""

import asyncio
import time
from pathlib import Path

import pytest

from router_extproc.config.loader import parse
from router_extproc.domain import LlmRequest, Outcome
from router_extproc.errors import GuardBlocked, ModelForbidden
from router_extproc.router import Routed
from router_extproc.runtime import compile_runtime
from router_extproc.selection.observed import Observed

CONFIG = """
models:
  cellar: {url: "http://h:1", price: {input: 1, output: 1}, labels: {where: here}, tools: false}
  attic: {url: "http://h:2", price: {input: 2, output: 2}, labels: {where: here}}
  cloud: {url: "http://h:3", price: {input: 3, output: 3}, labels: {where: away}}
  sky: {url: "http://h:4", price: {input: 4, output: 4}, labels: {where: away}}
signals:
  secret: {type: keywords, any: [secret]}
  bad: {type: keywords, any: [bomb]}
  race: {type: keywords, any: [race]}
  kept: {type: keywords, any: [kept]}
guards:
  - {name: house, when: 'secret.label == "true"', action: reroute, models: {where: here}}
  - {name: bombs, when: 'bad.label == "true"', action: block}
routes:
  - {name: race, when: 'race.label == "true"', models: [cloud, attic], selection: lowest_latency}
  - {name: kept, when: 'kept.label == "true"', models: attic, require: {where: here}}
  - {name: rest, when: "true", models: [cloud, cellar]}
default: [sky, cloud]
preferences:
  header: x-tenant
  users: {fan: {favourite: cellar}, modest: {forbidden: sky}, local: {only: {where: here}}}
limits: {max_attempts: 5}
"""


def route(
    prompt: str, model: str = "auto", tenant: str = "", observed: Observed | None = None, tools: bool = False
) -> Routed:
    runtime = compile_runtime(parse(CONFIG.encode(), Path("router.yaml")), {}, {}, 1, observed)
    request = LlmRequest("chat_completions", model, None, prompt, tokens=10, has_tools=tools)
    routed = asyncio.run(runtime.router.route(request, {"x-tenant": tenant}, time.monotonic() + 5))
    runtime.router.keep(routed)
    return routed


@pytest.mark.parametrize(
    ("prompt", "model", "tenant", "plan"),
    [
        ("hello", "auto", "", ("cloud", "cellar", "sky")),
        ("hello", "auto", "fan", ("cellar", "cloud", "sky")),
        ("hello", "auto", "modest", ("cloud", "cellar")),
        ("hello", "auto", "local", ("cellar",)),
        ("kept", "auto", "", ("attic",)),
        ("secret", "auto", "", ("cellar", "attic")),
        ("secret", "cloud", "", ("cellar", "attic")),
        ("secret", "attic", "", ("attic", "cellar")),
        ("hello", "cloud", "modest", ("cloud",)),
        ("hello", "sky", "fan", ("sky", "cloud")),
    ],
)
def test_the_plan_keeps_to_what_guards_and_preferences_allow(
    prompt: str, model: str, tenant: str, plan: tuple[str, ...]
) -> None:
    assert route(prompt, model, tenant).plan.models == plan


def test_what_is_not_allowed_is_refused() -> None:
    with pytest.raises(ModelForbidden):
        route("hello", "sky", "modest")
    with pytest.raises(GuardBlocked):
        route("a bomb", "sky")
    with pytest.raises(GuardBlocked):
        route("a secret bomb")


def test_picks_are_counted_and_outcomes_heard() -> None:
    observed = Observed()
    assert route("race", observed=observed).plan.pick == "cloud"
    assert observed.load("cloud") == pytest.approx(1, abs=0.1)
    for name, seconds in (("cloud", 0.9), ("attic", 0.2)):
        observed.record(Outcome("id", "chat_completions", 200, name, 1, seconds, seconds, None))
    assert route("race", observed=observed).plan.models[:2] == ("attic", "cloud")


def test_a_model_that_cannot_take_the_request_is_no_way_out() -> None:
    assert route("secret", tools=True).plan.models == ("attic",)
