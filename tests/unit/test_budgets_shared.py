"""Budgets that replicas have in common: agreed on while the store answers; counted alone while not, and told once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_extproc.budget_accounts import Accounts
from router_extproc.budgets import Budgets, check_budgets
from router_extproc.config.loader import parse
from router_extproc.config.schema import RouterConfig
from router_extproc.domain import Band, Decision, LlmRequest, Outcome, Plan, SignalSet, Usage
from router_extproc.errors import BudgetSpent, Mistake
from router_extproc.router import Routed
from router_extproc.stores.base import Added, Change, Store, StoreError
from router_extproc.stores.memory import MemoryStore
from router_extproc.stores.tally import Counter, Tally
from tests.unit.test_budgets_admission import Clock

MODELS = """
models:
  small: {url: "http://127.0.0.1:1", price: {input: 1, output: 1}}
  premium: {url: "http://127.0.0.1:3", price: {input: 100, output: 100}}
  odd: {url: "http://127.0.0.1:4", price: {input: 0.123456789, output: 0}}
default: premium
ledger: {tenant_header: x-tenant}
"""
REQUEST = LlmRequest("chat_completions", "auto", None, "hello", tokens=1000)
LONG = 20.0
"""Seconds to wait for a store that answers."""


class Unsure(MemoryStore):
    """A store whose connection a test breaks: `down` refuses, `deaf` counts and never says so, `hanging` waits."""

    def __init__(self) -> None:
        super().__init__()
        self.state = ""
        self.asked = 0
        self.free = asyncio.Event()

    async def add(self, writer: str, number: int, changes: Sequence[Change]) -> Added:
        self.asked += 1
        if self.state == "down":
            raise StoreError("down", "no connection")
        if self.state == "hanging":
            await self.free.wait()
        added = await super().add(writer, number, changes)
        if self.state == "deaf":
            raise StoreError("slow", "no answer")
        return added

    def emptied(self) -> None:
        self._numbers.clear()
        self._counters.clear()


def config(budgets: str) -> RouterConfig:
    return parse(f"{MODELS}budgets: {budgets}\n".encode(), Path("router.yaml")).config


DAY = config("[{name: day, usd: 1}]")


def routed(*models: str, band: Band = Band.RECOMMENDED) -> Routed:
    decision = Decision("chat", band, 0.9, (models[0],), "sure")
    return Routed(REQUEST, SignalSet({}), decision, Plan(models))


def outcome(found: Routed, tokens: int = 1000, model: str | None = None) -> Outcome:
    answered = model or found.plan.pick
    return Outcome("x", "chat_completions", 200, answered, 1, 1.0, 0.1, Usage(tokens, tokens), held=found.held)


@asynccontextmanager
async def replicas(
    count: int,
    store: Store,
    acted: Callable[[str, str], None] = lambda _budget, _action: None,
    alone: Callable[[str], None] = lambda _reason: None,
    **options: object,
) -> AsyncIterator[list[Budgets]]:
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(count):
            accounts = Accounts(**{"store": store, "wait_seconds": LONG, "now": Clock(), **options})  # type: ignore[arg-type]
            accounts.start()
            accounts.share()
            stack.callback(accounts.close)
            stack.push_async_callback(accounts.leave)
            found.append(Budgets(accounts, acted=acted, alone=alone))
        yield found


def used(budgets: Budgets, found: RouterConfig = DAY) -> tuple[str, str]:
    [row] = budgets.accounts.shown(found)
    return row["spent"], row["reserved"]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the tally has no event for what it has told
            await asyncio.sleep(0.001)


async def seen(budgets: Budgets, found: RouterConfig = DAY) -> tuple[str, str]:
    """What a replica shows once it has asked the store."""
    await budgets.accounts.refresh(found)
    return used(budgets, found)


async def test_what_one_has_reserved_and_spent_counts_for_the_other() -> None:
    async with replicas(2, MemoryStore()) as (one, other):
        first = await one.admit("a", routed("premium"), "", DAY)
        assert await seen(other) == ("0", "0.2")
        one.settle(outcome(first, 500), DAY)
        await seen(one)
        assert await seen(other) == ("0.1", "0")


async def test_any_replica_settles_what_another_has_reserved() -> None:
    async with replicas(2, MemoryStore()) as (one, other):
        first = await one.admit("a", routed("premium"), "", DAY)
        assert json.loads(first.held) == [["day", "total", "2026-05-31T00:00:00+00:00", "0.2", "USD"]]
        other.settle(outcome(first, 500), DAY)
        await seen(other)
        assert await seen(one) == ("0.1", "0")


async def test_a_plan_is_made_anew_when_others_have_used_the_rest() -> None:
    lenient, strict = config("[{name: day, usd: 0.3}]"), config("[{name: day, usd: 0.3, when_spent: refuse}]")
    actions: list[tuple[str, str]] = []
    async with replicas(2, MemoryStore(), acted=lambda *acted: actions.append(acted)) as (one, other):
        assert (await one.admit("a", routed("premium", "small"), "", lenient)).plan.pick == "premium"
        # By its own count the other replica has the whole budget left.
        moved = await other.admit("b", routed("premium", "small"), "", lenient)
        assert (moved.plan.models, moved.decision.reason) == (("small",), "sure; budget day at 67 %")
        with pytest.raises(BudgetSpent):
            await other.admit("c", routed("premium"), "", strict)
        assert actions == [("day", "trimmed"), ("day", "refused")]
        assert (await seen(one, lenient))[1] == "0.202"


async def test_a_refusal_by_an_old_count_is_looked_at_again() -> None:
    strict = config("[{name: day, usd: 0.3, when_spent: refuse}]")
    async with replicas(2, MemoryStore()) as (one, other):
        first = await one.admit("a", routed("premium"), "", strict)
        with pytest.raises(BudgetSpent):
            await other.admit("b", routed("premium"), "", strict)
        one.settle(replace(outcome(first), status=503, usage=None), strict)
        await one.admit("c", routed("small"), "", strict)
        assert (await other.admit("d", routed("premium"), "", strict)).plan.pick == "premium"


steps = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["small", "premium"]), st.booleans()), max_size=40)


@settings(max_examples=40, deadline=None)
@given(steps)
async def test_together_they_never_reserve_more_than_a_refusing_budget(moves: list[tuple[int, str, bool]]) -> None:
    """All at once, in any order, settled by whoever hears of it."""
    strict = config("[{name: day, usd: 0.7, when_spent: refuse}]")
    store = MemoryStore()
    open_requests: list[Routed] = []

    async def ask(budgets: Budgets, model: str) -> None:
        try:
            open_requests.append(await budgets.admit("x", routed(model), "", strict))
        except BudgetSpent:
            return

    async with replicas(3, store) as all_of_them:
        asked = []
        for index, model, settles in moves:
            asked.append(asyncio.create_task(ask(all_of_them[index], model)))
            if settles and open_requests:
                all_of_them[index].settle(outcome(open_requests.pop()), strict)
            await asyncio.sleep(0)
        await asyncio.gather(*asked)
        for budgets in all_of_them:
            await budgets.accounts.leave()
        totals = {key: Decimal(total) / 10**12 for key, (total, _) in store._counters.items()}
        assert sum(totals.values()) <= Decimal("0.7")
        held = sum((Decimal(json.loads(each.held)[0][3]) for each in open_requests), Decimal(0))
        assert sum(total for key, total in totals.items() if key.endswith(":r")) == held


async def test_a_store_that_is_down_holds_up_nobody_and_is_told_later() -> None:
    store, reasons = Unsure(), list[str]()
    store.state = "down"
    async with replicas(2, store, alone=reasons.append) as (one, other):
        for _ in range(3):
            first = await one.admit("a", routed("premium"), "", DAY)
            one.settle(outcome(first, 500), DAY)
        assert used(one) == ("0.3", "0")
        assert (one.accounts.trouble, reasons) == ("down", ["down"] * 3)
        tight = config("[{name: day, usd: 0.35}]")
        reason = (await one.admit("b", routed("premium", "small"), "", tight)).decision.reason
        assert reason == "sure; budget day at 86 % (known here: store down)"
        store.state = ""
        await until(lambda: one.accounts.trouble == "")
        assert (await seen(other))[0] == "0.3"
        assert len(reasons) == 4


async def test_what_was_counted_without_an_answer_is_counted_once() -> None:
    store = Unsure()
    store.state = "deaf"
    async with replicas(2, store) as (one, other):
        first = await one.admit("a", routed("premium"), "", DAY)
        one.settle(outcome(first, 500), DAY)
        asked = store.asked
        await until(lambda: store.asked >= asked + 3)
        store.state = ""
        await until(lambda: one.accounts.trouble == "")
        await seen(one)
        assert await seen(other) == ("0.1", "0")


async def test_a_slow_store_is_waited_for_once_and_not_for_long() -> None:
    store, reasons = Unsure(), list[str]()
    async with replicas(1, store, wait_seconds=0.02, alone=reasons.append) as [one]:
        store.state = "hanging"
        began = time.monotonic()
        for _ in range(200):
            await one.admit("a", routed("small"), "", DAY)
        # Each waiting for itself would take four seconds.
        assert time.monotonic() - began < 2
        assert reasons == ["slow"] * 200
        store.state = ""
        store.free.set()
        await until(lambda: one.accounts.trouble == "")
        await one.admit("a", routed("small"), "", DAY)
        assert len(reasons) == 200


async def test_a_store_is_not_slow_because_little_was_left_of_the_time() -> None:
    store = Unsure()
    tally = Tally(store)
    tally.start()
    counter = Counter("c", 1000, 60)
    assert await tally.agreed([counter], LONG, LONG)
    store.state = "hanging"
    assert not await tally.agreed([counter], 0.001, LONG)
    assert tally.trouble == ""
    assert not await tally.agreed([counter], 0.001, 0.001)
    assert tally.trouble == "slow"
    store.state = ""
    store.free.set()
    await tally.aclose()


async def test_who_never_waits_counts_the_others_a_moment_later() -> None:
    store, reasons = MemoryStore(), list[str]()
    async with replicas(2, store, wait_seconds=0, alone=reasons.append) as (one, other):
        await one.admit("a", routed("premium"), "", DAY)
        await other.admit("b", routed("small"), "", DAY)
        await until(lambda: used(other)[1] == "0.202")
        assert reasons == []


async def test_a_client_that_leaves_while_the_store_is_asked_holds_nothing() -> None:
    store = Unsure()
    async with replicas(1, store) as [one]:
        await one.admit("a", routed("small"), "", DAY)
        store.state = "hanging"
        gone = asyncio.create_task(one.admit("b", routed("premium"), "", DAY))
        await until(lambda: used(one)[1] == "0.202")
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert used(one) == ("0", "0.002")
        store.free.set()


async def test_a_store_that_has_forgotten_is_told_again_by_everyone() -> None:
    store = Unsure()
    async with replicas(2, store) as (one, other):
        for budgets, tokens in ((one, 500), (other, 1500)):
            budgets.settle(outcome(await budgets.admit("a", routed("premium"), "", DAY), tokens), DAY)
            await seen(budgets)
        store.emptied()
        await seen(one)
        await seen(other)
        await seen(other)
        assert (await seen(one))[0] == (await seen(other))[0] == "0.4"


async def test_what_the_store_never_heard_outlives_the_process(tmp_path: Path) -> None:
    store = Unsure()
    async with replicas(1, store, directory=tmp_path) as [one]:
        one.settle(outcome(await one.admit("a", routed("premium"), "", DAY), 500), DAY)
        await seen(one)
        store.state = "deaf"
        one.settle(outcome(await one.admit("b", routed("premium"), "", DAY), 1000), DAY)
    assert used_in(tmp_path) == "0.3"
    store.state = ""
    async with replicas(1, store, directory=tmp_path) as [again]:
        assert used(again)[0] == "0.3"
        async with replicas(1, store) as [other]:
            await seen(again)
            assert await seen(other) == ("0.3", "0")
    async with replicas(1, store, directory=tmp_path) as [third]:
        assert await seen(third) == ("0.3", "0")


async def test_what_was_counted_alone_is_put_in_when_a_store_comes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        alone = Budgets(Accounts(tmp_path / name, now=Clock()))
        alone.accounts.start()
        first = await alone.admit("a", routed("premium"), "", DAY)
        alone.settle(replace(outcome(first, 500), decision_id="a"), DAY)
        alone.accounts.close()
    store = MemoryStore()
    for name in ("one", "other"):
        async with replicas(1, store, directory=tmp_path / name) as [shared]:
            await seen(shared)
    async with replicas(1, store) as [third]:
        assert await seen(third) == ("0.2", "0")


async def test_what_was_counted_alone_waits_for_the_process_that_puts_it_in(tmp_path: Path) -> None:
    alone = Budgets(Accounts(tmp_path, now=Clock()))
    alone.accounts.start()
    first = await alone.admit("a", routed("premium"), "", DAY)
    alone.settle(replace(outcome(first, 500), decision_id="a"), DAY)
    alone.accounts.close()
    store = MemoryStore()
    async with replicas(1, store, directory=tmp_path):
        pass  # ends before anybody has asked for the account
    async with replicas(1, store, directory=tmp_path) as [shared]:
        await seen(shared)
    async with replicas(1, store) as [third]:
        assert await seen(third) == ("0.1", "0")


async def test_amounts_below_the_stores_unit_add_up() -> None:
    store = MemoryStore()
    async with replicas(2, store) as (one, other):
        for _ in range(1000):
            found = await one.admit("a", routed("odd"), "", DAY)
            ended = Outcome("x", "chat_completions", 200, "odd", 1, 1.0, 0.1, Usage(1, 0), held=found.held)
            one.settle(ended, DAY)
        # 0.000000123456789 each: the last three digits are below a unit.
        assert used(one)[0] == "0.000123456789"
        await seen(one)
        assert (await seen(other))[0] == "0.000123456789"


async def test_another_window_is_another_account() -> None:
    clock, store = Clock(), MemoryStore()
    async with replicas(2, store, now=clock) as (one, other):
        first = await one.admit("a", routed("premium"), "", DAY)
        clock.now += timedelta(days=1)
        other.settle(outcome(first), DAY)
        await other.admit("b", routed("small"), "", DAY)
        assert used(other) == ("0", "0.002")


async def test_another_unit_is_another_account() -> None:
    store, tokens = MemoryStore(), config("[{name: day, tokens: 100000}]")
    async with replicas(1, store) as [one]:
        early = await one.admit("a", routed("small"), "", tokens)
        late = await one.admit("b", routed("small"), "", tokens)
        one.settle(outcome(early), tokens)
        assert await seen(one, tokens) == ("2000", "2000")
        assert (await one.admit("c", routed("small"), "", DAY)).held.endswith('"USD"]]')
        assert await seen(one) == ("0", "0.002")
        one.settle(outcome(late), DAY)
        assert await seen(one) == ("0", "0.002")
    async with replicas(2, store) as (again, other):
        for each in (again, other):
            assert await seen(each) == ("0", "0.002")


async def test_a_sidecar_of_before_tells_no_unit() -> None:
    async with replicas(1, MemoryStore()) as [one]:
        found = await one.admit("a", routed("small"), "", DAY)
        rows = [row[:4] for row in json.loads(found.held)]
        one.settle(outcome(replace(found, held=json.dumps(rows))), DAY)
        assert await seen(one) == ("0.002", "0")


@pytest.mark.parametrize(
    "held", ["", "{", "[]", "[1]", '[["day","total","2026","x"]]', '[["nobody","total","2026","1"]]']
)
async def test_metadata_that_holds_nothing_of_ours_is_harmless(held: str) -> None:
    async with replicas(1, MemoryStore()) as [one]:
        one.settle(Outcome("x", "chat_completions", 200, "small", 1, 1.0, 0.1, Usage(1, 1), held=held), DAY)
        assert await seen(one) == ("0", "0")


def test_budgets_that_cannot_be_counted_together_are_refused() -> None:
    text = MODELS + "budgets: [{name: huge, usd: 9000001}]\nstore: {url: 'redis://h'}\n"
    [mistake] = check_budgets(parse(text.encode(), Path("router.yaml")).config)
    assert mistake == Mistake(("budgets", 0, "usd"), "over 9,000,000 USD, too large to be shared")
    alone = text.replace("url: 'redis://h'", "budgets: true")
    assert check_budgets(parse(alone.encode(), Path("router.yaml")).config) == []


def used_in(directory: Path) -> str:
    [[*_, spent, _, _]] = json.loads((directory / "budgets.json").read_text())["accounts"]
    return str(spent)
