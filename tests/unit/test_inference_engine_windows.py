"""Long texts: windows, what is read of them in time, and what is never read twice."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from router_extproc.config.loader import parse
from router_extproc.domain import LlmRequest
from router_extproc.inference.base import Classified, DeadlineExceeded, ModelFailed, Overloaded, Prompt
from router_extproc.inference.engine import Engine
from router_extproc.inference.windows import cut
from router_extproc.runtime import compile_runtime
from router_extproc.signals.base import SHIPPED
from router_extproc.testing import FakeModel
from tests.engines import LABELS, GatedModel, queued, serving, soon, until


async def test_a_long_text_is_read_in_windows_and_pooled() -> None:
    model = FakeModel({}, LABELS, batch_tokens=100_000)
    async with serving(Engine(model)) as engine:
        result = await engine.classify(Prompt("lorem ipsum " * 1000), soon())
    assert result.windows == sum(model.batches) == 14
    assert result.coverage == 1.0


async def test_of_a_very_long_text_a_bounded_part_is_read() -> None:
    model = FakeModel({}, LABELS)
    async with serving(Engine(model, max_windows=8)) as engine:
        result = await engine.classify(Prompt("lorem ipsum " * 10_000), soon())
    assert 4 <= result.windows <= 8
    assert result.coverage == pytest.approx(result.windows * 1000 / 120_000, rel=0.1)
    assert not result.cut_short


class OneBatch(GatedModel):
    """Lets the first batch through at once."""

    def run(self, prompts: Sequence[Prompt]) -> list[Classified]:
        return super().run(prompts) if self.batches else FakeModel.run(self, prompts)


async def test_at_the_deadline_the_windows_read_so_far_are_the_answer() -> None:
    model = OneBatch()
    text = " ".join(f"lorem{number}" for number in range(400))
    async with serving(Engine(model, max_batch_tokens=1)) as engine:
        result = await engine.classify(Prompt(text), soon(0.2))
        assert result.windows == 1
        assert 0 < result.coverage < 0.5
        assert result.cut_short
        assert engine.stats().partial == 1
        model.gate.set()
        assert not (await engine.classify(Prompt(text), soon())).cut_short


async def test_a_text_that_was_begun_early_is_answered_by_what_was_read_of_it() -> None:
    """With the deadline of the request, and not with its own, which is that of a body that may take its time."""
    text = "def main(): pass # a line of code\n" * 200
    config = """
