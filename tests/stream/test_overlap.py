"""What is left to read after the last byte of a body that arrives slowly enough for the classifier to keep up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from router_extproc import wire
from router_extproc.config.loader import parse
from router_extproc.inference.base import Classified, Prompt
from router_extproc.inference.engine import Engine
from router_extproc.processor import Processor
from router_extproc.runtime import Runtimes, compile_runtime
from router_extproc.signals.base import SHIPPED
from router_extproc.telemetry.metrics import Metrics
from router_extproc.telemetry.recorder import Recorder
from router_extproc.testing import FakeModel
from tests.stream.conftest import CONFIG, LABELS
from tests.stream.streams import chat, headers
from tests.stream.test_processor import classifying

CHUNK = 1024


class Watched(FakeModel):
    """Keeps every window that it has read."""

    def __init__(self) -> None:
        super().__init__({}, LABELS)
        self.seen: list[str] = []

    def run(self, prompts: Sequence[Prompt]) -> list[Classified]:
        self.seen += [prompt.text for prompt in prompts]
        return super().run(prompts)


@pytest.mark.parametrize("kilobytes", [3, 20, 70, 500])
async def test_after_the_last_byte_hardly_more_than_one_window_is_left(kilobytes: int) -> None:
    rng = random.Random(kilobytes)
    content = chat(" ".join(rng.choice(("lorem", "ipsum", "dolor", "sit")) for _ in range(kilobytes * 200)))
    model = Watched()
    engine = Engine(model)
    await engine.start()
    limits = CONFIG.replace("context_window: 4000", "context_window: 4000000").replace(
        "deadline_ms: 200", "deadline_ms: 20000"
    )
    config = parse(
        limits.replace("price: {input: 5", "context_window: 4000000, price: {input: 5").encode(), Path("router.yaml")
    )
    metrics = Metrics()
    processor = Processor(Runtimes(compile_runtime(config, {SHIPPED: LABELS}, {SHIPPED: engine})), Recorder(metrics))
    before = 0

    async def arriving() -> AsyncIterator[wire.Message]:
        nonlocal before
        yield wire.decode(headers())
        for at in range(0, len(content), CHUNK):
            last = at + CHUNK >= len(content)
            if last:
                before = len(model.seen)
            yield wire.RequestBody(content[at : at + CHUNK], last)
            await asyncio.sleep(0)
            while classifying():  # noqa: ASYNC110 - a slow client: the classifier is idle when the next chunk comes
                await asyncio.sleep(0)

    replies = [reply async for reply in processor.run(arriving())]
    await engine.aclose()
    metrics.close()
    assert any(reply.HasField("dynamic_metadata") for reply in replies)
    # The window that the last chunk completes and the last one; of a text that is cut, those of its end.
    assert 1 <= len(model.seen) - before <= (2 if kilobytes < 62 else 4)
    # Nothing is read twice, and what is read ahead is needed in the end, but for what a very long text thins out.
    assert len(model.seen) == len(set(model.seen))
