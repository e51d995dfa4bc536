"""Budgets: reserved at admission, settled by the outcome, kept over restarts; what each level does to a plan."""

from __future__ import annotations

import asyncio
import json
import logging
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_extproc.account_names import account_name
from router_extproc.budget_accounts import Accounts
from router_extproc.budget_plans import expected
from router_extproc.budgets import Budgets, check_budgets
from router_extproc.config.loader import parse
from router_extproc.config.schema import RouterConfig
from router_extproc.domain import Band, Decision, LlmRequest, Outcome, Plan, SignalSet, Usage
from router_extproc.errors import BudgetSpent, ConfigError
from router_extproc.router import Routed

NOW = datetime(2026, 5, 31, 22, 30, tzinfo=UTC)

MODELS = """
models:
  small: {url: "http://127.0.0.1:1", price: {input: 1, output: 1}}
  middle: {url: "http://127.0.0.1:2", price: {input: 10, output: 10}}
  premium: {url: "http://127.0.0.1:3", price: {input: 100, output: 100}}
default: premium
"""
TENANTS = "ledger: {tenant_header: x-tenant}\n"
# 1,000 tokens in and 1,000 out: small $0.002, middle $0.02, premium $0.2.
REQUEST = LlmRequest("chat_completions", "auto", None, "hello", tokens=1000)


def config(budgets: str) -> RouterConfig:
    return parse(f"{MODELS}{TENANTS}budgets: {budgets}\n".encode(), Path("router.yaml")).config


def routed(*models: str, band: Band = Band.RECOMMENDED, **request: object) -> Routed:
    decision = Decision("chat", band, 0.9, (models[0],), "sure")
    return Routed(replace(REQUEST, **request), SignalSet({}), decision, Plan(models))  # type: ignore[arg-type]


def outcome(identity: str, model: str, tokens: int = 1000) -> Outcome:
    return Outcome(identity, "chat_completions", 200, model, 1, 1.0, 0.1, Usage(tokens, tokens))