models: {m: {url: "http://h:1", price: {input: 1, output: 1}}, n: {url: "http://h:2", price: {input: 1, output: 1}}}
signals: {intent: {type: classifier, head: intent}}
routes: [{name: read, when: 'intent.label in ["chat", "code"]', models: n, bands: {recommended: 0, fallback: 0}}]
default: m
"""
    model = OneBatch()
    async with serving(Engine(model, max_batch_tokens=1)) as engine:
        router = compile_runtime(
            parse(config.encode(), Path("router.yaml")), {SHIPPED: engine.labels}, {SHIPPED: engine}
        ).router
        request = LlmRequest("chat_completions", "auto", None, text)
        early = asyncio.create_task(router.classify(Prompt(text), soon()))
        await model.busy()
        routed = await router.route(request, {}, soon(0.2), early)
        model.gate.set()
    assert (routed.decision.route, routed.plan.pick) == ("read", "n")


async def test_of_a_text_that_grows_only_the_new_windows_are_read() -> None:
    model = GatedModel()
    model.gate.set()
    text = "".join(f"sentence {i} of a long text. " for i in range(1500))
    async with serving(Engine(model)) as engine:
        for length in range(2000, len(text), 3000):
            await engine.classify(Prompt(text[:length]), soon())
        before = len(model.seen)
        grown = await engine.classify(Prompt(text), soon())
        assert len(model.seen) - before <= 4
        assert grown.windows > 30
    async with serving(Engine(FakeModel({}, LABELS))) as engine:
        assert (await engine.classify(Prompt(text), soon())).heads == grown.heads


async def test_windows_read_for_a_caller_who_left_are_not_read_again() -> None:
    model = GatedModel()
    async with serving(Engine(model)) as engine:
        gone = asyncio.create_task(engine.classify(Prompt("same text"), soon()))
        await model.busy()
        gone.cancel()
        model.gate.set()
        await engine.classify(Prompt("another"), soon())
        await engine.classify(Prompt("same text"), soon())
        assert engine.stats().remembered == 1
    assert model.seen == ["same text", "another"]


async def test_a_window_that_is_just_being_read_is_waited_for_and_not_read_twice() -> None:
    model = GatedModel()
    async with serving(Engine(model)) as engine:
        first = asyncio.create_task(engine.classify(Prompt("same text"), soon()))
        await model.busy()
        second = asyncio.create_task(engine.classify(Prompt("same text"), soon()))
        with pytest.raises(DeadlineExceeded):
            await engine.classify(Prompt("same text"), soon(0.01))
        # Whoever asked first may leave: it is read for those who follow.
        first.cancel()
        await until(first.done)
        model.gate.set()
        assert (await second).heads["intent"].label == "chat"
        assert engine._asked == {}
    assert model.seen == ["same text"]


async def test_a_window_that_several_have_queued_is_read_for_all_of_them() -> None:
    class OneByOne(GatedModel):
        def __init__(self) -> None:
            super().__init__()
            self.gate.set()
            self.allowed = threading.Semaphore(0)

        def run(self, prompts: Sequence[Prompt]) -> list[Classified]:
            assert self.allowed.acquire(timeout=30)
            return super().run(prompts)

    model = OneByOne()
    async with serving(Engine(model, max_batch_tokens=1)) as engine:
        running = asyncio.create_task(engine.classify(Prompt("running"), soon()))
        await until(lambda: bool(engine._running))
        same = [asyncio.create_task(engine.classify(Prompt("same text"), soon())) for _ in range(5)]
        await queued(engine, 5)
        # Whoever asked first may leave: the others wait on.
        same[0].cancel()
        await queued(engine, 4)
        model.allowed.release(2)
        assert {(await each).heads["intent"].label for each in same[1:]} == {"chat"}
        await running
        assert engine.stats().queued == 0
        assert engine._asked == {}
        model.allowed.release()
    # A second of them may have begun before the loop could hear of the first.
    assert model.seen in (["running", "same text"], ["running", "same text", "same text"])


async def test_those_who_wait_for_a_running_window_are_bounded_like_the_queue() -> None:
    model = GatedModel()
    async with serving(Engine(model, max_queued=2)) as engine:
        first = asyncio.create_task(engine.classify(Prompt("same text"), soon()))
        await model.busy()
        others = [asyncio.create_task(engine.classify(Prompt("same text"), soon())) for _ in range(5)]
        await until(lambda: others[4].done())
        assert engine.stats().queued == 2
        assert isinstance(others[4].exception(), Overloaded)
        model.gate.set()
        assert all(isinstance(answer, Classified) for answer in await asyncio.gather(first, *others[:4]))


async def test_who_is_refused_waits_for_nothing(caplog: pytest.LogCaptureFixture) -> None:
    model = GatedModel(poison="same text")
    # Its last window is what runs, the first is not: one is waited for, and there is no room for the other.
    start = "".join(f"word {i} " for i in range(200))
    end = "same text".rjust(600, "x")
    first_window, last_window = (window.text for window in cut(start + end, limit=2))
    async with serving(Engine(model, max_queued=1)) as engine:
        running = asyncio.create_task(engine.classify(Prompt(last_window), soon()))
        await model.busy()
        waiting = asyncio.create_task(engine.classify(Prompt("waiting"), soon()))
        await queued(engine, 1)
        with pytest.raises(Overloaded):
            await engine.classify(Prompt(start + end), soon())
        model.gate.set()
        assert isinstance((await asyncio.gather(running, waiting, return_exceptions=True))[0], ModelFailed)
        assert first_window not in model.seen
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]


async def test_a_full_queue_leaves_the_answer_of_what_was_read() -> None:
    model = GatedModel()
    text = "".join(f"sentence {i} of a long text. " for i in range(200))
    *read, unread, last = cut(text, limit=64)
    async with serving(Engine(model, max_queued=1)) as engine:
        model.gate.set()
        for window in read:
            await engine.classify(Prompt(window.text), soon())
            await model.busy()
        model.gate.clear()
        running = asyncio.create_task(engine.classify(Prompt(last.text), soon()))
        await model.busy()
        waiting = asyncio.create_task(engine.classify(Prompt("waiting"), soon()))
        await queued(engine, 1)
        result = await engine.classify(Prompt(text), soon())
        assert (result.windows, engine.stats().refused) == (len(read), 1)
        assert 0.5 < result.coverage < 1
        jobs = [job for asked in engine._asked.values() for job in asked]
        assert len(jobs) == 2
        assert not [job for job in jobs if job.payload.followers]
        # Whose body is still arriving is asked for again, when there may be room.
        with pytest.raises(Overloaded):
            await engine.classify(Prompt(text), soon(), patience=0.25)
        model.gate.set()
        await asyncio.gather(running, waiting)
    assert unread.text not in model.seen


async def test_a_failed_pass_fails_those_who_wait_for_it_and_nobody_else() -> None:
    model = GatedModel(poison="poison")
    async with serving(Engine(model)) as engine:
        running = asyncio.create_task(engine.classify(Prompt("running"), soon()))
        await model.busy()
        batch = [asyncio.create_task(engine.classify(Prompt(text), soon())) for text in ("poison", "good")]
        await queued(engine, 2)
        model.gate.set()
        await model.busy()
        model.gate.clear()
        await running
        followers = [asyncio.create_task(engine.classify(Prompt(text), soon())) for text in ("poison", "good")]
        await asyncio.sleep(0)
        for task in batch:
            task.cancel()
        model.gate.set()
        poisoned, good = await asyncio.gather(*followers, return_exceptions=True)
        assert isinstance(poisoned, ModelFailed)
        assert isinstance(good, Classified)


async def test_a_long_text_that_two_models_read_has_the_labels_of_one(caplog: pytest.LogCaptureFixture) -> None:
    old = GatedModel(version="old")
    new = FakeModel({}, {"mood": ("good", "bad")}, version="new")
    async with serving(Engine(old, max_batch_tokens=500)) as engine:
        long = asyncio.create_task(engine.classify(Prompt("lorem ipsum " * 1000), soon()))
        await old.busy()
        swapping = asyncio.create_task(engine.swap(new))
        await until(lambda: engine._swap is not None)
        old.gate.set()
        result = await long
        await swapping
    assert result.version == "new"
    assert set(result.heads) == {"mood"}
    assert 0.5 < result.coverage < 1.0
    assert result.cut_short
    assert not caplog.records


async def test_what_an_old_model_said_is_forgotten_with_it() -> None:
    async with serving(Engine(FakeModel({}, LABELS, version="old"))) as engine:
        assert (await engine.classify(Prompt("x"), soon())).version == "old"
        await engine.swap(FakeModel({}, LABELS, version="new"))
        assert (await engine.classify(Prompt("x"), soon())).version == "new"


async def test_the_context_is_part_of_what_is_remembered() -> None:
    model = FakeModel({}, LABELS)
    async with serving(Engine(model)) as engine:
        for context in ("", "before", "before", ""):
            await engine.classify(Prompt("x", context), soon())
    assert len(model.batches) == 2


async def test_short_texts_overtake_the_windows_of_a_long_one() -> None:
    model = GatedModel()
    async with serving(Engine(model)) as engine:
        # No two windows alike: one that is read answers for all that are the same.
        words = " ".join(f"lorem{number}" for number in range(4000))
        long = asyncio.create_task(engine.classify(Prompt(words), soon()))
        await model.busy()
        short = asyncio.create_task(engine.classify(Prompt("short"), soon()))
        await until(lambda: engine.stats().texts == 2)
        model.gate.set()
        await asyncio.gather(long, short)
    assert model.seen.index("short") < 8 < len(model.seen)
