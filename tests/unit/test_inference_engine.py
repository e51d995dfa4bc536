"""Batches, errors, and callers who leave."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from router_extproc.inference.base import Classified, DeadlineExceeded, ModelFailed, Overloaded, Prompt
from router_extproc.inference.engine import Engine
from router_extproc.testing import FakeModel
from tests.engines import LABELS, GatedModel, queued, serving, soon


async def test_texts_that_come_while_a_batch_runs_form_the_next_one() -> None:
    model = GatedModel()
    async with serving(Engine(model)) as engine:
        first = asyncio.create_task(engine.classify(Prompt("first"), soon()))
        await model.busy()
        rest = [asyncio.create_task(engine.classify(Prompt(f"text {i}"), soon())) for i in range(10)]
        await queued(engine, 10)
        model.gate.set()
        assert (await first).batch_size == 1
        assert {(await each).batch_size for each in rest} == {10}
        stats = engine.stats()
    assert model.batches == [1, 10]
    assert (stats.texts, stats.batches, stats.windows, stats.batch_sizes) == (11, 2, 11, {1: 1, 16: 1})
    assert 0 <= stats.padding_waste < 1


@pytest.mark.parametrize("newest", [24, 100])
async def test_a_slow_device_gets_batches_that_it_can_do_in_part_of_the_time_that_texts_have(newest: float) -> None:
    """Also when the newest text has more time: as one that is classified before its body is complete."""

    class SlowModel(GatedModel):
        def run(self, prompts: Sequence[Prompt]) -> list[Classified]:
            threading.Event().wait(0.3)  # however many they are
            return super().run(prompts)

    model = SlowModel()
    model.batch_tokens = 100_000
    async with serving(Engine(model)) as engine:
        model.gate.set()
        await engine.classify(Prompt("text a " * 30), soon())
        await model.busy()
        model.gate.clear()
        # What the device has shown so far, of texts of one length: twelve can be done in half of the time they have,
        # and eight in the part of it that a batch may take.
        one = engine.stats().run_ms / 1000
        running = asyncio.create_task(engine.classify(Prompt("text b " * 30), soon()))
        await model.busy()
        rest = [
            asyncio.create_task(
                engine.classify(Prompt(f"text {letter} " * 30), soon((24 if letter != "n" else newest) * one), 24 * one)
            )
            for letter in "cdefghijklmn"
        ]
        await queued(engine, 12)
        model.gate.set()
        await running
        answered = await asyncio.gather(*rest)
    assert len(answered) == 12
    assert max(model.batches) < 12


async def test_a_full_queue_refuses_at_once() -> None:
    model = GatedModel()
    async with serving(Engine(model, max_queued=2)) as engine:
        running = asyncio.create_task(engine.classify(Prompt("running"), soon()))
        await model.busy()
        waiting = [asyncio.create_task(engine.classify(Prompt("waiting"), soon())) for _ in range(2)]
        await queued(engine, 2)
        with pytest.raises(Overloaded):
            await engine.classify(Prompt("too many"), soon())
        model.gate.set()
        await asyncio.gather(running, *waiting)
        assert engine.stats().refused == 1


async def test_the_bytes_that_wait_are_bounded_too() -> None:
    model = GatedModel()
    async with serving(Engine(model, max_queued_bytes=1000)) as engine:
        running = asyncio.create_task(engine.classify(Prompt("running"), soon()))
        await model.busy()
        waiting = asyncio.create_task(engine.classify(Prompt("w" * 900), soon()))
        await queued(engine, 1)
        with pytest.raises(Overloaded):
            await engine.classify(Prompt("x" * 200), soon())
        model.gate.set()
        await asyncio.gather(running, waiting)


async def test_a_late_answer_is_an_error_in_time_and_is_skipped_when_popped() -> None:
    model = GatedModel()
    async with serving(Engine(model)) as engine:
        running = asyncio.create_task(engine.classify(Prompt("running"), soon()))
        await model.busy()
        with pytest.raises(DeadlineExceeded):
            await engine.classify(Prompt("late"), soon(0.01))
        with pytest.raises(DeadlineExceeded):
            await engine.classify(Prompt("too late already"), time.monotonic())
        assert engine.stats().queued == 0
        model.gate.set()
        await running
        await engine.classify(Prompt("after"), soon())
        assert engine.stats().late == 2
    assert model.seen == ["running", "after"]


async def test_a_cancelled_caller_costs_nothing() -> None:
    model = GatedModel()
    async with serving(Engine(model)) as engine:
        running = asyncio.create_task(engine.classify(Prompt("running"), soon()))
        await model.busy()
        gone = [asyncio.create_task(engine.classify(Prompt("gone"), soon())) for _ in range(400)]
        await queued(engine, 400)
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        assert engine.stats().queued == 0
        model.gate.set()
        await running
        await engine.classify(Prompt("after"), soon())
        assert engine.stats().cancelled == 400
    assert model.seen == ["running", "after"]


async def test_cancelling_the_text_that_runs_harms_nobody() -> None:
    model = GatedModel()
    async with serving(Engine(model)) as engine:
        running = asyncio.create_task(engine.classify(Prompt("running"), soon()))
        await model.busy()
        running.cancel()
        model.gate.set()
        assert (await engine.classify(Prompt("after"), soon())).heads["intent"].label == "chat"


async def test_a_poisoned_text_fails_alone() -> None:
    model = GatedModel(poison="poison")
    async with serving(Engine(model)) as engine:
        first = asyncio.create_task(engine.classify(Prompt("first"), soon()))
        await model.busy()
        texts = ["good", "poison", "def"]
        rest = [asyncio.create_task(engine.classify(Prompt(text), soon())) for text in texts]
        await queued(engine, 3)
        model.gate.set()
        await first
        good, poisoned, code = await asyncio.gather(*rest, return_exceptions=True)
        assert isinstance(poisoned, ModelFailed)
        assert isinstance(good, Classified)
        assert isinstance(code, Classified)
        assert code.heads["intent"].label == "code"
        assert (await engine.classify(Prompt("still alive"), soon())).heads["intent"].label == "chat"
        assert engine.stats().failed == 1


class WrongCount(FakeModel):
    def run(self, prompts: Sequence[Prompt]) -> list[Classified]:
        return super().run(prompts)[1:]


async def test_a_model_that_answers_too_few_is_an_error_and_not_the_end() -> None:
    async with serving(Engine(WrongCount({}, LABELS))) as engine:
        for _ in range(2):
            with pytest.raises(ModelFailed):
                await engine.classify(Prompt("x"), soon())


class Dying(FakeModel):
    def run(self, prompts: Sequence[Prompt]) -> list[Classified]:
        raise SystemExit


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_nobody_waits_for_a_thread_that_has_ended() -> None:
    async with serving(Engine(Dying({}, LABELS))) as engine:
        with pytest.raises(ModelFailed, match="ended"):
            await engine.classify(Prompt("x"), soon())
        with pytest.raises(ModelFailed, match="not running"):
            await engine.classify(Prompt("x"), soon())
