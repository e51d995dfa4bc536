"""Measuring happens on a thread beside the event loop: it waits for nobody, and nobody waits for it."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from router_extproc.domain import Band, Decision, LlmRequest, Outcome, Plan, SignalSet, Usage
from router_extproc.router import Routed
from router_extproc.stores.background import Background
from router_extproc.telemetry.recorder import Decided
from tests.watched import Watched, watched


async def page(found: Watched) -> str:
    found.metrics.observe()
    return (await asyncio.to_thread(found.metrics.exposition)).decode()


async def test_what_happened_before_a_scrape_is_on_the_page() -> None:
    async with watched() as found:
        for number in range(50):
            found.exchange(f"{number:032}")
        text = await page(found)
        assert 'mom_decisions_total{route="code",band="recommended",model="coder"} 50.0' in text
        assert 'mom_outcomes_total{model="coder",status="200"} 50.0' in text
        assert "mom_telemetry_dropped_total 0.0" in text
        assert 'mom_classifier_texts_total{result="accepted"} 0.0' in text


BUDGETS = b"budgets: [{name: people, per: user, usd: 1}]\n"


REQUEST = LlmRequest("chat_completions", "auto", None, "hi", tokens=1000, max_output_tokens=1000)
DECISION = Decision("default", Band.DEFAULT, 1.0, ("premium",), "sure")
PREMIUM = Routed(REQUEST, SignalSet({}), DECISION, Plan(("premium",)))


async def reserve(found: Watched, user: str) -> None:
    """A request that is under way."""
    routed = replace(PREMIUM, request=replace(REQUEST, user=user))
    await found.books.budgets.admit(user, routed, "", found.runtimes.current.config)


def decided(identity: str, routed: Routed = PREMIUM) -> Decided:
    known = (routed.request, routed.signals, routed.decision, routed.plan)
    return Decided(identity, *known, 0.1, 1, session=routed.session)


async def test_metrics_name_no_user() -> None:
    async with watched(more=BUDGETS) as found:
        for user in ("jane.doe@example.com", "john"):
            await reserve(found, user)
        text = await page(found)
        assert 'mom_budget_used{budget="people"} 0.018' in text
        assert "jane" not in text


async def test_more_answers_under_way_than_can_be_remembered_are_paid_for_all_the_same() -> None:
    async with watched(more=b"budgets: [{name: people, per: user, tokens: 100000}]\n", remembered=1) as found:
        assert found.recorder.patience() == 660
        for identity in ("one", "two"):
            await reserve(found, identity)
            found.recorder.decided(decided(identity))
        for identity in ("one", "two"):
            found.recorder.outcome(Outcome(identity, "chat_completions", 200, "coder", 1, 30.0, 1.0, Usage(1000, 3000)))
        accounts = found.books.budgets.accounts.shown(found.runtimes.current.config)
        told = [(row["key"], row["spent"], row["reserved"]) for row in accounts]
        assert sorted(told) == [("one", "4000", "0"), ("two", "4000", "0")]


async def test_who_answered_holds_the_conversation_and_not_who_was_picked() -> None:
    request = LlmRequest("responses", "auto", None, "hi", opening="hi")
    async with watched() as found:
        router = found.runtimes.current.router

        async def follow_up() -> str:
            again = replace(request, stateful=True)
            return (await router.route(again, {}, time.monotonic() + 60)).plan.pick

        for identity, status, answered_by, home in (
            ("a", 200, "small", "small"),
            ("b", 503, "small", "coder"),
            ("c", 200, "a cluster of a gateway's", "coder"),
            ("d", 200, "premium", "premium"),
        ):
            routed = await router.route(request, {}, time.monotonic() + 60)
            routed = replace(routed, plan=Plan(("coder", "small", "premium")))
            router.keep(routed)
            assert await follow_up() == "coder"
            found.recorder.decided(decided(identity, routed))
            found.recorder.outcome(Outcome(identity, "responses", status, answered_by, 2, 1.0, 0.1, Usage(1, 1)))
            assert await follow_up() == home


async def test_what_is_reserved_is_soon_on_disk_though_nothing_else_happens(tmp_path: Path) -> None:
    async with watched(more=BUDGETS, state_dir=tmp_path) as found:
        await reserve(found, "jane")
        file = tmp_path / "budgets.json"
        async with asyncio.timeout(60):
            while not (file.exists() and json.loads(file.read_bytes())["accounts"]):  # noqa: ASYNC110 - a thread writes it
                await asyncio.sleep(0.01)
        [row] = json.loads(file.read_bytes())["accounts"]
        assert (row[:2], row[3]) == (["people", "jane"], "0.018")


async def test_lines_that_a_disk_did_not_take_are_on_the_page(tmp_path: Path) -> None:
    directory = tmp_path / "gone"
    async with watched(state_dir=directory) as found:
        # No segment has been begun yet, and none can be any more.
        for file in directory.iterdir():
            file.unlink()
        directory.rmdir()
        for number in range(3):
            found.exchange(str(number))
        await asyncio.to_thread(found.books.log.flush)
        assert "mom_decision_log_dropped_total 3.0" in await page(found)
        directory.mkdir()


async def test_the_event_loop_never_measures() -> None:
    async with watched() as found:
        threads: list[str] = []
        found.recorder.later(lambda: threads.append(threading.current_thread().name))
        await page(found)
        assert threads == ["telemetry"]


async def test_a_full_queue_drops_and_counts() -> None:
    async with watched(max_facts=3) as found:
        busy, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            busy.set()
            go_on.wait()

        found.recorder.later(hold)
        assert await asyncio.to_thread(busy.wait, 10)
        for _ in range(50):
            found.recorder.client_gone("messages")
        go_on.set()
        text = await page(found)
        # The loop's delay is measured now and then, too, and may be one of the three.
        numbers = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        measured = float(numbers['mom_requests_abandoned_total{api="messages"}'])
        dropped = float(numbers["mom_telemetry_dropped_total"])
        assert 1 <= measured <= 3
        assert dropped >= 50 - measured


async def test_a_fact_that_cannot_be_measured_costs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async with watched() as found:
        with caplog.at_level(logging.ERROR):
            found.recorder.later(lambda: [].pop())
            found.recorder.client_gone("messages")
            text = await page(found)
        assert 'mom_requests_abandoned_total{api="messages"} 1.0' in text
        assert "a fact could not be measured" in caplog.text


async def test_what_waits_at_the_end_is_measured() -> None:
    async with watched() as found:
        found.exchange("0" * 32)
        metrics = found.metrics
    assert 'mom_outcomes_total{model="coder",status="200"} 1.0' in metrics.exposition().decode()


def test_a_flush_waits_for_what_was_put_before_it_and_for_no_more() -> None:
    handled: list[int] = []
    over = threading.Event()
    work: Background[int]

    def handle(batch: list[int]) -> None:
        handled.extend(batch)
        # Somebody always has more.
        if not over.is_set():
            work.put(0)

    work = Background("test", handle, seconds=0.001, max_waiting=10)
    work.start()
    work.put(1)
    work.flush()
    assert 1 in handled
    over.set()
    work.close()
    work.flush()
