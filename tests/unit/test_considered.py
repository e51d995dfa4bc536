"""Why each model of a route stands where it stands, or why it was left out: in the decision, its record and words."""

import asyncio
import json
import time
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from router_extproc.budget_accounts import Accounts
from router_extproc.budgets import Budgets
from router_extproc.config.loader import parse
from router_extproc.domain import MAX_CONSIDERED, LlmRequest
from router_extproc.explanation import figures, tried
from router_extproc.records import considered
from router_extproc.router import Routed
from router_extproc.runtime import Runtime, compile_runtime

MODELS = """
models:
  cheap: {url: "http://h:1", price: {input: 1, output: 1}, quality: 0.5, labels: {where: here}}
  good: {url: "http://h:2", price: {input: 3, output: 3}, quality: 0.9, labels: {where: here}}
  away: {url: "http://h:3", price: {input: 2, output: 2}, quality: 0.8, labels: {where: away}}
  short: {url: "http://h:4", price: {input: 1, output: 1}, context_window: 100, labels: {where: here}}
  mute: {url: "http://h:5", price: {input: 1, output: 1}, tools: false, labels: {where: here}}
  prose: {url: "http://h:6", price: {input: 1, output: 1}, json_mode: false, labels: {where: here}}
  claude: {url: "http://h:7", price: {input: 1, output: 1}, provider: anthropic, labels: {where: here}}
  seeing: {url: "http://h:8", price: {input: 9, output: 9}, modalities: [text, image], labels: {where: here}}
"""
ALL = "[cheap, good, away, short, mute, prose, claude]"
REQUEST = LlmRequest("chat_completions", "auto", None, "hello", tokens=500, max_output_tokens=100)


def runtime(routes: str, more: str = "") -> Runtime:
    return compile_runtime(
        parse(f"{MODELS}\nroutes:\n{routes}\ndefault: good\n{more}".encode(), Path("r.yaml")), {}, {}
    )


def routed(compiled: Runtime, headers: dict[str, str] | None = None, **changes: Any) -> Routed:
    request = replace(REQUEST, **changes)
    return asyncio.run(compiled.router.route(request, headers or {}, time.monotonic() + 5))


def test_candidates_carry_the_figures_that_gave_them_their_place() -> None:
    compiled = runtime(
        "  - {name: r, when: 'true', models: [good, cheap, away], selection: {type: cheapest, min_quality: 0.7}}"
    )
    rows = routed(compiled).decision.considered
    assert [(row.model, row.by, row.quality) for row in rows] == [
        ("away", "cost", 0.8),
        ("good", "cost", 0.9),
        ("cheap", "quality", 0.5),
    ]
    assert [row.cost for row in rows] == pytest.approx([0.0012, 0.0018, 0.0006])
    assert [row.score for row in rows] == pytest.approx([0.0012, 0.0018, 0.5])
    assert routed(compiled).plan.models == ("away", "good", "cheap")


@pytest.mark.parametrize(
    ("changes", "out"),
    [
        ({}, {"claude": "api"}),
        ({"has_tools": True}, {"claude": "api", "mute": "tools"}),
        ({"json_mode": True}, {"claude": "api", "prose": "json mode"}),
        ({"modalities": frozenset({"text", "image"})}, dict.fromkeys(("cheap", "good", "mute", "prose"), "modality")),
        ({"api": "messages"}, dict.fromkeys(("cheap", "good", "mute", "prose"), "api")),
    ],
)
def test_what_cannot_take_the_request_is_left_out_and_says_why(changes: dict[str, Any], out: dict[str, str]) -> None:
    compiled = runtime(f"  - {{name: r, when: 'true', models: {ALL}, fallback: seeing, require: {{where: here}}}}")
    rows = routed(compiled, **changes).decision.considered
    found = {row.model: row.out for row in rows if row.out}
    assert found.items() >= (out | {"away": "require where: here"}).items()
    assert found.get("short") in ("context window", "api", "modality")
    assert not found.keys() & set(routed(compiled, **changes).plan.models)


