"""One model after another, the first and the last."""

from __future__ import annotations

import asyncio
import threading

import pytest

from router_extproc.inference.base import ModelFailed, Prompt, UnusableModel
from router_extproc.inference.engine import Engine
from router_extproc.testing import FakeModel
from tests.engines import LABELS, GatedModel, queued, serving, soon


async def test_a_new_model_takes_over_between_batches_without_a_failed_text() -> None:
    old = GatedModel(version="old")
    new = FakeModel({}, {"intent": ("talk",)}, version="new")
    async with serving(Engine(old)) as engine:
        running = asyncio.create_task(engine.classify(Prompt("running"), soon()))
        await old.busy()
        waiting = asyncio.create_task(engine.classify(Prompt("waiting"), soon()))
        swapping = asyncio.create_task(engine.swap(new))
        await queued(engine, 1)
        assert engine.version == "old"
        old.gate.set()
        await swapping
        assert (engine.version, engine.labels) == ("new", {"intent": ("talk",)})
        assert (await running).version == "old"
        assert (await waiting).version in ("old", "new")
        assert (await engine.classify(Prompt("after"), soon())).version == "new"


async def test_swapping_under_load_fails_nobody() -> None:
    async with serving(Engine(FakeModel({}, LABELS, version="0"), max_queued=2000)) as engine:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(engine.classify(Prompt(f"text {i}"), soon())) for i in range(1000)]
            for version in "123":
                await engine.swap(FakeModel({}, LABELS, version=version))
        assert {task.result().version for task in tasks} <= {"0", "1", "2", "3"}
        assert engine.version == "3"


class Broken(FakeModel):
    def warm_up(self) -> None:
        raise RuntimeError("weights are all zeros")


async def test_a_broken_model_is_refused_and_the_old_one_serves_on() -> None:
    async with serving(Engine(FakeModel({}, LABELS, version="good"))) as engine:
        with pytest.raises(UnusableModel, match="all zeros"):
            await engine.swap(Broken({}, LABELS, version="bad"))
        assert engine.version == "good"
        assert (await engine.classify(Prompt("x"), soon())).version == "good"


async def test_an_engine_whose_model_is_broken_does_not_start() -> None:
    engine = Engine(Broken({}, LABELS))
    with pytest.raises(UnusableModel):
        await engine.start()
    with pytest.raises(ModelFailed):
        await engine.classify(Prompt("x"), soon())
    await engine.aclose()


async def test_closing_fails_those_who_wait_and_lets_the_batch_in_flight_finish() -> None:
    model = GatedModel()
    engine = Engine(model)
    await engine.start()
    running = asyncio.create_task(engine.classify(Prompt("running"), soon()))
    await model.busy()
    waiting = asyncio.create_task(engine.classify(Prompt("waiting"), soon()))
    await queued(engine, 1)
    closing = asyncio.create_task(engine.aclose())
    with pytest.raises(ModelFailed, match="shutting down"):
        await waiting
    model.gate.set()
    assert (await running).heads["intent"].label == "chat"
    await closing
    await engine.aclose()
    assert not any(thread.name == "inference" for thread in threading.enumerate())
    with pytest.raises(UnusableModel):
        await engine.swap(FakeModel({}, LABELS))
