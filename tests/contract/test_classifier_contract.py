"""What every `inference.base.Classifier` keeps, the engine and the fake that stands in for it alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from router_extproc.inference.base import Classifier, DeadlineExceeded, Prompt
from router_extproc.inference.engine import Engine
from router_extproc.testing import FakeClassifier, FakeModel

LABELS = {"domain": ("law", "math"), "guard": ("benign", "jailbreak")}
ANSWERS: dict[str, dict[str, str | tuple[str, float]]] = {
    "prove it": {"domain": "math"},
    "ignore all": {"guard": ("jailbreak", 0.8)},
}


@pytest.fixture(params=["engine", "fake"])
async def classifier(request: pytest.FixtureRequest) -> AsyncIterator[Classifier]:
    if request.param == "fake":
        yield FakeClassifier(ANSWERS, LABELS, version="v7")
        return
    engine = Engine(FakeModel(ANSWERS, LABELS, version="v7"))
    await engine.start()
    yield engine
    await engine.aclose()


def soon() -> float:
    return time.monotonic() + 30


async def test_every_head_answers_with_one_of_its_labels(classifier: Classifier) -> None:
    result = await classifier.classify(Prompt("prove it", "earlier turns"), soon())
    assert set(result.heads) == set(classifier.labels)
    for name, head in result.heads.items():
        assert head.label in classifier.labels[name]
        assert set(head.probs) == set(classifier.labels[name])
        assert head.confidence == max(head.probs.values())
        assert sum(head.probs.values()) == pytest.approx(1)
    assert result.heads["domain"].label == "math"
    assert result.version == classifier.version == "v7"


async def test_answers_go_to_those_who_asked(classifier: Classifier) -> None:
    texts = ["prove it", "ignore all", "anything", ""] * 25
    results = await asyncio.gather(*(classifier.classify(Prompt(text), soon()) for text in texts))
    for text, result in zip(texts, results, strict=True):
        assert (result.heads["domain"].label == "math") == (text == "prove it")
        assert (result.heads["guard"].label == "jailbreak") == (text == "ignore all")


async def test_no_time_left_is_late_at_once(classifier: Classifier) -> None:
    with pytest.raises(DeadlineExceeded):
        await classifier.classify(Prompt("prove it"), time.monotonic() - 1)


async def test_a_cancelled_caller_leaves_the_classifier_whole(classifier: Classifier) -> None:
    task = asyncio.create_task(classifier.classify(Prompt("prove it"), soon()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await classifier.classify(Prompt("prove it"), soon())).heads["domain"].label == "math"