class Clock:
    """A clock that tests turn."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def used(budgets: Budgets, found: RouterConfig) -> dict[str, tuple[str, str]]:
    return {f"{row['budget']}/{row['key']}": (row["spent"], row["reserved"]) for row in budgets.accounts.shown(found)}


async def test_a_reservation_becomes_what_the_answer_cost(clock: Clock) -> None:
    found, budgets = config("[{name: day, usd: 1}]"), Budgets(Accounts(now=clock))
    plan = routed("small", "middle")
    assert await budgets.admit("a", plan, "", found) is plan
    assert used(budgets, found) == {"day/total": ("0", "0.02")}
    budgets.settle(outcome("a", "small", 500), found)
    assert used(budgets, found) == {"day/total": ("0.001", "0")}
    budgets.settle(outcome("a", "small", 500), found)
    assert used(budgets, found) == {"day/total": ("0.001", "0")}


async def test_an_answer_whose_price_nobody_knows_costs_what_was_reserved(clock: Clock) -> None:
    """A reload has taken its model out meanwhile."""
    found = config("[{name: day, usd: 1}, {name: words, tokens: 9000}]")
    left = {name: model for name, model in found.models.items() if name != "premium"}
    gone = found.model_copy(update={"models": left, "default": ("small",)})
    budgets = Budgets(Accounts(now=clock))
    await budgets.admit("a", routed("premium"), "", found)
    assert used(budgets, found)["day/total"] == ("0", "0.2")
    budgets.settle(outcome("a", "premium", 500), gone)
    assert used(budgets, found) == {"day/total": ("0.2", "0"), "words/total": ("1000", "0")}


async def test_the_oldest_of_too_many_requests_under_way_counts_as_spent(clock: Clock) -> None:
    """Several sidecars without a store: Envoy tells others what became of them."""
    found, budgets = config("[{name: day, usd: 1}]"), Budgets(Accounts(now=clock), most=2)
    for identity in "abc":
        await budgets.admit(identity, routed("small"), "", found)
    assert used(budgets, found) == {"day/total": ("0.002", "0.004")}
    for identity in "ac":
        budgets.settle(outcome(identity, "small", 500), found)
    assert used(budgets, found) == {"day/total": ("0.003", "0.002")}


async def test_a_failed_exchange_gives_its_reservation_back(clock: Clock) -> None:
    found, budgets = config("[{name: day, usd: 1}]"), Budgets(Accounts(now=clock))
    await budgets.admit("a", routed("small"), "", found)
    budgets.settle(replace(outcome("a", "small"), status=503, usage=None), found)
    assert used(budgets, found) == {"day/total": ("0", "0")}


@pytest.mark.parametrize(
    ("spent", "plan", "expected_plan", "reason"),
    [
        (0, ("premium", "middle", "small"), ("premium", "middle", "small"), "sure"),
        (90, ("premium", "middle", "small"), ("small", "middle"), "sure; budget day at 90 %"),
        (99.6, ("premium", "middle", "small"), ("small",), "sure; budget day at 100 %"),
        (100, ("premium", "middle", "small"), ("small",), "sure; budget day at 100 %"),
        (70, ("premium", "small"), ("premium", "small"), "sure"),
    ],
)
async def test_each_level_changes_the_plan(
    clock: Clock, spent: float, plan: tuple[str, ...], expected_plan: tuple[str, ...], reason: str
) -> None:
    found, budgets = config("[{name: day, usd: 0.9}]"), Budgets(Accounts(now=clock))
    # Tokens that cost the given part of the budget.
    await budgets.admit("before", routed("small"), "", found)
    budgets.settle(outcome("before", "small", int(spent / 100 * 450_000)), found)
    result = await budgets.admit("a", routed(*plan), "", found)
    assert (result.plan.models, result.decision.reason) == (expected_plan, reason)


@pytest.mark.parametrize(
    ("spent", "expected_plan"),
    [(0, ("premium", "small", "middle")), (85, ("small", "middle", "premium")), (100, ("small",))],
)
async def test_a_budget_in_tokens_goes_to_cheaper_models_by_their_prices(
    clock: Clock, spent: int, expected_plan: tuple[str, ...]
) -> None:
    found, budgets = config("[{name: day, tokens: 100000}]"), Budgets(Accounts(now=clock))
    await budgets.admit("before", routed("small"), "", found)
    budgets.settle(replace(outcome("before", "small"), usage=Usage(spent * 1000, 0)), found)
    result = await budgets.admit("a", routed("premium", "small", "middle"), "", found)
    assert result.plan.models == expected_plan


async def test_a_spent_budget_can_refuse_until_it_begins_anew(clock: Clock) -> None:
    found = config("[{name: hourly, window: hour, usd: 0.01, when_spent: refuse}]")
    actions: list[tuple[str, str]] = []
    budgets = Budgets(Accounts(now=clock), acted=lambda name, action: actions.append((name, action)))
    for identity in "abcde":
        await budgets.admit(identity, routed("small"), "", found)
    with pytest.raises(BudgetSpent, match="hour's budget `hourly`") as caught:
        await budgets.admit("f", routed("small"), "", found)
    assert caught.value.status == 429
    assert 1795 <= caught.value.retry_after <= 1801
    assert actions == [("hourly", "refused")]
    clock.now += timedelta(minutes=30)
    await budgets.admit("g", routed("small"), "", found)


async def test_a_named_model_is_never_replaced(clock: Clock) -> None:
    found, budgets = config("[{name: day, usd: 0.1, when_spent: refuse}]"), Budgets(Accounts(now=clock))
    assert (await budgets.admit("a", routed("middle", "small", band=Band.NAMED), "", found)).plan.pick == "middle"
    with pytest.raises(BudgetSpent):
        await budgets.admit("b", routed("premium", "small", band=Band.NAMED), "", found)
    lenient = config("[{name: day, usd: 0.1}]")
    result = await budgets.admit("c", routed("premium", "small", band=Band.NAMED), "", lenient)
    assert result.plan.models == ("premium",)


async def test_accounts_are_kept_apart(clock: Clock) -> None:
    by_route = "{name: r, per: route, only: other, usd: 1}"
    found = config(f"[{{name: t, per: tenant, usd: 1}}, {{name: u, per: user, tokens: 9000}}, {by_route}]")
    budgets = Budgets(Accounts(now=clock))
    await budgets.admit("a", routed("small", user="ann"), "acme", found)
    await budgets.admit("b", routed("small"), "globex", found)
    budgets.settle(outcome("a", "small", 700), found)
    assert used(budgets, found) == {"t/acme": ("0.0014", "0"), "t/globex": ("0", "0.002"), "u/ann": ("1400", "0")}


async def test_long_names_that_begin_alike_are_kept_apart(clock: Clock) -> None:
    one, other = (f"spiffe://corp.example/ns/payments-production/sa/checkout-service-{end}" for end in "ab")
    only = f"{{name: o, per: user, only: [{one}], usd: 1}}, {{name: u, per: tenant, only: [{one}], usd: 1}}"
    found, budgets = config(f"[{{name: all, per: user, usd: 1}}, {only}]"), Budgets(Accounts(now=clock))
    for identity, name in (("a", one), ("b", other)):
        await budgets.admit(identity, routed("small", user=name), account_name(name), found)
    keys = [(row["budget"], row["key"]) for row in budgets.accounts.shown(found)]
    assert sorted(name for name, _ in keys) == ["all", "all", "o", "u"]
    assert all(len(key) == 64 and key.startswith(f"{one[:47]}~") for _, key in keys)
    assert len({key for _, key in keys}) == 2


async def test_what_was_spent_outlives_the_process(tmp_path: Path, clock: Clock) -> None:
    found, budgets = config("[{name: day, usd: 1}]"), Budgets(Accounts(tmp_path, now=clock))
    budgets.accounts.start()
    await budgets.admit("a", routed("small"), "", found)
    budgets.settle(outcome("a", "small"), found)
    await budgets.admit("b", routed("small"), "", found)
    budgets.accounts.close()
    again = Budgets(Accounts(tmp_path, now=clock))
    again.accounts.start()
    # Nobody will tell this process of the second request: what it reserved counts as spent.
    assert used(again, found) == {"day/total": ("0.004", "0")}
    again.accounts.close()
    (tmp_path / "budgets.json").write_text("{")
    broken = Budgets(Accounts(tmp_path, now=clock))
    broken.accounts.start()
    assert used(broken, found) == {}
    broken.accounts.close()


async def test_a_window_that_is_over_starts_from_nothing(clock: Clock) -> None:
    found, budgets = config("[{name: m, window: month, usd: 1}]"), Budgets(Accounts(now=clock))
    await budgets.admit("a", routed("small"), "", found)
    clock.now += timedelta(hours=3)  # June
    await budgets.admit("b", routed("small"), "", found)
    budgets.settle(outcome("a", "small"), found)
    assert used(budgets, found) == {"m/total": ("0", "0.002")}


async def test_a_kill_forgets_nothing_that_is_under_way(tmp_path: Path, clock: Clock) -> None:
    found, budgets = config("[{name: day, usd: 1}]"), Budgets(Accounts(tmp_path, now=clock))
    budgets.accounts.start()
    await budgets.admit("a", routed("small"), "", found)
    budgets.accounts.save()
    file = tmp_path / "budgets.json"
    async with asyncio.timeout(30):
        while not file.exists():  # noqa: ASYNC110 - another thread writes it
            await asyncio.sleep(0.001)
    again = Budgets(Accounts(tmp_path, now=clock))
    again.accounts.start()
    # Envoy tells the new process what became of the old one's request; it counts as what was reserved.
    again.settle(outcome("a", "small", 10), found)
    assert used(again, found) == {"day/total": ("0.002", "0")}
    await again.admit("b", routed("small"), "", found)
    again.settle(outcome("b", "small"), found)
    assert used(again, found) == {"day/total": ("0.004", "0")}
    again.accounts.close()
    budgets.accounts.close()


IN_TOKENS = config("[{name: day, tokens: 5000000}]")
IN_DOLLARS = config("[{name: day, usd: 500}]")


async def test_tokens_that_were_kept_are_no_dollars(tmp_path: Path, clock: Clock) -> None:
    budgets = Budgets(Accounts(tmp_path, now=clock))
    budgets.accounts.start()
    await spend(budgets, IN_TOKENS, "a", 200_000)
    budgets.accounts.close()
    again = Budgets(Accounts(tmp_path, now=clock))
    again.accounts.start()
    assert used(again, IN_TOKENS) == {"day/total": ("400000", "0")}
    assert used(again, IN_DOLLARS) == {}
    await spend(again, IN_DOLLARS, "b", 1000)
    assert used(again, IN_DOLLARS) == {"day/total": ("0.002", "0")}
    again.accounts.close()


async def test_a_file_that_tells_no_unit_is_read(tmp_path: Path, clock: Clock) -> None:
    began = NOW.replace(hour=0, minute=0).isoformat()
    rows = [["day", "total", began, "0.5", False]]
    (tmp_path / "budgets.json").write_text(json.dumps({"version": 1, "accounts": rows}))
    budgets = Budgets(Accounts(tmp_path, now=clock))
    budgets.accounts.start()
    assert used(budgets, IN_DOLLARS) == {"day/total": ("0.5", "0")}
    await spend(budgets, IN_DOLLARS, "a", 1000)
    assert used(budgets, IN_DOLLARS) == {"day/total": ("0.502", "0")}
    budgets.accounts.close()


@pytest.mark.parametrize(("before", "after"), [(IN_TOKENS, IN_DOLLARS), (IN_DOLLARS, IN_TOKENS)])
async def test_a_request_under_way_leaves_a_budget_alone_that_has_changed_its_unit(
    clock: Clock, before: RouterConfig, after: RouterConfig
) -> None:
    budgets = Budgets(Accounts(now=clock))
    await budgets.admit("a", routed("small"), "", before)
    await budgets.admit("b", routed("small"), "", before)
    assert used(budgets, after) == {}
    # Before anybody has asked for the budget in its new unit, and after.
    budgets.settle(outcome("a", "small"), after)
    assert used(budgets, before) == {"day/total": (("2000", "2000") if before is IN_TOKENS else ("0.002", "0.002"))}
    await spend(budgets, after, "c", 500)
    held = used(budgets, after)
    budgets.settle(outcome("b", "small"), after)
    assert used(budgets, after) == held == {"day/total": (("1000", "0") if after is IN_TOKENS else ("0.001", "0"))}


async def spend(budgets: Budgets, found: RouterConfig, identity: str, tokens: int, **request: object) -> None:
    await budgets.admit(identity, routed("small", **request), str(request.get("user", "")), found)  # type: ignore[arg-type]
    budgets.settle(outcome(identity, "small", tokens), found)


async def test_nobody_gets_a_spent_budget_back_by_making_up_users(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    by_tenant = "{name: t, per: tenant, only: acme, usd: 0.004, when_spent: refuse}"
    found = config(f"[{{name: u, per: user, usd: 0.004, when_spent: refuse}}, {by_tenant}]")
    budgets = Budgets(Accounts(now=clock, most=20))
    await budgets.admit("acme", routed("small"), "acme", found)
    budgets.settle(outcome("acme", "small", 2000), found)
    await spend(budgets, found, "greedy", 2000, user="greedy")
    with caplog.at_level(logging.WARNING):
        for number in range(100):
            await spend(budgets, found, str(number), 1, user=f"user {number}")
    assert len(budgets.accounts.shown(found)) <= 21
    for request, tenant in ((routed("small", user="greedy"), ""), (routed("small"), "acme")):
        with pytest.raises(BudgetSpent):
            await budgets.admit("x", request, tenant, found)
    assert budgets.accounts.evicted == {"u": 81}
    assert caplog.messages == ["budget u has over 20 accounts in one window: those that have used least go"]


async def test_accounts_whose_window_is_over_go_first(clock: Clock) -> None:
    found, budgets = config("[{name: u, per: user, usd: 1}]"), Budgets(Accounts(now=clock, most=20))
    for number in range(20):
        await spend(budgets, found, str(number), 1000, user=f"user {number}")
    clock.now += timedelta(days=1)
    await spend(budgets, found, "new", 1, user="new")
    assert used(budgets, found) == {"u/new": ("0.000002", "0")}
    assert budgets.accounts.evicted == {}


async def test_what_an_account_held_that_had_to_go_is_not_given_back_to_the_next(clock: Clock) -> None:
    found, budgets = config("[{name: u, per: user, usd: 1}]"), Budgets(Accounts(now=clock, most=20))
    await budgets.admit("early", routed("small", user="ann", tokens=1, max_output_tokens=1), "", found)
    for number in range(20):
        await spend(budgets, found, str(number), 1000, user=f"user {number}")
    assert "u/ann" not in used(budgets, found)
    await budgets.admit("late", routed("small", user="ann"), "", found)
    budgets.settle(outcome("early", "small", 5), found)
    assert used(budgets, found)["u/ann"] == ("0.00001", "0.002")


async def test_the_fullest_account_stands_for_its_budget(clock: Clock) -> None:
    text = (
        "[{name: u, per: user, usd: 0.01}, {name: all, tokens: 10000}, {name: none, per: tenant, only: nobody, usd: 1}]"
    )
    found, budgets = config(text), Budgets(Accounts(now=clock))
    for number, tokens in enumerate((100, 2000, 500)):
        await spend(budgets, found, str(number), tokens, user=f"user {number}")
    assert budgets.accounts.fullest(found) == {"u": pytest.approx(0.4), "all": pytest.approx(0.52)}
    # Looked up now and then: there may be thousands.
    await spend(budgets, found, "more", 3000, user="user 1")
    assert budgets.accounts.fullest(found)["u"] == pytest.approx(0.4)
    assert budgets.accounts.fullest(config(text))["u"] == pytest.approx(1)


async def test_the_file_does_not_grow_for_ever(tmp_path: Path, clock: Clock) -> None:
    found = config("[{name: u, per: user, usd: 1}]")
    for day in range(5):
        budgets = Budgets(Accounts(tmp_path, now=clock, most=20))
        budgets.accounts.start()
        for number in range(15):
            await spend(budgets, found, str(number), 1000, user=f"day {day} user {number}")
        budgets.accounts.close()
        clock.now += timedelta(days=1)
    assert len(json.loads((tmp_path / "budgets.json").read_text())["accounts"]) <= 40


def test_reservations_go_up_to_the_clients_own_limit() -> None:
    assert expected(replace(REQUEST, max_output_tokens=10)) == Usage(1000, 10)
    assert expected(replace(REQUEST, max_output_tokens=10**9)).output == 4096
    assert expected(replace(REQUEST, api="embeddings")).output == 0


@pytest.mark.parametrize(
    ("budgets", "message"),
    [
        ("[{name: a}]", "give either usd or tokens"),
        ("[{name: a, usd: 1, tokens: 1}]", "give either usd or tokens"),
        ("[{name: a, usd: 1, per: day}]", "is not one of"),
        ("[{name: a, usd: 0}]", "greater than 0"),
    ],
)
def test_mistakes_are_named(budgets: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(budgets)


def found(text: str) -> list[tuple[tuple[str | int, ...], str]]:
    mistakes = check_budgets(parse((MODELS + text).encode(), Path("router.yaml")).config)
    return [(mistake.path, mistake.message) for mistake in mistakes]


def test_budgets_that_cannot_count_are_named_where_they_stand() -> None:
    routes = "routes: [{name: code, when: 'true', models: small}]\n"
    wrong = (
        "budgets:\n- {name: a, usd: 1, only: acme}\n- {name: a, usd: 1, per: route, only: [codes, code]}\n"
        "- {name: t, usd: 1, per: tenant}\nledger: {}\n"
    )
    assert found(routes + wrong) == [
        (("budgets", 0, "only"), "counts nothing without `per`: say whether these are tenants, users or routes"),
        (("budgets", 1, "name"), "another budget is called `a` too"),
        (("budgets", 1, "only", 0), "unknown route `codes`, did you mean `code`?"),
        (("budgets", 2, "per"), "a budget per tenant needs `ledger.tenant_header`"),
    ]
    right = (
        "ledger: {tenant_header: x-tenant}\nbudgets:\n- {name: a, usd: 1, per: tenant, only: acme}\n"
        "- {name: b, usd: 1, per: route, only: [code, default, named]}\n- {name: c, usd: 1, per: user, only: ann}\n"
    )
    assert found(routes + right) == []


steps = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.booleans(), st.sampled_from(["small", "middle", "premium"])), max_size=60
)


@settings(max_examples=60)
@given(steps)
async def test_nothing_stays_reserved_and_a_refusing_budget_is_never_exceeded_by_reservations(
    moves: list[tuple[str, bool, str]],
) -> None:
    found = config("[{name: day, usd: 0.5, when_spent: refuse}]")
    budgets, open_requests = Budgets(Accounts(now=Clock())), dict[str, str]()
    for identity, admit, model in moves:
        if admit and identity not in open_requests:
            try:
                open_requests[identity] = (await budgets.admit(identity, routed(model), "", found)).plan.pick
            except BudgetSpent:
                continue
        elif not admit and identity in open_requests:
            budgets.settle(outcome(identity, open_requests.pop(identity)), found)
        rows = used(budgets, found)
        assert all(Decimal(spent) + Decimal(reserved) <= Decimal("0.5") for spent, reserved in rows.values())
    for identity, model in open_requests.items():
        budgets.settle(outcome(identity, model), found)
    assert all(reserved == "0" for _, reserved in used(budgets, found).values())


async def test_the_file_is_plain(tmp_path: Path, clock: Clock) -> None:
    found, budgets = config("[{name: day, usd: 1}]"), Budgets(Accounts(tmp_path, now=clock))
    budgets.accounts.start()
    await budgets.admit("a", routed("small"), "", found)
    budgets.settle(outcome("a", "small"), found)
    budgets.accounts.close()
    file = tmp_path / "budgets.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600, "it has the names of tenants and end users"
    rows = json.loads(file.read_text())["accounts"]
    assert rows == [["day", "total", "2026-05-31T00:00:00+00:00", "0.002", False, "USD"]]
