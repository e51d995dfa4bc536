"""Why each model of a route stands where it stands, or why it was left out: in the decision, its record and words."""

import asyncio
import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from router_extproc.budget_accounts import Accounts
from router_extproc.budgets import Budgets
from router_extproc.config.loader import parse
from router_extproc.domain import MAX_CONSIDERED, LlmRequest, Plan, SignalSet
from router_extproc.explanation import as_sent, figures, tried
from router_extproc.records import considered
from router_extproc.router import Routed
from router_extproc.runtime import Runtime, compile_runtime
from router_extproc.selection.observed import Observed

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


@pytest.mark.parametrize(("hour", "models"), [(12, ("cheap", "good")), (23, ("good", "cheap"))])
def test_what_a_candidate_costs_is_the_price_of_the_hour(hour: int, models: tuple[str, ...]) -> None:
    night = "windows: [{from: '22:00', to: '06:00', input: 0.5, output: 0.5}]"
    text = MODELS.replace("price: {input: 3, output: 3}", f"price: {{input: 3, output: 3, {night}}}")
    text += "routes: [{name: r, when: 'true', models: [cheap, good], selection: cheapest}]\ndefault: good\n"
    compiled = compile_runtime(parse(text.encode(), Path("r.yaml")), {}, {})
    now = datetime(2026, 1, 5, hour, tzinfo=UTC)
    decision, plan = compiled.router.plan_for(REQUEST, SignalSet({}), {}, now=now)
    assert plan.models == models
    costs = {row.model: row.cost for row in decision.considered}
    assert costs == pytest.approx({"cheap": 0.0006, "good": 0.0018 if hour == 12 else 0.0003})


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


@pytest.mark.parametrize("api", ["chat_completions", "completions", "responses", "embeddings", "messages"])
def test_a_prompt_to_try_is_read_as_a_clients_request(api: str) -> None:
    # The four bytes of a token are those of the body: a Chinese character is three of them.
    prompt = "请帮我把这段话翻译成英文并总结要点。" * 60
    plain = as_sent(api, "auto", prompt)
    assert (plain.api, plain.model, plain.prompt, plain.turns) == (api, "auto", prompt, 1)
    assert plain.tokens > len(prompt.encode()) // 4
    later = as_sent(api, "auto", "and in French?", "It is Bluebird.")
    assert later.tokens > as_sent(api, "auto", "and in French?").tokens
    if api in ("completions", "embeddings"):
        assert later.prompt == "It is Bluebird.\n\nand in French?"
    else:
        assert (later.prompt, later.turns, later.opening) == ("and in French?", 2, "It is Bluebird.")
        assert [(turn.role, turn.text) for turn in later.context] == [("user", "It is Bluebird.")]
        # The model has answered since.
        assert (later.written, later.fresh) == (("It is Bluebird.",), 0)


def test_what_a_guard_refuses_is_explained() -> None:
    more = """
signals:
  secret: {type: keywords, any: secret}
  number: {type: keywords, any: '(a+)+b', regex: true}
guards:
  - {name: tagged, when: 'number.label == "true"', action: tag}
  - {name: names, when: 'secret.label == "true"', action: block}
  - {name: more, when: 'true', action: tag}
"""
    compiled = runtime("  - {name: r, when: 'true', models: [good, cheap]}", more)
    sent = as_sent("chat_completions", "auto", "a secret " + "a" * 5_000)
    found = asyncio.run(tried(compiled, sent, {}, time.monotonic() + 5))
    assert found["refused"] == {
        "status": 403,
        "code": "blocked_by_names",
        "message": "This request is not allowed here.",
    }
    assert [(row["guard"], row["verdict"], row["why"]) for row in found["guard_rules"]] == [
        ("tagged", "not judged", "number read in part"),
        ("names", "matched", "secret=true 1.000"),
        ("more", "not judged", "an earlier guard refused"),
    ]
    assert found["signals"]["secret"]["label"] == "true"
    assert found["routes"] == [{"route": "r", "verdict": "matched", "why": "catch-all"}]
    assert "plan" not in found


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


def test_what_is_tried_is_decided_as_for_a_client_who_can_wait() -> None:
    compiled = runtime("  - {name: r, when: 'true', models: [good, cheap]}")
    found = asyncio.run(tried(compiled, REQUEST, {"x-mom-deadline": "12h"}, time.monotonic() + 5))
    assert found["plan"] == ["cheap", "good"]
    assert found["reason"].endswith("; can wait, cheapest now")


def test_what_is_tried_counts_for_no_model() -> None:
    text = f"{MODELS}\nroutes: [{{name: r, when: 'true', models: [good, cheap], selection: lowest_latency}}]\n"
    observed = Observed()
    compiled = compile_runtime(parse(f"{text}default: good\n".encode(), Path("r.yaml")), {}, {}, observed=observed)
    asyncio.run(tried(compiled, REQUEST, {}, time.monotonic() + 5))
    assert observed.load("good") == 0
    # A plan that is followed counts, for the model that it begins with in the end.
    found = routed(compiled)
    compiled.router.keep(replace(found, plan=Plan(("cheap", "good"))))
    assert observed.load("good") == 0
    assert observed.load("cheap") == pytest.approx(1, abs=0.1)
