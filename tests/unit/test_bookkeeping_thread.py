"""Measuring happens on a thread beside the event loop: it waits for nobody, and nobody waits for it."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from router_extproc import bookkeeping
from router_extproc.stores.background import Background
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


async def test_the_event_loop_never_measures() -> None:
    async with watched() as found:
        threads: list[str] = []
        found.recorder.later(lambda: threads.append(threading.current_thread().name))
        await page(found)
        assert threads == ["telemetry"]


async def test_a_full_queue_drops_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bookkeeping, "MAX_FACTS", 3)
    async with watched() as found:
        busy, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            busy.set()
            go_on.wait()

        found.recorder.later(hold)
        assert await asyncio.to_thread(busy.wait, 10)
        for _ in range(5):
            found.recorder.client_gone("messages")
        go_on.set()
        text = await page(found)
        assert 'mom_requests_abandoned_total{api="messages"} 3.0' in text
        assert "mom_telemetry_dropped_total 2.0" in text


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
