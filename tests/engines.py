"""Engines under test, and a model that holds its batches until the test lets them go."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from router_extproc.inference.base import Classified, Prompt
from router_extproc.inference.engine import Engine
from router_extproc.testing import FakeModel

LABELS = {"intent": ("chat", "code")}


class GatedModel(FakeModel):
    """Holds every batch until the gate opens, and tells when one is being held."""

    def __init__(self, *, version: str = "gated-1", poison: str | None = None) -> None:
        super().__init__({"def": {"intent": "code"}}, LABELS, version=version, poison=poison)
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)
        self.seen: list[str] = []

    def run(self, prompts: Sequence[Prompt]) -> list[Classified]:
        self.entered.release()
        assert self.gate.wait(30)
        self.seen += [prompt.text for prompt in prompts]
        return super().run(prompts)

    async def busy(self) -> None:
        """Returns when the inference thread is inside `run`."""
        await asyncio.to_thread(self.entered.acquire)


@asynccontextmanager
async def serving(engine: Engine) -> AsyncIterator[Engine]:
    await engine.start()
    try:
        yield engine
    finally:
        await engine.aclose()


def soon(seconds: float = 30) -> float:
    return time.monotonic() + seconds


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the engine has no event for what is counted
        await asyncio.sleep(0)


async def queued(engine: Engine, count: int) -> None:
    await until(lambda: engine.stats().queued == count)
