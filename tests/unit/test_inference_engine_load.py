"""Overload, storms, and memory."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import random
import resource
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from router_extproc.inference.base import Classified, DeadlineExceeded, InferenceError, Overloaded, Prompt
from router_extproc.inference.engine import Engine
from router_extproc.inference.windows import estimate_tokens
from router_extproc.testing import FakeModel
from tests.engines import LABELS, GatedModel, serving, soon, until


async def test_a_text_whose_turn_would_come_too_late_is_refused_at_once() -> None:
    model = GatedModel()
    text = "word " * 80

    async with serving(Engine(model)) as engine:
        first = asyncio.ensure_future(engine.classify(Prompt(text), soon()))
        await model.busy()
        # Nobody knows the pace yet: not refused, and late because the gate stays shut.
        with pytest.raises(DeadlineExceeded):
            await engine.classify(Prompt("a" + text), soon(0.05))
        model.gate.set()
        await first
        model.gate.clear()
        # The first batch took over 0.05 s for about 100 tokens: 200 tokens need more than 0.01 s.
        second = asyncio.ensure_future(engine.classify(Prompt("b" + text), soon()))
        await model.busy()
        with pytest.raises(Overloaded, match="too late"):
            await engine.classify(Prompt("c" + text), soon(0.01))
        patient = asyncio.ensure_future(engine.classify(Prompt("d" + text), soon()))
        model.gate.set()
        await asyncio.gather(second, patient)
        assert engine.stats().refused == 1


async def test_an_overload_is_refused_at_once_and_over_when_there_is_room() -> None:
    model = GatedModel()
    async with serving(Engine(model, max_queued=50)) as engine:
        running = asyncio.create_task(engine.classify(Prompt("running"), soon()))
        await model.busy()
        flood = [asyncio.create_task(engine.classify(Prompt(f"text {i}"), soon())) for i in range(2000)]
        # Nothing runs: whoever is not queued must have been told so already.
        await until(lambda: sum(task.done() for task in flood) == 1950)
        assert engine.stats().queued == 50
        assert {type(task.exception()) for task in flood if task.done()} == {Overloaded}
        model.gate.set()
        answers = await asyncio.gather(running, *flood, return_exceptions=True)
        assert sum(isinstance(answer, Classified) for answer in answers) == 51
        await asyncio.gather(*(engine.classify(Prompt(f"after {i}"), soon()) for i in range(50)))
        stats = engine.stats()
    assert (stats.queued, stats.queued_bytes, stats.refused, stats.texts) == (0, 0, 1950, 101)


@pytest.mark.stress
async def test_a_storm_of_cancellations_leaves_the_engine_as_it_was() -> None:
    rng = random.Random(1)
    outcomes: Counter[str] = Counter()
    async with serving(Engine(FakeModel({}, LABELS), max_queued=300, remembered_windows=50)) as engine:

        async def one(number: int) -> None:
            # Short ones, long ones, some that come again; callers leave before, while and after theirs is read.
            text = "lorem ipsum " * rng.choice((1, 1, 1, 500)) + str(number % 900)
            asked = asyncio.create_task(engine.classify(Prompt(text), soon(rng.choice((0.001, 30)))))
            for _ in range(rng.randrange(12)):
                await asyncio.sleep(0)
            if rng.random() < 0.7:
                asked.cancel()
            try:
                await asked
                outcomes["answered"] += 1
            except asyncio.CancelledError:
                outcomes["cancelled"] += 1
            except InferenceError as error:
                outcomes[error.reason] += 1

        for start in range(0, 6000, 400):
            await asyncio.gather(*(one(start + i) for i in range(400)))
        await until(lambda: engine.stats().queued == 0)
        assert engine.stats().queued_bytes == 0
        assert engine._waiting_tokens == 0
        assert outcomes["cancelled"] > 300
        assert outcomes["answered"] > 100
        assert set(outcomes) <= {"answered", "cancelled", "overloaded", "late"}
        answer = await engine.classify(Prompt("after the storm"), soon())
        assert answer.heads["intent"].label == "chat"
        assert engine.stats().failed == 0


async def test_a_prompt_of_30_000_tokens_does_not_stand_before_short_ones() -> None:
    # No window comes twice: what several texts share is read once.
    long, other = (" ".join(f"{word}{number}" for number in range(12_000)) for word in ("lorem", "dolor"))
    assert min(estimate_tokens(long), estimate_tokens(other)) > 30_000
    model = GatedModel()
    async with serving(Engine(model, max_batch_tokens=512)) as engine:
        running = asyncio.create_task(engine.classify(Prompt(long), soon()))
        await model.busy()
        short = [asyncio.create_task(engine.classify(Prompt(f"short {i}"), soon())) for i in range(20)]
        await until(lambda: engine.stats().texts == 21)
        # Beside it a second one that comes later: it waits for the short ones, not they for it.
        second = asyncio.create_task(engine.classify(Prompt(other), soon()))
        await until(lambda: engine.stats().texts == 22)
        model.gate.set()
        await asyncio.gather(running, second, *short)
    last_short = max(index for index, text in enumerate(model.seen) if text.startswith("short"))
    before = sum(estimate_tokens(text) for text in model.seen[:last_short] if not text.startswith("short"))
    # A batch that ran already, and one that was ahead in line.
    assert before <= 2 * 512
    assert sum(len(text) for text in model.seen) > 2 * 30_000


class Forgetful(FakeModel):
    """Keeps no list of its batches."""

    def run(self, prompts: Sequence[Prompt]) -> list[Classified]:
        self.batches.clear()
        return super().run(prompts)


@pytest.mark.stress
async def test_memory_stays_flat_over_100_000_texts() -> None:
    """Answered, remembered, refused, late and cancelled ones alike."""
    model = Forgetful({}, LABELS, poison="poison")
    async with serving(Engine(model, max_queued=60, remembered_windows=200)) as engine:

        async def one(number: int) -> None:
            # One in a thousand fills the queue by itself, so that those who come with it are refused.
            long = 12_000 if number % 971 == 0 else 300 if number % 97 == 0 else 1
            text = f"text {number % (150 if number % 2 else 5000)} " * long + ("poison" if number % 501 == 0 else "")
            asked = asyncio.ensure_future(engine.classify(Prompt(text), soon(30 if number % 31 else 0.0001)))
            if number % 53 == 0:
                await asyncio.sleep(0)
                asked.cancel()
            with contextlib.suppress(InferenceError, asyncio.CancelledError):
                await asked

        async def some(first: int, count: int) -> None:
            for start in range(first, first + count, 100):
                await asyncio.gather(*(one(start + i) for i in range(100)))

        logging.disable(logging.CRITICAL)
        try:
            await some(0, 10_000)
            gc.collect()
            tracemalloc.start()
            await some(10_000, 1000)
            gc.collect()
            traced, _ = tracemalloc.get_traced_memory()
            await some(11_000, 2000)
            gc.collect()
            later, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            resident, objects = resident_bytes(), len(gc.get_objects())
            await some(13_000, 87_000)
            gc.collect()
        finally:
            logging.disable(logging.NOTSET)
        stats = engine.stats()
        assert later - traced < 300_000
        assert len(gc.get_objects()) - objects < 2000
        # A leak of 300 bytes a text shows.
        assert resident_bytes() - resident < 24 * 1024 * 1024, (resident_bytes() - resident) / 1024**2
        assert len(engine._memory) <= 200
    assert min(stats.texts, stats.refused, stats.late, stats.cancelled, stats.failed, stats.remembered) > 0
    assert stats.texts + stats.refused + stats.late >= 100_000


def resident_bytes() -> int:
    """Of this process, without what is free: other tests leave holes, which fill up without any leak."""
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