def test_guards_and_preferences_say_what_they_took_away() -> None:
    more = """
signals: {secret: {type: keywords, any: [secret]}}
guards: [{name: house, when: 'secret.label == "true"', action: reroute, models: {where: here}}]
preferences: {header: x-tenant, users: {poor: {forbidden: good}, fan: {favourite: cheap}}}
"""
    compiled = runtime("  - {name: r, when: 'true', models: [away, good, cheap], selection: best}", more)
    secret = routed(compiled, prompt="a secret").decision.considered
    assert [(row.model, row.out) for row in secret[:3]] == [("good", ""), ("cheap", ""), ("away", "guard house")]
    poor = routed(compiled, {"x-tenant": "poor"}).decision.considered
    assert [(row.model, row.out) for row in poor] == [("away", ""), ("cheap", ""), ("good", "preferences: forbidden")]
    fan = routed(compiled, {"x-tenant": "fan"})
    assert considered(fan.decision)[0] == {
        "model": "cheap",
        "by": "quality",
        "score": 0.5,
        "quality": 0.5,
        "cost": "0.0006",
        "favourite": True,
    }


def test_a_budget_says_what_it_took_away_beside_its_figures() -> None:
    budget = "budgets: [{name: day, usd: 0.001, when_spent: cheapest}]"
    compiled = runtime("  - {name: r, when: 'true', models: [good, cheap], selection: best}", budget)
    found = asyncio.run(Budgets(Accounts()).admit("id", routed(compiled), "", compiled.config))
    assert found.plan.models == ("cheap",)
    good, cheap = found.decision.considered
    assert (good.model, good.quality, good.out) == ("good", 0.9, "budget day")
    assert (cheap.model, cheap.out) == ("cheap", "")


def test_a_model_that_is_tried_after_all_is_not_left_out() -> None:
    compiled = runtime("  - {name: r, when: 'true', models: short}", "virtual_models: {auto: {default: short}}")
    found = routed(compiled, tokens=150, max_output_tokens=None, model="short")
    assert found.plan.pick == "short"
    assert "short" not in [row.model for row in found.decision.considered if row.out]


def test_hundreds_of_candidates_are_cut_to_a_bound() -> None:
    many = "\n".join(
        f'  m{n}: {{url: "http://h:{n}", price: {{input: {n}, output: 1}}, labels: {{tier: light}}}}'
        for n in range(1, 300)
    )
    text = f"{MODELS}{many}\nroutes: [{{name: r, when: 'true', models: {{tier: light}}, selection: cheapest}}]"
    compiled = compile_runtime(parse(f"{text}\ndefault: claude\n".encode(), Path("r.yaml")), {}, {})
    rows = routed(compiled).decision.considered
    assert [row.model for row in rows] == [f"m{n}" for n in range(1, MAX_CONSIDERED + 1)]
    assert len(json.dumps(considered(routed(compiled).decision))) < 5000
    narrowed = routed(compiled, {"x-mom-prefer": "cheap"}).decision.considered
    assert len(narrowed) == MAX_CONSIDERED


def test_a_weighted_score_comes_with_its_parts_and_no_others() -> None:
    compiled = runtime(
        "  - {name: r, when: 'true', models: [cheap, good], selection: {type: weighted, cost: 1, quality: 2}}"
    )
    best, other = routed(compiled).decision.considered
    assert (best.model, best.by, best.quality, best.latency) == ("good", "weighted", 0.9, None)
    assert [best.score, best.cost, other.score] == pytest.approx([1.0, 0.0018, 0.0])


def test_the_explanation_says_it_in_words() -> None:
    compiled = runtime("  - {name: r, when: 'true', models: [good, cheap, claude], selection: cheapest}")
    found = asyncio.run(tried(compiled, REQUEST, {}, time.monotonic() + 5))
    assert [(row["model"], figures(row)) for row in found["considered"]] == [
        ("cheap", "cost 0.0006"),
        ("good", "cost 0.0018"),
        ("claude", "left out: api"),
    ]
    assert found["selection"] == "cheapest"
    assert figures({"model": "m", "by": "weighted", "score": 1.5, "quality": 0.9}) == "weighted 1.5 (quality 0.9)"
    assert figures({"model": "m"}) == ""
    assert Decimal(found["considered"][0]["cost"]) == Decimal("0.0006")
